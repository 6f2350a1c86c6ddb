package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"trestle/test/cluster"
)

// visit is a call of `trestle doctor` on the job server's host, with what it is to say: each of says is the begin of a line, up to a
// blank, and what is to be in that line.
type visit struct {
	name string
	// argv are options beside those that name the cluster.
	argv []string
	// cut is a host that the TaskManagers' cannot reach; there is none when it is "".
	cut string
	// fails is set where something is missing that every job needs.
	fails bool
	says  []line
}

// line is one that a doctor is to say: its mark, the host that it is of, and parts of its text.
type line struct {
	mark, host string
	parts      []string
}

// onEach is a line of each TaskManager's host, in which HOST stands for its name.
func onEach(mark string, parts ...string) (lines []line) {
	for _, host := range taskManagers {
		one := line{mark: mark, host: host}
		for _, part := range parts {
			one.parts = append(one.parts, strings.ReplaceAll(part, "HOST", host))
		}
		lines = append(lines, one)
	}
	return lines
}

// healthy is a visit to a cluster on which jobs run, with artifacts in a store.
func (r *rig) healthy() visit {
	staging := r.s3.URL("staging") + "?endpoint=" + r.s3.Endpoint()
	says := []line{
		{"ok", jobServer, []string{"staging store " + r.s3.URL("staging"), "tried from host jobserver to write, read back and delete a small object: it works"}},
		{"ok", jobServer, []string{"Flink at " + r.flink.URL(), "which trestle-flink-", "2 TaskManagers with 4 slots, 4 of them free"}},
	}
	says = append(says, onEach("ok", "worker: trestle ", "runs here (linux/")...)
	says = append(says, onEach("ok", "disk: ", "free in /tmp/flink/tmp on host HOST")...)
	says = append(says, onEach("ok", "staging store "+r.s3.URL("staging"), "tried from host HOST to read what the job server wrote there: it works")...)
	return visit{name: "doctor", argv: []string{"--staging", staging}, says: says}
}

// visits are to clusters on which something is wrong.
func (r *rig) visits() []visit {
	h := r.cluster.Host(jobServer)
	staging := r.s3.URL("staging") + "?endpoint=" + r.s3.Endpoint()
	back := []string{"--listen", fmt.Sprintf("%v:8098", h.IP), "--advertise", h.Address() + ":8098"}
	return []visit{
		{name: "doctor-no-flink", fails: true, argv: []string{"--flink", "http://jobmanager:9", "--staging", staging}, says: []line{
			{"FAIL", jobServer, []string{"the Flink at http://jobmanager:9 cannot be reached from jobserver", "refused", "--flink"}},
		}},
		{name: "doctor-way-back", argv: back, says: onEach("ok", "job server "+h.Address()+":8098", "tried from host HOST to connect, and ask it for some: it works")},
		{name: "doctor-no-way-back", fails: true, cut: jobServer, argv: back,
			says: onEach("FAIL", "job server "+h.Address()+":8098", "tried from host HOST to connect", "no route to host", "--advertise", "--staging")},
		{name: "doctor-no-way-to-the-store", fails: true, cut: storageHost, argv: []string{"--staging", staging},
			says: onEach("FAIL", "staging store "+r.s3.URL("staging"), "tried from host HOST to read", "no route to host", "check that the store is up")},
		{name: "doctor-no-store", fails: true, argv: []string{"--staging", "s3://nowhere/staging?endpoint=" + r.s3.Endpoint()}, says: append(
			onEach("FAIL", "staging store s3://nowhere/staging", "tried from host HOST to open it", "there is no such bucket; create it"),
			line{"FAIL", jobServer, []string{"staging store s3://nowhere/staging", "tried from host jobserver to write", "there is no such bucket; create it"}})},
		{name: "doctor-no-container-engine", argv: []string{"--staging", staging, "--container-engine", "podman-of-nowhere"},
			says: onEach("note", "container engine", "podman-of-nowhere", "on host HOST", "(needed for docker environments only)")},
	}
}

// visit calls the doctor, and looks at what it says. A visit leaves nothing.
func (r *rig) visit(ctx context.Context, v visit) (one result) {
	one.cell = of("go", v.name, onS3, onS3)
	one.mark = v.name
	ctx, cancel := context.WithTimeoutCause(ctx, cellTimeout, fmt.Errorf("it took longer than %v", cellTimeout))
	defer cancel()
	before, err := r.look(ctx)
	if err != nil {
		one.err = err
		return one
	}
	if v.cut != "" {
		if one.err = r.cut(ctx, "add", v.cut); one.err != nil {
			return one
		}
		defer func() { one.err = errors.Join(one.err, r.cut(context.WithoutCancel(ctx), "del", v.cut)) }()
	}
	h := r.cluster.Host(jobServer)
	argv := append([]string{r.trestle, "doctor", "--engine", "flink", "--flink", r.flink.URL(), "--data", filepath.Join(h.Dir(), "trestle-doctor")}, v.argv...)
	start := time.Now()
	said, failure := h.Run(ctx, cluster.Command{Name: v.name, Argv: argv, Env: r.s3.Env()})
	one.took = time.Since(start)
	if ctx.Err() != nil {
		one.err = failure
		return one
	}
	if (failure != nil) != v.fails {
		one.err = fmt.Errorf("it ended with %w, and said:\n%s", failure, said)
	}
	for _, want := range v.says {
		if !want.in(said) {
			one.err = errors.Join(one.err, fmt.Errorf("no line is %+v in what it said:\n%s", want, said))
		}
	}
	one.err = errors.Join(one.err, r.nothingLeft(ctx, before))
	return one
}

// in tells whether a line is among those that were said.
func (l line) in(said string) bool {
	for text := range strings.Lines(said) {
		words := strings.Fields(text)
		if len(words) < 2 || words[0] != l.mark || words[1] != l.host {
			continue
		}
		all := true
		for _, part := range l.parts {
			all = all && strings.Contains(text, part)
		}
		if all {
			return true
		}
	}
	return false
}
