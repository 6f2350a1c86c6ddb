package stage

import (
	"fmt"
	"strings"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/dustin/go-humanize"

	"trestle/internal/beam/window"
)

// Windows of a side input pile up where nothing tells which of them will still be read: see gate.ahead. That is told, since all of
// them are kept, on disk.

// pileTold is how many windows of a side input come with nothing to tell about them before the job is told so.
const pileTold = 256

// untold is the windows of a side input that have become readable since an element of the main input has told last which one it reads.
type untold struct {
	windows int
	since   time.Time // when the first of them had been noticed
	next    time.Time // no word before
	pause   time.Duration
}

// tellPiles tells the job of side inputs whose windows pile up.
func (g *gate) tellPiles(now time.Time) error {
	if !g.windowed || now.IsZero() {
		return nil
	}
	if _, known := window.First(g.windowing, g.spec.coders(), 0); known {
		return nil
	}
	for side, mapper := range g.mappers {
		if mapper == nil {
			continue
		}
		p, due, err := g.views.piles(side, now)
		if err != nil {
			return err
		}
		if due {
			g.spec.Out.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, g.pileText(side, p))
		}
	}
	return nil
}

// piled is how much is kept of a side input.
type piled struct {
	untold
	kept  int
	bytes uint64
}

// piles tells whether the job is to be told now that a side input's windows pile up, and how many there are.
func (v *Views) piles(side int, now time.Time) (p piled, due bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.live
	u := &l.sides[side].told
	if u.windows > 0 && u.since.IsZero() {
		u.since = now
	}
	if u.windows < pileTold || now.Before(u.since.Add(firstWord)) || now.Before(u.next) || !l.opened() {
		return p, false, nil
	}
	u.pause = min(max(2*u.pause, firstWord), lastPause)
	u.next = now.Add(u.pause)
	p.untold = *u
	lo := l.at(side, kindEnd)
	if err := l.over.Scan(lo, after(lo), func([]byte, []byte) (bool, error) {
		p.kept++
		return true, nil
	}); err != nil {
		return p, false, err
	}
	group := lo[:2]
	p.bytes, err = l.store.Usage(group, after(group))
	return p, err == nil, err
}

func (g *gate) pileText(side int, p piled) string {
	in := g.spec.Stage.SideInputs[side]
	var b strings.Builder
	fmt.Fprintf(&b, "transform %s: %s windows of side input %q are kept (%s on disk): since %s, %s of them have come and no element of the main input, ",
		g.name(in.Transform), humanize.Comma(int64(p.kept)), in.Tag, humanize.IBytes(p.bytes), p.since.UTC().Format(time.RFC3339), humanize.Comma(int64(p.windows)))
	fmt.Fprintf(&b, "which would tell what is still read. The main input has a window function that only the SDK knows (%s), so Trestle cannot work out which "+
		"windows may still come. What is kept goes when an element has come and its window is over: if there may be none for long, give the main input "+
		"fixed, sliding, session or the global windows, or the side input larger ones", g.windowing.GetWindowFn().GetUrn())
	return b.String()
}
