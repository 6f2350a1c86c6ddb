package docker

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"trestle/test/cluster"
)

// Two hosts, each with an engine of its own: what one has, the other has not; a container is on its host's network and ends
// with its host.
func TestEnginesOnHosts(t *testing.T) {
	if tool := Missing(); tool != "" {
		t.Skipf("there is no %s", tool)
	}
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: t.TempDir(), Hosts: []string{"alpha", "beta"}, Software: []string{os.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Log(c.Tails())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	if c.Plain != "" {
		t.Skip(c.Plain)
	}
	alpha, err := Start(t.Context(), c.Host("alpha"))
	if err != nil {
		t.Fatal(err)
	}
	beta, err := Start(t.Context(), c.Host("beta"))
	if err != nil {
		t.Fatal(err)
	}
	root := c.Host("alpha").Outside("/tmp/root")
	source := filepath.Join(t.TempDir(), "main.go")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	const program = `package main
import ("fmt"; "os"; "time")
func main() { name, _ := os.Hostname(); fmt.Println(name, os.Getenv("WORD")); if len(os.Args) > 1 { time.Sleep(time.Hour) } }`
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(root, "name"), source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := c.Host("alpha").Run(t.Context(), cluster.Command{Name: "import", Argv: []string{"bash", "-c",
		`tar -c -C /tmp/root . | docker import --change 'ENTRYPOINT ["/name"]' - name`}}); err != nil {
		t.Fatal(out, err)
	}
	if out, err := alpha.Run(t.Context(), "run", "--rm", "--network=host", "--env=WORD=hello", "name"); err != nil || out != "alpha hello" {
		t.Errorf("the container prints %q, error %v", out, err)
	}
	if out, err := beta.Run(t.Context(), "image", "ls", "--quiet"); err != nil || out != "" {
		t.Errorf("the other engine has images %q, error %v", out, err)
	}
	if _, err := alpha.Run(t.Context(), "run", "--detach", "--network=host", "--name=stays", "name", "for ever"); err != nil {
		t.Fatal(err)
	}
	if all, err := alpha.Containers(t.Context()); err != nil || len(all) != 1 || !strings.Contains(all[0], "name stays Up") {
		t.Errorf("containers %v, error %v", all, err)
	}
	found, err := c.Host("alpha").Find("/name for ever")
	if err != nil || len(found) != 1 {
		t.Fatalf("the container's process: %v, error %v", found, err)
	}
	if err := c.Host("alpha").Crash(); err != nil {
		t.Fatal(err)
	}
	if found[0].Alive() {
		t.Error("the container outlives its host")
	}
}
