package container

import (
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A container is removed only when its process is surely gone.
func TestGone(t *testing.T) {
	me := owner{Version: 1, Host: "a", Machine: "m", Boot: "b", Namespace: "n", PID: 7, Start: 70}
	with := func(change func(*owner)) owner {
		o := me
		o.PID, o.Start = 8, 80
		change(&o)
		return o
	}
	alive := func(pid int) (uint64, bool) { return 80, pid == 8 } // one process, of id 8, started at 80
	for name, c := range map[string]struct {
		o    owner
		gone bool
	}{
		"lives":             {with(func(*owner) {}), false},
		"no such process":   {with(func(o *owner) { o.PID = 9 }), true},
		"id used again":     {with(func(o *owner) { o.Start = 79 }), true},
		"start not known":   {with(func(o *owner) { o.Start = 0 }), false},
		"before a reboot":   {with(func(o *owner) { o.Boot = "c" }), true},
		"another host":      {with(func(o *owner) { o.Host, o.PID = "z", 9 }), false},
		"another machine":   {with(func(o *owner) { o.Machine, o.PID = "z", 9 }), false},
		"another boot too":  {with(func(o *owner) { o.Machine, o.Boot = "z", "c" }), false},
		"another namespace": {with(func(o *owner) { o.Namespace, o.PID = "z", 9 }), false},
	} {
		if got := c.o.gone(me, alive); got != c.gone {
			t.Errorf("%s: gone is %v", name, got)
		}
	}
}

// This process lives and is its own; a child that has ended and was not waited for does not live.
func TestStarted(t *testing.T) {
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	if me.Start == 0 || me.Boot == "" || me.Namespace == "" || me.gone(me, started) {
		t.Errorf("this process: %+v", me)
	}
	back, err := parseOwner(me.label())
	if diff := cmp.Diff(me, back); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	child := exec.Command("/bin/sh", "-c", "cat")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, ok := started(child.Process.Pid); !ok {
		t.Error("the child is said not to live")
	}
	in.Close()
	if _, err := out.Read(make([]byte, 1)); err == nil { // its end of the pipe closes with it
		t.Error("the child wrote something")
	}
	for dead := false; !dead; { // the pipe is closed a moment before
		_, ok := started(child.Process.Pid)
		dead = !ok
	}
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, ok := started(child.Process.Pid); ok {
		t.Error("the child is said to live when it was waited for")
	}
	if _, ok := started(os.Getpid()); !ok {
		t.Error("this process is said not to live")
	}
}

// No label makes the reader fail, and what it accepts is what it would write.
func FuzzOwner(f *testing.F) {
	for _, seed := range []string{"", "{}", "null", `{"v":1,"host":"a","pid":1}`, `{"v":2,"host":"a","pid":1}`, `{"v":1,"host":"a","pid":-1}`,
		`{"v":1,"host":"a","machine":"m","boot":"b","pidns":"pid:[1]","pid":1,"start":18446744073709551615}`, `{"v":1,"pid":1e99}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, label string) {
		o, err := parseOwner(label)
		if err != nil {
			return
		}
		if o.PID <= 0 || o.Host == "" {
			t.Fatalf("accepted: %q", label)
		}
		again, err := parseOwner(o.label())
		if diff := cmp.Diff(o, again); err != nil || diff != "" {
			t.Errorf("%q: %v %s", label, err, diff)
		}
	})
}
