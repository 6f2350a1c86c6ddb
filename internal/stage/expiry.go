package stage

import (
	"errors"
	"fmt"
	"slices"

	"trestle/internal/beam/coder"
	"trestle/internal/fnapi"
	"trestle/internal/shuffle"
)

// expiredWindow is a window that is over, of a key.
type expiredWindow struct {
	touched
	entry []byte // its key in the store
}

// expired are windows whose time is before the given one, as many as fit into a bundle.
func (k *kept) expired(before int64) ([]expiredWindow, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.opened() {
		return nil, nil
	}
	var windows []expiredWindow
	size := 0
	err := k.walk(k.expiries, before, func(group int, at int64, rest, _ []byte) (bool, error) {
		w, err := cutWindow(kindExpiry, group, at, rest)
		if err != nil {
			return false, err
		}
		windows = append(windows, w)
		if size += len(rest); k.state.Expiration != "" {
			size += keySize(w.name) // which is read for the timer
		}
		return size < k.spec.BundleBytes, nil
	})
	return windows, err
}

// cutWindow is the window that the entry of a queue is of: rest is what follows the time in its key.
func cutWindow(kd kind, group int, at int64, rest []byte) (w expiredWindow, err error) {
	w.entry = append(make([]byte, 0, queueBytes+len(rest)), queueKey(kd, group, at)...)
	w.entry = append(w.entry, rest...)
	w.group = group
	var ok, ok2 bool
	w.name, rest, ok = cutKeyName(w.entry[queueBytes:])
	w.window, _, ok2 = cutPart(rest)
	if !ok || !ok2 {
		return w, errors.New("a window in the store is cut short")
	}
	return w, nil
}

// expiration is the timer that tells the transform of a window's end.
func (k *kept) expiration(w expiredWindow) (timer, error) {
	end, err := k.strategy.MaxTimestamp(w.window)
	if err != nil {
		return timer{}, fmt.Errorf("window that is over: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := k.appendKey(nil, w.group, w.name)
	if err != nil {
		return timer{}, err
	}
	family := slices.IndexFunc(k.families, func(f fnapi.TimerFamily) bool { return f.Family == k.state.Expiration })
	return timer{
		family: family, key: key, window: w.window, fires: end, holds: end, pane: coder.AppendPane(nil, coder.NoFiring),
	}, nil
}

// drop removes what is kept of a window that is over.
func (k *kept) drop(w expiredWindow) error {
	state := appendPart(owned(kindState, w.group, w.name), w.window)
	if err := k.over.DeleteRange(state, after(state)); err != nil {
		return err
	}
	prefix := appendPart(owned(kindTimer, w.group, w.name), w.window)
	var names [][]byte
	if err := k.over.Scan(prefix, after(prefix), func(key, _ []byte) (bool, error) {
		names = append(names, slices.Clone(key[placeBytes:]))
		return true, nil
	}); err != nil {
		return err
	}
	for _, name := range names {
		t, err := k.cutName(name)
		if err != nil {
			return err
		}
		t.group = w.group
		if err := k.remove(&t, name); err != nil {
			return err
		}
	}
	k.over.Delete(w.entry)
	k.dereference(w.entry)
	return nil
}

// wait keeps an element until its turn comes. It is kept with the next commit.
func (k *kept) wait(e shuffle.Entry) error {
	if err := k.open(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	group := k.groupOf(e.Key)
	entry := k.numbered(k.appendKeyName(queueKey(kindSorted, group, e.Timestamp), e.Key))
	value := append(appendPart(nil, e.Window), e.Value...)
	k.over.Put(entry, value)
	k.sortedInput.put(group, e.Timestamp)
	return k.refer(entry, e.Key)
}

// ripe passes on the elements before a time in their order, as many as fit into a bundle. They go when the bundle is
// committed.
func (k *kept) ripe(before int64, process func(record []byte) error) error {
	records, err := k.takeRipe(before)
	if err != nil || len(records) == 0 {
		return err
	}
	return process(records)
}

// takeRipe takes elements for the bundle under way.
func (k *kept) takeRipe(before int64) (records []byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.opened() {
		return nil, nil
	}
	type waiting struct {
		at           int64
		entry, value []byte // the store's key, and value
	}
	var ripe []waiting
	size := 0
	if err := k.walk(k.sortedInput, before, func(group int, at int64, rest, value []byte) (bool, error) {
		b := append(make([]byte, 0, queueBytes+len(rest)+len(value)), queueKey(kindSorted, group, at)...)
		b = append(b, rest...)
		entry := len(b)
		b = append(b, value...)
		ripe = append(ripe, waiting{at, b[:entry:entry], b[entry:]})
		size += len(b) + keySize(rest)
		return size < sendBytes, nil
	}); err != nil {
		return nil, err
	}
	var key []byte
	for _, w := range ripe {
		name, _, ok := cutKeyName(w.entry[queueBytes:])
		window, value, ok2 := cutPart(w.value)
		if !ok || !ok2 {
			return nil, errors.New("an element in the store is cut short")
		}
		_, pane, err := coder.Pane(value)
		if err != nil {
			return nil, err
		}
		if key, err = k.appendKey(key[:0], groupIn(w.entry), name); err != nil {
			return nil, err
		}
		records = appendElement(records, shuffle.Entry{Key: key, Window: window, Timestamp: w.at, Value: value}, pane)
		k.taken = append(k.taken, w.entry)
		if k.state.Expiration != "" {
			k.touch(key, window)
		}
	}
	return records, nil
}
