package shuffle

import (
	"encoding/binary"
	"fmt"
)

// attemptLog is what an open attempt has brought, in the order of arrival, as long as that is little: then 128 partitions
// of its own would take much more memory than the records, and more time. A block is in it with its partition and its
// number of entries.
type attemptLog struct {
	disk   []extent // what was spilled
	chunks [][]byte // the rest, made with newBlock
	bytes  int64    // that the chunks occupy
	size   int64    // of all blocks
}

// extent is a spilled block in a grouper's file.
type extent struct{ off, end int64 }

// log appends a block to an attempt's log.
func (g *Grouper) log(l *attemptLog, part, records int, block []byte) error {
	t := &g.store.tune
	need := len(block) + 3*binary.MaxVarintLen64
	if n := len(l.chunks); n == 0 || cap(l.chunks[n-1])-len(l.chunks[n-1]) < need {
		want := t.firstChunk
		if n > 0 {
			want = min(2*cap(l.chunks[n-1]), t.chunk)
		}
		want = max(want, need) + blockHeader
		if err := g.charge(int64(want)); err != nil { // to do so it may have spilled this very log
			return err
		}
		l.chunks = append(l.chunks, newBlock(want-blockHeader))
		l.bytes += int64(want)
	}
	last := &l.chunks[len(l.chunks)-1]
	b := binary.AppendUvarint(*last, uint64(part))
	b = binary.AppendUvarint(b, uint64(records))
	b = binary.AppendUvarint(b, uint64(len(block)))
	*last = append(b, block...)
	l.size += int64(len(block))
	return nil
}

// charge takes n bytes of the budget, for which something may be spilled.
func (g *Grouper) charge(n int64) error {
	for !g.account.try(n) {
		ok, err := g.makeRoom()
		if err != nil {
			return err
		}
		if !ok {
			g.account.force(n)
			break
		}
	}
	return nil
}

// spillLog moves what of a log is in memory to disk, as it is.
func (g *Grouper) spillLog(l *attemptLog) error {
	for i, c := range l.chunks {
		off, err := g.file.append(c)
		if err != nil {
			return err
		}
		g.account.force(runCost)
		l.disk = append(l.disk, extent{off, g.file.end()})
		g.account.release(int64(cap(c)))
		l.bytes -= int64(cap(c))
		l.chunks[i] = nil
	}
	l.chunks = l.chunks[:0]
	return nil
}

// replay adds the log's blocks to the partitions that part returns, and empties it.
func (g *Grouper) replay(log *attemptLog, part func(i int) *partition) error {
	l := *log // whatever is spilled meanwhile, it is not this
	*log = attemptLog{}
	r := takeReader()
	defer r.done()
	for _, e := range l.disk {
		data, _, err := r.read(g.file, e.off)
		if err != nil {
			return err
		}
		if err := g.replayBlock(data, part); err != nil {
			return err
		}
		g.file.discard(e.off, e.end)
		g.account.release(runCost)
	}
	for i, c := range l.chunks {
		if err := g.replayBlock(payload(c), part); err != nil {
			return err
		}
		g.account.release(int64(cap(c)))
		l.chunks[i] = nil
	}
	log.chunks = l.chunks[:0]
	return nil
}

func (g *Grouper) replayBlock(data []byte, part func(i int) *partition) error {
	for o := 0; o < len(data); {
		i, a := binary.Uvarint(data[o:])
		o += max(a, 0)
		records, b := binary.Uvarint(data[o:])
		o += max(b, 0)
		block, end := cutPrefixed(data, o)
		if a <= 0 || b <= 0 || end < 0 || i >= uint64(len(g.parts)) {
			return fmt.Errorf("read an attempt's log: expected a block before byte %d of %d", o, len(data))
		}
		if err := g.add(part(int(i)), block, int(records)); err != nil {
			return err
		}
		o = end
	}
	return nil
}

// dropLog gives back what a log holds.
func (g *Grouper) dropLog(l *attemptLog) {
	g.account.release(l.bytes + int64(len(l.disk))*runCost)
	for _, e := range l.disk {
		g.file.discard(e.off, e.end)
	}
	clear(l.chunks)
	*l = attemptLog{chunks: l.chunks[:0]}
}
