package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// adopt makes this process the parent of every orphan among its descendants, so that leftovers finds them.
func adopt() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// endTime is how long processes have to end that are about to: a program's helper ends when it sees that the program has.
const endTime = 10 * time.Second

// leftovers names, and ends, the processes that outlive those who started them. To be called when this process has no
// child of its own left.
func leftovers() ([]string, error) {
	left, err := orphans()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(endTime); err == nil && len(left) > 0 && time.Now().Before(deadline); left, err = orphans() {
		<-tick.C
	}
	if err != nil {
		return nil, err
	}
	var found []string
	for pid, line := range left {
		found = append(found, fmt.Sprintf("%d: %s", pid, line))
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return nil, err
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// orphans are the command lines, by process id, of this process's children that have not ended.
func orphans() (map[int]string, error) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	left := map[int]string{}
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return nil, err
		}
		for _, field := range strings.Fields(string(children)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return nil, err
			}
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil {
				return nil, err
			}
			if len(line) > 0 {
				left[pid] = string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
				continue
			}
			// A zombie has no command line: it has ended.
			if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
				return nil, err
			}
		}
	}
	return left, nil
}
