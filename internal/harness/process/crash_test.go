package process

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// crashVar makes the test binary the program of TestCrash.
const crashVar = "TRESTLE_TEST_CRASH"

//go:noinline
func enter(counts map[string]int) { counts["a"]++ }

// Of a real program that crashes, the last lines tell so, and where it was, whatever stacks follow.
func TestCrash(t *testing.T) {
	if os.Getenv(crashVar) != "" {
		debug.SetTraceback("all")
		for range 40 { // whose stacks come after
			go func() { select {} }()
		}
		enter(nil)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(Spec{Path: self, Args: []string{"-test.run", "^TestCrash$"}, Env: append(os.Environ(), crashVar+"=1")})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	lines := p.Output()
	told := strings.Join(lines[max(0, len(lines)-crashShown):], "\n")
	if p.Status().Code != 2 || len(lines) > tailLines || !strings.Contains(told, "assignment to entry in nil map") || !strings.Contains(told, "process.enter(") {
		t.Errorf("%v, %d lines: %s", p.Status(), len(lines), strings.Join(lines, "\n"))
	}
}

// What is kept of a crash is the goroutine that ran, without the runtime's frames; nothing of a crash that is among the last lines anyway.
func TestCrashLines(t *testing.T) {
	var tail Tail
	for line := range strings.Lines(`panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x49e1f0]

goroutine 7 gp=0xc000 m=0 mp=0x58 [running]:
runtime.gopanic({0x1, 0x2})
	/go/src/runtime/panic.go:783 +0x132 fp=0x1 sp=0x2 pc=0x3
main.process(0x1)
	/src/main.go:7 +0x70 fp=0x1 sp=0x2 pc=0x3
main.run(...)
	/src/main.go:9
created by main.main in goroutine 1
	/src/main.go:3 +0x1

goroutine 8 [running]:
main.other()
	/src/main.go:20 +0x1
`) {
		tail.add(strings.TrimSuffix(line, "\n"), true)
	}
	if got := tail.Lines(); len(got) != 16 {
		t.Errorf("told twice: %q", got)
	}
	for i := range 100 {
		tail.add(fmt.Sprint("more ", i), true)
	}
	want := []string{
		"more 99",
		"panic: runtime error: invalid memory address or nil pointer dereference",
		"[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x49e1f0]",
		"goroutine 7:",
		"  main.process(0x1) /src/main.go:7",
		"  main.run(...) /src/main.go:9",
	}
	got := tail.Lines()
	if diff := cmp.Diff(want, got[max(0, len(got)-len(want)):]); diff != "" || len(got) != tailLines {
		t.Errorf("%d lines, -want +got:\n%s", len(got), diff)
	}
}
