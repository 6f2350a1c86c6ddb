package stage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/grouping"
	"trestle/internal/beam/window"
	"trestle/internal/shuffle"
)

const (
	// sendBytes is how much encoded input is gathered before it is sent: small messages cost an SDK four times as much
	// a byte.
	sendBytes = 512 << 10
	// inlineBytes is how large a group's values may be to travel inside the element; the values of a larger group stay
	// with the runner, and the SDK reads them page by page.
	inlineBytes = 1 << 20
)

// groups is the intake of a stage with a GroupByKey at its mouth, of a bounded plan: it groups by key and window, and makes
// an element KV<K, Iterable<V>> of each group once the input has ended, which is when the default trigger fires then.
type groups struct {
	runner   runner
	large    largeGroups // nil when the SDK cannot read iterables from state
	grouper  *shuffle.Grouper
	strategy *window.Strategy
	merging  merging       // nil unless windows have to be merged
	panes    *grouping.Key // nil when each group has one pane, on time
	body     []byte        // of a group that may have several
	limit    int           // bytes of a bundle
	held     int           // bytes of large groups since the last bundle's end
}

// largeGroups keeps values that are too many to travel inside their element.
type largeGroups interface {
	// keep stores the values until the bundle of the next processed record has ended, and returns the token under
	// which the harness asks for them.
	keep(values *shuffle.Pages) (token []byte)
	newPages() *shuffle.Pages
}

func newGroups(s Spec, r runner) (*groups, error) {
	g := s.Stage.Input.Group
	strategy, err := window.Compile(g.Windowing, s.coders())
	if err != nil {
		return nil, fmt.Errorf("windowing of GroupByKey %s: %w", g.Transform, err)
	}
	merging, err := newMerging(s, strategy)
	if err != nil {
		return nil, fmt.Errorf("windowing of GroupByKey %s: %w", g.Transform, err)
	}
	in := &groups{
		runner: r, grouper: s.Store.NewGrouper(s.KeyGroups), strategy: strategy, merging: merging, limit: s.BundleBytes,
	}
	machine, err := grouping.Compile(g.Windowing, s.coders())
	if err != nil {
		return nil, fmt.Errorf("windowing of GroupByKey %s: %w", g.Transform, err)
	}
	if !machine.OnePane() {
		in.panes = machine.NewKey()
	}
	if large, ok := r.(largeGroups); ok && g.StateBacked {
		in.large = large
	}
	return in, nil
}

func (g *groups) process(_ context.Context, from Delivery, block []byte) error {
	if err := g.grouper.Add(from.Attempt, from.KeyGroup, block); err != nil || g.merging == nil {
		return err
	}
	return g.merging.see(block)
}

func (g *groups) settle(attempt Attempt, keep bool) error { return g.grouper.Settle(attempt, keep) }

func (g *groups) end(ctx context.Context) error {
	sorted, err := g.sorted(ctx)
	if err != nil {
		return fmt.Errorf("group: %w", err)
	}
	var (
		buf  = make([]byte, 0, sendBytes+inlineBytes/4)
		sent int
	)
	for {
		more, err := sorted.Next()
		if err != nil {
			return fmt.Errorf("group: %w", err)
		}
		if !more {
			break
		}
		if buf, err = g.element(buf, sorted); err != nil {
			return err
		}
		if len(buf) < sendBytes && g.held < g.limit {
			continue
		}
		if err := g.runner.process(ctx, buf); err != nil {
			return err
		}
		sent += len(buf) + g.held
		g.held = 0
		buf = buf[:0]
		if sent >= g.limit {
			if err := g.runner.cut(ctx); err != nil {
				return err
			}
			sent = 0
		}
	}
	if len(buf) == 0 {
		return nil
	}
	return g.runner.process(ctx, buf)
}

// sorted ends the sorting and returns the groups, with their windows merged.
func (g *groups) sorted(ctx context.Context) (grouped, error) {
	sorted, err := g.grouper.Seal()
	if err != nil || g.merging == nil {
		return sorted, err
	}
	return g.merging.merge(ctx, sorted)
}

// element appends the record of the group at hand: its header, the key, and the iterable of its values; several, if its
// trigger makes it so.
func (g *groups) element(buf []byte, sorted grouped) ([]byte, error) {
	start := len(buf)
	buf = coder.AppendHeader(buf, 0, sorted.Window(), coder.OnTimeAndOnly)
	buf = append(buf, sorted.Key()...)
	// beam:coder:iterable:v1: the number of elements in four bytes, then the elements. The number is known at the end.
	count := len(buf)
	buf = append(buf, 0, 0, 0, 0)
	var (
		n                int64
		earliest, latest = coder.MaxTimestamp, coder.MinTimestamp
		pages            *shuffle.Pages
	)
	for {
		value, timestamp, ok, err := sorted.NextValue()
		if err != nil {
			return buf, fmt.Errorf("group: %w", err)
		}
		if !ok {
			break
		}
		earliest, latest = min(earliest, timestamp), max(latest, timestamp)
		n++
		if pages != nil {
			if err := pages.Append(value); err != nil {
				return buf, fmt.Errorf("large group: %w", err)
			}
			continue
		}
		buf = append(buf, value...)
		if g.large != nil && len(buf)-count > inlineBytes {
			if pages, err = g.spill(buf[count+4:]); err != nil {
				return buf, err
			}
			buf = buf[:count]
		}
	}
	if pages != nil {
		if err := pages.Seal(); err != nil {
			return buf, fmt.Errorf("large group: %w", err)
		}
		g.held += int(pages.Size())
		buf = appendToken(buf, g.large.keep(pages))
	} else if n > 1<<31-1 {
		return buf, fmt.Errorf("a group has %d values, more than an iterable can hold in place (%d): the SDK does not offer beam:coder:state_backed_iterable:v1", n, 1<<31-1)
	} else {
		binary.BigEndian.PutUint32(buf[count:], uint32(n))
	}
	if g.panes != nil {
		return g.firings(buf, start, count-len(sorted.Key()), sorted, n, earliest, latest)
	}
	// The time of the group is known now as well: it takes the place of the header's first bytes.
	at, err := g.strategy.OutputTime(sorted.Window(), earliest, latest)
	if err != nil {
		return buf, fmt.Errorf("window of a group: %w", err)
	}
	coder.AppendTimestamp(buf[start:start], at)
	return buf, nil
}

// firings makes of the record that begins at start, whose key begins at body, a record for each pane that the trigger makes
// of its group.
func (g *groups) firings(buf []byte, start, body int, sorted grouped, n, earliest, latest int64) ([]byte, error) {
	panes, err := g.panes.Bounded(sorted.Window(), n, earliest, latest)
	if err != nil {
		return buf, err
	}
	g.body = append(g.body[:0], buf[body:]...)
	buf = buf[:start]
	for _, p := range panes {
		buf = coder.AppendHeader(buf, p.Timestamp, sorted.Window(), p.Pane)
		if p.N > 0 {
			buf = append(buf, g.body...)
		} else {
			buf = append(append(buf, sorted.Key()...), 0, 0, 0, 0) // no values
		}
	}
	return buf, nil
}

// spill moves the values gathered so far to pages; they are the first page, whose inner bounds do not matter.
func (g *groups) spill(values []byte) (*shuffle.Pages, error) {
	pages := g.large.newPages()
	if err := pages.Append(values); err != nil {
		return nil, fmt.Errorf("large group: %w", err)
	}
	return pages, nil
}

func (g *groups) close() error {
	err := g.grouper.Close()
	if g.merging != nil {
		err = errors.Join(err, g.merging.close())
	}
	return err
}
