package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// result is one run. Seconds of CPU are of user and system together; MB are 10^6 bytes.
type result struct {
	Date  string `json:"date"`
	Size  string `json:"size"`
	Case  string `json:"case"`
	Peer  string `json:"peer"`
	Round int    `json:"round"`
	Error string `json:"error,omitempty"`
	// timedOut says that the error is the time-out's.
	timedOut bool

	Records int64 `json:"records,omitempty"`
	Words   int64 `json:"words,omitempty"` // different ones, that a WordCount found

	WallSeconds  float64 `json:"wall_s"`          // of the client's process
	RunSeconds   float64 `json:"run_s,omitempty"` // from the submission to the job's end, where the client says
	ClientCPU    float64 `json:"client_cpu_s"`    // with LOOPBACK it is the worker too
	ServerCPU    float64 `json:"server_cpu_s"`
	WorkersCPU   float64 `json:"workers_cpu_s"` // of the processes that the server started; on Flink, of those that the TaskManagers started
	OthersCPU    float64 `json:"others_cpu_s"`  // of the rest of the machine, meanwhile
	ServerPeakMB float64 `json:"server_peak_mb"`
	ServerIdleMB float64 `json:"server_idle_mb"`
	UpSeconds    float64 `json:"up_s"` // from the server's start until it takes connections
	Load         float64 `json:"load"` // average over the minute before

	// On Flink only. Memory is the sum of each process's own peak.
	RunningSeconds     float64 `json:"running_s,omitempty"` // from Run until a task runs, as Flink tells
	JobManagerCPU      float64 `json:"jobmanager_cpu_s,omitempty"`
	TaskManagersCPU    float64 `json:"taskmanagers_cpu_s,omitempty"`
	TaskManagersPeakMB float64 `json:"taskmanagers_peak_mb,omitempty"`
	WorkersPeakMB      float64 `json:"workers_peak_mb,omitempty"`

	// Latency is of the cases that measure it.
	Latency *latency `json:"latency,omitempty"`

	machine
}

// latency is how long results were on their way, in milliseconds, as the pipeline has measured it.
type latency struct {
	Results int     `json:"results"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

func (r result) write(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// line tells a person of one run.
func (r result) line() string {
	if r.Error != "" {
		return fmt.Sprintf("%-18s %-16s %d  failed: %s", r.Case, r.Peer, r.Round+1, r.Error)
	}
	if r.onFlink() {
		return fmt.Sprintf("%-18s %-16s %d  wall %7.2f s  running after %5.2f s  client %6.2f, TaskManagers %6.2f, workers %6.2f s CPU, %5.0f + %4.0f MB peak  (others %.1f s)",
			r.Case, r.Peer, r.Round+1, r.WallSeconds, r.RunningSeconds, r.ClientCPU, r.TaskManagersCPU, r.WorkersCPU, r.TaskManagersPeakMB, r.WorkersPeakMB, r.OthersCPU)
	}
	told := ""
	if l := r.Latency; l != nil {
		told = fmt.Sprintf("  latency p50 %.1f, p99 %.1f, max %.1f ms", l.P50, l.P99, l.Max)
	}
	return fmt.Sprintf("%-18s %-16s %d  wall %7.2f s  client %7.2f s  server %7.2f s CPU, %6.0f MB peak  (others %.1f s)%s",
		r.Case, r.Peer, r.Round+1, r.WallSeconds, r.ClientCPU, r.ServerCPU, r.ServerPeakMB, r.OthersCPU, told)
}

func readResults(paths []string) (all []result, err error) {
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		lines := json.NewDecoder(file)
		for {
			var r result
			err := lines.Decode(&r)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, errors.Join(err, file.Close()))
			}
			all = append(all, r)
		}
		file.Close()
	}
	return all, nil
}

// column is one of the table's numbers: the median of a number of each run.
type column struct {
	title string
	of    func(result) float64
	form  func(float64) string
}

var (
	serverColumns = []column{
		{"server CPU s", func(r result) float64 { return r.ServerCPU }, short},
		{"server CPU µs/record", func(r result) float64 { return r.perRecord(r.ServerCPU) }, hundredths},
		{"server peak MB", func(r result) float64 { return r.ServerPeakMB }, whole},
	}
	flinkColumns = []column{
		{"to RUNNING s", func(r result) float64 { return r.RunningSeconds }, short},
		{"TaskManager CPU s", func(r result) float64 { return r.TaskManagersCPU }, short},
		{"µs/record", func(r result) float64 { return r.perRecord(r.TaskManagersCPU) }, hundredths},
		{"worker CPU s", func(r result) float64 { return r.WorkersCPU }, short},
		{"server, JobManager CPU s", func(r result) float64 { return r.ServerCPU + r.JobManagerCPU }, short},
		{"TaskManager peak MB", func(r result) float64 { return r.TaskManagersPeakMB }, whole},
		{"worker peak MB", func(r result) float64 { return r.WorkersPeakMB }, whole},
	}
)

func columnsOf(results []result) []column {
	if slices.ContainsFunc(results, result.onFlink) {
		return flinkColumns
	}
	return serverColumns
}

// onFlink says whether a run was on a Flink cluster. One that failed may not say.
func (r result) onFlink() bool { return r.TaskManagersPeakMB > 0 }

// harnessCPU is the SDK's: of the client, and of the workers' processes where the server starts these.
func (r result) harnessCPU() float64 {
	if r.onFlink() {
		return r.ClientCPU // always LOOPBACK; the other processes are Trestle's
	}
	return r.ClientCPU + r.WorkersCPU
}

// perRecord are microseconds; 0 where records are not counted.
func (r result) perRecord(seconds float64) float64 {
	if r.Records == 0 {
		return 0
	}
	return seconds / float64(r.Records) * 1e6
}

// table sums results up as Markdown: medians, and how many times as long as trestle a peer took, the median over pairs of
// one round.
func table(results []result) string {
	type key struct{ name, peer string }
	var order []key
	runs := map[key][]result{}
	for _, r := range results {
		k := key{r.Case, r.Peer}
		if runs[k] == nil {
			order = append(order, k)
		}
		runs[k] = append(runs[k], r)
	}
	columns := columnsOf(results)
	var b strings.Builder
	b.WriteString("| case | peer | runs | wall s, median (best) | × trestle | client CPU s |")
	for _, c := range columns {
		b.WriteString(" " + c.title + " |")
	}
	b.WriteString("\n" + strings.Repeat("|---", 6+len(columns)) + "|\n")
	for _, k := range order {
		good := slices.DeleteFunc(slices.Clone(runs[k]), func(r result) bool { return r.Error != "" })
		if len(good) == 0 {
			fmt.Fprintf(&b, "| %s | %s | 0 of %d | failed: %s |\n", k.name, k.peer, len(runs[k]), runs[k][0].Error)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %s (%s) |", k.name, k.peer, len(good),
			short(median(good, result.seconds)), short(slices.MinFunc(good, func(a, b result) int { return cmp.Compare(a.seconds(), b.seconds()) }).seconds()))
		if times := ratios(good, runs[key{k.name, trestle}]); k.peer != trestle && len(times) > 0 {
			fmt.Fprintf(&b, " %s |", short(middle(times)))
		} else {
			b.WriteString(" |")
		}
		fmt.Fprintf(&b, " %s |", short(median(good, result.harnessCPU)))
		for _, c := range columns {
			if x := median(good, c.of); x != 0 { // what the peer has not has used nothing
				b.WriteString(" " + c.form(x))
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// seconds are those that count: without the start of the client, where it says.
func (r result) seconds() float64 { return cmp.Or(r.RunSeconds, r.WallSeconds) }

// ratios divide each run's time by that of ours in the same round of the same invocation.
func ratios(theirs, ours []result) (times []float64) {
	for _, t := range theirs {
		for _, o := range ours {
			if o.Round == t.Round && o.Label == t.Label && o.Trestle == t.Trestle && o.Error == "" && o.seconds() > 0 {
				times = append(times, t.seconds()/o.seconds())
				break
			}
		}
	}
	return times
}

func median(results []result, of func(result) float64) float64 {
	numbers := make([]float64, len(results))
	for i, r := range results {
		numbers[i] = of(r)
	}
	return middle(numbers)
}

func middle(numbers []float64) float64 {
	slices.Sort(numbers)
	n := len(numbers)
	return (numbers[(n-1)/2] + numbers[n/2]) / 2
}

func hundredths(x float64) string { return fmt.Sprintf("%.2f", x) }

func whole(x float64) string { return fmt.Sprintf("%.0f", x) }

// short is a number with as many digits as mean something.
func short(x float64) string {
	switch {
	case x < 1:
		return fmt.Sprintf("%.3f", x)
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	default:
		return fmt.Sprintf("%.1f", x)
	}
}
