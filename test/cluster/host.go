package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"trestle/test/process"
)

// Host is one host of a cluster. Safe for concurrent use.
type Host struct {
	Name string
	// IP is its address, which this process reaches, too.
	IP netip.Addr

	cluster *Cluster

	mu sync.Mutex
	// init is the first process of an isolated host; the others end with it.
	init identity
	// alive is this process's end of the init's standard input; nil when the host is kept.
	alive *os.File
	up    bool
}

// Address is what other hosts call it: its name, or its address where there are no names.
func (h *Host) Address() string {
	if h.cluster.Plain != "" {
		return h.IP.String()
	}
	return h.Name
}

// Dir is the host's own folder, as its processes see it: where everything that they write belongs. It outlasts a crash of
// the host, but not the cluster.
func (h *Host) Dir() string {
	if h.cluster.Plain != "" {
		return h.disk("tmp")
	}
	return "/tmp"
}

// Far is the host's own folder for what is large and no concern of a test, such as a container engine's; it is not below Dir.
func (h *Host) Far() string {
	if h.cluster.Plain != "" {
		return h.disk("var-tmp")
	}
	return "/var/tmp"
}

// Cluster is the host's.
func (h *Host) Cluster() *Cluster { return h.cluster }

// Outside is where this process finds a file that is below Dir, or shared, on the host.
func (h *Host) Outside(path string) string {
	if h.cluster.Plain != "" {
		return path
	}
	if rest, ok := strings.CutPrefix(path, sharedInside); ok {
		return filepath.Join(h.cluster.options.Dir, "shared", rest)
	}
	return h.disk("tmp", strings.TrimPrefix(path, "/tmp"))
}

// disk is a path on the host's disk, as this process sees it.
func (h *Host) disk(names ...string) string {
	return filepath.Join(append([]string{h.cluster.options.Dir, "hosts", h.Name}, names...)...)
}

func (h *Host) identity() identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.init
}

// Boot starts a host that is down; its disk is as it was.
func (h *Host) Boot(ctx context.Context) error {
	if err := h.boot(ctx); err != nil {
		return err
	}
	if h.cluster.options.Keep {
		return h.cluster.save()
	}
	return nil
}

func (h *Host) boot(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.up {
		return nil
	}
	for _, dir := range []string{"tmp", "tmp/home", "var-tmp"} {
		if err := os.MkdirAll(h.disk(dir), 0o777); err != nil {
			return err
		}
	}
	if h.cluster.Plain == "" {
		if err := h.bootIsolated(ctx); err != nil {
			return fmt.Errorf("start host %s: %w", h.Name, err)
		}
	}
	h.up = true
	return nil
}

// Crash ends a host as a power cut does: all its processes at once, by SIGKILL. Its disk stays as it is.
func (h *Host) Crash() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return nil
	}
	h.up = false
	if h.cluster.Plain == "" {
		err := h.init.kill()
		if h.alive != nil {
			h.alive.Close()
			h.alive = nil
		}
		return err
	}
	// Twice, for what was started while the first sweep went on.
	for range 2 {
		found, err := h.processes()
		if err != nil {
			return err
		}
		var errs []error
		for _, p := range found {
			errs = append(errs, p.kill())
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// Found is a process that runs on a host, whoever started it.
type Found struct {
	// PID is as this process sees it.
	PID int
	// Command is its command line, the arguments parted by blanks.
	Command string

	identity
}

// Kill ends the process by SIGKILL and waits for its end.
func (f Found) Kill() error { return f.kill() }

// Alive says whether the process still runs.
func (f Found) Alive() bool { return f.alive() }

// Processes are all processes on the host but its init, those of containers included; on a plain host those that kept the
// environment that Start gives.
func (h *Host) Processes() ([]Found, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return nil, nil
	}
	return h.processes()
}

// Find are the processes on the host whose command line has all of these strings.
func (h *Host) Find(parts ...string) ([]Found, error) {
	all, err := h.Processes()
	var found []Found
	for _, p := range all {
		matches := true
		for _, part := range parts {
			matches = matches && strings.Contains(p.Command, part)
		}
		if matches {
			found = append(found, p)
		}
	}
	return found, err
}

func (h *Host) processes() ([]Found, error) {
	var ids []identity
	var err error
	if h.cluster.Plain != "" {
		ids, err = h.markedProcesses()
	} else {
		ids, err = h.innerProcesses()
	}
	if err != nil {
		return nil, err
	}
	var found []Found
	for _, id := range ids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id.PID))
		if err != nil || len(line) == 0 {
			continue // it has ended
		}
		command := string(bytes.TrimRight(bytes.ReplaceAll(line, []byte{0}, []byte{' '}), " "))
		found = append(found, Found{PID: id.PID, Command: command, identity: id})
	}
	return found, nil
}

// markedProcesses are those of a plain host, by the mark that Start puts into the environment.
func (h *Host) markedProcesses() ([]identity, error) {
	all, err := marked(h.cluster.options.Dir)
	if err != nil {
		return nil, err
	}
	var own []identity
	for _, id := range all {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", id.PID))
		if err == nil && bytes.Contains(environ, []byte("\x00"+hostMarker+"="+h.Name+"\x00")) {
			own = append(own, id)
		}
	}
	return own, nil
}

// Files are the paths of the files below Dir, as this process sees them.
func (h *Host) Files() ([]string, error) {
	var files []string
	err := filepath.WalkDir(h.disk("tmp"), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed meanwhile
		}
		if err == nil && !entry.IsDir() {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

// Environment is what processes on the host get, and nothing of ours but paths and languages.
func (h *Host) environment() []string {
	env := []string{
		marker + "=" + h.cluster.options.Dir,
		hostMarker + "=" + h.Name,
		"TMPDIR=" + h.Dir(),
		"HOME=" + filepath.Join(h.Dir(), "home"),
		// What this process may read is not the hosts' to write.
		"PYTHONDONTWRITEBYTECODE=1",
	}
	for _, name := range []string{"PATH", "JAVA_HOME", "LANG", "LC_ALL", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

const hostMarker = "TRESTLE_HOST"

// tail is the end of a log, for an error's text.
func tail(log string) string { return process.Tail(log) }
