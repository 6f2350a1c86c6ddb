package streaming

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"trestle/internal/kit/sealed"
)

// manifestVersion is the format of a snapshot (docs/formats/snapshot.md).
const manifestVersion = 4

// engineName is the engine whose snapshots these are.
const engineName = "local"

// manifest says what a snapshot is of, and what is in it. It is written last: a folder without one is no snapshot.
type manifest struct {
	Engine string `json:"engine"`
	// Number is the snapshot's own: its folder's name.
	Number uint64 `json:"number"`
	// Digest is the plan's, Parallelism and KeyGroups are those of its tasks.
	Digest      string `json:"digest"`
	Parallelism int    `json:"parallelism"`
	KeyGroups   int    `json:"key_groups"`
	// Tasks has what the engine keeps of each task, by the name of its folder.
	Tasks map[string]taskPart `json:"tasks"`
	// Attempted is what all attempts at bundles have measured since the job began, those that failed or were done again too, as
	// far as the server knew: a MetricResults of Beam's.
	Attempted []byte `json:"attempted,omitempty"`
	// Files are all files of the snapshot but this one, by their slashed path below its folder.
	Files map[string]fileSum `json:"files"`
}

// taskPart is what the engine keeps of a task.
type taskPart struct {
	// Slots are its senders, in the order of its slots.
	Slots []slotPart `json:"slots"`
	// Metrics is what the task's bundles have measured since the job began: a MetricResults of Beam's.
	Metrics []byte `json:"metrics,omitempty"`
}

// slotPart is what a sender had said.
type slotPart struct {
	Input     int   `json:"input"`
	Watermark int64 `json:"watermark"`
}

// fileSum is the first bytes of a file, which are all of it unless it grows: how many they are, and their sha256 in hex.
type fileSum struct {
	Size int64  `json:"size"`
	Sum  string `json:"sha256"`
}

const (
	manifestName = "manifest.json"
	pending      = "pending" // the folder of the snapshot that is being taken
)

// Why a snapshot is not restored. A damaged one is not as it was written; the others are whole, but not for this job or
// this program.
var (
	errDamaged = errors.New("it is damaged")
	errFormat  = errors.New("another version of Trestle wrote it")
	errForeign = errors.New("it is not of this job")
)

// magic begins a manifest: the format and the sum of what follows come behind it, in a line.
const magic = "trestle snapshot "

// firstFormat is what manifests began with before they had their format in the first line.
var firstFormat = regexp.MustCompile(`\A[0-9a-f]{8}\n\{"version":1,`)

// encode is the manifest's file.
func (m *manifest) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return sealed.Encode(magic, manifestVersion, b), nil
}

// decodeManifest reads a manifest's file. The error is an errDamaged or an errFormat.
func decodeManifest(b []byte) (*manifest, error) {
	version, body, err := sealed.Decode(magic, b)
	switch {
	case firstFormat.Match(b):
		version = 1
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", manifestName, err, errDamaged)
	}
	if version != manifestVersion {
		return nil, fmt.Errorf("it has format %d, this version of Trestle reads %d: %w", version, manifestVersion, errFormat)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	m := &manifest{}
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", manifestName, err, errDamaged)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s goes on behind its end: %w", manifestName, errDamaged)
	}
	return m, m.check()
}

// check tells whether the manifest is one that can have been written.
func (m *manifest) check() error {
	if m.Parallelism < 1 || m.KeyGroups < m.Parallelism {
		return fmt.Errorf("%s: %d tasks a stage for %d key groups: %w", manifestName, m.Parallelism, m.KeyGroups, errDamaged)
	}
	for name, f := range m.Files {
		if !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) != name || strings.Contains(name, `\`) || f.Size < 0 {
			return fmt.Errorf("%s: a file %q of %d bytes: %w", manifestName, name, f.Size, errDamaged)
		}
	}
	for name, t := range m.Tasks {
		for _, s := range t.Slots {
			if s.Input < 0 {
				return fmt.Errorf("%s: a sender to input %d of %q: %w", manifestName, s.Input, name, errDamaged)
			}
		}
	}
	return nil
}

// fits tells whether a job can go on from the snapshot.
func (m *manifest) fits(j *Job, number uint64) error {
	switch {
	case m.Number != number:
		return fmt.Errorf("it says that it is number %d: %w", m.Number, errForeign)
	case m.Engine != engineName:
		return fmt.Errorf("it is of the engine %q: %w", m.Engine, errForeign)
	case m.Digest != j.digest:
		return fmt.Errorf("its plan is another: of another pipeline, or by another version of Trestle: %w", errForeign)
	case m.KeyGroups != j.cfg.KeyGroups:
		return fmt.Errorf("it has %d key groups, where there are %d: %w", m.KeyGroups, j.cfg.KeyGroups, errForeign)
	}
	return nil
}

// tasks is how many tasks a stage had.
func (m *manifest) tasks(stage int) int {
	n := 0
	for {
		if _, ok := m.Tasks[taskName(stage, n)]; !ok {
			return n
		}
		n++
	}
}

func taskName(stage, index int) string { return fmt.Sprintf("%d-%d", stage, index) }

func (t *task) name() string { return taskName(t.stage.plan.Index, t.index) }
