package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	proc "trestle/test/process"
)

const (
	pollEvery  = 100 * time.Millisecond
	pollKeys   = 10 // readings of a poll
	allKeys    = 100
	pollWindow = 10 // seconds
	// grace is how long the pipeline may take besides its polls: to start, and to end.
	grace = 2 * time.Minute
)

// sample is what server and worker hold at one moment.
type sample struct {
	at               time.Duration
	server, worker   float64 // resident MB
	snapshots, files int64   // bytes and files of the snapshots' folder
	data             int64   // bytes of all of the data folder
}

// poll runs a source that polls for f.duration. What it counts must be exact, and in the second half nothing may be
// larger than in the first, once that has warmed up.
func (f *flags) poll(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := proc.Serve(ctx, f.trestle, f.dir, "--snapshots", f.snapshots.String())
	if err != nil {
		return err
	}
	polls := int(f.duration / pollEvery)
	start := time.Now().Add(time.Second).Truncate(time.Second)
	out := filepath.Join(f.dir, "out", "lines")
	pidFile := filepath.Join(f.dir, "out", "pid")
	began := time.Now()
	ended := make(chan error, 1)
	limit, stop := context.WithTimeoutCause(ctx, f.duration+grace, fmt.Errorf("the pipeline had not ended %v after its last poll was due", grace))
	defer stop()
	go func() {
		ended <- proc.Run{
			// The shell says which process the worker, which is the program's own, will be.
			Argv: []string{"/bin/sh", "-c", `echo $$ >"$0"; exec "$@"`, pidFile,
				filepath.Join(f.python, "bin", "python"), filepath.Join(f.source, "python", "poll.py"),
				"--polls", strconv.Itoa(polls), "--every", fmt.Sprint(pollEvery.Seconds()), "--keys", strconv.Itoa(pollKeys),
				"--window", strconv.Itoa(pollWindow), "--start", strconv.FormatInt(start.Unix(), 10), "--out", out,
				"--runner=PortableRunner", "--job_endpoint=" + s.Endpoint, "--environment_type=LOOPBACK"},
			Log: filepath.Join(f.dir, "log", "poll.log"),
		}.Do(limit)
	}()
	every := min(10*time.Second, max(time.Second, f.duration/60))
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var samples []sample
	fmt.Println("   min  server MB  worker MB  snapshot KB  files  data KB")
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-ticker.C:
			one := f.sample(s, pidFile)
			one.at = time.Since(began)
			samples = append(samples, one)
			if len(samples)%max(1, int(time.Minute/every)) == 0 {
				fmt.Println(one)
			}
		}
	}
	if f.results != "" {
		err = errors.Join(err, f.writeSamples(samples, began))
	}
	if err = errors.Join(err, s.Stop()); err != nil {
		return err
	}
	return errors.Join(checkPolls(out, start.Unix(), polls, false), flat(samples))
}

func (s sample) String() string {
	return fmt.Sprintf("%6.1f %10.1f %10.1f %12.1f %6d %8.1f", s.at.Minutes(), s.server, s.worker, float64(s.snapshots)/1e3, s.files, float64(s.data)/1e3)
}

// sample measures. What cannot be read, because it has just ended or not begun, is 0.
func (f *flags) sample(s *proc.Server, pidFile string) sample {
	var one sample
	one.server = resident(strconv.Itoa(s.PID()))
	if pid, err := os.ReadFile(pidFile); err == nil {
		one.worker = resident(strings.TrimSpace(string(pid)))
	}
	one.data, _ = folder(s.Data)
	one.snapshots, one.files = folder(filepath.Join(s.Data, "snapshots"))
	return one
}

// folder is how much is in a folder whose files come and go. A file that has several names, as those of a snapshot do
// that the running job has too, counts with each.
func folder(path string) (bytes, files int64) {
	//nolint:errcheck // a file that goes while it is looked at is not there
	filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
			files++
		}
		return nil
	})
	return bytes, files
}

// resident is the resident set of a process in MB, or 0 when there is none.
func resident(pid string) float64 {
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
			return kb * 1024 / 1e6
		}
	}
	return 0
}

// flat says what has grown: the median of the last third of the samples against that of the middle third, since in the
// first the processes get to work.
func flat(samples []sample) error {
	if len(samples) < 9 {
		return fmt.Errorf("only %d samples", len(samples))
	}
	third := len(samples) / 3
	var errs []error
	for _, of := range []struct {
		what  string
		value func(sample) float64
		slack float64 // in the value's own unit, besides a tenth
	}{
		{"memory of the server in MB", func(s sample) float64 { return s.server }, 8},
		{"memory of the worker in MB", func(s sample) float64 { return s.worker }, 8},
		{"snapshots in KB", func(s sample) float64 { return float64(s.snapshots) / 1e3 }, 64},
		{"files of snapshots", func(s sample) float64 { return float64(s.files) }, 16},
	} {
		middle, last := median(samples[third:2*third], of.value), median(samples[2*third:], of.value)
		fmt.Printf("%s: %.1f in the middle third, %.1f in the last\n", of.what, middle, last)
		if middle == 0 {
			errs = append(errs, fmt.Errorf("%s was not measured", of.what))
		}
		if last > middle*1.1+of.slack {
			errs = append(errs, fmt.Errorf("%s grew from %.1f to %.1f", of.what, middle, last))
		}
	}
	return errors.Join(errs...)
}

func median(samples []sample, value func(sample) float64) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, value(s))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// checkPolls compares the lines that the pipeline wrote with what its polls must have given. again says that a line may be
// there more than once.
func checkPolls(path string, start int64, polls int, again bool) error {
	want := map[string]int{}
	for poll := range polls {
		due := start*10 + int64(poll) // in tenths of a second
		window := due / 10 / pollWindow * pollWindow
		for i := range pollKeys {
			key := fmt.Sprintf("k%02d", (poll*pollKeys+i)%allKeys)
			want[fmt.Sprintf("window %s %d", key, window)]++
			want["total "+key]++
		}
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	got := map[string]int{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		cut := strings.LastIndexByte(lines.Text(), ' ')
		if cut < 0 {
			return fmt.Errorf("%s has a line %q", path, lines.Text())
		}
		n, err := strconv.Atoi(lines.Text()[cut+1:])
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if before, ok := got[lines.Text()[:cut]]; ok && (!again || before != n) {
			return fmt.Errorf("%s: %q is there twice, with %d and with %d", path, lines.Text()[:cut], before, n)
		}
		got[lines.Text()[:cut]] = n
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return compare("polls", got, want)
}

// compare says where two counts differ.
func compare(what string, got, want map[string]int) error {
	var wrong []string
	for key, n := range want {
		if got[key] != n {
			wrong = append(wrong, fmt.Sprintf("%s: %d, want %d", key, got[key], n))
		}
	}
	for key, n := range got {
		if _, ok := want[key]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s: %d, want none", key, n))
		}
	}
	if len(wrong) == 0 {
		fmt.Printf("%s: all %d counts are exact\n", what, len(want))
		return nil
	}
	slices.Sort(wrong)
	const shown = 10
	return fmt.Errorf("%s: %d counts of %d are wrong:\n    %s", what, len(wrong), len(want), strings.Join(wrong[:min(shown, len(wrong))], "\n    "))
}

// writeSamples writes the samples as a table for a spreadsheet.
func (f *flags) writeSamples(samples []sample, began time.Time) error {
	var b strings.Builder
	b.WriteString("seconds,server_mb,worker_mb,snapshot_bytes,snapshot_files,data_bytes\n")
	for _, s := range samples {
		fmt.Fprintf(&b, "%.0f,%.1f,%.1f,%d,%d,%d\n", s.at.Seconds(), s.server, s.worker, s.snapshots, s.files, s.data)
	}
	if err := os.MkdirAll(f.results, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(f.results, began.UTC().Format("2006-01-02-150405")+"-poll.csv"), []byte(b.String()), 0o644)
}
