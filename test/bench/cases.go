package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// The peers, by the names they have in results.
const (
	trestle        = "trestle"         // LOOPBACK: the worker is the client's process
	trestleProcess = "trestle-process" // PROCESS: the server starts a worker for each core
	prism          = "prism"           // Beam's Go runner, LOOPBACK
	sdk            = "sdk"             // no runner: the Go SDK's direct runner, in the client
	fnapi          = "fnapi"           // no server: the Python SDK's FnApiRunner, in the client
	beamFlink      = "beam-flink"      // Beam's own Flink runner, LOOPBACK
)

// What a case runs.
const (
	shaped          = "shaped" // ./test/bench/pipeline
	goWordCount     = "go-wordcount"
	pythonWordCount = "python-wordcount"
	pythonHotKey    = "python-hotkey"
)

// benchCase is a pipeline of one size.
type benchCase struct {
	name, kind string
	peers      []string
	// shape and its parameters, of a shaped case; hotkey has records and bytes too.
	shape         string
	records, keys int64
	bytes, shards int
	stream        bool
	rate          int64
	// repeat is how many times the client runs it, for the median: what a first job waits for, later ones do not.
	repeat int
	// textBytes is how long the text of a WordCount is.
	textBytes int64
	// options are the client's, besides those of every case.
	options []string
	// memory is the budget that trestle gets; empty for its default.
	memory string
}

// casesOf are the cases of a size, on a Flink cluster or without. Small ones find out whether the benchmark works; full ones are those of the targets;
// large ones add what takes minutes, and more memory than some peers can have.
func casesOf(size string, onFlink bool) ([]benchCase, error) {
	divide, minutes := int64(1), false
	switch size {
	case "small":
		divide = 50
	case "full":
	case "large":
		minutes = true
	default:
		return nil, fmt.Errorf("no size is called %q: there are small, full and large", size)
	}
	cases := localCases(minutes)
	if onFlink {
		cases = flinkCases(minutes)
	}
	for i := range cases {
		c := &cases[i]
		if c.kind == "" {
			c.kind = shaped
		}
		c.records, c.textBytes = c.records/divide, c.textBytes/divide
		c.keys, c.shards, c.repeat = max(c.keys, 1), max(c.shards, 1), max(c.repeat, 1)
		if c.bytes == 0 {
			c.bytes = 100
		}
	}
	return cases, nil
}

func localCases(minutes bool) []benchCase {
	both, withSDK := []string{trestle, prism}, []string{trestle, prism, sdk}
	cases := []benchCase{
		{name: "tiny", shape: "tiny", peers: both},
		{name: "tiny-again", shape: "tiny", repeat: 21, peers: both},
		{name: "floor-5m", shape: "floor", records: 5e6, peers: withSDK},
		{name: "chain-2m", shape: "chain", records: 2e6, peers: withSDK},
		{name: "gbk-1m", shape: "gbk", records: 1e6, keys: 1e5, peers: both},
		{name: "gbk-5m", shape: "gbk", records: 5e6, keys: 1e5, peers: both},
		{name: "gbk-5m-split", shape: "gbk", records: 5e6, keys: 1e5, shards: 16, peers: both},
		{name: "hotkey-1m", shape: "gbk", records: 1e6, keys: 1, peers: both},
		{name: "combine-5m", shape: "combine", records: 5e6, keys: 1e5, peers: both},
		{name: "side-5m", shape: "side", records: 5e6, peers: both},
		{name: "wordcount-go", kind: goWordCount, textBytes: 50e6, peers: both},
		{name: "wordcount-python", kind: pythonWordCount, textBytes: 50e6, peers: []string{trestleProcess, fnapi, trestle, prism}},
	}
	for _, name := range []string{"stateful", "sessions", "sliding", "timers"} {
		c := benchCase{name: name + "-1m", shape: name, records: 1e6, keys: 1e4, bytes: 20, peers: both}
		cases = append(cases, c)
		c.name, c.stream = c.name+"-stream", true
		cases = append(cases, c)
	}
	// The same records, over state that is a fifth of the budget, and twenty times it.
	for _, s := range []struct {
		size, memory string
		records      int64
		keys         int64
		large        bool
	}{
		{"10m", "50MiB", 12e4, 400, false}, {"1g", "50MiB", 12e4, 4e4, false},
		{"100m", "512MiB", 12e5, 4e3, true}, {"10g", "512MiB", 12e5, 4e5, true},
	} {
		if minutes || !s.large {
			cases = append(cases, benchCase{
				name: "state-" + s.size, shape: "wide", records: s.records, keys: s.keys, bytes: 25_000, stream: true, memory: s.memory, peers: []string{trestle},
			})
		}
	}
	// The first takes as long as it takes, which says what full load is; the others are at loads that it allows.
	for _, shape := range []string{"latency", "latency-count"} {
		for _, perSecond := range []int64{10e6, 10e3, 50e3, 200e3, 400e3} {
			cases = append(cases, benchCase{
				name: fmt.Sprintf("%s-%dk", shape, perSecond/1e3), shape: shape, records: min(20*perSecond, 2e6), keys: 1e3, bytes: 20, rate: perSecond,
				peers: both,
			})
		}
	}
	if minutes {
		cases = append(cases,
			benchCase{name: "gbk-50m", shape: "gbk", records: 50e6, keys: 1e6, memory: "256MiB", peers: []string{trestle}},
			benchCase{name: "hotkey-2g", shape: "gbk2", records: 20e6, keys: 1, memory: "256MiB", peers: []string{trestle}},
			benchCase{name: "hotkey-2g-python", kind: pythonHotKey, records: 200e3, bytes: 10_000, memory: "256MiB",
				peers: []string{trestleProcess}},
		)
	}
	return cases
}

// flinkCases run on a Flink cluster. Their sources are split, so that each slot works.
func flinkCases(minutes bool) []benchCase {
	both := []string{trestle, beamFlink}
	cases := []benchCase{
		{name: "flink-tiny", shape: "tiny", peers: both},
		{name: "flink-wordcount-1mb", kind: pythonWordCount, textBytes: 1e6, peers: both},
		{name: "flink-wordcount-50mb", kind: pythonWordCount, textBytes: 50e6, peers: both},
		// The SDK's LOOPBACK is one process, and Python's lock keeps it on one core; its experiment starts one for each harness.
		{name: "flink-wordcount-50mb-processes", kind: pythonWordCount, textBytes: 50e6, peers: both,
			options: []string{"--experiments=use_loopback_process_worker"}},
		{name: "flink-gbk-1m", shape: "gbk", records: 1e6, keys: 1e5, shards: 16, peers: both},
		{name: "flink-gbk-5m", shape: "gbk", records: 5e6, keys: 1e5, shards: 16, peers: both},
	}
	if minutes {
		cases = append(cases, benchCase{name: "flink-gbk-50m", shape: "gbk", records: 50e6, keys: 1e6, shards: 16, peers: both})
	}
	return cases
}

// place is where things are.
type place struct {
	trestle, prism, pipeline, wordcount string // binaries
	python                              string // virtual environment
	text, hotkey, dir, beam             string
	// flink is Flink's folder, beamFlink that of Beam's own runner on it; empty when nothing runs on Flink.
	flink, beamFlink string
}

// command is how a case is run on a peer, whose server, if it has one, is at endpoint. Output, if there is any, goes to
// files whose names begin with output.
func (at place) command(c benchCase, peer, endpoint, output string) (argv []string, err error) {
	switch c.kind {
	case shaped:
		argv = []string{at.pipeline, "-shape", c.shape, "-repeat", strconv.Itoa(c.repeat)}
		if c.records > 0 {
			argv = append(argv, "-records", strconv.FormatInt(c.records, 10), "-keys", strconv.FormatInt(c.keys, 10),
				"-bytes", strconv.Itoa(c.bytes), "-shards", strconv.Itoa(c.shards))
		}
		if c.rate > 0 {
			argv = append(argv, "-rate", strconv.FormatInt(c.rate, 10))
		}
		if c.stream {
			argv = append(argv, "-stream")
		}
		if peer == sdk {
			return append(argv, "-runner", "direct"), nil
		}
		if at.flink != "" {
			argv = append(argv, flinkParallelism)
		}
		return append(argv, "--endpoint="+endpoint, "--environment_type=LOOPBACK"), nil
	case goWordCount:
		text, err := at.repeated(c.textBytes)
		return []string{at.wordcount, "--input=" + text, "--output=" + output,
			"--runner=universal", "--endpoint=" + endpoint, "--environment_type=LOOPBACK"}, err
	case pythonWordCount:
		text, err := at.repeated(c.textBytes)
		if err != nil {
			return nil, err
		}
		argv = []string{at.interpreter(), "-m", "apache_beam.examples.wordcount", "--input", text, "--output", output}
	case pythonHotKey:
		argv = []string{at.interpreter(), at.hotkey, "--records", strconv.FormatInt(c.records, 10), "--bytes", strconv.Itoa(c.bytes)}
	default:
		return nil, fmt.Errorf("case %s is of no kind", c.name)
	}
	switch peer {
	case fnapi:
		return append(argv, "--runner=FnApiRunner"), nil
	case trestleProcess:
		// The interpreter that has the SDK is found by the PATH, as in an activated virtual environment.
		config, err := json.Marshal(map[string]any{"command": "trestle boot python",
			"env": map[string]string{"PATH": filepath.Dir(at.interpreter()) + ":" + os.Getenv("PATH")}})
		return append(argv, "--runner=PortableRunner", "--job_endpoint="+endpoint, "--environment_type=PROCESS",
			"--environment_config="+string(config)), err
	default:
		argv = append(argv, c.options...)
		if at.flink != "" {
			argv = append(argv, flinkParallelism)
		}
		return append(argv, "--runner=PortableRunner", "--job_endpoint="+endpoint, "--environment_type=LOOPBACK"), nil
	}
}

func (at place) interpreter() string { return filepath.Join(at.python, "bin", "python") }

// repeated is a file of so many bytes: the text, again and again.
func (at place) repeated(bytes int64) (path string, err error) {
	path = filepath.Join(at.dir, fmt.Sprintf("text-%d.txt", bytes))
	if info, err := os.Stat(path); err == nil && info.Size() == bytes {
		return path, nil
	}
	text, err := os.ReadFile(at.text)
	if err != nil {
		return "", err
	}
	if len(text) == 0 {
		return "", fmt.Errorf("%s is empty", at.text)
	}
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	for left := bytes; left > 0 && err == nil; left -= int64(len(text)) {
		_, err = file.Write(text[:min(left, int64(len(text)))])
	}
	return path, errors.Join(err, file.Close())
}
