package serve

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestProfilesAreServedUntilStopped(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	stop, err := serveProfiles(addr)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + addr + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !strings.Contains(string(body), "goroutine profile") {
		t.Errorf("the profile of goroutines is %q (%v)", body, err)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("it listens after stop")
	}
}

func TestProfilesStayOnTheMachine(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":6060", "192.0.2.1:6060", "example.com:1", "6060"} {
		if stop, err := serveProfiles(addr); err == nil {
			stop()
			t.Errorf("%q was accepted", addr)
		} else if !strings.Contains(err.Error(), addr) {
			t.Errorf("%q: %v does not name the address", addr, err)
		}
	}
}
