package shuffle

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// readAll reads from a page to the end and checks each page's size.
func readAll(t fataler, read func(page int64, maxBytes int) ([]byte, int64, error), page int64, maxBytes, largest int) (all []byte, pages []int64) {
	for page >= 0 {
		pages = append(pages, page)
		data, next, err := read(page, maxBytes)
		if err != nil {
			t.Fatalf("read page %d: %v", page, err)
		}
		if len(data) > max(maxBytes, largest) {
			t.Fatalf("page %d has %d bytes, asked for %d", page, len(data), maxBytes)
		}
		if next >= 0 && next <= page {
			t.Fatalf("page %d is followed by %d", page, next)
		}
		all = append(all, data...)
		page = next
	}
	return all, pages
}

// TestPagesReplay: from any page that a read returned, with any sizes, the rest reads the same.
func TestPagesReplay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newTestStore(t, rapid.SampledFrom([]int64{0, 4 << 10, 1 << 30}).Draw(rt, "budget"), tiny)
		p := s.NewPages()
		lens := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 30, 127, 128, 900}), 0, 200).Draw(rt, "lengths")
		var want []byte
		largest := 0
		for i, n := range lens {
			rec := bytes.Repeat([]byte{byte(i)}, n)
			want = append(want, rec...)
			largest = max(largest, n)
			if err := p.Append(rec); err != nil {
				rt.Fatal(err)
			}
			clear(rec)
		}
		if err := p.Seal(); err != nil {
			rt.Fatal(err)
		}
		if p.Size() != int64(len(want)) || p.Count() != int64(len(lens)) {
			rt.Fatalf("size %d and count %d, expected %d and %d", p.Size(), p.Count(), len(want), len(lens))
		}
		maxBytes := rapid.SampledFrom([]int{0, 1, 100, 1000, 1 << 20}).Draw(rt, "maxBytes")
		all, pages := readAll(rt, p.Read, 0, maxBytes, largest)
		if !bytes.Equal(all, want) {
			rt.Fatalf("read %d bytes that are not the %d written", len(all), len(want))
		}
		at := rapid.SampledFrom(pages).Draw(rt, "from")
		head := 0
		for _, page := range pages {
			if page == at {
				break
			}
			data, _, err := p.Read(page, maxBytes)
			if err != nil {
				rt.Fatal(err)
			}
			head += len(data)
		}
		again, _ := readAll(rt, p.Read, at, rapid.IntRange(0, 500).Draw(rt, "maxBytesAgain"), largest)
		if !bytes.Equal(again, want[head:]) {
			rt.Fatalf("from page %d: read %d bytes that are not the last %d", at, len(again), len(want)-head)
		}
		if err := p.Close(); err != nil {
			rt.Fatal(err)
		}
		if used := s.budget.Used(); used != 0 {
			rt.Fatalf("closed, they hold %d bytes", used)
		}
	})
}

func TestPagesConcurrentReaders(t *testing.T) {
	s := newTestStore(t, 0, tiny)
	p := s.NewPages()
	var want []byte
	for i := range 2000 {
		rec := fmt.Appendf(nil, "record %d;", i)
		want = append(want, rec...)
		if err := p.Append(rec); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := p.Read(0, 1); err == nil {
		t.Error("a read before Seal did not fail")
	}
	if err := p.Seal(); err != nil {
		t.Fatal(err)
	}
	if s.Spilled() == 0 {
		t.Error("nothing was spilled")
	}
	if err := p.Append(nil); !errors.Is(err, ErrSealed) {
		t.Errorf("append after Seal: %v", err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			var got []byte
			for page := int64(0); page >= 0; {
				data, next, err := p.Read(page, 100+i*777)
				if err != nil {
					t.Error(err)
					return
				}
				got, page = append(got, data...), next
			}
			if !bytes.Equal(got, want) {
				t.Errorf("reader %d: got other bytes than written", i)
			}
		})
	}
	wg.Wait()
}

// TestPagesBadPage: a page that no read returned is an error, whatever it is.
func TestPagesBadPage(t *testing.T) {
	s := newTestStore(t, 0, tiny)
	p := s.NewPages()
	for i := range 100 {
		if err := p.Append(bytes.Repeat([]byte{1}, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Seal(); err != nil {
		t.Fatal(err)
	}
	_, page, err := p.Read(0, 1000)
	if err != nil || page < 0 {
		t.Fatal(page, err)
	}
	for _, bad := range []int64{-1, 1, page + 1, page - 1, pageAt(10_000, 0), 1<<63 - 1, -1 << 63} {
		if _, _, err := p.Read(bad, 10); err == nil || !strings.Contains(err.Error(), fmt.Sprint("page ", bad)) {
			t.Errorf("page %d: got %v, expected an error that names the page", bad, err)
		}
	}
}
