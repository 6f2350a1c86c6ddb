package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// both runs a test on isolated hosts, where this machine lets us make them, and on plain ones.
func both(t *testing.T, test func(t *testing.T, c *Cluster)) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			test(t, start(t, Options{Plain: plain, Shared: true, Hosts: []string{"alpha", "beta"}}))
		})
	}
}

func start(t *testing.T, o Options) *Cluster {
	t.Helper()
	if why := noNamespaces(); why != "" && !o.Plain {
		t.Skip(why)
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Tails())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if left, err := marked(c.Dir()); err != nil || len(left) > 0 {
			t.Errorf("processes left: %v, error %v", left, err)
		}
	})
	return c
}

// sh runs a shell command on a host and returns what it printed, without the last line's end.
func sh(t *testing.T, h *Host, script string) string {
	t.Helper()
	out, err := h.Run(t.Context(), Command{Name: "sh", Argv: []string{"bash", "-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out, "\n")
}

func TestHostsAreApart(t *testing.T) {
	c := start(t, Options{Shared: true, Hosts: []string{"alpha", "beta"}})
	alpha, beta := c.Host("alpha"), c.Host("beta")
	for _, test := range []struct {
		what, script, want string
	}{
		{"its name is its own", "hostname", "alpha"},
		{"it knows the other by name", "getent hosts beta | awk '{print $1}'", beta.IP.String()},
		{"it sees its own processes only, its init and this one", "all=(/proc/[0-9]*); echo ${#all[@]}", "2"},
		{"the machine's disk is read-only", "touch /new 2>&1 | grep -o Read-only; touch /usr/new 2>&1 | grep -o Read-only", "Read-only\nRead-only"},
		{"the cluster's folder cannot be seen", "ls -A " + c.Dir() + " 2>/dev/null | grep -v . ; echo none", "none"},
		{"there is no way out", "ip route get 192.0.2.1 2>&1 | grep -o unreachable", "unreachable"},
		{"it writes to its own folders", "touch /tmp/a /var/tmp/a /run/a /dev/shm/a && ls /tmp/a", "/tmp/a"},
		{"and to the shared one", "echo hello > /tmp/shared/word; ls /tmp", "a\nhome\nshared"},
	} {
		if got := sh(t, alpha, test.script); got != test.want {
			t.Errorf("%s: %s printed %q, not %q", test.what, test.script, got, test.want)
		}
	}
	if got := sh(t, beta, "ls /tmp /var/tmp /dev/shm; cat /tmp/shared/word"); strings.Contains(got, "\na\n") || !strings.HasSuffix(got, "hello") {
		t.Errorf("the other host sees %q", got)
	}
	if _, err := os.Stat(alpha.Outside("/tmp/a")); err != nil {
		t.Errorf("from outside: %v", err)
	}
	if text, err := os.ReadFile(alpha.Outside(c.Shared() + "/word")); err != nil || string(text) != "hello\n" {
		t.Errorf("from outside: %q, %v", text, err)
	}
}

func TestSoftwareBelowTmpIsSeenReadOnly(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp")
	software := t.TempDir()
	if err := os.WriteFile(filepath.Join(software, "tool"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The cluster's own folder is inside, as that of a checkout's build is.
	c := start(t, Options{Hosts: []string{"alpha"}, Software: []string{software}, Dir: filepath.Join(software, "cluster")})
	got := sh(t, c.Host("alpha"), "cat "+software+"/tool; touch "+software+"/new 2>&1 | grep -o Read-only; ls -A "+c.Dir())
	if got != "xRead-only" {
		t.Errorf("the host sees %q", got)
	}
}

func TestProcesses(t *testing.T) {
	both(t, func(t *testing.T, c *Cluster) {
		alpha := c.Host("alpha")
		p, err := alpha.Start(Command{Name: "sleeper", Argv: []string{"bash", "-c", "echo awake; sleep 1000 & sleep 1001 & wait"}, Env: []string{"X=y"}})
		if err != nil {
			t.Fatal(err)
		}
		await(t, "both sleep", func() bool { found, _ := alpha.Find("sleep", "100"); return len(found) == 3 })
		if found, err := c.Host("beta").Processes(); err != nil || len(found) != 0 {
			t.Errorf("the other host has processes %v, error %v", found, err)
		}
		again, err := p.Restart()
		if err != nil {
			t.Fatal(err)
		}
		<-p.Ended()
		if p.Err() == nil {
			t.Error("the killed process ended well")
		}
		await(t, "it says so twice", func() bool { text, _ := os.ReadFile(p.Log); return string(text) == "awake\nawake\n" })
		await(t, "both sleep again", func() bool { found, _ := alpha.Find("sleep", "100"); return len(found) == 3 })
		if err := again.Stop(); err != nil {
			t.Error(err)
		}
		orphans, err := alpha.Find("sleep 100")
		if err != nil || len(orphans) != 2 {
			t.Errorf("the stopped process leaves %v, error %v", orphans, err)
		}
		for _, o := range orphans {
			if err := o.Kill(); err != nil {
				t.Error(err)
			}
		}
		await(t, "none is left", func() bool { left, err := alpha.Processes(); return err == nil && len(left) == 0 })
		if _, err := alpha.Run(t.Context(), Command{Name: "fails", Argv: []string{"bash", "-c", "echo so; echo why >&2; exit 3"}}); err == nil ||
			!strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "why") || !strings.Contains(err.Error(), "so") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestCrashAndBoot(t *testing.T) {
	both(t, func(t *testing.T, c *Cluster) {
		alpha := c.Host("alpha")
		sh(t, alpha, "echo kept > "+alpha.Dir()+"/file")
		p, err := alpha.Start(Command{Name: "sleeper", Argv: []string{"sleep", "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := alpha.Crash(); err != nil {
			t.Fatal(err)
		}
		<-p.Ended()
		if _, err := alpha.Start(Command{Name: "sleeper", Argv: []string{"sleep", "1000"}}); err == nil || !strings.Contains(err.Error(), "the host is down") {
			t.Errorf("a process starts on a host that is down: %v", err)
		}
		if err := alpha.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := sh(t, alpha, "cat "+alpha.Dir()+"/file"); got != "kept" {
			t.Errorf("the file has %q", got)
		}
		hello(t, c.Host("beta"), alpha)
	})
}

func TestCutAndMend(t *testing.T) {
	c := start(t, Options{Hosts: []string{"alpha", "beta"}})
	alpha, beta := c.Host("alpha"), c.Host("beta")
	hello(t, beta, alpha)
	if err := alpha.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := beta.Run(ctx, Command{Name: "dial", Argv: []string{"bash", "-c", "echo > /dev/tcp/alpha/7000"}}); err == nil {
		t.Error("a host whose cable is out is reached")
	}
	if err := alpha.Mend(t.Context()); err != nil {
		t.Fatal(err)
	}
	hello(t, beta, alpha)
}

// hello proves that one host, and this process, reach another.
func hello(t *testing.T, from, to *Host) {
	t.Helper()
	p, err := to.Start(Command{Name: "listener", Argv: []string{"python3", "-m", "http.server", "7000", "--bind", to.IP.String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	await(t, "it listens", func() bool {
		conn, err := net.DialTimeout("tcp", to.IP.String()+":7000", time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	sh(t, from, "echo > /dev/tcp/"+to.Address()+"/7000")
}

// A process that is killed leaves nothing of its cluster: no host, no network, and its folder is free again.
func TestTheOwnersEndIsTheClusters(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			if why := noNamespaces(); why != "" && !plain {
				t.Skip(why)
			}
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestOwner$")
			cmd.Env = append(os.Environ(), "CLUSTER_OWNER="+dir, fmt.Sprintf("CLUSTER_PLAIN=%v", plain))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			buffer := make([]byte, 100)
			n, err := out.Read(buffer)
			if err != nil || !strings.Contains(string(buffer[:n]), "up") {
				t.Fatalf("the owner says %q, %v", buffer[:n], err)
			}
			if _, err := Start(t.Context(), Options{Dir: dir, Hosts: []string{"a"}}); err == nil || !strings.Contains(err.Error(), "has a cluster in") {
				t.Errorf("a second cluster in the folder: %v", err)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if !plain {
				await(t, "the kernel ends all", func() bool { left, err := marked(dir); return err == nil && len(left) == 0 })
			}
			start(t, Options{Dir: dir, Plain: plain, Hosts: []string{"a"}})
			if left, err := marked(dir); err != nil || plain && len(left) > 0 {
				t.Errorf("left: %v, error %v", left, err)
			}
		})
	}
}

// TestOwner is the process that the test above kills.
func TestOwner(t *testing.T) {
	dir := os.Getenv("CLUSTER_OWNER")
	if dir == "" {
		t.Skip("another test's part")
	}
	c, err := Start(t.Context(), Options{Dir: dir, Hosts: []string{"a", "b"}, Plain: os.Getenv("CLUSTER_PLAIN") == "true"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Host("a").Start(Command{Name: "sleeper", Argv: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("up")
	select {}
}

func TestAKeptClusterIsFoundAgain(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			first := start(t, Options{Hosts: []string{"a", "b"}, Keep: true, Plain: plain})
			p, err := first.Host("a").Start(Command{Name: "sleeper", Argv: []string{"sleep", "1000"}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Start(t.Context(), Options{Dir: first.Dir(), Hosts: []string{"a"}}); err == nil || !strings.Contains(err.Error(), "take it down first") {
				t.Errorf("a second cluster in the folder: %v", err)
			}
			c, err := Attach(first.Dir())
			if err != nil {
				t.Fatal(err)
			}
			q, err := c.Host("a").Process("sleeper")
			if err != nil || q.PID != p.PID {
				t.Fatalf("found %v, error %v", q, err)
			}
			if err := q.Kill(); err != nil {
				t.Error(err)
			}
			<-q.Ended()
			<-p.Ended()
			if got := sh(t, c.Host("b"), "echo here"); got != "here" {
				t.Errorf("the host says %q", got)
			}
		})
	}
}

// await polls, since what is waited for is other processes' and the kernel's.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(Patience); !done(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not within %v", what, Patience)
		}
	}
}
