package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// marker is in the environment of every process on a host, with the cluster's folder; sweeps go by it.
const marker = "TRESTLE_CLUSTER"

// identity tells a process from a later one with the same number: Start is when it began, in ticks since the machine's boot.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// identify finds out a process's identity; fs.ErrNotExist when there is no such process.
func identify(pid int) (identity, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, unix.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return identity{}, err
	}
	// The name, in brackets, may hold anything. After it come the state (field 3) and so on; 22 is the start.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	const startField = 22 - 3
	if len(fields) <= startField {
		return identity{}, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	start, err := strconv.ParseUint(string(fields[startField]), 10, 64)
	return identity{PID: pid, Start: start}, err
}

// alive says whether the process runs; one that has ended and was not waited for does not.
func (i identity) alive() bool {
	now, err := identify(i.PID)
	if err != nil || now != i {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", i.PID))
	return err == nil && !bytes.Contains(text, []byte(") Z ")) && !bytes.Contains(text, []byte(") X "))
}

// kill ends a process and waits until it has ended. It need not be a child of ours.
func (i identity) kill() error {
	fd, err := unix.PidfdOpen(i.PID, 0)
	if errors.Is(err, unix.ESRCH) || err == nil && !i.alive() {
		if err == nil {
			return unix.Close(fd)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", i.PID, err)
	}
	defer closeFD(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", i.PID, err)
	}
	return awaitEnd(fd, i.PID, Patience)
}

// awaitEnd waits for the end of the process behind a pidfd; for ever when patience is negative.
func awaitEnd(fd, pid int, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		left := -1
		if patience >= 0 {
			left = int(max(0, time.Until(deadline)).Milliseconds())
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, left)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for process %d: %w", pid, err)
		case n == 0:
			return fmt.Errorf("process %d was killed and has not ended within %v", pid, patience)
		default:
			return nil
		}
	}
}

// state is what a cluster's folder tells of it, for Attach and for Start in the same folder.
type state struct {
	Plain, Keep, Shared bool
	Why                 string
	Software            []string
	Owner               identity
	Switch              *hostState
	Hosts               []hostState
}

type hostState struct {
	Name string
	IP   netip.Addr
	Init identity
}

func stateFile(dir string) string { return filepath.Join(dir, "cluster.json") }

func (c *Cluster) stateFile() string { return stateFile(c.options.Dir) }

// save writes the state, whole or not at all.
func (c *Cluster) save() error {
	owner, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	s := state{Plain: c.Plain != "", Why: c.Plain, Keep: c.options.Keep, Shared: c.options.Shared,
		Software: c.options.Software, Owner: owner}
	for _, h := range c.Hosts {
		s.Hosts = append(s.Hosts, hostState{h.Name, h.IP, h.identity()})
	}
	if c.hub != nil {
		s.Switch = &hostState{c.hub.Name, c.hub.IP, c.hub.identity()}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	temporary := c.stateFile() + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, c.stateFile())
}

func load(dir string) (state, error) {
	text, err := os.ReadFile(stateFile(dir))
	if err != nil {
		return state{}, err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return state{}, fmt.Errorf("read %s: %w", stateFile(dir), err)
	}
	return s, nil
}

// Attach finds the cluster that was started in a folder with Options.Keep.
func Attach(dir string) (*Cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s, err := load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no cluster is up in %s", dir)
	}
	if err != nil {
		return nil, err
	}
	if !s.Keep {
		return nil, fmt.Errorf("the cluster in %s belongs to process %d", dir, s.Owner.PID)
	}
	c := &Cluster{Plain: s.Why, options: Options{Dir: dir, Software: s.Software, Shared: s.Shared, Plain: s.Plain, Keep: true}}
	attach := func(h hostState) *Host {
		host := &Host{Name: h.Name, IP: h.IP, cluster: c}
		if s.Plain {
			host.up = true
		} else if h.Init.alive() {
			host.init, host.up = h.Init, true
		}
		return host
	}
	for _, h := range s.Hosts {
		c.options.Hosts = append(c.options.Hosts, h.Name)
		c.Hosts = append(c.Hosts, attach(h))
	}
	if s.Switch != nil {
		c.hub = attach(*s.Switch)
	}
	return c, nil
}

// vacate makes a folder fit for a new cluster: what one left there whose owner is gone is ended and removed.
func vacate(dir string) error {
	s, err := load(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case s.Keep:
		return fmt.Errorf("a cluster was left running in %s: take it down first", dir)
	case s.Owner.alive() && s.Owner.PID != os.Getpid():
		return fmt.Errorf("process %d has a cluster in %s", s.Owner.PID, dir)
	}
	left, err := marked(dir)
	if err != nil {
		return err
	}
	for _, p := range left {
		if err := p.kill(); err != nil {
			return fmt.Errorf("end what an earlier cluster left in %s: %w", dir, err)
		}
	}
	for _, name := range []string{"log", "hosts", "run", "shared", "cluster.json"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return removeCgroups(dir)
}

// marked are the processes with a cluster's marker in their environment: its hosts' inits, and, on plain hosts, all that
// did not clear it.
func marked(dir string) ([]identity, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	want := []byte(marker + "=" + dir)
	var found []identity
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err != nil {
			continue // it has ended, or is another user's
		}
		for variable := range bytes.SplitSeq(environ, []byte{0}) {
			if !bytes.Equal(variable, want) {
				continue
			}
			if id, err := identify(pid); err == nil {
				found = append(found, id)
			}
		}
	}
	return found, nil
}

// CgroupParent is the control group below which a container engine on a host puts its containers, so that Close can remove
// what the engine leaves when its host is ended under it.
func (c *Cluster) CgroupParent() string { return "/" + cgroupName(c.options.Dir) }

func cgroupName(dir string) string {
	return "trestle-" + strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, dir), "-")
}

// removeCgroups removes the control groups below CgroupParent, which are empty once the hosts have ended.
func removeCgroups(dir string) error {
	var groups []string
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		found, err := filepath.Glob(pattern + cgroupName(dir))
		if err != nil {
			return err
		}
		groups = append(groups, found...)
	}
	for _, group := range groups {
		var folders []string
		err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				folders = append(folders, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for i := len(folders) - 1; i >= 0; i-- {
			if err := os.Remove(folders[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove a control group of the cluster in %s: %w", dir, err)
			}
		}
	}
	return nil
}
