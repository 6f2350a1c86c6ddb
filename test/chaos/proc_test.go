package chaos

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"trestle/test/gopipeline"
)

func startPool(t *testing.T) *gopipeline.Pool {
	t.Helper()
	pool, err := gopipeline.StartPool()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}

// killer kills, now and then, one of the processes that the server started, until stop is called.
func killer(t *testing.T, random *rand.Rand, killed *atomic.Int32) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			pause := time.Duration(random.Float64() * 2 * float64(killEvery))
			select {
			case <-done:
				return
			case <-time.After(pause):
			}
			pids, err := descendants(os.Getpid())
			if err != nil {
				t.Errorf("find a harness to kill: %v", err)
				return
			}
			if len(pids) == 0 {
				continue
			}
			if err := syscall.Kill(pids[random.IntN(len(pids))], syscall.SIGKILL); err == nil {
				killed.Add(1)
			} else if !errors.Is(err, syscall.ESRCH) {
				t.Errorf("kill a harness: %v", err)
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// descendants are the processes below one.
func descendants(pid int) ([]int, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has ended
	}
	if err != nil {
		return nil, err
	}
	var all []int
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue // the thread, or the process, has ended
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, err
			}
			below, err := descendants(child)
			if err != nil {
				return nil, err
			}
			all = append(append(all, child), below...)
		}
	}
	return all, nil
}

// openFiles are this process's open files. Those of the Go runtime itself come and go: they are left out.
func openFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no list of open files here: %v", err)
	}
	var names []string
	for _, entry := range entries {
		name, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err != nil || strings.HasPrefix(name, "anon_inode:") || strings.HasPrefix(name, "/proc/") {
			continue
		}
		names = append(names, name)
	}
	return names
}
