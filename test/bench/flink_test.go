package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFlinkCasesRunOnBothPeersInParallel(t *testing.T) {
	cases, err := casesOf("large", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if !slices.Equal(c.peers, []string{trestle, beamFlink}) {
			t.Errorf("%s runs on %v", c.name, c.peers)
		}
		text := t.TempDir() + "/text"
		if err := os.WriteFile(text, []byte("a word\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.textBytes = min(c.textBytes, 100)
		argv, err := place{flink: "flink", text: text, dir: t.TempDir()}.command(c, beamFlink, "127.0.0.1:1", "out")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(argv, flinkParallelism) {
			t.Errorf("%s: the parallelism is not among %q", c.name, argv)
		}
	}
}

func TestFlinkResultsHaveColumnsOfTheirOwn(t *testing.T) {
	got := table([]result{
		{Case: "gbk", Peer: trestle, Records: 1e6, RunSeconds: 2, ClientCPU: 1, RunningSeconds: 0.5, ServerCPU: 0.25, JobManagerCPU: 0.5,
			TaskManagersCPU: 2, WorkersCPU: 1.5, TaskManagersPeakMB: 500, WorkersPeakMB: 100},
		{Case: "gbk", Peer: beamFlink, Records: 1e6, RunSeconds: 20, ClientCPU: 1, RunningSeconds: 12, ServerCPU: 2, JobManagerCPU: 3,
			TaskManagersCPU: 14, TaskManagersPeakMB: 900},
	})
	want := strings.TrimPrefix(`
| case | peer | runs | wall s, median (best) | × trestle | client CPU s | to RUNNING s | TaskManager CPU s | µs/record | worker CPU s | server, JobManager CPU s | TaskManager peak MB | worker peak MB |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
| gbk | trestle | 1 | 2.00 (2.00) | | 1.00 | 0.500 | 2.00 | 2.00 | 1.50 | 0.750 | 500 | 100 |
| gbk | beam-flink | 1 | 20.0 (20.0) | 10.0 | 1.00 | 12.0 | 14.0 | 14.00 | | 5.00 | 900 | |
`, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestPeaksOfChildrenAreSeen(t *testing.T) {
	child := exec.Command("cat") // reads until its standard input ends
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	stop := watchPeaks([]int{os.Getpid()})
	peaks := stop()
	if peaks[child.Process.Pid] <= 0 {
		t.Errorf("peaks %v, without one of %d", peaks, child.Process.Pid)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if left, err := childrenOf([]int{os.Getpid()}); err != nil || slices.Contains(left, child.Process.Pid) {
		t.Errorf("children %v (%v), with %d that has ended", left, err, child.Process.Pid)
	}
	if left, err := childrenOf([]int{child.Process.Pid}); err == nil {
		t.Errorf("a process that has ended has the children %v", left)
	}
}
