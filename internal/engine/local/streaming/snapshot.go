package streaming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"trestle/internal/plan"
)

// manifestVersion is the format of a snapshot's manifest (docs/formats/snapshots.md).
const manifestVersion = 1

// manifest says what a snapshot is of. It is written last: a folder without one is no snapshot.
type manifest struct {
	Version int `json:"version"`
	// Digest is the plan's, Parallelism and KeyGroups are those of its tasks.
	Digest      string `json:"digest"`
	Parallelism int    `json:"parallelism"`
	KeyGroups   int    `json:"key_groups"`
	// Tasks has what the engine keeps of each task, by the name of its folder.
	Tasks map[string]taskPart `json:"tasks"`
}

// taskPart is what the engine keeps of a task.
type taskPart struct {
	// Slots are the watermarks of its senders, in the order of its slots.
	Slots []int64 `json:"slots"`
	// Sides are how many bytes of each side input's log belong to the snapshot.
	Sides []int64 `json:"sides,omitempty"`
}

const (
	manifestName = "manifest.json"
	pending      = "pending" // the folder of the snapshot that is being taken
)

func (t *task) name() string { return fmt.Sprintf("%d-%d", t.stage.plan.Index, t.index) }

func sideName(i int) string { return fmt.Sprintf("side-%d", i) }

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
		if err := j.takeSnapshot(ctx); err != nil {
			return fmt.Errorf("snapshot %d: %w", j.snapshot, err)
		}
	}
}

// takeSnapshot lets a barrier in at the roots, and waits until it has come by all tasks.
func (j *Job) takeSnapshot(ctx context.Context) error {
	j.snapshot++
	folder := filepath.Join(j.cfg.Snapshots, pending)
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	m := manifest{
		Version: manifestVersion, Digest: j.digest, Parallelism: j.cfg.Parallelism, KeyGroups: j.cfg.KeyGroups, Tasks: map[string]taskPart{},
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
	if err := writeManifest(filepath.Join(folder, manifestName), m); err != nil {
		return err
	}
	if err := os.Rename(folder, filepath.Join(j.cfg.Snapshots, strconv.FormatUint(j.snapshot, 10))); err != nil {
		return err
	}
	if err := dropSnapshots(j.cfg.Snapshots, j.snapshot); err != nil {
		return err
	}
	return j.toAll(ctx, event{kind: committed, millis: int64(j.snapshot)})
}

// writeManifest writes a manifest behind its checksum.
func writeManifest(path string, m manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b = append(fmt.Appendf(nil, "%08x\n", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), b...)
	return os.WriteFile(path, b, 0o600)
}

func readManifest(path string) (m manifest, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	const head = 9
	if len(b) < head || string(b[:head]) != fmt.Sprintf("%08x\n", crc32.Checksum(b[head:], crc32.MakeTable(crc32.Castagnoli))) {
		return m, fmt.Errorf("%s does not read back as it was written", path)
	}
	if err := json.Unmarshal(b[head:], &m); err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	if m.Version != manifestVersion {
		return m, fmt.Errorf("%s has format %d, this version of Trestle reads %d", path, m.Version, manifestVersion)
	}
	return m, nil
}

// latest is the number of the newest snapshot in a folder; 0 when there is none.
func latest(folder string) (uint64, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var id uint64
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
			id = max(id, n)
		}
	}
	return id, err
}

// dropSnapshots removes all snapshots before one.
func dropSnapshots(folder string, before uint64) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && n < before {
			if err := os.RemoveAll(filepath.Join(folder, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// restored finds what the job goes on from; nil when it begins. A snapshot of another plan, or one that cannot be read, is an
// error: nothing is lost by it.
func (j *Job) restored() (*manifest, error) {
	if j.cfg.Snapshots == "" {
		return nil, nil
	}
	var err error
	if j.digest, err = j.cfg.Plan.Digest(); err != nil {
		return nil, err
	}
	if j.snapshot, err = latest(j.cfg.Snapshots); err != nil || j.snapshot == 0 {
		return nil, err
	}
	m, err := readManifest(filepath.Join(j.restoreFolder(), manifestName))
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if m.Digest != j.digest || m.KeyGroups != j.cfg.KeyGroups {
		return nil, fmt.Errorf("snapshot %s is of another plan, or was made by another version of Trestle", j.restoreFolder())
	}
	if m.Parallelism != j.cfg.Parallelism {
		return nil, fmt.Errorf("snapshot %s is of %d tasks a stage, not of %d", j.restoreFolder(), m.Parallelism, j.cfg.Parallelism)
	}
	return &m, nil
}

func (j *Job) restoreFolder() string {
	return filepath.Join(j.cfg.Snapshots, strconv.FormatUint(j.snapshot, 10))
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
	t.dirty = false
	folder := filepath.Join(t.job.cfg.Snapshots, pending, t.name())
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return t.errorf("snapshot", err)
	}
	if err := t.call(func() error { return t.task.Snapshot(ctx, uint64(e.millis), folder) }); err != nil {
		return err
	}
	part := taskPart{}
	for _, s := range t.slots {
		part.Slots = append(part.Slots, s.millis)
	}
	for i, log := range t.sides {
		if err := os.Link(log.path, filepath.Join(folder, sideName(i))); err != nil {
			return t.errorf("snapshot", err)
		}
		part.Sides = append(part.Sides, log.size)
	}
	if err := t.passOn(ctx, e); err != nil {
		return t.errorf("snapshot", err)
	}
	select {
	case t.job.reports <- report{t, part}:
	case <-t.job.ended:
	case <-ctx.Done():
	}
	return nil
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
	return t.passed != nil && (e.kind == block || e.kind == watermark) && t.passed[e.sender]
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
