package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trestle/test/process"
)

// python is Beam's Python SDK. The wheel ships the SDK's test modules, but neither the pytest.ini nor the conftest.py
// that they need: python/ has ours.
type python struct {
	at place
	// portable is set for the suite that Beam's runners subclass; otherwise the tests marked it_validatesrunner are run,
	// as any pipeline with the portable runner's options.
	portable bool
}

// pythonProcesses is the number of tests at a time: half of a test is the start of its pipeline, on one core.
const pythonProcesses = 2

// warned is a test that no runner can pass with workers in processes of their own: it waits, in its own, for a warning that the worker gives
// (InefficientExecutionWarning in apache_beam/runners/worker/operations.py).
const warned = "test_batch_rebatch_pardos"

func (p python) run(ctx context.Context, j job) ([]result, error) {
	report := filepath.Join(j.dir, "junit.xml")
	interpreter := filepath.Join(p.at.python, "bin", "python")
	argv := []string{interpreter, "-m", "pytest",
		"-c", p.at.file("python", "pytest.ini"), "-p", "beam_options", "-p", "no:cacheprovider",
		"-n", fmt.Sprint(pythonProcesses), "--timeout", fmt.Sprint(int(j.timeout.Seconds())),
		"-q", "-rfEs", "--tb=short", "--junitxml", report}
	only := j.only
	if p.portable && j.environment == inProcess {
		only = strings.TrimPrefix("("+only+") and not "+warned, "() and ")
	}
	if only != "" {
		argv = append(argv, "-k", only)
	}
	env := []string{
		"PYTHONPATH=" + p.at.file("python"), "PYTHONDONTWRITEBYTECODE=1",
		// gRPC and fork do not agree, and some tests fork.
		"GRPC_ENABLE_FORK_SUPPORT=false",
	}
	if p.portable {
		argv = append(argv, "--rootdir", p.at.file("python"), p.at.file("python", "portable_runner_test.py"))
		env = append(env, "JOB_ENDPOINT="+j.endpoint, "MODE="+j.mode.name, "ENVIRONMENT_TYPE="+j.environment)
		if j.environment == inProcess {
			env = append(env, "ENVIRONMENT_CONFIG="+bootCommand("python"))
		}
	} else {
		packages, err := filepath.Glob(filepath.Join(p.at.python, "lib", "python3*", "site-packages", "apache_beam"))
		if err != nil || len(packages) != 1 {
			return nil, fmt.Errorf("there are %d folders of Beam's package in %s: %w", len(packages), p.at.python, err)
		}
		files, err := marked(packages[0])
		if err != nil {
			return nil, err
		}
		options := "--runner=PortableRunner --job_endpoint=" + j.endpoint + " --environment_type=" + j.environment
		if j.environment == inProcess {
			options += " --environment_config='" + bootCommand("python") + "'"
		}
		if j.mode.name == "streaming" {
			options += " --streaming --max_cache_memory_usage_mb=100" // 0, none, is the SDK's default
		}
		argv = append(argv, "--rootdir", filepath.Dir(packages[0]), "-m", "it_validatesrunner", "--test-pipeline-options="+options)
		argv = append(argv, files...)
	}
	err := process.Run{Argv: argv, Env: env, Dir: j.dir, Log: filepath.Join(j.dir, "pytest.log")}.Do(ctx)
	results, readErr := readJUnit(report, p.portable)
	if readErr != nil {
		return nil, errors.Join(readErr, err)
	}
	// Pytest's exit code says that a test failed, which the report says too; when none did, something else is wrong.
	if err != nil && !slices.ContainsFunc(results, func(r result) bool { return r.outcome == failed }) {
		return nil, err
	}
	return sorted(results)
}

// marked are the SDK's test modules in which the mark occurs. To collect all of its five hundred takes minutes, and
// packages that nothing else needs. The one below runners/dataflow wants Dataflow.
func marked(beam string) (files []string, err error) {
	err = filepath.WalkDir(beam, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "dataflow" {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(path, "_test.py") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), "mark.it_validatesrunner") {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

type junitReport struct {
	Cases []struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Seconds float64       `xml:"time,attr"`
		Bad     []junitDetail `xml:"failure"`
		Error   []junitDetail `xml:"error"`
		Skipped *junitDetail  `xml:"skipped"`
	} `xml:"testsuite>testcase"`
}

type junitDetail struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// readJUnit reads pytest's report. Tests are named by their methods when all are of one class.
func readJUnit(path string, oneClass bool) (results []result, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var report junitReport
	if err := xml.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, c := range report.Cases {
		r := result{test: c.Name, outcome: passed, took: time.Duration(c.Seconds * float64(time.Second))}
		if !oneClass {
			r.test = strings.TrimPrefix(c.Class, "apache_beam.") + "." + c.Name
		}
		if c.Skipped != nil {
			r.outcome, r.why = skipped, c.Skipped.Message
		}
		for _, bad := range append(c.Bad, c.Error...) {
			r.outcome = failed
			r.why += bad.Message + "\n" + bad.Text + "\n"
		}
		// A test whose tear-down fails too has two entries.
		if n := len(results); n > 0 && results[n-1].test == r.test && results[n-1].outcome == failed {
			results[n-1].why += r.why
			continue
		}
		results = append(results, r)
	}
	return results, nil
}
