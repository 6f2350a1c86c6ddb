package shuffle

import (
	"bytes"
	"cmp"
	"slices"
)

// indexEntry stands for a record while a partition is sorted. It says which chunk the record is in (the upper 16 bits of
// at) and where.
type indexEntry struct {
	order uint64 // sortOrder of the key's hash
	at    uint32
	size  uint32
}

// record returns the bytes of the entry that e stands for.
func (p *partition) record(e indexEntry) []byte {
	off := e.at & 0xffff
	return p.chunks[e.at>>16][off : off+e.size]
}

// sorter keeps the memory that sorting takes from one partition to the next.
type sorter struct{ index, spare []indexEntry }

const (
	radixBits   = 11
	radixPasses = 2
	// radixFrom is the number of records below which clearing the counters costs more than comparing.
	radixFrom = 1024
)

// sort returns the partition's records by order, without moving them; those that are equal in the bits that radix looks at
// are still to be sorted by sortTies, as they are come to. The result is valid until the next call.
func (s *sorter) sort(p *partition, hash func([]byte) uint64) ([]indexEntry, error) {
	if cap(s.index) < p.records {
		s.index = make([]indexEntry, 0, p.records)
	}
	index := s.index[:0]
	for i, c := range p.chunks {
		for o := 0; o < len(c); {
			_, size, err := cutEntry(c[o:])
			if err != nil {
				return nil, err
			}
			key, _ := cutPrefixed(c, o)
			index = append(index, indexEntry{sortOrder(hash(key)), uint32(i<<16 | o), uint32(size)})
			o += size
		}
	}
	s.index = index
	if len(index) < radixFrom {
		slices.SortFunc(index, p.compare)
		return index, nil
	}
	s.radix()
	return s.index, nil
}

// radix sorts by the upper bits of the order, from the lowest of them up; each pass keeps the order of equals.
func (s *sorter) radix() {
	if cap(s.spare) < len(s.index) {
		s.spare = make([]indexEntry, cap(s.index))
	}
	from, to := s.index, s.spare[:len(s.index)]
	for pass := range radixPasses {
		shift := 64 - radixBits*(radixPasses-pass)
		var next [1 << radixBits]uint32
		for i := range from {
			next[from[i].order>>shift&(1<<radixBits-1)]++
		}
		sum := uint32(0)
		for d, n := range next {
			next[d], sum = sum, sum+n
		}
		for i := range from {
			d := from[i].order >> shift & (1<<radixBits - 1)
			to[next[d]] = from[i]
			next[d]++
		}
		from, to = to, from
	}
	s.index, s.spare = from, to
}

// sortTies sorts the records at the start of an index that are equal in the bits that radix looked at, by (order, key,
// window) and then by arrival, and returns how many they are. Mostly that is one key in one window, which is seen without
// sorting. It is done just before they are used, because it brings them into the cache: records are all over the
// partition's memory, and the processor can wait for many of them at once here.
func (p *partition) sortTies(index []indexEntry) int {
	const low = 64 - radixBits*radixPasses
	n, mixed := 1, false
	for ; n < len(index) && index[n].order>>low == index[0].order>>low; n++ {
		mixed = mixed || index[n].order != index[0].order
	}
	if !mixed && n > 1 {
		first := p.record(index[0])
		size := skipPrefixed(first, skipPrefixed(first, 0))
		for k := 1; k < n && !mixed; k++ {
			mixed = !bytes.HasPrefix(p.record(index[k]), first[:size])
		}
	}
	if mixed {
		slices.SortFunc(index[:n], p.compare)
	}
	return n
}

func (p *partition) compare(a, b indexEntry) int {
	if c := cmp.Compare(a.order, b.order); c != 0 {
		return c
	}
	if c := comparePrefix(prefixOf(p.record(a)), prefixOf(p.record(b))); c != 0 {
		return c
	}
	return cmp.Compare(a.at, b.at)
}

// prefixOf returns the prefix of a whole, checked entry.
func prefixOf(entry []byte) []byte { return entry[:skipPrefixed(entry, skipPrefixed(entry, 0))] }
