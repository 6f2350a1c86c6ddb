package flink

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"trestle/internal/engine"
)

// cluster answers as a JobManager does that has this overview and configuration.
func cluster(t *testing.T, o overview, configuration map[string]string) *Engine {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any
		switch r.URL.Path {
		case "/overview":
			answer = o
		case "/jobmanager/config":
			var entries []map[string]string
			for key, value := range configuration {
				entries = append(entries, map[string]string{"key": key, "value": value})
			}
			answer = entries
		default:
			http.NotFound(w, r)
			return
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return at(t, server.URL)
}

func at(t *testing.T, address string) *Engine {
	e, err := New(Config{Address: address, Version: "test", Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// What a cluster is refused for, when a job is prepared.
func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name          string
		has           overview
		configuration map[string]string
		parallelism   int
		says          []string // nothing: it is not refused
	}{
		{"as it should be", overview{Version: "1.20.5", TaskManagers: 2, Slots: 4, Free: 4}, nil, 4, nil},
		{"an old Flink", overview{Version: "1.17.2", TaskManagers: 1, Slots: 1}, nil, 0, []string{"it is Flink 1.17.2", "adapters for 1.20 and 2.x"}},
		{"no TaskManager", overview{Version: "2.3.0"}, nil, 0, []string{"has no TaskManager", "start one"}},
		{"one that starts them when asked", overview{Version: "2.3.0"}, map[string]string{"kubernetes.cluster-id": "beam"}, 0, nil},
		{"more tasks than slots", overview{Version: "2.3.0", TaskManagers: 2, Slots: 4, Free: 0, Running: 1}, nil, 8, nil},
		{"more tasks than key groups", overview{Version: "2.3.0", TaskManagers: 2, Slots: 4, Free: 4}, nil, 129, []string{"parallelism 129", "from 1 to 128"}},
	} {
		err := cluster(t, test.has, test.configuration).Check(t.Context(), nil, nil, test.parallelism)
		if (err == nil) != (test.says == nil) {
			t.Errorf("%s: %v", test.name, err)
		}
		for _, part := range test.says {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v: it does not say %q", test.name, err, part)
			}
		}
	}
}

// A Flink that is not there is named before a job is accepted, and so is one that does not answer.
func TestCheckUnreachable(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String() // which takes connections, and says nothing
	silent := at(t, "http://"+address).Check(t.Context(), nil, nil, 0)
	if silent == nil || !strings.Contains(silent.Error(), address) || !strings.Contains(silent.Error(), "no answer within 4.5s") {
		t.Errorf("a silent one: %v", silent)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	gone := at(t, "http://"+address).Check(t.Context(), nil, nil, 0)
	if gone == nil || !strings.Contains(gone.Error(), "the Flink at http://"+address+" cannot be reached from ") || !strings.Contains(gone.Error(), "refused") {
		t.Errorf("none: %v", gone)
	}
	if checkTimeout >= 5*time.Second {
		t.Errorf("what is asked may take %v, and a user is promised an answer within 5 s", checkTimeout)
	}
	if _, err := at(t, "http://"+address).Submit(t.Context(), engine.Job{}); err == nil {
		t.Error("a job was accepted")
	}
}

func TestLack(t *testing.T) {
	for _, test := range []struct {
		has         overview
		parallelism int
		want        string
	}{
		{overview{Slots: 4, Free: 4}, 4, ""},
		{overview{Slots: 4, Free: 4}, 16, "It wants 16 slots (its parallelism), and of the cluster's 4, 4 are free: 12 are missing. Its tasks take turns."},
		{overview{Slots: 4, Free: 1, Running: 2}, 2, "It wants 2 slots (its parallelism), and of the cluster's 4, 1 is free: 1 is missing, and 3 slots are held by other jobs (2 running). Its tasks take turns."},
		{overview{Slots: 4, Running: 1}, 4, "It wants 4 slots (its parallelism), and of the cluster's 4, none is free: 4 are missing, and 4 slots are held by other jobs (1 running). It waits until one is free; start more TaskManagers, or end another job, for it to begin sooner."},
		{overview{}, 1, "It wants 1 slot (its parallelism), and of the cluster's 0, none is free: 1 is missing. It waits until one is free; start more TaskManagers, or end another job, for it to begin sooner."},
	} {
		if got := test.has.lack(test.parallelism); got != test.want {
			t.Errorf("%d of %+v:\ngot  %s\nwant %s", test.parallelism, test.has, got, test.want)
		}
	}
}
