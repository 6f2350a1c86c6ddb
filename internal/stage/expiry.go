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
		key, more, ok := cutPart(rest)
		window, _, ok2 := cutPart(more)
		if !ok || !ok2 {
			return false, errors.New("a window in the store is cut short")
		}
		windows = append(windows, expiredWindow{
			touched{slices.Clone(key), slices.Clone(window)}, append(queueKey(kindExpiry, group, at), rest...),
		})
		size += len(rest)
		return size < k.spec.BundleBytes, nil
	})
	return windows, err
}

// expiration is the timer that tells the transform of a window's end.
func (k *kept) expiration(w expiredWindow) (timer, error) {
	end, err := k.strategy.MaxTimestamp(w.window)
	if err != nil {
		return timer{}, fmt.Errorf("window that is over: %w", err)
	}
	family := slices.IndexFunc(k.families, func(f fnapi.TimerFamily) bool { return f.Family == k.state.Expiration })
	return timer{
		family: family, key: w.key, window: w.window, fires: end, holds: end, pane: coder.AppendPane(nil, coder.NoFiring),
	}, nil
}

// drop removes what is kept of a window that is over.
func (k *kept) drop(w expiredWindow) error {
	state := appendPart(appendPart(k.place(kindState, w.key), w.key), w.window)
	if err := k.over.DeleteRange(state, after(state)); err != nil {
		return err
	}
	prefix := append(k.place(kindTimer, w.key), appendPart(appendPart(nil, w.key), w.window)...)
	var names [][]byte
	if err := k.over.Scan(prefix, after(prefix), func(key, _ []byte) (bool, error) {
		names = append(names, slices.Clone(key[3:]))
		return true, nil
	}); err != nil {
		return err
	}
	for _, name := range names {
		t, err := k.cutName(name)
		if err != nil {
			return err
		}
		if err := k.remove(&t, name); err != nil {
			return err
		}
	}
	k.over.Delete(w.entry)
	return nil
}

// wait keeps an element until its turn comes. It is kept with the next commit.
func (k *kept) wait(e shuffle.Entry) error {
	if err := k.open(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key := appendPart(coder.AppendTimestamp(k.place(kindSorted, e.Key), e.Timestamp), e.Key)
	value := append(appendPart(nil, e.Window), e.Value...)
	k.over.Put(k.numbered(key), value)
	k.sortedInput.put(k.groupOf(e.Key), e.Timestamp)
	return nil
}

// ripe passes on the elements before a time in their order, as many as fit into a bundle. They go when the bundle is
// committed.
func (k *kept) ripe(before int64, process func(record []byte) error) error {
	k.mu.Lock()
	var records []byte
	if k.opened() {
		err := k.walk(k.sortedInput, before, func(group int, at int64, rest, value []byte) (bool, error) {
			key, _, ok := cutPart(rest)
			window, value, ok2 := cutPart(value)
			if !ok || !ok2 {
				return false, errors.New("an element in the store is cut short")
			}
			e := shuffle.Entry{Key: key, Window: window, Timestamp: at, Value: value}
			_, pane, err := coder.Pane(value)
			if err != nil {
				return false, err
			}
			records = appendElement(records, e, pane)
			k.taken = append(k.taken, append(queueKey(kindSorted, group, at), rest...))
			if k.state.Expiration != "" {
				k.touch(key, window)
			}
			return len(records) < sendBytes, nil
		})
		if err != nil {
			k.mu.Unlock()
			return err
		}
	}
	k.mu.Unlock()
	if len(records) == 0 {
		return nil
	}
	return process(records)
}
