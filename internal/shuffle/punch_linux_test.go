package shuffle

import (
	"os"
	"syscall"
	"testing"
)

// TestDropPunchesHoles: what a dropped attempt took on disk is given back while the file is in use.
func TestDropPunchesHoles(t *testing.T) {
	s := newTestStore(t, 0, defaultTuning)
	g := s.NewGrouper(1)
	rnd := xorshift(1)
	for range 20_000 {
		value := make([]byte, 1000)
		for i := range value {
			value[i] = byte(rnd.next())
		}
		if err := g.Add(1, 0, appendEntry(nil, []byte("key"), nil, 0, value)); err != nil {
			t.Fatal(err)
		}
	}
	before := diskSpace(t, g.file)
	if err := g.Settle(1, false); err != nil {
		t.Fatal(err)
	}
	if after := diskSpace(t, g.file); before < 10<<20 || after > before/10 {
		t.Errorf("of %d bytes on disk, %d are left", before, after)
	}
	if used := s.budget.Used(); used != 0 {
		t.Errorf("%d bytes are held", used)
	}
}

// diskSpace is what a spill file takes on disk.
func diskSpace(t *testing.T, f *spillFile) int64 {
	h, ok := f.f.(*os.File)
	if !ok {
		t.Fatal("nothing was spilled")
	}
	info, err := h.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
