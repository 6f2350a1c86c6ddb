package cluster

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// sharedInside is where an isolated host sees the folder that all can write to.
const sharedInside = "/tmp/shared"

// hostScript is what a host's init runs: it makes the host's view of the file system, and then waits.
//
//go:embed host.sh
var hostScript string

// allNamespaces are what makes a process a host of its own.
const allNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID

// tryNamespaces finds out whether this machine lets us make namespaces.
func tryNamespaces() (output string, err error) {
	cmd := exec.Command("bash", "-c", "mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /tmp && ip link set lo up")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: allNamespaces}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// inNamespaces runs start on a thread that has joined namespaces of a process, so that what start starts is in them. The
// thread ends afterwards.
func inNamespaces(pid, kinds int, start func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: Go then throws the thread away
		result <- func() error {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return fmt.Errorf("its init is gone: %w", err)
			}
			defer closeFD(fd)
			// A thread that shares its working directory with others cannot change its mount namespace.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Setns(fd, kinds); err != nil {
				return fmt.Errorf("join its namespaces: %w", err)
			}
			return start()
		}()
	}()
	return <-result
}

// bootIsolated starts a host's init and connects the host with the switch. To be called with h.mu held.
func (h *Host) bootIsolated(ctx context.Context) error {
	o := h.cluster.options
	names := "127.0.0.1 localhost\n"
	for _, other := range h.cluster.Hosts {
		names += other.IP.String() + " " + other.Name + "\n"
	}
	if err := os.WriteFile(h.disk("etc-hosts"), []byte(names), 0o644); err != nil {
		return err
	}
	software := append([]string(nil), o.Software...)
	env := []string{
		"HOST_NAME=" + h.Name,
		"HOST_DISK=" + h.disk(),
		"HOST_CLUSTER=" + o.Dir,
		"HOST_SOFTWARE=" + strings.Join(software, "\n"),
	}
	if o.Shared {
		env = append(env, "HOST_SHARED="+filepath.Join(o.Dir, "shared"))
	}
	if err := h.startInit(ctx, allNamespaces, env); err != nil {
		return err
	}
	if err := h.connect(ctx); err != nil {
		return errors.Join(err, h.init.kill())
	}
	return nil
}

// bootHub makes the network namespace with the switch, and connects this machine with it.
func (h *Host) bootHub(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := os.MkdirAll(h.disk(), 0o755); err != nil {
		return err
	}
	if err := h.startInit(ctx, unix.CLONE_NEWNET|unix.CLONE_NEWPID, []string{"HOST_NAME="}); err != nil {
		return err
	}
	h.up = true
	pid := strconv.Itoa(h.init.PID)
	// An interface's name has 15 letters at most; the pid is unique among those that are up.
	uplink := "trestle" + pid
	if err := h.ip(ctx, "link add switch type bridge", "link set switch up"); err != nil {
		return err
	}
	if err := ip(ctx, "link add "+uplink+" type veth peer name uplink netns "+pid,
		"addr add "+netip.PrefixFrom(h.IP, networkBits).String()+" dev "+uplink,
		"link set "+uplink+" up"); err != nil {
		return err
	}
	return h.ip(ctx, "link set uplink master switch up")
}

// networkBits is the length of the prefix that the hosts of a cluster share.
const networkBits = 27

// port is the host's end in the switch.
func (h *Host) port() string {
	return "port" + strconv.Itoa(int(h.IP.As4()[3]&(1<<(32-networkBits)-1)))
}

// connect puts a cable between the host and the switch.
func (h *Host) connect(ctx context.Context) error {
	hub := h.cluster.hub
	// The kernel takes away the cable of a crashed host some time after its last process, and the name with it.
	if err := hub.ip(ctx, "link del "+h.port()); err != nil && !strings.Contains(err.Error(), "Cannot find device") {
		return err
	}
	if err := hub.ip(ctx, "link add "+h.port()+" type veth peer name eth0 netns "+strconv.Itoa(h.init.PID),
		"link set "+h.port()+" master switch up"); err != nil {
		return err
	}
	return h.ip(ctx, "link set lo up", "addr add "+netip.PrefixFrom(h.IP, networkBits).String()+" dev eth0", "link set eth0 up")
}

// Cut takes the host's cable out of the switch: others reach it no more, nor it them, and nobody is told. It is an error on
// plain hosts.
func (h *Host) Cut(ctx context.Context) error { return h.cable(ctx, "down") }

// Mend puts the cable in again.
func (h *Host) Mend(ctx context.Context) error { return h.cable(ctx, "up") }

func (h *Host) cable(ctx context.Context, state string) error {
	if h.cluster.Plain != "" {
		return fmt.Errorf("host %s has no cable: %s", h.Name, h.cluster.Plain)
	}
	return h.cluster.hub.ip(ctx, "link set "+h.port()+" "+state)
}

// ip runs commands of ip(8) in the host's network, the machine's process numbers being what they name.
func (h *Host) ip(ctx context.Context, commands ...string) error {
	return runIP(ctx, func(cmd *exec.Cmd) error { return inNamespaces(h.init.PID, unix.CLONE_NEWNET, cmd.Start) }, commands)
}

// ip runs commands of ip(8) in this machine's own network.
func ip(ctx context.Context, commands ...string) error {
	return runIP(ctx, (*exec.Cmd).Start, commands)
}

func runIP(ctx context.Context, start func(*exec.Cmd) error, commands []string) error {
	cmd := exec.CommandContext(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(commands, "; ip "), err, strings.TrimSpace(out.String()))
	}
	return nil
}

// startInit starts the first process of namespaces of these kinds and waits until it has made the host's file system.
func (h *Host) startInit(ctx context.Context, kinds uintptr, env []string) (err error) {
	log, err := os.OpenFile(h.logFile("init"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("bash", "-c", hostScript, "trestle-host", h.Name)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), marker + "=" + h.cluster.options.Dir}, env...)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: kinds, Setsid: true}
	ready, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd.Stdout = out
	var stdin, alive *os.File
	if h.cluster.options.Keep {
		cmd.Env = append(cmd.Env, "HOST_KEEP=yes")
	} else {
		if stdin, alive, err = os.Pipe(); err != nil {
			out.Close()
			return err
		}
		cmd.Stdin = stdin
	}
	err = cmd.Start()
	out.Close()
	stdin.Close()
	if err != nil {
		alive.Close()
		return err
	}
	go cmd.Wait() //nolint:errcheck // reaps it; how a host's init ends says nothing
	if h.init, err = identify(cmd.Process.Pid); err != nil {
		return err
	}
	h.alive = alive
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(ready).ReadString('\n') // what ends too early is no "ready"
		said <- line
	}()
	select {
	case line := <-said:
		if line == "ready\n" {
			return nil
		}
		err = errors.New("its init ended")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%w\n%s", errors.Join(err, h.init.kill()), tail(h.logFile("init")))
}

// innerProcesses are the processes in the host's process namespace and in those below it, which are containers'; but for
// its init. To be called with h.mu held.
func (h *Host) innerProcesses() ([]identity, error) {
	var own unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", h.init.PID), &own); err != nil {
		return nil, fmt.Errorf("host %s is down: %w", h.Name, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []identity
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == h.init.PID || !inside(pid, own.Ino) {
			continue
		}
		if id, err := identify(pid); err == nil {
			found = append(found, id)
		}
	}
	return found, nil
}

// inside says whether a process is in the process namespace with this inode number, or in one below it; false when it has
// ended.
func inside(pid int, namespace uint64) bool {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for err == nil {
		var at unix.Stat_t
		err = unix.Fstat(fd, &at)
		if err == nil && at.Ino == namespace {
			closeFD(fd)
			return true
		}
		var parent int
		parent, err = unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		closeFD(fd)
		fd = parent
	}
	return false
}

// closeFD closes a descriptor that was only asked; that cannot fail in a way that matters.
func closeFD(fd int) { _ = unix.Close(fd) }
