//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trestle/test/leaks"
)

// part is the variable of the environment by which the test binary plays a program.
const part = "TRESTLE_TEST_PART"

func TestMain(m *testing.M) {
	if p := os.Getenv(part); p != "" {
		play(p)
		return
	}
	leaks.Main(m)
}

func play(p string) {
	switch p {
	case "exit":
		fmt.Println("out")
		fmt.Fprintln(os.Stderr, "err")
		code, _ := strconv.Atoi(os.Args[1])
		os.Exit(code)
	case "talk":
		for i := range 200 {
			fmt.Println("line", i)
		}
		fmt.Print("no end")
	case "long":
		fmt.Println(strings.Repeat("é", lineWidth))
	case "sleep":
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "parent": // leaves a child in its group, and one that has left it, both with our output
		for _, attr := range []*syscall.SysProcAttr{nil, {Setsid: true}} {
			child := exec.Command("sleep", "3000")
			child.Stdout = os.Stdout
			child.SysProcAttr = attr
			if err := child.Start(); err != nil {
				fmt.Println(err)
				os.Exit(9)
			}
			fmt.Println(child.Process.Pid)
		}
	case "server": // starts a process and is killed
		p, err := Start(Spec{Path: os.Args[0], Env: append(os.Environ(), part+"=sleep")})
		if err != nil {
			fmt.Println(err)
			os.Exit(9)
		}
		fmt.Println(p.PID())
		time.Sleep(time.Hour)
	}
}

// heard collects a process's lines.
type heard struct {
	mu    sync.Mutex
	lines []string
	first chan string
}

func newHeard() *heard { return &heard{first: make(chan string, 1000)} }

func (h *heard) line(s Stream, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, string(s)+": "+text)
	select {
	case h.first <- text:
	default:
	}
}

func start(t *testing.T, p string, h *heard, args ...string) *Process {
	t.Helper()
	spec := Spec{Path: os.Args[0], Args: args, Env: append(os.Environ(), part+"="+p)}
	if h != nil {
		spec.Line = h.line
	}
	process, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		process.Stop(ctx)
	})
	return process
}

// alive says whether a process runs. A zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !errors.Is(err, os.ErrNotExist)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func waitDead(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for alive(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still alive", pid)
		}
		time.Sleep(5 * time.Millisecond) // somebody else's process: there is nothing to wait on
	}
}

// An exit code and what was written on both streams are kept.
func TestExit(t *testing.T) {
	for _, code := range []int{0, 3} {
		h := newHeard()
		p := start(t, "exit", h, strconv.Itoa(code))
		<-p.Done()
		if got := (Status{Code: code}); p.Status() != got {
			t.Errorf("status %v, want %v", p.Status(), got)
		}
		want := map[string]bool{"stdout: out": true, "stderr: err": true}
		got := map[string]bool{}
		for _, l := range h.lines {
			got[l] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if len(p.Output()) != 2 {
			t.Errorf("kept output: %q", p.Output())
		}
	}
}

// Of much output the last lines are kept, in order, and all of it is passed on.
func TestLastLines(t *testing.T) {
	h := newHeard()
	p := start(t, "talk", h)
	<-p.Done()
	var want []string
	for i := 200 - tailLines + 1; i < 200; i++ {
		want = append(want, "line "+strconv.Itoa(i))
	}
	want = append(want, "no end")
	if diff := cmp.Diff(want, p.Output()); diff != "" {
		t.Error(diff)
	}
	if len(h.lines) != 201 {
		t.Errorf("%d lines passed on, want 201", len(h.lines))
	}
}

// What was written to stderr last is kept, and shown last, when much came after it; otherwise lines are as they came.
func TestTail(t *testing.T) {
	var tail Tail
	for i := range 30 {
		tail.add("cause "+strconv.Itoa(i), true)
	}
	if got := tail.Lines(); len(got) != 30 || got[29] != "cause 29" {
		t.Errorf("%q", got)
	}
	for i := range 20 {
		tail.add("flushed "+strconv.Itoa(i), false)
	}
	got := tail.Lines()
	if len(got) != tailLines || got[0] != "cause 0" || got[tailLines-1] != "cause 29" || got[tailLines-tailErrors] != "cause 18" || got[tailLines-tailErrors-1] != "flushed 19" {
		t.Errorf("%d: %q", len(got), got)
	}
	for i := range 100 {
		tail.add("more "+strconv.Itoa(i), false)
	}
	got = tail.Lines()
	if len(got) != tailLines || got[0] != "more 62" || got[tailLines-tailErrors-1] != "more 99" || got[tailLines-1] != "cause 29" {
		t.Errorf("%d: %q", len(got), got)
	}
	var plain Tail
	for i := range 100 {
		plain.Add(strconv.Itoa(i))
	}
	if got := plain.Lines(); len(got) != tailLines || got[0] != "50" || got[tailLines-1] != "99" {
		t.Errorf("%q", got)
	}
}

// A line without end is cut into parts, and cut short where it is kept.
func TestLongLine(t *testing.T) {
	h := newHeard()
	p := start(t, "long", h)
	<-p.Done()
	for _, l := range h.lines {
		if len(l) > lineWidth+20 {
			t.Errorf("a line of %d bytes was passed on", len(l))
		}
	}
	for _, l := range p.Output() {
		if len(l) > tailWidth+10 {
			t.Errorf("a line of %d bytes was kept", len(l))
		}
	}
}

// SIGTERM ends a process that minds it; one that does not is killed at the end of its grace.
func TestStop(t *testing.T) {
	for _, c := range []struct {
		part   string
		killed bool
		signal syscall.Signal
	}{{"sleep", false, syscall.SIGTERM}, {"deaf", true, syscall.SIGKILL}} {
		t.Run(c.part, func(t *testing.T) {
			h := newHeard()
			p := start(t, c.part, h)
			<-h.first
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if c.killed {
				ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
			}
			if killed := p.Stop(ctx); killed != c.killed {
				t.Errorf("killed: %v, want %v", killed, c.killed)
			}
			if got := p.Status(); got.Signal != c.signal {
				t.Errorf("status %v, want signal %v", got, c.signal)
			}
			if alive(p.PID()) {
				t.Error("still alive")
			}
			if p.Stop(ctx) {
				t.Error("stopping what has ended killed it again")
			}
		})
	}
}

// What a process leaves in its group ends with it; what has left the group cannot hold up the end.
func TestLeftBehind(t *testing.T) {
	h := newHeard()
	p := start(t, "parent", h)
	inGroup, _ := strconv.Atoi(<-h.first)
	left, _ := strconv.Atoi(<-h.first)
	defer syscall.Kill(left, syscall.SIGKILL)
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Fatal("the process's end was not noticed")
	}
	waitDead(t, inGroup)
	if !alive(left) {
		t.Error("a process outside the group was ended")
	}
}

// A process dies with the one that started it, kill -9 included.
func TestDiesWithParent(t *testing.T) {
	h := newHeard()
	p := start(t, "server", h)
	child, err := strconv.Atoi(<-h.first)
	if err != nil {
		t.Fatal(err)
	}
	if !alive(child) {
		t.Fatal("the child does not run")
	}
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	waitDead(t, child)
}

// A program that is not there or cannot be run is an error of Start, and leaves nothing.
func TestStartFails(t *testing.T) {
	if _, err := Start(Spec{Path: "/nowhere/worker"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want ErrNotExist", err)
	}
}
