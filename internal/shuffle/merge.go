package shuffle

// merger merges sorted sources with a tree of losers: each inner node holds the source that lost there, the root the
// winner. Of equal entries the one of the earlier source comes first.
type merger struct {
	sources []*source
	node    []int
}

// newMerger needs at least one source, each at its first entry.
func newMerger(sources []*source) *merger {
	k := len(sources)
	m := &merger{sources: sources, node: make([]int, k)}
	winners := make([]int, 2*k)
	for i := range k {
		winners[k+i] = i
	}
	for i := k - 1; i > 0; i-- {
		a, b := winners[2*i], winners[2*i+1]
		if m.less(b, a) {
			a, b = b, a
		}
		winners[i], m.node[i] = a, b
	}
	if k > 1 {
		m.node[0] = winners[1]
	}
	return m
}

// top is the source with the least entry; it is not ok when all are at their end.
func (m *merger) top() *source { return m.sources[m.node[0]] }

// replay finds the least entry again after top has gone on.
func (m *merger) replay() {
	w := m.node[0]
	for i := (w + len(m.sources)) / 2; i > 0; i /= 2 {
		if m.less(m.node[i], w) {
			w, m.node[i] = m.node[i], w
		}
	}
	m.node[0] = w
}

func (m *merger) less(a, b int) bool {
	x, y := m.sources[a], m.sources[b]
	switch {
	case !x.ok || !y.ok:
		return x.ok
	case x.order != y.order:
		return x.order < y.order
	}
	if c := comparePrefix(x.prefix(), y.prefix()); c != 0 {
		return c < 0
	}
	return a < b
}
