package shuffle

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// BenchmarkAttempts groups records that come in bundles, as many at a time as given, each an attempt that is kept; and
// for comparison the same blocks as data that is never taken back.
func BenchmarkAttempts(b *testing.B) {
	n := *benchRecords
	const groups = 128
	type block struct {
		bundle, group int
		data          []byte
	}
	for _, bundle := range []int{200, 1000, 5000, 20_000, 100_000, n} {
		var blocks []block
		bundles := 0
		p, err := NewPartitioner(windowedKV(b, "global"), groups, func(g int, data []byte) error {
			blocks = append(blocks, block{bundles, g, append([]byte(nil), data...)})
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		// One record at a time, to cut bundles where they are to end.
		records := 0
		sdkOutput(n, 100_000, 1, func(data []byte) {
			if err := p.Write(data); err != nil {
				b.Fatal(err)
			}
			if records++; records%bundle == 0 || records == n {
				if err := p.Flush(); err != nil {
					b.Fatal(err)
				}
				bundles++
			}
		})
		for _, c := range []struct {
			name   string
			budget int64
		}{{"memory", 1 << 40}, {"spilling", int64(n) * 54}, {"scarce", int64(n) * 13}} {
			for _, open := range []int{0, 1, 4} {
				b.Run(fmt.Sprintf("bundle=%d/%s/open=%d", bundle, c.name, open), func(b *testing.B) {
					if open > bundles {
						b.Skip("there are not as many bundles")
					}
					budget := NewBudget(c.budget)
					s := NewStore(b.TempDir(), budget)
					start := cpu()
					for b.Loop() {
						g := s.NewGrouper(groups)
						if err := addBundles(g, open, bundles, len(blocks), func(i int) (int, int, []byte) {
							return blocks[i].bundle, blocks[i].group, blocks[i].data
						}); err != nil {
							b.Fatal(err)
						}
						gs, err := g.Seal()
						if err != nil {
							b.Fatal(err)
						}
						if got := consume(b, gs); got != n {
							b.Fatalf("got %d values of %d", got, n)
						}
						if err := g.Close(); err != nil {
							b.Fatal(err)
						}
					}
					perRecord(b, n, start)
					b.ReportMetric(float64(s.Spilled())/float64(b.N)/1e6, "spilledMB")
					b.ReportMetric(float64(budget.peak.Load())/1e6, "peakMB")
				})
			}
		}
	}
}

// addBundles adds n blocks, which come bundle by bundle; so many bundles are open at a time, none if all is attempt 0.
func addBundles(g *Grouper, open, bundles, n int, block func(i int) (bundle, group int, data []byte)) error {
	if open == 0 {
		for i := range n {
			_, group, data := block(i)
			if err := g.Add(0, group, data); err != nil {
				return err
			}
		}
		return nil
	}
	first := make([]int, bundles+1) // each bundle's first block
	for i := n - 1; i >= 0; i-- {
		bundle, _, _ := block(i)
		first[bundle] = i
	}
	first[bundles] = n
	for from := 0; from < bundles; from += open {
		to := min(from+open, bundles)
		for more, k := true, 0; more; k++ {
			more = false
			for bundle := from; bundle < to; bundle++ {
				if i := first[bundle] + k; i < first[bundle+1] {
					more = true
					_, group, data := block(i)
					if err := g.Add(Attempt(bundle+1), group, data); err != nil {
						return err
					}
				}
			}
		}
		for bundle := from; bundle < to; bundle++ {
			if err := g.Settle(Attempt(bundle+1), true); err != nil {
				return err
			}
		}
	}
	return nil
}

// BenchmarkSpoolAttempts puts and gets blocks of 32 KiB, each an attempt or each four.
func BenchmarkSpoolAttempts(b *testing.B) {
	for name, budget := range map[string]int64{"memory": 1 << 30, "disk": 0} {
		for _, each := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/blocks=%d", name, each), func(b *testing.B) {
				q := newTestStore(b, budget, defaultTuning).NewSpool()
				block := make([]byte, 32<<10)
				rnd := xorshift(1)
				for i := 0; i < len(block); i += 8 {
					binary.LittleEndian.PutUint64(block[i:], rnd.next())
				}
				attempt := Attempt(0)
				put := func() {
					attempt++
					for range each {
						if err := q.Put(ctx, attempt, block); err != nil {
							b.Fatal(err)
						}
					}
					if err := q.Settle(attempt, true); err != nil {
						b.Fatal(err)
					}
				}
				for range 256 / each {
					put()
				}
				b.SetBytes(int64(each * len(block)))
				for b.Loop() {
					put()
					for range each {
						if _, err := q.Get(ctx); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}
