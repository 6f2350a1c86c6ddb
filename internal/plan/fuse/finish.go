package fuse

import (
	"container/heap"
	"fmt"
	"slices"

	"trestle/internal/plan/graph"
)

// finish gives the runner's transforms their places, once those of the SDKs have theirs: at the mouth of the stage that
// reads them where there is one such stage, else in a stage of the runner's own.
func (b *builder) finish() *Result {
	r := &Result{graph: b.g, home: b.home, played: map[string]*Stage{}}
	for _, n := range b.g.Nodes {
		switch n.Kind {
		case graph.Impulse:
			// An impulse is free: each stage that reads it has its own.
			for _, s := range b.readers[n.Outputs[0]] {
				if !s.alone() {
					s.Mouth = n
				}
			}
			if b.readByOthers(n) {
				b.runnerStage(n)
			}
		case graph.Group:
			readers := b.readers[n.Outputs[0]]
			if len(readers) == 1 && !readers[0].alone() && !b.readByOthers(n) && !b.unstable(n, readers[0]) {
				readers[0].Mouth = n
				b.home[n.ID] = readers[0]
			} else {
				b.runnerStage(n)
			}
		case graph.TestStream:
			// A stage for each output: it has a watermark of its own.
			for _, pc := range n.Outputs {
				if len(b.g.Consumers(pc)) == 0 {
					continue
				}
				s := &Stage{Mouth: n, PCollection: pc, Order: b.order[n.ID]}
				b.made = append(b.made, s)
				r.played[pc] = s
			}
		case graph.Flatten, graph.Reshuffle:
			if b.home[n.ID] == nil && b.passedOnTwice(n) {
				b.runnerStage(n)
			}
		}
	}
	r.sort(b.made)
	for _, n := range b.g.Nodes {
		for _, pc := range n.Mains {
			if reason := b.reason(n, pc); reason != "" {
				r.Cuts = append(r.Cuts, Cut{PCollection: pc, From: b.g.Producer(pc), To: n, Reason: reason})
			}
		}
		for _, side := range n.Sides {
			r.Cuts = append(r.Cuts, Cut{
				PCollection: side.PCollection, From: b.g.Producer(side.PCollection), To: n,
				Reason: fmt.Sprintf("side input: it is read whole, as %s", side.Tag),
			})
		}
	}
	return r
}

// runnerStage makes a stage without environment for a transform of the runner's.
func (b *builder) runnerStage(n *graph.Node) {
	s := &Stage{Mouth: n, PCollection: n.Outputs[0], Order: b.order[n.ID]}
	b.made = append(b.made, s)
	b.home[n.ID] = s
}

// unstable tells whether a grouping must not be done at the mouth of the stage that reads it: its panes fire by the clock, and a
// transform of the stage wants its input to be the same at a second try. What is kept for it is what comes into the stage, so the
// panes have to; what is grouped would only be grouped in the same order again.
func (b *builder) unstable(n *graph.Node, s *Stage) bool {
	if !b.o.Streaming || !b.g.ByClock(n) {
		return false
	}
	reads := func(to *graph.Node) bool { return slices.Contains(to.Mains, n.Outputs[0]) }
	if !slices.ContainsFunc(s.Transforms, func(to *graph.Node) bool { return reads(to) && to.ParDo.GetRequiresStableInput() }) {
		return false
	}
	for _, to := range s.Transforms {
		if reads(to) {
			b.why[edge{n.Outputs[0], to.ID}] = "stable input: panes that fire by the clock may be others at a second try, so that they are kept"
		}
	}
	return true
}

// readByOthers tells whether anything reads n's output otherwise than as the main input of a stage's: a side input, or a
// transform of the runner's.
func (b *builder) readByOthers(n *graph.Node) bool {
	pc := n.Outputs[0]
	for _, to := range b.g.Consumers(pc) {
		if to.Kind != graph.SDK || b.home[to.ID].alone() {
			return true
		}
		for _, side := range to.Sides {
			if side.PCollection == pc {
				return true
			}
		}
	}
	return false
}

// passedOnTwice tells whether the records of a Flatten or Reshuffle go on through other Flattens and Reshuffles more than
// once. Were it sunk into each, the number of exchanges could double with every one on the way.
func (b *builder) passedOnTwice(n *graph.Node) bool {
	times := 0
	for _, to := range b.g.Consumers(n.Outputs[0]) {
		if to.Kind == graph.Reshuffle || to.Kind == graph.Flatten {
			times++
		}
	}
	return times > 1
}

// reason tells why the PCollection crosses between stages on its way to n, whose main input it is; "" where it does not.
func (b *builder) reason(n *graph.Node, pc string) string {
	from := b.g.Producer(pc)
	if from == nil {
		return ""
	}
	switch n.Kind {
	case graph.Group:
		return "GroupByKey: all values of a key have to meet"
	case graph.Reshuffle:
		return "Reshuffle: the records are spread anew"
	}
	if why := b.why[edge{pc, n.ID}]; why != "" {
		return why
	}
	at := b.home[from.ID]
	switch from.Kind {
	case graph.Group, graph.Flatten, graph.Reshuffle:
		if at != nil && at != b.home[n.ID] {
			if here := b.home[n.ID]; here != nil && here.Splittable {
				return splitPoint
			} else if here != nil && here.Keyed {
				return keyPoint
			}
			return fmt.Sprintf("several readers: the result of the %s goes to more than one place", kindName(from.Kind))
		}
	case graph.TestStream:
		return "the runner plays the TestStream"
	case graph.Impulse:
		if n.Kind != graph.SDK {
			return "the runner makes the impulse"
		}
	}
	return ""
}

func kindName(k graph.Kind) string {
	switch k {
	case graph.Group:
		return "GroupByKey"
	case graph.Flatten:
		return "Flatten"
	}
	return "Reshuffle"
}

// Source is where records of a PCollection come from.
type Source struct {
	Stage *Stage
	// PCollection is what leaves the stage: not the one that is read, where a Flatten or a Reshuffle lies between.
	PCollection string
	// Spread is set when a Reshuffle lies between.
	Spread bool
}

// Sources are the stages that a reader of the PCollection receives from. A stage may be there more than once: then its
// records are to be delivered as often.
func (r *Result) Sources(pcollection string) []Source {
	n := r.graph.Producer(pcollection)
	if n == nil {
		return nil
	}
	s := r.home[n.ID]
	if n.Kind == graph.TestStream {
		s = r.played[pcollection]
	}
	if s != nil {
		return []Source{{Stage: s, PCollection: pcollection}}
	}
	return r.Through(n)
}

// Feeds are the sources of a stage's main input: none for an Impulse.
func (r *Result) Feeds(s *Stage) []Source {
	switch {
	case s.Mouth == nil:
		return r.Sources(s.PCollection)
	case s.Mouth.Kind == graph.Group:
		return r.Sources(s.Mouth.Mains[0])
	}
	return r.Through(s.Mouth)
}

// Through are the sources of all main inputs of a Flatten or Reshuffle, in their order; none for a root.
func (r *Result) Through(n *graph.Node) []Source {
	var all []Source
	for _, pc := range n.Mains {
		for _, src := range r.Sources(pc) {
			src.Spread = src.Spread || n.Kind == graph.Reshuffle
			all = append(all, src)
		}
	}
	return all
}

// sort puts the stages in topological order.
func (r *Result) sort(stages []*Stage) {
	slices.SortStableFunc(stages, func(a, b *Stage) int { return a.Order - b.Order })
	index := make(map[*Stage]int, len(stages))
	for i, s := range stages {
		index[s] = i
	}
	missing := make([]int, len(stages))
	next := make([][]int, len(stages))
	for i, s := range stages {
		feeds := r.Feeds(s)
		for _, n := range s.Transforms {
			for _, side := range n.Sides {
				feeds = append(feeds, r.Sources(side.PCollection)...)
			}
		}
		for _, src := range feeds {
			from := index[src.Stage]
			missing[i]++
			next[from] = append(next[from], i)
		}
	}
	var ready graph.Indexes
	for i, m := range missing {
		if m == 0 {
			ready = append(ready, i)
		}
	}
	heap.Init(&ready)
	for ready.Len() > 0 {
		i := heap.Pop(&ready).(int)
		r.Stages = append(r.Stages, stages[i])
		for _, j := range next[i] {
			if missing[j]--; missing[j] == 0 {
				heap.Push(&ready, j)
			}
		}
	}
}
