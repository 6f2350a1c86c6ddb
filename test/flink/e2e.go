package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"trestle/test/cluster"
	"trestle/test/cluster/flink"
	"trestle/test/cluster/storage"
	"trestle/test/wordcount/example"
)

// cellTimeout is how long one program may take, on a machine that has other things to do.
const cellTimeout = 4 * time.Minute

// result is what became of a cell.
type result struct {
	cell
	version string
	got     example.Counts
	took    time.Duration
	work    map[string]flink.Work
	err     error
}

// e2e runs the matrix on each version of Flink, and prints what became of each cell; false when one failed.
func (f *flags) e2e(ctx context.Context) (ok bool, err error) {
	if err := f.absolute(); err != nil {
		return false, err
	}
	var results []result
	homes := filepath.SplitList(f.flinks)
	if f.quick {
		homes = homes[:1]
	}
	for i, home := range homes {
		var cells []cell
		for _, c := range matrix(i, f.quick) {
			if f.wants(c.name()) {
				cells = append(cells, c)
			}
		}
		if len(cells) == 0 {
			continue
		}
		version := strings.TrimPrefix(filepath.Base(home), "flink-")
		found, err := f.onVersion(ctx, home, version, cells)
		results = append(results, found...)
		if err != nil {
			report(results)
			return false, fmt.Errorf("on Flink %s: %w", version, err)
		}
	}
	return report(results), nil
}

// onVersion runs cells on a cluster of one version of Flink. An error is of the cluster; those of cells are in the results.
func (f *flags) onVersion(ctx context.Context, home, version string, cells []cell) (results []result, err error) {
	start := time.Now()
	c, err := cluster.Start(ctx, f.clusterOptions(version))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if c.Plain != "" {
		fmt.Printf("The hosts are plain (%s): this proves less than isolated ones would.\n", c.Plain)
	}
	r, err := newRig(ctx, f.programs, c, home, cells)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, c.Tails())
	}
	fmt.Printf("Flink %s: a cluster is up after %.0f s\n", version, time.Since(start).Seconds())
	if well := told(version, "doctor", func() result { return r.visit(ctx, r.healthy()) }); well.err != nil {
		return []result{well}, fmt.Errorf("the doctor does not find the cluster well: %w", well.err)
	}
	before, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	for len(cells) > 0 {
		staging := cells[0].staging
		n := 1
		for n < len(cells) && cells[n].staging == staging {
			n++
		}
		s, err := r.serve(ctx, staging, staging)
		if err != nil {
			return results, err
		}
		for _, c := range cells[:n] {
			fmt.Printf("Flink %s: %s …\n", version, c.name())
			one := r.runCell(ctx, c, s, before)
			one.version = version
			results = append(results, one)
			if one.err != nil {
				fmt.Printf("Flink %s: %s failed after %.1f s: %v\n", version, c.name(), one.took.Seconds(), one.err)
			}
			if ctx.Err() != nil {
				return results, context.Cause(ctx)
			}
		}
		cells = cells[n:]
		running := s.Running()
		if err := errors.Join(s.Stop(), s.Err()); err != nil || !running {
			return results, fmt.Errorf("the job server ended on its own, or not well (%w); its log is %s", err, s.Log)
		}
	}
	return results, idle(results)
}

// clusterOptions are those of a cluster in a folder of its own.
func (f *flags) clusterOptions(name string) cluster.Options {
	return cluster.Options{Dir: filepath.Join(f.dir, name), Plain: f.plain, Software: filepath.SplitList(f.software),
		Hosts: append([]string{jobServer, jobManager, storageHost}, taskManagers...)}
}

// runCell runs one program, and looks at what it wrote, where its work was done and what is left of it.
func (r *rig) runCell(ctx context.Context, c cell, s *server, before belongings) (one result) {
	one.cell = c
	command, words, err := r.command(c, s.endpoint)
	if err != nil {
		one.err = err
		return one
	}
	known, err := r.flink.Jobs(ctx)
	if err != nil {
		one.err = err
		return one
	}
	limited, cancel := context.WithTimeoutCause(ctx, cellTimeout, fmt.Errorf("it took longer than %v", cellTimeout))
	defer cancel()
	start := time.Now()
	_, err = r.cluster.Host(jobServer).Run(limited, command)
	one.took = time.Since(start)
	if err != nil {
		one.err = errors.Join(err, r.why(ctx, known), r.cancelled(ctx, known), r.nothingLeft(ctx, before))
		return one
	}
	one.got, err = r.exact(ctx, c, words)
	one.err = err
	if one.work, err = r.work(ctx, known); err != nil {
		one.err = errors.Join(one.err, err)
	}
	one.err = errors.Join(one.err, r.nothingLeft(ctx, before))
	return one
}

// counts reads what the cell's program wrote.
func (r *rig) counts(ctx context.Context, c cell) (example.Counts, error) {
	local := filepath.Join(r.cluster.Dir(), "out", c.name())
	if err := os.RemoveAll(local); err != nil {
		return nil, err
	}
	if err := storage.Fetch(ctx, r.store(c), c.output(), local); err != nil {
		return nil, err
	}
	return example.ReadOutput(filepath.Join(local, "counts"))
}

// exact is what a cell's job has written, and an error when a count without Beam, of what the SDK takes for words, finds
// other than that.
func (r *rig) exact(ctx context.Context, c cell, words func(line string) []string) (example.Counts, error) {
	got, err := r.counts(ctx, c)
	if err != nil {
		return nil, err
	}
	want, err := example.CountFile(r.text, words)
	if err != nil {
		return got, err
	}
	if diff := example.Difference(got, want); diff != "" {
		return got, errors.New("not what a count without Beam finds: " + diff)
	}
	return got, nil
}

// work is what Flink did since a list of its jobs was made, by host.
func (r *rig) work(ctx context.Context, known []flink.Job) (map[string]flink.Work, error) {
	fresh, err := r.fresh(ctx, known)
	if err != nil {
		return nil, err
	}
	if len(fresh) != 1 {
		return nil, fmt.Errorf("the program made %d jobs in Flink, not 1: %v", len(fresh), fresh)
	}
	if fresh[0].State != "FINISHED" {
		return nil, fmt.Errorf("the program ended well, and its job in Flink is %s", fresh[0].State)
	}
	return r.flink.WorkByHost(ctx, fresh[0].ID)
}

// idle is an error when a TaskManager did nothing of all that was done. Of one job it may: where tasks end within milliseconds, Flink
// gives the slot of one to the next before it has another.
func idle(results []result) error {
	for _, name := range taskManagers {
		all := int64(0)
		for _, one := range results {
			all += one.work[name].Records
		}
		if all == 0 && len(results) > 0 {
			return fmt.Errorf("the TaskManager on %s did nothing, of %d jobs", name, len(results))
		}
	}
	return nil
}

// fresh are the jobs that are not among those known.
func (r *rig) fresh(ctx context.Context, known []flink.Job) ([]flink.Job, error) {
	all, err := r.flink.Jobs(ctx)
	var fresh []flink.Job
	for _, j := range all {
		isKnown := false
		for _, k := range known {
			isKnown = isKnown || k.ID == j.ID
		}
		if !isKnown {
			fresh = append(fresh, j)
		}
	}
	return fresh, err
}

// why says what Flink knows of the jobs that came since a list was made.
func (r *rig) why(ctx context.Context, known []flink.Job) error {
	fresh, err := r.fresh(ctx, known)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, j := range fresh {
		failure, err := r.flink.Failure(ctx, j.ID)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "Flink's job %s is %s\n", j.ID, j.State)
		for line := range strings.Lines(failure) {
			if !strings.HasPrefix(line, "\t") { // the frames say little
				fmt.Fprintf(&b, "    %s", line)
			}
		}
	}
	if len(fresh) == 0 {
		b.WriteString("Flink got no job")
	}
	return errors.New(strings.TrimSpace(b.String()))
}

// report prints the results, and says whether all are well.
func report(results []result) bool {
	failed := 0
	fmt.Println()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "Flink\tSDK\tenvironment\tartifacts\tdata\twords\tdistinct\tby letters\tseconds\trecords in Flink by host\tthe count without Beam")
	for _, r := range results {
		verdict := "equal"
		if r.err != nil {
			failed++
			verdict = "FAILED"
		}
		var work []string
		for _, name := range taskManagers {
			work = append(work, fmt.Sprint(r.work[name].Records))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%.1f\t%s\t%s\n", r.version, r.sdk, r.environment, r.staging, r.data,
			r.got.Total(), len(r.got), len(r.got.ByLetters()), r.took.Seconds(), strings.Join(work, " + "), verdict)
	}
	table.Flush()
	fmt.Printf("\n%d passed, %d failed\n", len(results)-failed, failed)
	return failed == 0 && len(results) > 0
}
