package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// run runs the worker with our output, passes signals on, and returns how it ended.
func run(ctx context.Context, cfg Config, c *command, signals <-chan os.Signal) error {
	// The kernel ends the child when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG): keep it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(c.path, c.args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = cfg.Stdout, cfg.Stderr
	cmd.SysProcAttr = childAttr()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	over := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // that it has just ended is no error
			case <-ctx.Done():
				_ = cmd.Process.Kill()
				return
			case <-over:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(over)
	<-gone
	return ending(err)
}

// ending is what a program's end means.
func ending(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &Exit{Code: 128 + int(ws.Signal()), Signal: ws.Signal()}
	}
	return &Exit{Code: exit.ExitCode()}
}
