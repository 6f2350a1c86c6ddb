package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// ticks is how many clock ticks /proc counts a second; Linux has had no other number for decades.
const ticks = 100

// cpu are CPU seconds, user and system, of a process and of those of its children that have ended and were waited for.
type cpu struct{ own, children float64 }

// cpuOf reads /proc/PID/stat, proc(5).
func cpuOf(pid int) (cpu, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return cpu{}, err
	}
	return parseStat(string(text))
}

func parseStat(text string) (cpu, error) {
	// The second field is the command in parentheses, which may hold anything.
	_, rest, ok := cutLast(text, ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return cpu{}, fmt.Errorf("not a stat file: %q", text)
	}
	var t [4]float64
	for i := range t {
		var err error
		if t[i], err = strconv.ParseFloat(fields[11+i], 64); err != nil {
			return cpu{}, fmt.Errorf("stat file: field %d: %w", 14+i, err)
		}
	}
	return cpu{own: (t[0] + t[1]) / ticks, children: (t[2] + t[3]) / ticks}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// busy is how many CPU seconds the whole machine has worked since it started, from /proc/stat.
func busy() (float64, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var sum float64
	for i, field := range fields[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i != 3 && i != 4 {
			sum += n
		}
	}
	return sum / ticks, nil
}

// memory reads a line of /proc/PID/status in MB: VmHWM, the peak of the resident set, or VmRSS.
func memory(pid int, line string) (float64, error) {
	return kilobytes(fmt.Sprintf("/proc/%d/status", pid), line)
}

func kilobytes(path, name string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(line, []byte(name+":"))
		if !ok {
			continue
		}
		fields := strings.Fields(string(rest))
		if len(fields) != 2 {
			break
		}
		n, err := strconv.ParseFloat(fields[0], 64)
		return n * 1024 / 1e6, err
	}
	return 0, fmt.Errorf("%s has no line %s", path, name)
}

// machine is what a result depends on besides its case.
type machine struct {
	Trestle string  `json:"trestle"`
	Beam    string  `json:"beam"`
	Go      string  `json:"go"`
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Memory  float64 `json:"memory_mb"`
	Label   string  `json:"label,omitempty"`
}

func describeMachine() (machine, error) {
	m := machine{Go: runtime.Version(), Cores: runtime.NumCPU()}
	var err error
	if m.Memory, err = kilobytes("/proc/meminfo", "MemTotal"); err != nil {
		return m, err
	}
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m, nil
}

// version is what a binary says of itself.
func version(binary string) string {
	out, err := exec.Command(binary, "--version").Output()
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(out))
	if len(fields) == 0 {
		return "unknown"
	}
	return fields[len(fields)-1]
}
