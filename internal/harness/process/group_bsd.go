//go:build unix && !linux

package process

import (
	"os/exec"
	"syscall"
)

// groupAttr gives the child a group of its own. Only Linux can tie its life to ours.
func groupAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// reap waits for the child's end and calls ended.
func reap(cmd *exec.Cmd, ended func()) error {
	err := cmd.Wait()
	ended()
	return err
}
