package streaming

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/metric"
	"trestle/internal/beam/urn"
	"trestle/internal/stage"
)

// ErrRestore is what Open's error wraps when a job cannot go on from its snapshots, however often it is tried. They are as they
// were. Where the machine is at fault, with a full disk or one that does not let the snapshots be read, the error does not wrap it.
var ErrRestore = errors.New("the job cannot go on from its snapshots")

// restored finds what the job goes on from: the last snapshot, or the one before it if that is damaged and nothing that
// happened since has been told to the outside as done. A snapshot that is whole but not for this job or program is none to
// pass over: who wrote it can go on with it.
func (j *Job) restored(ctx context.Context) error {
	if j.cfg.Snapshots == "" {
		return nil
	}
	var err error
	if j.digest, err = j.cfg.Plan.Digest(); err != nil {
		return err
	}
	all, err := numbers(j.cfg.Snapshots)
	if err != nil {
		return err
	}
	last, err := readLast(j.cfg.Snapshots)
	if err != nil {
		return unrestored(err)
	}
	var damaged []error
	if len(all) == 0 || all[0] < last {
		all = append([]uint64{last}, all...) // read says that it is not there
	}
	if all[0] == 0 {
		return nil // none was ever taken
	}
	j.snapshot = all[0]
	for _, n := range all {
		m, err := j.read(ctx, n)
		if err == nil {
			if len(damaged) > 0 {
				j.cfg.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf(
					"%v\nThe job goes on from snapshot %d, which was taken before; what it did after that it does again.", errors.Join(damaged...), n))
			}
			j.from, j.kept = m, []uint64{n}
			return nil
		}
		err = fmt.Errorf("snapshot %s: %w", j.folder(n), err)
		if !errors.Is(err, errDamaged) {
			return unrestored(errors.Join(append(damaged, err)...))
		}
		damaged = append(damaged, err)
		if j.finalizes() {
			return unrestored(fmt.Errorf("%w\nAn earlier one would not do: since then bundles of the pipeline were finalized, or what wants stable input has had it, and sources may have let go of what they read", err))
		}
	}
	return unrestored(errors.Join(damaged...))
}

// unrestored wraps ErrRestore if an error is of the snapshot itself: it is damaged, or of another format or job. Others are of the
// machine, and may be over when it is tried again.
func unrestored(err error) error {
	for _, own := range []error{errDamaged, errFormat, errForeign, stage.ErrSnapshot} {
		if errors.Is(err, own) {
			return fmt.Errorf("%w: %w", ErrRestore, err)
		}
	}
	return err
}

// unopened is why a job could not be opened.
func (j *Job) unopened(err error) error {
	if j.from == nil {
		return err
	}
	return unrestored(fmt.Errorf("snapshot %s: %w", j.restoreFolder(), err))
}

// read reads and checks a snapshot.
func (j *Job) read(ctx context.Context, number uint64) (*manifest, error) {
	b, err := os.ReadFile(filepath.Join(j.folder(number), manifestName))
	if _, gone := os.Lstat(j.folder(number)); errors.Is(gone, os.ErrNotExist) {
		return nil, fmt.Errorf("it was taken, and is not there: %w", errDamaged)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is not there: %w", manifestName, errDamaged)
	}
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(b)
	if err != nil {
		return nil, err
	}
	if err := m.fits(j, number); err != nil {
		return nil, err
	}
	return m, m.verify(ctx, j.folder(number))
}

// finalizes tells whether a transform of the pipeline asks for bundle finalization or stable input: what was done when a snapshot
// was safe cannot be taken back.
func (j *Job) finalizes() bool {
	needs := j.cfg.Plan.Pipeline.GetRequirements()
	return slices.Contains(needs, urn.RequirementFinalization) || slices.Contains(needs, urn.RequirementStableInput)
}

func (j *Job) restoreFolder() string { return j.folder(j.from.Number) }

// parts are what a snapshot has of a stage, for one of its tasks now: of tasks as many as there are now its own, otherwise
// all, of which the task takes what is its own.
func (j *Job) parts(s, index, parallelism int) []stage.Restore {
	if j.from == nil {
		return nil
	}
	had := j.from.tasks(s)
	var all []stage.Restore
	for i := range had {
		if had != parallelism || i == index {
			all = append(all, stage.Restore{Directory: filepath.Join(j.restoreFolder(), taskName(s, i)), Index: i, Parallelism: had})
		}
	}
	return all
}

// goOn gives a task what the engine has kept of it.
func (j *Job) goOn(t *task) error {
	if j.from == nil {
		return nil
	}
	s := t.stage.plan.Index
	had := j.from.tasks(s)
	if had == 0 {
		return t.errorf("restore", fmt.Errorf("it has nothing of the stage: %w", errForeign))
	}
	// No sender had anything left from before what the slowest had said, whoever has their work now. They say again what is
	// true of them: this is for what is late to stay late.
	for i := range t.slots {
		slot := &t.slots[i]
		if t.index != 0 && slot.input != stage.MainInput {
			continue // the first task tells the others of side inputs when it has them again
		}
		first := true
		for k := range had {
			if had == len(t.stage.tasks) && k != t.index {
				continue
			}
			for _, was := range j.from.Tasks[taskName(s, k)].Slots {
				if was.Input == slot.input && (first || was.Watermark < slot.millis) {
					slot.millis, first = was.Watermark, false
				}
			}
		}
	}
	for k := t.index; k < had; k += len(t.stage.tasks) {
		var was jobpb.MetricResults
		if err := proto.Unmarshal(j.from.Tasks[taskName(s, k)].Metrics, &was); err != nil {
			return t.errorf("restore metrics", fmt.Errorf("%w: %w", err, errDamaged))
		}
		if err := t.metrics.Add(was.GetCommitted()); err != nil {
			return t.errorf("restore metrics", fmt.Errorf("%w: %w", err, errDamaged))
		}
	}
	return nil
}

// Metrics are what the bundles have measured that are in effect: those that have succeeded since the job began, but for what a run
// of it had done after the snapshot that the next one went on from. It may be called at any time, from any goroutine.
func (j *Job) Metrics() ([]*pipepb.MonitoringInfo, error) {
	var all metric.Set
	for _, s := range j.stages {
		for _, t := range s.tasks {
			t.mu.Lock()
			infos := t.metrics.Snapshot()
			t.mu.Unlock()
			if err := all.Add(infos); err != nil {
				return nil, err
			}
		}
	}
	return all.Snapshot(), nil
}

// Attempted is what had been attempted when the snapshot was taken that the job goes on from.
func (j *Job) Attempted() ([]*pipepb.MonitoringInfo, error) {
	if j.from == nil {
		return nil, nil
	}
	var was jobpb.MetricResults
	if err := proto.Unmarshal(j.from.Attempted, &was); err != nil {
		return nil, unrestored(fmt.Errorf("restore metrics: %w: %w", err, errDamaged))
	}
	return was.GetAttempted(), nil
}

// tried has a snapshot's manifest say what was attempted by now.
func (j *Job) tried(m *manifest) error {
	infos, err := j.cfg.Attempted()
	if err != nil || len(infos) == 0 {
		return err
	}
	m.Attempted, err = proto.Marshal(&jobpb.MetricResults{Attempted: infos})
	return err
}

// measured begins the task's part of a snapshot: with what its bundles have measured.
func (t *task) measured() (taskPart, error) {
	t.mu.Lock()
	infos := t.metrics.Snapshot()
	t.mu.Unlock()
	if len(infos) == 0 {
		return taskPart{}, nil
	}
	b, err := proto.Marshal(&jobpb.MetricResults{Committed: infos})
	return taskPart{Metrics: b}, err
}
