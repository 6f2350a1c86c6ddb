package flink

import (
	"os"
	"path/filepath"
	"testing"

	"trestle/test/cluster"
)

// homes are the folders of Flink's versions. `make unit` names them in TRESTLE_TEST_FLINK.
func homes(t *testing.T) []string {
	t.Helper()
	list := os.Getenv("TRESTLE_TEST_FLINK")
	if list == "" {
		t.Skip("TRESTLE_TEST_FLINK names no Flink")
	}
	return filepath.SplitList(list)
}

// The rig itself, proved by a job that is not ours: every version, on isolated hosts (where they can be had) and plain ones.
// A TaskManager and the JobManager are killed and started again.
func TestFlinkOnHosts(t *testing.T) {
	for i, home := range homes(t) {
		t.Run(filepath.Base(home), func(t *testing.T) {
			c, err := cluster.Start(t.Context(), cluster.Options{Dir: t.TempDir(), Plain: i > 0, Software: []string{home},
				Hosts: []string{"jobmanager", "taskmanager1", "taskmanager2"}})
			if err != nil {
				t.Fatal(err)
			}
			if c.Plain != "" {
				t.Logf("plain hosts: %s", c.Plain)
			}
			defer func() {
				if t.Failed() {
					t.Log(c.Tails())
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}()
			one, two := c.Host("taskmanager1"), c.Host("taskmanager2")
			f, err := Start(t.Context(), Options{Home: home, JobManager: c.Host("jobmanager"), TaskManagers: []*cluster.Host{one, two},
				JVM: []string{"-XX:TieredStopAtLevel=1"}}) // these JVMs end before a better compiler pays
			if err != nil {
				t.Fatal(err)
			}
			o, err := f.Overview(t.Context())
			if err != nil || "flink-"+o.Version != filepath.Base(home) || o.SlotsTotal != 4 {
				t.Errorf("Flink says %+v, error %v", o, err)
			}
			smoke := func(when string) {
				t.Helper()
				if err := f.Smoke(t.Context(), t.TempDir()); err != nil {
					t.Fatalf("%s: %v", when, err)
				}
			}
			smoke("at first")
			if err := f.TaskManager(one).Kill(); err != nil {
				t.Fatal(err)
			}
			if err := f.StartTaskManager(one); err != nil {
				t.Fatal(err)
			}
			if err := f.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			smoke("after a TaskManager's end")
			if err := f.JobManager().Kill(); err != nil {
				t.Fatal(err)
			}
			if err := f.StartJobManager(); err != nil {
				t.Fatal(err)
			}
			if err := f.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := f.Stop(); err != nil {
				t.Error(err)
			}
			for _, h := range c.Hosts {
				if left, err := h.Processes(); err != nil || len(left) > 0 {
					t.Errorf("host %s has %v, error %v", h.Name, left, err)
				}
			}
		})
	}
}
