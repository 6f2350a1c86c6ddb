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

	"golang.org/x/sys/unix"
)

// adopt makes this process the parent of every orphan among its descendants, so that leftovers finds them.
func adopt() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// leftovers names, and ends, the processes that outlive those who started them. To be called when this process has no
// child of its own left.
func leftovers() ([]string, error) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	var found []string
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
			if len(line) > 0 { // a zombie has no command line: it has ended
				found = append(found, fmt.Sprintf("%d: %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					return nil, err
				}
			}
			if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}
