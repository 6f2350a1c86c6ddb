package stage

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
)

// view is a side input in the form in which a stage reads it. All windows and keys are the SDK's encoded bytes; a window
// or key that has nothing is empty, not an error. Pages are numbered as in shuffle.Pages.
type view interface {
	// add takes records of the side input's coder.
	add(records []byte) error
	// seal makes the view readable; nothing is added any more.
	seal() error
	// values reads all values of a window.
	values(window []byte, page int64) (data []byte, next int64, err error)
	// lookup reads the values of a key in a window.
	lookup(key, window []byte, page int64) (data []byte, next int64, err error)
	// keys reads the keys of a window, each once.
	keys(window []byte, page int64) (data []byte, next int64, err error)
	close() error
}

// Views are a stage's side inputs on one worker, shared by the stage's tasks there. They are safe for concurrent use.
type Views struct {
	plan   *plan.Plan
	stage  *plan.Stage
	store  *shuffle.Store
	token  []byte        // see cacheTokens
	live   *live         // of a streaming plan; nil in others, which have views
	words  []word        // by side input, of a streaming plan
	floors atomic.Uint64 // grows when windows of side inputs are forgotten
	mu     sync.Mutex
	views  []view
	ended  []bool
	failed []error // by side input: the first failure stays, so that no task reads a part for the whole
}

// NewViews makes a stage's side inputs, to be filled by its tasks.
func NewViews(p *plan.Plan, s *plan.Stage, store *shuffle.Store) (*Views, error) {
	v := &Views{plan: p, stage: s, store: store, token: []byte(rand.Text()), ended: make([]bool, len(s.SideInputs)), failed: make([]error, len(s.SideInputs))}
	if p.Streaming && len(s.SideInputs) > 0 {
		var err error
		v.words = make([]word, len(s.SideInputs))
		v.live, err = newLive(p, s)
		return v, err
	}
	for _, in := range s.SideInputs {
		made, err := newView(p, in, store)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("side input %s of transform %s: %w", in.Tag, in.Transform, err), v.Close())
		}
		v.views = append(v.views, made)
	}
	return v, nil
}

func newView(p *plan.Plan, in plan.SideInput, store *shuffle.Store) (view, error) {
	w, err := coder.CompileWindowed(p.Coders(), in.Coder)
	if err != nil {
		return nil, err
	}
	switch in.AccessPattern {
	case urn.SideInputIterable:
		v := &iterableView{coder: w, store: store, windows: map[string]*shuffle.Pages{}}
		return withCustomWindows(v, w, p.Coders()), nil
	case urn.SideInputMultimap:
		v, err := newMultimapView(w, store)
		if err != nil {
			return nil, err
		}
		return withCustomWindows(v, w, p.Coders()), nil
	default:
		return nil, fmt.Errorf("access pattern %q", in.AccessPattern)
	}
}

func (v *Views) add(i int, records []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended[i] {
		return fmt.Errorf("side input %s of transform %s got a block after its end", v.stage.SideInputs[i].Tag, v.stage.SideInputs[i].Transform)
	}
	if v.failed[i] == nil {
		v.failed[i] = v.views[i].add(records)
	}
	return v.failed[i]
}

// end makes a side input readable. Every task of the stage says so; the first to do counts.
func (v *Views) end(i int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.ended[i] && v.failed[i] == nil {
		v.failed[i] = v.views[i].seal()
		v.ended[i] = true
	}
	return v.failed[i]
}

func (v *Views) ready(i int) (view, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.ended[i] {
		return nil, fmt.Errorf("side input %s of transform %s is not complete yet", v.stage.SideInputs[i].Tag, v.stage.SideInputs[i].Transform)
	}
	return v.views[i], v.failed[i]
}

// Reset forgets what the i-th side input has got, and that it failed, so that it can be brought anew. No task may have
// read it.
func (v *Views) Reset(i int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	made, err := newView(v.plan, v.stage.SideInputs[i], v.store)
	if err != nil {
		return err
	}
	old := v.views[i]
	v.views[i], v.ended[i], v.failed[i] = made, false, nil
	return old.close()
}

// Close frees the side inputs. No task of the stage may be open any more.
func (v *Views) Close() error {
	var errs []error
	for _, view := range v.views {
		errs = append(errs, view.close())
	}
	if v.live != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.live.current != nil {
			v.live.current.close()
		}
		errs = append(errs, v.live.close())
	}
	return errors.Join(errs...)
}

var errIterableOnly = errors.New("this side input was declared as an iterable: it cannot be read by key")

// iterableView keeps the values of each window in pages.
type iterableView struct {
	coder   *coder.Windowed
	store   *shuffle.Store
	windows map[string]*shuffle.Pages
}

func (v *iterableView) add(records []byte) error {
	for len(records) > 0 {
		header, size, err := v.coder.Record(records)
		if err != nil {
			return fmt.Errorf("side input: %w", err)
		}
		value := records[header.Size:size]
		windows := header.Windows(records)
		for range header.Count {
			n, err := v.coder.Window().Skip(windows)
			if err != nil {
				return fmt.Errorf("side input: window: %w", err)
			}
			if err := v.window(windows[:n]).Append(value); err != nil {
				return fmt.Errorf("side input: %w", err)
			}
			windows = windows[n:]
		}
		records = records[size:]
	}
	return nil
}

func (v *iterableView) window(w []byte) *shuffle.Pages {
	pages := v.windows[string(w)]
	if pages == nil {
		pages = v.store.NewPages()
		v.windows[string(w)] = pages
	}
	return pages
}

func (v *iterableView) seal() error {
	for _, pages := range v.windows {
		if err := pages.Seal(); err != nil {
			return fmt.Errorf("side input: %w", err)
		}
	}
	return nil
}

func (v *iterableView) values(window []byte, page int64) ([]byte, int64, error) {
	pages := v.windows[string(window)]
	if pages == nil {
		return nil, -1, nil
	}
	return pages.Read(page, pageBytes)
}

func (v *iterableView) lookup([]byte, []byte, int64) ([]byte, int64, error) {
	return nil, -1, errIterableOnly
}

func (v *iterableView) keys([]byte, int64) ([]byte, int64, error) { return nil, -1, errIterableOnly }

func (v *iterableView) close() error {
	var errs []error
	for _, pages := range v.windows {
		errs = append(errs, pages.Close())
	}
	return errors.Join(errs...)
}

// viewKeyGroups is how many partitions a multimap is sorted in.
const viewKeyGroups = 64

// multimapView sorts KVs by key and window into a table.
type multimapView struct {
	store       *shuffle.Store
	grouper     *shuffle.Grouper
	partitioner *shuffle.Partitioner
	table       *shuffle.Table // nil before seal
}

func newMultimapView(w *coder.Windowed, store *shuffle.Store) (*multimapView, error) {
	v := &multimapView{store: store, grouper: store.NewGrouper(viewKeyGroups)}
	var err error
	add := func(keyGroup int, block []byte) error { return v.grouper.Add(0, keyGroup, block) } // what arrives is settled
	if v.partitioner, err = shuffle.NewPartitioner(w, viewKeyGroups, add); err != nil {
		return nil, errors.Join(err, v.grouper.Close())
	}
	return v, nil
}

func (v *multimapView) add(records []byte) error {
	if err := v.partitioner.Write(records); err != nil {
		return fmt.Errorf("side input: %w", err)
	}
	return nil
}

func (v *multimapView) seal() error {
	if err := v.partitioner.Flush(); err != nil {
		return fmt.Errorf("side input: %w", err)
	}
	sorted, err := v.grouper.Seal()
	if err == nil {
		v.table, err = v.store.BuildTable(sorted)
	}
	if err = errors.Join(err, v.grouper.Close()); err != nil {
		return fmt.Errorf("side input: %w", err)
	}
	return nil
}

func (v *multimapView) values([]byte, int64) ([]byte, int64, error) {
	return nil, -1, errors.New("this side input was declared as a multimap: it is read by key")
}

func (v *multimapView) lookup(key, window []byte, page int64) ([]byte, int64, error) {
	return v.table.Lookup(key, window, page, pageBytes)
}

func (v *multimapView) keys(window []byte, page int64) ([]byte, int64, error) {
	return v.table.Keys(window, page, pageBytes)
}

func (v *multimapView) close() error {
	err := v.grouper.Close()
	if v.table != nil {
		err = errors.Join(err, v.table.Close())
	}
	return err
}
