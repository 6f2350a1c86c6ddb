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
