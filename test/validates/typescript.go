package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"trestle/test/process"
)

// typescript is Beam's TypeScript SDK: its suite of primitives, through its portable runner. The program that runs it is
// in typescript/.
type typescript struct{ at place }

func (s typescript) run(ctx context.Context, j job) ([]result, error) {
	file := filepath.Join(j.dir, "results.json")
	run := process.Run{
		Argv: []string{"node", s.at.file("typescript", "suite.js"), s.at.typescript, j.endpoint, strconv.Itoa(int(j.timeout.Seconds())), file, j.only},
		Dir:  j.dir, Log: filepath.Join(j.dir, "node.log"),
	}
	if err := run.Do(ctx); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []struct {
		Test   string
		Error  string
		Millis int
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var results []result
	for _, one := range all {
		r := result{test: one.Test, outcome: passed, why: one.Error, took: time.Duration(one.Millis) * time.Millisecond}
		if one.Error != "" {
			r.outcome = failed
		}
		results = append(results, r)
	}
	return sorted(results)
}
