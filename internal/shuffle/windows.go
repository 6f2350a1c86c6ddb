package shuffle

import "fmt"

// EachWindow calls f with the encoded window of each entry of a keyed block, in order; a run of entries in one window
// gives one call. The window is a part of the block. An error of f ends it and is returned.
func EachWindow(block []byte, f func(window []byte) error) error {
	var last []byte
	for o, first := 0, true; o < len(block); first = false {
		_, size, err := cutEntry(block[o:])
		if err != nil {
			return fmt.Errorf("windows of a keyed block, at byte %d: %w", o, err)
		}
		_, start := cutPrefixed(block, o)
		window, _ := cutPrefixed(block, start)
		if first || string(window) != string(last) {
			if err := f(window); err != nil {
				return err
			}
		}
		last = window
		o += size
	}
	return nil
}

// Entry is an entry of a keyed block.
type Entry struct {
	Key, Window []byte
	// Timestamp is in milliseconds.
	Timestamp int64
	Value     []byte
}

// EachEntry calls f with each entry of a keyed block, in order. What it has is a part of the block. An error of f ends it and
// is returned.
func EachEntry(block []byte, f func(Entry) error) error {
	for o := 0; o < len(block); {
		prefix, size, err := cutEntry(block[o:])
		if err != nil {
			return fmt.Errorf("keyed block, at byte %d: %w", o, err)
		}
		var e Entry
		e.Key, e.Window = prefixParts(block[o : o+prefix])
		e.Timestamp, e.Value = entryRest(block[o+prefix : o+size])
		if err := f(e); err != nil {
			return err
		}
		o += size
	}
	return nil
}
