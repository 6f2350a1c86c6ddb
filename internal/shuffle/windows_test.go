package shuffle

import (
	"errors"
	"slices"
	"testing"
)

// TestEachWindow: one call for each run of entries in one window; malformed blocks and the callback's errors end it.
func TestEachWindow(t *testing.T) {
	var block []byte
	for _, e := range []struct{ key, window string }{{"a", ""}, {"b", ""}, {"a", "w1"}, {"a", "w1"}, {"a", "w2"}, {"b", "w1"}} {
		block = appendEntry(block, []byte(e.key), []byte(e.window), 5, []byte("value"))
	}
	var got []string
	note := func(w []byte) error {
		got = append(got, string(w))
		return nil
	}
	if err := EachWindow(block, note); err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "w1", "w2", "w1"}; !slices.Equal(got, want) {
		t.Errorf("windows %q, want %q", got, want)
	}
	if err := EachWindow(nil, note); err != nil {
		t.Errorf("an empty block: %v", err)
	}
	if err := EachWindow(block[:len(block)-1], note); err == nil {
		t.Error("a block that is cut short is no error")
	}
	stop := errors.New("stop")
	if err := EachWindow(block, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the callback's error came back as %v", err)
	}
}
