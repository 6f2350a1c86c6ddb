package streaming

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"trestle/internal/plan"
)

// report is a task's word that its part of a snapshot has been written.
type report struct {
	task *task
	part taskPart
}

// snapshots takes snapshots until the job ends.
func (j *Job) snapshots(ctx context.Context) error {
	ticker := time.NewTicker(j.cfg.SnapshotEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-j.ended:
			return nil
		case <-ctx.Done():
			return nil // the job's end has its own reason
		}
		select {
		case <-j.ended: // meanwhile: tasks may still be at the last one
			return nil
		default:
		}
		if err := j.takeSnapshot(ctx); err != nil {
			return fmt.Errorf("snapshot %d: %w", j.snapshot, err)
		}
	}
}

// takeSnapshot lets a barrier in at the roots, and waits until it has come by all tasks.
func (j *Job) takeSnapshot(ctx context.Context) error {
	began := j.cfg.Now()
	folder, m, err := j.beginSnapshot()
	if err != nil {
		return err
	}
	all := 0
	for _, s := range j.stages {
		for _, t := range s.tasks {
			all++
			if len(t.slots) > 0 {
				continue
			}
			if _, err := t.inbox.put(ctx, 0, event{kind: barrier, millis: int64(j.snapshot)}, nil); err != nil {
				return err
			}
		}
	}
	for len(m.Tasks) < all {
		select {
		case r := <-j.reports:
			m.Tasks[r.task.name()] = r.part
		case <-j.ended:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	if err := j.finish(ctx, folder, m, began); err != nil {
		return err
	}
	return j.toAll(ctx, event{kind: committed, millis: int64(j.snapshot)})
}

// beginSnapshot makes room for the next snapshot.
func (j *Job) beginSnapshot() (folder string, m manifest, err error) {
	j.snapshot++
	folder = filepath.Join(j.cfg.Snapshots, pending)
	m = manifest{
		Engine: engineName, Number: j.snapshot, Digest: j.digest, Parallelism: j.cfg.Parallelism, KeyGroups: j.cfg.KeyGroups,
		Tasks: map[string]taskPart{}, Files: map[string]fileSum{},
	}
	if err := os.RemoveAll(folder); err != nil {
		return "", m, err
	}
	return folder, m, os.MkdirAll(folder, 0o700)
}

// lastSnapshot takes one of a job whose tasks are all quiet, and no longer driven. A server that is killed before the job's end is on
// disk goes on from this one, which has all that is finalized then, or was let through since it was stable: nothing of it is done again.
func (j *Job) lastSnapshot(ctx context.Context) error {
	began := j.cfg.Now()
	folder, m, err := j.beginSnapshot()
	if err != nil {
		return err
	}
	for _, s := range j.stages {
		for _, t := range s.tasks {
			if m.Tasks[t.name()], err = t.write(ctx, j.snapshot); err != nil {
				return err
			}
		}
	}
	return j.finish(ctx, folder, m, began)
}

// finish makes a snapshot of a folder that has all parts.
func (j *Job) finish(ctx context.Context, folder string, m manifest, began time.Time) error {
	now, written, err := j.sums.of(ctx, folder)
	if err != nil {
		return err
	}
	var size int64
	for name, file := range now {
		m.Files[name] = file.sum
		size += file.sum.Size
	}
	if err := j.tried(&m); err != nil {
		return err
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, manifestName), b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(folder, j.folder(j.snapshot)); err != nil {
		return err
	}
	if err := writeLast(j.cfg.Snapshots, j.snapshot); err != nil {
		return err
	}
	j.sums = now
	j.kept = append(j.kept, j.snapshot)
	if len(j.kept) > keepSnapshots {
		j.kept = j.kept[len(j.kept)-keepSnapshots:]
	}
	j.cfg.Log.Debug("snapshot", "number", j.snapshot, "bytes", size, "written", written, "took", j.cfg.Now().Sub(began))
	return j.dropSnapshots()
}

// keepSnapshots is how many are kept: the last one, and the one before it, should the last not read back.
const keepSnapshots = 2

func (j *Job) folder(number uint64) string {
	return filepath.Join(j.cfg.Snapshots, strconv.FormatUint(number, 10))
}

// numbers are those of the snapshots in a folder, the last one first.
func numbers(folder string) ([]uint64, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []uint64
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && e.Name() == strconv.FormatUint(n, 10) {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	slices.Reverse(all)
	return all, err
}

// Latest is the number of the last snapshot in a job's folder of them; 0 when there is none.
func Latest(folder string) (uint64, error) {
	all, err := numbers(folder)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[0], nil
}

// DropPending removes what there is of a snapshot that was being taken, of a job that does not run.
func DropPending(folder string) error {
	if err := os.RemoveAll(filepath.Join(folder, pending)); err != nil {
		return fmt.Errorf("a snapshot that was being taken: %w", err)
	}
	return nil
}

// dropSnapshots removes all snapshots but those that are kept.
func (j *Job) dropSnapshots() error {
	all, err := numbers(j.cfg.Snapshots)
	if err != nil {
		return err
	}
	for _, n := range all {
		if !slices.Contains(j.kept, n) {
			if err := os.RemoveAll(j.folder(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// barrier takes note that a barrier has come from a sender; once it has from all, the task's part of the snapshot is
// written, and the barrier goes on.
func (t *task) barrier(ctx context.Context, e event) error {
	if len(t.slots) > 0 {
		if t.passed == nil {
			t.passed = map[int]bool{}
		}
		t.passed[e.sender] = true
		if len(t.passed) < len(t.slots) {
			return nil
		}
	}
	t.passed = nil
	passOn := t.passOn
	if t.sharing != nil {
		if err := t.sharing.write(ctx, t.member, e.millis); err != nil {
			return err
		}
		if _, err := t.takeGiven(ctx); err != nil {
			return err
		}
		passOn = func(ctx context.Context, e event) error { return t.sharing.pass(ctx, t.member, e) }
	}
	t.dirty = false
	part, err := t.write(ctx, uint64(e.millis))
	if err != nil {
		return err
	}
	if err := passOn(ctx, e); err != nil {
		return t.errorf("snapshot", err)
	}
	select {
	case t.job.reports <- report{t, part}:
	case <-t.job.ended:
	case <-ctx.Done():
	}
	return nil
}

// write writes the task's part of a snapshot.
func (t *task) write(ctx context.Context, number uint64) (taskPart, error) {
	folder := filepath.Join(t.job.cfg.Snapshots, pending, t.name())
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return taskPart{}, t.errorf("snapshot", err)
	}
	if err := t.call(func() error { return t.task.Snapshot(ctx, number, folder) }); err != nil {
		return taskPart{}, err
	}
	part, err := t.measured()
	if err != nil {
		return taskPart{}, t.errorf("snapshot", err)
	}
	for _, s := range t.slots {
		part.Slots = append(part.Slots, slotPart{s.input, s.millis})
	}
	return part, nil
}

// passOn sends an event to all that the task sends to.
func (t *task) passOn(ctx context.Context, e event) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, targets := range t.targets {
		for _, to := range targets {
			e.sender = to.slot
			if _, err := to.task.inbox.put(ctx, 0, e, nil); err != nil {
				return err
			}
		}
	}
	if t.index != 0 {
		return nil
	}
	for i := range t.stage.plan.SideInputs {
		for _, other := range t.stage.tasks[1:] {
			e.sender = i // see connect
			if _, err := other.inbox.put(ctx, 0, e, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// waits tells whether an event has to wait until the barrier has come from all senders.
func (t *task) waits(e event) bool {
	return t.passed != nil && (e.kind == block || e.kind == watermark || e.kind == readable) && t.passed[e.sender]
}

// putAside keeps an event that waits.
func (t *task) putAside(ctx context.Context, e event) error {
	if t.aside == nil {
		t.aside = t.job.cfg.Store.NewSpool()
	}
	return t.aside.Put(ctx, 0, e.append(nil))
}

// next takes the next event: what was put aside goes first.
func (t *task) next(ctx context.Context) (e event, ok bool, err error) {
	if t.passed == nil && t.aside != nil && t.aside.Len() > 0 {
		b, err := t.aside.Get(ctx)
		if err != nil {
			return e, false, err
		}
		e, err = decode(b)
		return e, true, err
	}
	for {
		if e, ok, err = t.inbox.get(ctx); err != nil || !ok {
			return e, ok, err
		}
		t.owed++
		if !t.waits(e) {
			return e, true, nil
		}
		if err := t.putAside(ctx, e); err != nil {
			return e, false, err
		}
	}
}

// snapshottable tells whether the plan's jobs can go on from a snapshot: a TestStream is played once.
func snapshottable(p *plan.Plan) bool { return len(p.TestStreams) == 0 }
