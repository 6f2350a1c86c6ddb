package container

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What cannot be meant is refused, all of it at once.
func TestCheck(t *testing.T) {
	if err := (Config{}).Check(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	err := Config{Pull: "often", PullLimit: -1, CPUs: -1, Memory: 1 << 20, Mounts: []string{"/a", "/a:b", ":/b", "/a:/b:ro"},
		Instead: []string{"[=boot", "=boot", "image", "image= ", "apache/*=boot"}}.Check()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`"often"`, "missing, always or never", "pull -1ns", "CPUs -1", "1048576 bytes", `mount "/a"`, `mount "/a:b"`, `mount ":/b"`, `image "[=boot"`, `image "=boot"`, `image "image"`, `image "image= "`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "/b:ro") || strings.Contains(err.Error(), "apache/*=boot") {
		t.Errorf("what is right is refused: %v", err)
	}
}

// The first pattern that an image matches says what runs in its stead.
func TestCommand(t *testing.T) {
	c := Config{Instead: []string{"apache/beam_java17_sdk:2.73.0=a", "apache/beam_java*= trestle boot java --jvm-arg -Da=b ", "apache/*=c"}}
	for image, want := range map[string]string{
		"apache/beam_java17_sdk:2.73.0":           "a",
		"apache/beam_java11_sdk:2.73.0":           "trestle boot java --jvm-arg -Da=b",
		"apache/beam_python3.11_sdk:2.77.0":       "c",
		"docker.io/apache/beam_java11_sdk:2.73.0": "",
		"mine": "",
	} {
		if got := c.Command(image); got != want {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
}

// Containers get an address that is right where they are, or there is an error.
func TestReach(t *testing.T) {
	for _, c := range []struct {
		cfg          Config
		server, want string
		system       string
		err          string
	}{
		{Config{}, "127.0.0.1:8099", "127.0.0.1:8099", "linux", ""}, // the host's network
		{Config{}, "a1:8099", "a1:8099", "linux", ""},
		{Config{Network: "bridge"}, "a1:8099", "a1:8099", "linux", ""},
		{Config{Network: "bridge"}, "127.0.0.1:8099", "", "linux", "--container-advertise"},
		{Config{Network: "bridge"}, "localhost:8099", "", "linux", "--container-advertise"},
		{Config{Network: "bridge"}, "[::1]:8099", "", "linux", "--container-advertise"},
		{Config{Network: "bridge", Advertise: "172.17.0.1"}, "127.0.0.1:8099", "172.17.0.1:8099", "linux", ""},
		{Config{Network: "bridge", Advertise: "172.17.0.1:9"}, "127.0.0.1:8099", "172.17.0.1:9", "linux", ""},
		{Config{Network: "bridge", Advertise: "fd00::1"}, "127.0.0.1:8099", "[fd00::1]:8099", "linux", ""},
		{Config{Network: "bridge", Advertise: "[fd00::1]"}, "127.0.0.1:8099", "[fd00::1]:8099", "linux", ""},
		{Config{Advertise: "a b"}, "127.0.0.1:8099", "", "linux", "host:port, or a host"},
		{Config{Advertise: "a:port"}, "127.0.0.1:8099", "", "linux", "host:port, or a host"},
		{Config{}, "127.0.0.1:8099", "host.docker.internal:8099", "darwin", ""},
		{Config{}, "a1:8099", "a1:8099", "darwin", ""},
		{Config{}, "a1", "", "linux", "missing port"},
	} {
		got, err := c.cfg.reach(c.server, c.system)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v to %s: error %v, want %q", c.cfg, c.server, err, c.err)
		}
		if err == nil && got != c.want {
			t.Errorf("%+v to %s: %s, want %s", c.cfg, c.server, got, c.want)
		}
	}
}

// A configuration survives its way to another process, each field of it; one that cannot be meant is refused there.
func TestEncode(t *testing.T) {
	full := Config{Engine: "podman", Pull: PullAlways, PullLimit: time.Minute, Network: "n", Advertise: "a:1", CPUs: 1.5, Memory: 1 << 30,
		Mounts: []string{"/a:/b"}, Args: []string{"--init"}, Instead: []string{"a*=b"}}
	for field, v := range reflect.ValueOf(full).Fields() {
		if v.IsZero() {
			t.Errorf("the test leaves out %s", field.Name)
		}
	}
	for _, want := range []Config{{}, full} {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := Decode(nil); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{`{"cpus":"many"}`, `{"pull":"often"}`, `{`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// The whole command line: what is the user's comes last, before the image.
func TestCreate(t *testing.T) {
	e := &Engine{name: "docker", logs: kinds[0].logs, owner: "{}", cfg: Config{Network: "n", CPUs: 1.5, Memory: 1 << 30,
		Mounts: []string{"/a:/b", "/c:/d:ro"}, Args: []string{"--env=A=b c", "--init"}}}
	want := []string{"create", "--pull=never", "--name=trestle-w", "--label=trestle.owner={}", "--label=trestle.job=j", "--label=trestle.worker=w",
		"--log-driver=local", "--log-opt=max-size=16m", "--log-opt=max-file=2", "--network=n", "--cpus=1.5", "--memory=1073741824b",
		"--volume=/a:/b", "--volume=/c:/d:ro", "--env=A=b c", "--init", "i", "--id=w"}
	got := e.create(Spec{Image: "i", Name: "trestle-w", Job: "j", Worker: "w", Args: []string{"--id=w"}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
