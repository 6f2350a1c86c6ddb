package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/fnapi"
	"trestle/internal/plan"
)

// kept is what a task keeps for the transform at the head of its stage, between bundles: state, timers, the windows that
// something is kept of. A bundle's changes are staged, and count when it has succeeded.
type kept struct {
	keyedStore
	state    *plan.State
	strategy *window.Strategy
	lateness int64
	timers   timerCoder
	families []fnapi.TimerFamily
	held     bool // timers hold the watermark back: of streaming plans
	expires  bool // windows are looked after until they end

	events, clocks, holds, expiries, sortedInput *heads

	cached stateToken
	// inPages is set when a part of a multimap's keys was read that ends before others: a harness that keeps it would not see keys
	// that are added before that end.
	inPages bool

	// Of the bundle under way: what it was given, which stays for another attempt, and what its attempt has asked for.
	firing  []timer
	taken   [][]byte // keys of sorted input that it processes
	windows map[string]touched
	loose   map[string]int // names of long keys of which something goes, and their key groups
	ending  []expiredWindow
	set     []timer

	named, lookup []byte // a timer's name, and a key that is looked up
}

// touched is a key's name and a window that a bundle has had to do with.
type touched struct {
	group        int
	name, window []byte
	key          []byte // if it is a long one that may have to be read
}

func newKept(s Spec) (*kept, error) {
	st := s.Stage.Input.State
	strategy, err := window.Compile(st.Windowing, s.coders())
	if err != nil {
		return nil, fmt.Errorf("windowing of %s: %w", st.Transform, err)
	}
	k := &kept{
		keyedStore: newKeyedStore(s), state: st, strategy: strategy, lateness: min(st.Windowing.GetAllowedLateness(), coder.MaxTimestamp), held: s.Plan.Streaming,
		// What is kept of bounded input goes with its key; the global window of an unbounded one never ends.
		expires: st.Expiration != "" || s.Plan.Streaming && !strategy.Global(),
		windows: map[string]touched{},
	}
	k.events, k.clocks, k.holds = k.queue(kindEvent), k.queue(kindClock), k.queue(kindHold)
	k.expiries, k.sortedInput = k.queue(kindExpiry), k.queue(kindSorted)
	if k.timers, err = newTimerCoder(s.Plan, st); err != nil {
		return nil, err
	}
	for _, f := range st.Timers {
		k.families = append(k.families, fnapi.TimerFamily{Transform: st.Transform, Family: f.Name})
	}
	return k, nil
}

// touch notes that the bundle under way keeps something of a key and window.
func (k *kept) touch(key, window []byte) {
	if !k.expires {
		return
	}
	k.named = k.appendKeyName(k.named[:0], key)
	name := len(k.named)
	k.named = append(k.named, window...)
	if _, known := k.windows[string(k.named)]; known {
		return
	}
	both := bytes.Clone(k.named)
	w := touched{group: k.groupOf(key), name: both[:name:name], window: both[name:]}
	if isLong(w.name) && k.state.Expiration != "" {
		w.key = bytes.Clone(key)
	}
	k.windows[string(both)] = w
}

// setTimers takes timers that the harness has set or cleared.
func (k *kept) setTimers(_ context.Context, family int, data []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	data = bytes.Clone(data) // they are kept until the bundle is over
	return k.timers.cut(data, func(t timer) error {
		t.family = family
		if !t.clear {
			if t.fires > coder.MaxTimestamp {
				return fmt.Errorf("transform %s set a timer of family %q past the end of time (at %d, the end is %d)",
					k.state.Transform, k.state.Timers[family].Name, t.fires, coder.MaxTimestamp)
			}
			t.due = t.fires
			if k.state.Timers[family].ProcessingTime && k.spec.Ahead != nil {
				t.due = min(t.fires+k.spec.Ahead().Milliseconds(), coder.MaxTimestamp)
			}
			k.touch(t.key, t.window)
		}
		t.group = k.groupOf(t.key)
		k.set = append(k.set, t)
		return nil
	})
}

// request answers a state request of the bundle under way.
func (k *kept) request(r *fnpb.StateRequest) (*fnpb.StateResponse, error) {
	answer, err := k.answer(r)
	if err != nil {
		return nil, fmt.Errorf("state of transform %s: %w", k.state.Transform, err)
	}
	return answer, nil
}

// token says how long a harness may keep what the next bundle reads.
func (k *kept) token(harness *fnapi.Session) []*fnpb.ProcessBundleRequest_CacheToken {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inPages {
		k.inPages = false
		k.cached.change()
	}
	return k.cached.on(harness)
}

// commit keeps what the bundle has changed.
func (k *kept) commit() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.firing)+len(k.set)+len(k.windows) == 0 && k.over == nil {
		return nil
	}
	if err := k.open(); err != nil {
		return err
	}
	for i := range k.firing {
		// Nothing has changed since it was found: timers are set and cleared below.
		if t := &k.firing[i]; t.name != nil {
			k.take(t, t.name, t.due, t.holds)
		}
	}
	for i := range k.set {
		if err := k.apply(&k.set[i]); err != nil {
			return err
		}
	}
	for _, key := range k.taken {
		k.over.Delete(key)
		k.dereference(key)
	}
	for _, w := range k.windows {
		if err := k.watch(w); err != nil {
			return err
		}
	}
	for _, w := range k.ending {
		if err := k.drop(w); err != nil {
			return err
		}
	}
	for name, group := range k.loose {
		if err := k.release(group, []byte(name), kindTimer, kindRefers); err != nil {
			return err
		}
	}
	clear(k.loose)
	clear(k.windows)
	k.firing, k.set, k.taken, k.ending = nil, nil, nil, nil
	return k.over.Commit()
}

// watch sees to it that the end of a window with a key is noticed.
func (k *kept) watch(w touched) error {
	end, err := k.strategy.MaxTimestamp(w.window)
	if err != nil {
		return fmt.Errorf("window that state is kept of: %w", err)
	}
	at := min(end+k.lateness, coder.MaxTimestamp)
	key := make([]byte, 0, queueBytes+len(w.name)+binary.MaxVarintLen32+len(w.window))
	key = appendPart(append(coder.AppendTimestamp(begin(key, kindExpiry, w.group), at), w.name...), w.window)
	if _, known, err := k.over.Get(key); err != nil || known {
		return err
	}
	k.over.Insert(key, nil)
	k.expiries.put(w.group, at)
	if k.state.Expiration == "" {
		return nil // nobody is told of the key
	}
	return k.refer(key, w.key)
}

// refer has the key stay that the entry of a queue is of, if it is a long one.
func (k *kept) refer(entry, key []byte) error {
	reference := reference(entry)
	if reference == nil {
		return nil
	}
	name, _, _ := cutKeyName(entry[queueBytes:])
	k.over.Put(reference, nil)
	return k.keep(groupIn(entry), name, key)
}

// dereference takes back what refer has done, of an entry that goes.
func (k *kept) dereference(entry []byte) {
	if reference := reference(entry); reference != nil {
		k.over.Delete(reference)
		k.loosen(groupIn(entry), entry[queueBytes:])
	}
}

// groupIn is the key group of an entry.
func groupIn(entry []byte) int { return int(binary.BigEndian.Uint16(entry)) }

// loosen takes note of an entry that goes, whose key in the store is this from the user's on: if that is a long one, it may be the last.
func (k *kept) loosen(group int, name []byte) {
	if !isLong(name) {
		return
	}
	if k.loose == nil {
		k.loose = map[string]int{}
	}
	name, _, _ = cutKeyName(name)
	k.loose[string(name)] = group
}

// discard forgets what an attempt at the bundle has changed.
func (k *kept) discard() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set = nil
	k.cached.change()
	if k.over == nil {
		return nil
	}
	return k.over.Discard()
}
