//go:build linux

package container

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"trestle/test/containers"
)

// stepsTime is how long a step of a test may take, on a machine that has other things to do.
const stepsTime = 5 * time.Minute

// scripted is an engine whose command line is a shell script.
func scripted(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// fifo is a named pipe that neither end waits for the other to open.
func fifo(t *testing.T) (*os.File, *bufio.Reader) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.SetReadDeadline(time.Now().Add(stepsTime)); err != nil {
		t.Fatal(err)
	}
	return f, bufio.NewReader(f)
}

// A server that is killed while its container is being made leaves none, at whatever step, though the engine does what it has been
// asked for. Here the engine's command line holds the step until the server is dead.
func TestKilledWhileMaking(t *testing.T) {
	needEngine(t, Config{})
	for _, step := range []string{"create", "start"} {
		t.Run(step, func(t *testing.T) {
			toldPipe, told := fifo(t)
			goPipe, _ := fifo(t)
			name := fmt.Sprint("trestle-test-making-", step, "-", os.Getpid())
			t.Setenv(engineOf, scripted(t, fmt.Sprintf(`
case $1 in
%s)
	trap '' TERM # the engine is none of the server's
	echo asked >%s
	read go <%s
	docker "$@"
	done=$?
	docker inspect --type=container %[4]s >/dev/null && echo made >%[2]s
	exit $done
	;;
rm)
	docker "$@"
	echo removed >%[2]s
	;;
*) exec docker "$@" ;;
esac
`, step, toldPipe.Name(), goPipe.Name(), name)))
			process, _ := serve(t, name)
			expect := func(want string) {
				t.Helper()
				if line, err := told.ReadString('\n'); line != want+"\n" {
					t.Fatalf("the engine says %q, %v; want %q", line, err, want)
				}
			}
			expect("asked")
			if err := process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if _, err := process.Wait(); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintln(goPipe, "go"); err != nil {
				t.Fatal(err)
			}
			expect("made")
			expect("removed")
			if left := docker(t, "ps", "--all", "--format", "{{.Names}} {{.Status}}", "--filter", "name="+name); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// The engine's command line is killed before it answers, and the engine goes on: the container is there, and is replaced.
func TestCreateKilled(t *testing.T) {
	needEngine(t, Config{})
	once := filepath.Join(t.TempDir(), "once")
	e := needEngine(t, Config{Engine: scripted(t, fmt.Sprintf(`
if [ "$1" = create ] && ! [ -e %s ]; then
	docker "$@" >%[1]s
	kill -KILL $$
fi
exec docker "$@"
`, once))})
	name := fmt.Sprint("trestle-test-killed-create-", os.Getpid())
	c, err := e.Start(t.Context(), Spec{Image: containers.Image, Name: name, Args: []string{"--control_endpoint=127.0.0.1:1"}})
	if err != nil {
		_, _ = containers.Docker("rm", "--force", name)
		t.Fatal(err)
	}
	first, err := os.ReadFile(once)
	if err != nil || strings.TrimSpace(string(first)) == c.id || len(first) < idLength {
		t.Errorf("the first container is %q, %v, and so is the one that was started", first, err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if left := docker(t, "ps", "--all", "--quiet", "--filter", "name="+name); left != "" {
		t.Errorf("left: %s", left)
	}
}

// An engine that has only promised the container when its command line is killed refuses the name until it has made it.
func TestCreateGoesOn(t *testing.T) {
	dir := t.TempDir()
	id := strings.Repeat("a", idLength)
	e, err := Find(t.Context(), Config{Engine: scripted(t, fmt.Sprintf(`
cd %s
case $1 in
--version) echo Docker version 1 ;;
create)
	echo create >>log
	case $(wc -l <log) in
	1) touch promised; kill -KILL $$ ;;
	2) mv promised there ;;
	esac
	if [ -e promised ] || [ -e there ]; then
		echo 'Conflict. The container name is already in use' >&2
		exit 1
	fi
	touch there
	echo %s
	;;
ps) [ ! -e there ] || echo %[2]s ;;
rm)
	[ -e there ] || { echo 'No such container' >&2; exit 1; }
	rm there
	;;
wait) while [ -e there ]; do sleep 0.1; done; echo 0 ;;
inspect) echo '{"Running":true}' ;;
esac
`, dir, id))})
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Start(t.Context(), Spec{Image: "image", Name: "name"})
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if want := "create\ncreate\ncreate\n"; err != nil || string(log) != want {
		t.Errorf("the engine was asked %q, %v; want %q", log, err, want)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "there")); !os.IsNotExist(err) {
		t.Errorf("the container is left: %v", err)
	}
}

// An error that is the engine's own answer is passed on at once, with its words.
func TestCreateRefused(t *testing.T) {
	for step, answer := range map[string]string{"create": "no such image", "start": "no such program"} {
		log := filepath.Join(t.TempDir(), "log")
		e, err := Find(t.Context(), Config{Engine: scripted(t, fmt.Sprintf(`
echo $1 >>%s
case $1 in
%s) echo '%s' >&2; exit 125 ;;
create) echo id ;;
esac
`, log, step, answer))})
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Start(t.Context(), Spec{Image: "image", Name: "name"})
		if want := "docker " + step + ": exit code 125: " + answer; err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: error %v, want it to end with %q", step, err, want)
		}
		asked, err := os.ReadFile(log)
		if err != nil || strings.Count(string(asked), "create") != 1 {
			t.Errorf("%s: asked %q, %v", step, asked, err)
		}
	}
}
