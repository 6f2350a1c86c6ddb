package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"trestle/test/process"
)

// Environments of harnesses.
const (
	// loopback: the submitting program has them. They cannot be killed without the test: the server breaks their connections.
	loopback = "LOOPBACK"
	// inProcess: the server starts a process for each, which can be killed.
	inProcess = "PROCESS"
)

// disturbed are the suites whose harnesses outlive a broken connection: in TypeScript's the worker ends the whole program, the test
// with it, when its control stream breaks (worker.ts takes no note of the stream's errors).
var disturbed = []string{"go", "python-portable", "python-marked", "java"}

// inProcesses are the suites that can be run so: Java's would stage its class path, 70 MB a test, and TypeScript's client has no such
// environment.
var inProcesses = []string{"go", "python-portable", "python-marked"}

// fit leaves those suites that can be run in the environment.
func (f *flags) fit(all []chosen) ([]chosen, error) {
	if f.kills > 0 || f.restarts > 0 {
		all = slices.DeleteFunc(all, func(c chosen) bool { return !slices.Contains(disturbed, c.suite.name) })
		if len(all) == 0 {
			return nil, errors.New("no suite is left whose workers take a broken connection")
		}
	}
	switch f.environment {
	case loopback:
		return all, nil
	case inProcess:
	default:
		return nil, fmt.Errorf("-environment %q: must be %s or %s", f.environment, loopback, inProcess)
	}
	all = slices.DeleteFunc(all, func(c chosen) bool { return !slices.Contains(inProcesses, c.suite.name) })
	if len(all) == 0 {
		return nil, errors.New("no suite is left that has a process environment")
	}
	return all, nil
}

// snapshotEvery is how often streaming jobs take snapshots that begin again at random moments: often enough that most begin
// from one.
const snapshotEvery = 200 * time.Millisecond

// disturbances are the server's flags.
func (f *flags) disturbances() (flags []string) {
	if f.kills > 0 {
		flags = append(flags, "--trial-kills", f.kills.String())
	}
	if f.restarts > 0 {
		flags = append(flags, "--trial-restarts", f.restarts.String(), "--snapshots", snapshotEvery.String())
	}
	return flags
}

// serverEnv is what the server's environment has more for its harnesses: the SDK, and this program's own modules.
func (f *flags) serverEnv() []string {
	if f.environment == loopback {
		return nil
	}
	return []string{"PYTHONPATH=" + f.file("python"), "PATH=" + filepath.Join(f.python, "bin") + ":/usr/bin:/bin"}
}

// bootCommand is the configuration of a process environment whose harness the server's own binary starts.
func bootCommand(sdk string) string { return `{"command": "trestle boot ` + sdk + `"}` }

// What the server writes into a job's history when it kills a harness, and when it begins the job again.
var (
	killed     = []byte("is killed, as the server was asked to do now and then")
	beganAgain = []byte("the server was asked to begin jobs again now and then")
)

// count counts what has disturbed the jobs of a suite, in their histories, which the server keeps. It is an error when the
// server was asked for some and there was nothing: then the run shows nothing.
func (f *flags) count(v *verdict, server *process.Server) error {
	if f.kills == 0 && f.restarts == 0 {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(server.Data, "jobs", "*", "journal"))
	if err != nil {
		return err
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if info.ModTime().Before(v.began) {
			continue // an earlier suite's
		}
		history, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		v.kills += bytes.Count(history, killed)
		v.restarts += bytes.Count(history, beganAgain)
	}
	if f.kills > 0 && v.kills == 0 || f.restarts > 0 && v.restarts == 0 {
		return fmt.Errorf("%d harnesses were killed, and jobs began again %d times: the suite was not disturbed as it should have been", v.kills, v.restarts)
	}
	return nil
}
