package stage

import (
	"encoding/binary"
	"fmt"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
)

// customView is a side input in windows that only its SDK knows. SDKs do not agree on how a state key has such a window:
// Python writes it with the coder in the windowing strategy that it was given, which is that of the records
// (beam:coder:custom_window:v1), Java with the coder of its window function, which is what is inside of that. Both find it.
type customView struct {
	view
	coder  *coder.Windowed
	prefix bool // the window inside is in a length prefix
	// inside has the windows as the records have them, by what is inside.
	inside map[string][]byte
}

// withCustomWindows returns v, or v for both kinds of state keys.
func withCustomWindows(v view, w *coder.Windowed, coders map[string]*pipepb.Coder) view {
	if w.Window().URN() != urn.CoderCustomWindow {
		return v
	}
	inner := coders[coders[w.Window().ID()].GetComponentCoderIds()[0]]
	return &customView{
		view: v, coder: w, prefix: inner.GetSpec().GetUrn() == urn.CoderLengthPrefix, inside: map[string][]byte{},
	}
}

func (v *customView) add(records []byte) error {
	for rest := records; len(rest) > 0; {
		header, size, err := v.coder.Record(rest)
		if err != nil {
			return fmt.Errorf("side input: %w", err)
		}
		windows := header.Windows(rest)
		for range header.Count {
			n, err := v.coder.Window().Skip(windows)
			if err != nil {
				return fmt.Errorf("side input: window: %w", err)
			}
			inner := windows[coder.TimestampSize:n]
			if v.prefix {
				_, prefix := binary.Uvarint(inner)
				inner = inner[prefix:]
			}
			if _, known := v.inside[string(inner)]; !known {
				v.inside[string(inner)] = append([]byte(nil), windows[:n]...)
			}
			windows = windows[n:]
		}
		rest = rest[size:]
	}
	return v.view.add(records)
}

// window is the window as the records have it.
func (v *customView) window(w []byte) []byte {
	if outer, ok := v.inside[string(w)]; ok {
		return outer
	}
	return w
}

func (v *customView) values(window []byte, page int64) ([]byte, int64, error) {
	return v.view.values(v.window(window), page)
}

func (v *customView) lookup(key, window []byte, page int64) ([]byte, int64, error) {
	return v.view.lookup(key, v.window(window), page)
}

func (v *customView) keys(window []byte, page int64) ([]byte, int64, error) {
	return v.view.keys(v.window(window), page)
}
