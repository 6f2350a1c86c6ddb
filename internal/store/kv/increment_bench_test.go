package kv

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var benchState = flag.Int64("kv.state", 64<<20, "bytes of state of BenchmarkIncrement")

// BenchmarkIncrement measures what a checkpoint writes that the one before it does not have, when one in a hundred keys has
// changed between them. b.N counts checkpoints; written/change is by how much more was written than had changed, and the mean and
// largest share of the state are what matters (docs/performance.md).
// Then it counts the last checkpoint's files, and reads all in the order of keys.
func BenchmarkIncrement(b *testing.B) {
	for _, c := range []struct {
		name  string
		value int
		fixed bool // the same keys change each time
	}{
		{"values of 1000 bytes, any keys", 1000, false},
		{"values of 1000 bytes, the same keys", 1000, true},
		{"values of 100 bytes, any keys", 100, false},
		{"values of 100 bytes, the same keys", 100, true},
		{"values of 8 bytes, any keys", 8, false},
	} {
		b.Run(c.name, func(b *testing.B) { increments(b, c.value, c.fixed) })
	}
}

// keyBytes is about a key's size: key group, kind, a user's key of a dozen bytes, state id.
const keyBytes = 24

func increments(b *testing.B, value int, fixed bool) {
	cache := NewCache(64 << 20)
	defer cache.Close()
	dir := b.TempDir()
	s, err := Open(b.Context(), filepath.Join(dir, "store"), cache, slog.New(slog.DiscardHandler), nil, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	o := s.NewOverlay()
	defer func() {
		if err := o.Close(); err != nil {
			b.Error(err)
		}
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	random := rand.New(rand.NewPCG(1, 2))
	n := int(*benchState) / (keyBytes + value)
	put := func(i int) {
		key := make([]byte, 0, keyBytes)
		key = binary.BigEndian.AppendUint16(key, uint16(i%128))
		key = append(fmt.Appendf(append(key, 's'), "user-%011d", i), "state"...)
		v := make([]byte, value)
		for j := 0; j+8 <= len(v); j += 8 {
			binary.LittleEndian.PutUint64(v[j:], random.Uint64()) // does not compress
		}
		o.Put(key, v)
		if o.Size() > 4<<20 {
			commit(b, o)
		}
	}
	for i := range n {
		put(i)
	}
	commit(b, o)
	checkpoint := func(i int) string {
		path := filepath.Join(dir, fmt.Sprint("checkpoint-", i))
		if err := s.Checkpoint(path); err != nil {
			b.Fatal(err)
		}
		return path
	}
	// What has been written settles first, as it has when state has grown over hours.
	if err := s.db.Compact(b.Context(), []byte{0}, sequence, true); err != nil {
		b.Fatal(err)
	}
	last := checkpoint(0)
	var sum, most, size float64
	b.ResetTimer()
	for round := range b.N {
		for i := range n / 100 {
			if fixed {
				put(i * 100)
			} else {
				put(random.IntN(n))
			}
		}
		commit(b, o)
		now := checkpoint(round + 1)
		var fresh float64
		fresh, size = added(b, last, now)
		sum += fresh
		most = max(most, fresh)
		if err := os.RemoveAll(last); err != nil {
			b.Fatal(err)
		}
		last = now
	}
	b.StopTimer()
	change := float64(n / 100 * (keyBytes + value))
	state := float64(n * (keyBytes + value))
	b.ReportMetric(sum/float64(b.N)/change, "written/change")
	b.ReportMetric(100*sum/float64(b.N)/state, "%mean")
	b.ReportMetric(100*most/state, "%max")
	b.ReportMetric(size/state, "size/state")
	files, err := os.ReadDir(last)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(files)), "files")
	// What many rounds have left, in the order of keys: values that lie apart may be all over the disk.
	begun, scanned := time.Now(), 0
	if err := o.Scan([]byte{0}, sequence, func(_, v []byte) (bool, error) {
		scanned += len(v)
		return true, nil
	}); err != nil || scanned != n*value {
		b.Fatalf("scanned %d bytes of values of %d: %v", scanned, n*value, err)
	}
	b.ReportMetric(float64(time.Since(begun).Nanoseconds())/float64(n), "ns/scanned")
}

func commit(b *testing.B, o *Overlay) {
	if err := o.Commit(); err != nil {
		b.Fatal(err)
	}
}

// added is how many bytes one checkpoint has in files that the one before does not have, and in all.
func added(b *testing.B, before, now string) (fresh, size float64) {
	err := filepath.WalkDir(now, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size += float64(info.Size())
		was, err := os.Stat(filepath.Join(before, d.Name()))
		if err != nil || !os.SameFile(was, info) {
			fresh += float64(info.Size())
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return fresh, size
}
