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

	Records int64 `json:"records,omitempty"`
	Words   int64 `json:"words,omitempty"` // different ones, that a WordCount found

	WallSeconds  float64 `json:"wall_s"`          // of the client's process
	RunSeconds   float64 `json:"run_s,omitempty"` // from the submission to the job's end, where the client says
	ClientCPU    float64 `json:"client_cpu_s"`    // with LOOPBACK it is the worker too
	ServerCPU    float64 `json:"server_cpu_s"`
	WorkersCPU   float64 `json:"workers_cpu_s"` // of the processes that the server started
	OthersCPU    float64 `json:"others_cpu_s"`  // of the rest of the machine, meanwhile
	ServerPeakMB float64 `json:"server_peak_mb"`
	ServerIdleMB float64 `json:"server_idle_mb"`
	UpSeconds    float64 `json:"up_s"` // from the server's start until it takes connections
	Load         float64 `json:"load"` // average over the minute before

	machine
}

func (r result) write(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// line tells a person of one run.
func (r result) line() string {
	if r.Error != "" {
		return fmt.Sprintf("%-18s %-16s %d  failed: %s", r.Case, r.Peer, r.Round+1, r.Error)
	}
	return fmt.Sprintf("%-18s %-16s %d  wall %7.2f s  client %7.2f s  server %7.2f s CPU, %6.0f MB peak  (others %.1f s)",
		r.Case, r.Peer, r.Round+1, r.WallSeconds, r.ClientCPU, r.ServerCPU, r.ServerPeakMB, r.OthersCPU)
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
	var b strings.Builder
	b.WriteString("| case | peer | runs | wall s, median (best) | × trestle | client CPU s | server CPU s | server CPU µs/record | server peak MB |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|\n")
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
		fmt.Fprintf(&b, " %s |", short(median(good, func(r result) float64 { return r.ClientCPU + r.WorkersCPU })))
		if median(good, func(r result) float64 { return r.ServerPeakMB }) == 0 {
			b.WriteString(" | | |\n") // without a server
			continue
		}
		server := median(good, func(r result) float64 { return r.ServerCPU })
		fmt.Fprintf(&b, " %s |", short(server))
		if n := good[0].Records; n > 0 {
			fmt.Fprintf(&b, " %.2f |", server/float64(n)*1e6)
		} else {
			b.WriteString(" |")
		}
		fmt.Fprintf(&b, " %.0f |\n", median(good, func(r result) float64 { return r.ServerPeakMB }))
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
