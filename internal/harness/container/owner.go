package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// The labels, described in docs/formats/container-labels.md.
const (
	ownerLabel  = "trestle.owner"
	jobLabel    = "trestle.job"
	workerLabel = "trestle.worker"
)

// ownerVersion is that of the owner label's value.
const ownerVersion = 1

// owner is the process that a container belongs to, told from all others that ever were or will be: the label's value,
// as JSON. What a system does not have is empty.
type owner struct {
	Version int `json:"v"`
	// Host and Machine tell the host: its name, and its id (machine-id(5)).
	Host    string `json:"host"`
	Machine string `json:"machine,omitempty"`
	// Boot is the kernel's id of its running since the host started, Namespace the one in which PID means something.
	Boot      string `json:"boot,omitempty"`
	Namespace string `json:"pidns,omitempty"`
	PID       int    `json:"pid"`
	// Start is when the process started, in the kernel's ticks since boot: ids of processes are used again.
	Start uint64 `json:"start,omitempty"`
}

// self is this process.
var self = sync.OnceValues(func() (owner, error) {
	name, err := os.Hostname()
	if err != nil {
		return owner{}, fmt.Errorf("the host's name, for its containers' labels: %w", err)
	}
	o := owner{Version: ownerVersion, Host: name, PID: os.Getpid()}
	o.Machine = text("/etc/machine-id")
	o.Boot = text("/proc/sys/kernel/random/boot_id")
	if o.Namespace, err = os.Readlink("/proc/self/ns/pid"); err != nil {
		o.Namespace = ""
	}
	o.Start, _ = started(o.PID)
	return o, nil
})

func (o owner) label() string {
	raw, err := json.Marshal(o)
	if err != nil {
		return "" // no field of an owner can fail
	}
	return string(raw)
}

// parseOwner is strict: what is not surely an owner's label belongs to somebody who must not lose a container.
func parseOwner(label string) (owner, error) {
	var o owner
	if err := json.Unmarshal([]byte(label), &o); err != nil {
		return owner{}, err
	}
	if o.Version != ownerVersion || o.Host == "" || o.PID <= 0 {
		return owner{}, fmt.Errorf("not an owner of version %d: %s", ownerVersion, label)
	}
	return o, nil
}

// gone tells whether the process is surely over, as seen from the process self. Of another host, or another namespace of
// processes, nothing can be known. alive says when the process with an id started, or that there is none.
func (o owner) gone(self owner, alive func(pid int) (start uint64, ok bool)) bool {
	if o.Host != self.Host || o.Machine != self.Machine {
		return false
	}
	if o.Boot != self.Boot {
		return true
	}
	if o.Namespace != self.Namespace {
		return false
	}
	start, ok := alive(o.PID)
	return !ok || o.Start != 0 && start != 0 && start != o.Start
}

// started tells when the process with an id started, in ticks since boot (proc_pid_stat(5), field 22; 0 where there is
// no such file), and whether it lives at all. One that has ended and was not waited for does not.
func started(pid int) (uint64, bool) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, len(fields) < 20
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, true
	}
	return start, true
}

func text(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
