package streaming

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var kills = flag.Int("streaming.kills", 3, "how often TestKills kills the process of a job")

const (
	// jobFolder names, to a process that TestKills starts, the folder of its job.
	jobFolder = "TRESTLE_TEST_STREAMING_JOB"
	// longKeys says to it, when it is set, that all keys are long.
	longKeys = "TRESTLE_TEST_STREAMING_LONG_KEYS"
	// afterProgress is how long a process may run on, at most, once it has taken a snapshot.
	afterProgress = 200 * time.Millisecond
)

// TestJobUntilKilled is the process that TestKills kills: a job that runs on.
func TestJobUntilKilled(t *testing.T) {
	folder := os.Getenv(jobFolder)
	if folder == "" {
		t.Skip("TestKills starts it, in a process of its own")
	}
	r := &rig{t: t, snapshots: filepath.Join(folder, "snapshots"), pipeline: counting, panes: map[string]string{}}
	if os.Getenv(longKeys) != "" {
		r.wholeKeys = -1
	}
	var err error
	if r.log, err = os.OpenFile(filepath.Join(folder, "panes"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		t.Fatal(err)
	}
	run, err := r.open(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Error(run.job.Run(context.Background()))
}

// TestKills kills the process of a job, at random, again and again; then every count, timer and window is exact. Snapshots do not
// pile up. All of it is so for short keys, and for long ones.
func TestKills(t *testing.T) {
	t.Run("short keys", func(t *testing.T) { killed(t, 0) })
	t.Run("long keys", func(t *testing.T) { killed(t, -1) })
}

func killed(t *testing.T, wholeKeys int) {
	r := newRig(t)
	r.wholeKeys = wholeKeys
	folder := t.TempDir()
	r.snapshots = filepath.Join(folder, "snapshots")
	if err := os.MkdirAll(r.snapshots, 0o700); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for i := range *kills {
		r.kill(i, folder, time.Duration(random.Int64N(int64(afterProgress))))
	}
	b, err := os.ReadFile(filepath.Join(folder, "panes"))
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if of, values, ok := strings.Cut(lines.Text(), ":"); ok {
			if err := r.pane(of, values); err != nil {
				t.Error(err)
			}
		}
	}
	r.drain(2)
	r.exact()
	if all, err := numbers(r.snapshots); err != nil || len(all) > keepSnapshots {
		t.Errorf("snapshots %v are left, %v", all, err)
	}
}

// kill runs the job in a process of its own, and kills that some time after it has taken a snapshot.
func (r *rig) kill(i int, folder string, after time.Duration) {
	r.t.Helper()
	before, err := Latest(r.snapshots)
	if err != nil {
		r.t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(os.Args[0], "-test.run=^TestJobUntilKilled$")
	scratch := filepath.Join(folder, "scratch")
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		r.t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), jobFolder+"="+folder, "TMPDIR="+scratch)
	if r.wholeKeys < 0 {
		cmd.Env = append(cmd.Env, longKeys+"=1")
	}
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline, more := time.After(5*time.Minute), true; more; {
		select {
		case <-ticker.C:
			now, err := Latest(r.snapshots)
			more = err != nil || now <= before
		case err := <-ended:
			r.t.Fatalf("process %d ended by itself: %v\n%s", i, err, said.String())
		case <-deadline:
			r.t.Errorf("process %d has taken no snapshot in time", i)
			more = false
		}
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case err := <-ended:
		r.t.Fatalf("process %d ended by itself: %v\n%s", i, err, said.String())
	}
	if err := cmd.Process.Kill(); err != nil {
		r.t.Error(err)
	}
	var exit *exec.ExitError
	if err := <-ended; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		r.t.Errorf("process %d ended with %v\n%s", i, err, said.String())
	}
	if err := os.RemoveAll(scratch); err != nil {
		r.t.Error(err)
	}
}
