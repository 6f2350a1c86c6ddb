package stage

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"trestle/internal/beam/coder"
	"trestle/internal/shuffle"
	"trestle/internal/store/kv"
)

// keyedStore is the ordered store of a task, and the queues in it.
type keyedStore struct {
	spec       Spec
	first, end int // the key groups that the task owns, the last one not among them
	whole      int // how long a key may be to be its own name
	queues     []*heads
	folder     string // of the store, in the task's own and in a snapshot
	shared     bool   // others read what has been committed

	// State requests and timers of a bundle come from goroutines of its own.
	mu    *sync.Mutex
	store *kv.Store // nil until something is kept
	over  *kv.Overlay
}

// storeName is the folder of the store that a task keeps state in.
const storeName = "store"

func newKeyedStore(s Spec) keyedStore {
	k := keyedStore{spec: s, mu: &sync.Mutex{}, folder: storeName, whole: wholeBytes}
	if s.State.WholeKeys != 0 {
		k.whole = s.State.WholeKeys
	}
	k.first, k.end = keyGroups(s.Index, s.Parallelism, s.KeyGroups)
	return k
}

// queue makes the heads of the queues of a kind.
func (k *keyedStore) queue(kd kind) *heads {
	h := newHeads(kd, k.spec.KeyGroups, len(k.spec.Restore) == 0)
	k.queues = append(k.queues, h)
	return h
}

// keyGroups are the key groups from first on and before end that belong to a task: those for which
// key group × tasks ÷ key groups is its index.
func keyGroups(index, tasks, groups int) (first, end int) {
	ceil := func(i int) int { return (i*groups + tasks - 1) / tasks }
	return ceil(index), ceil(index + 1)
}

func (k *keyedStore) groupOf(key []byte) int { return shuffle.KeyGroup(key, k.spec.KeyGroups) }

// restore opens the store with what earlier snapshots have of it. Without any, the store is made when it is needed.
func (k *keyedStore) restore() error {
	from, err := k.checkpoints()
	if err != nil {
		return err
	}
	if len(from) > 0 {
		return k.open()
	}
	for _, h := range k.queues {
		h.empty()
	}
	return nil
}

// checkpoints are the stores in earlier snapshots that have key groups of the task's.
func (k *keyedStore) checkpoints() ([]string, error) {
	var from []string
	for _, r := range k.spec.Restore {
		if first, end := keyGroups(r.Index, r.Parallelism, k.spec.KeyGroups); end <= k.first || first >= k.end {
			continue
		}
		checkpoint := filepath.Join(r.Directory, k.folder)
		if _, err := os.Stat(checkpoint); err == nil {
			from = append(from, checkpoint)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return from, nil
}

// open makes the store when it is needed first.
func (k *keyedStore) open() error {
	if k.over != nil {
		return nil
	}
	if k.spec.State.Cache == nil {
		return errors.New("the engine has given the task no place to keep state")
	}
	from, err := k.checkpoints()
	if err != nil {
		return err
	}
	lo, hi := []byte{byte(k.first >> 8), byte(k.first)}, []byte{byte(k.end >> 8), byte(k.end)}
	wanted := k.spec.wanted
	if wanted == nil {
		wanted = k.spec.State.Wanted()
	}
	if k.store, err = kv.Open(wanted, filepath.Join(k.spec.State.Directory, k.folder), k.spec.State.Cache, k.spec.Log, from, lo, hi); err != nil {
		return err
	}
	if k.over = k.store.NewOverlay(); k.shared {
		k.over = k.store.NewDirectOverlay()
	}
	return nil
}

func (k *keyedStore) opened() bool { return k.over != nil }

// size is about how much memory the changes take that are not in the store yet.
func (k *keyedStore) size() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over == nil {
		return 0
	}
	return k.over.Size()
}

// forgetAll removes everything of the key groups: their keys are over.
func (k *keyedStore) forgetAll() error {
	if k.over == nil {
		return nil
	}
	for g := k.first; g < k.end; g++ {
		if err := k.over.DeleteRange([]byte{byte(g >> 8), byte(g)}, []byte{byte((g + 1) >> 8), byte(g + 1)}); err != nil {
			return err
		}
	}
	for _, h := range k.queues {
		h.empty()
	}
	return k.over.Commit()
}

// mark keeps how far time has come, in milliseconds, for a task that begins with the snapshot to come: it must not take
// for new what this one would have dropped. Nothing has to be kept at the beginning of time.
func (k *keyedStore) mark(times ...int64) error {
	if times[0] == coder.MinTimestamp {
		return nil
	}
	if err := k.open(); err != nil {
		return err
	}
	var value []byte
	for _, t := range times {
		value = coder.AppendTimestamp(value, t)
	}
	for g := k.first; g < k.end; g++ {
		k.over.Put(markKey(g), value)
	}
	return k.over.Commit()
}

func markKey(group int) []byte {
	return begin(nil, kindMark, group)
}

// marked sets times to what was kept of them by those that had the task's key groups: the least of all.
func (k *keyedStore) marked(times ...*int64) error {
	if !k.opened() {
		return nil
	}
	for g := k.first; g < k.end; g++ {
		value, ok, err := k.over.Get(markKey(g))
		if err != nil {
			return err
		}
		if ok && len(value) != len(times)*coder.TimestampSize {
			return errors.New("how far time had come is cut short in the store")
		}
		for i, t := range times {
			at := coder.MinTimestamp
			if ok {
				at = coder.Timestamp(value[i*coder.TimestampSize:])
			}
			if g == k.first || at < *t {
				*t = at
			}
		}
	}
	return nil
}

// snapshot writes the store, whose changes have been committed, into a directory.
func (k *keyedStore) snapshot(directory string) error {
	if k.store == nil {
		return nil
	}
	return k.store.Checkpoint(filepath.Join(directory, k.folder))
}

// close closes the store, if there is one. It is idempotent.
func (k *keyedStore) close() error {
	if k.over == nil {
		return nil
	}
	err := errors.Join(k.over.Close(), k.store.Close())
	k.store, k.over = nil, nil
	return err
}

// wakeAt is the earliest time in queues that go by processing time; zero when they are empty.
func (k *keyedStore) wakeAt(h *heads) (time.Time, error) {
	at, err := k.head(h)
	if err != nil || at == never {
		return time.Time{}, err
	}
	return time.UnixMilli(at), nil
}

// walk calls f with the entries of a queue whose times are before a time, those of a key group in their order, until it
// answers false. rest is what follows the time in the key.
func (k *keyedStore) walk(h *heads, before int64, f func(group int, at int64, rest, value []byte) (more bool, err error)) error {
	for g := k.first; g < k.end; g++ {
		if stopped, err := k.walkGroup(h, g, before, f); stopped || err != nil {
			return err
		}
	}
	return nil
}

// walkGroup is walk for one key group; stopped is true when f has answered false.
func (k *keyedStore) walkGroup(h *heads, g int, before int64, f func(group int, at int64, rest, value []byte) (more bool, err error)) (stopped bool, err error) {
	if h.min[g] >= before {
		return false, nil
	}
	next := never
	// From where the last walk began, over the graves of what it took only, to the end of the queue.
	err = k.over.Scan(queueKey(h.kind, g, h.min[g]), queueEnd(h.kind, g), func(key, value []byte) (bool, error) {
		at := coder.Timestamp(key[3:])
		if at >= before {
			next = min(next, at) // not later than what f has been shown: it may have left that where it is
			return false, nil
		}
		next = min(next, at)
		more, err := f(g, at, key[queueBytes:], value)
		stopped = !more
		return more, err
	})
	if err == nil {
		h.min[g] = next
	}
	return stopped, err
}

// head is the earliest time in the queues of a kind; never when they are empty.
func (k *keyedStore) head(h *heads) (int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.opened() {
		return never, nil
	}
	least := never
	for g := k.first; g < k.end; g++ {
		if h.min[g] >= least {
			continue
		}
		next := never
		err := k.over.Scan(queueKey(h.kind, g, h.min[g]), queueEnd(h.kind, g), func(key, _ []byte) (bool, error) {
			next = coder.Timestamp(key[3:])
			return false, nil
		})
		if err != nil {
			return 0, err
		}
		h.min[g] = next
		least = min(least, next)
	}
	return least, nil
}
