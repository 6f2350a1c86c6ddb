package stagetest

import (
	"strings"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/stage/stagetest/sdk"
)

// record appends a record of strings (one, or a key and a value) in the global window.
func record(dst []byte, at int64, value ...string) []byte {
	return windowedRecord(dst, at, nil, value...)
}

// windowedRecord appends a record of strings in an encoded window.
func windowedRecord(dst []byte, at int64, w []byte, value ...string) []byte {
	dst = coder.AppendHeader(dst, at, w, coder.NoFiring)
	for _, v := range value {
		dst = sdk.String(dst, v)
	}
	return dst
}

// records are records of single strings, one for each word.
func records(words string) []byte {
	var all []byte
	for _, word := range strings.Fields(words) {
		all = record(all, 0, word)
	}
	return all
}

// pairs are records of key-value pairs, one for each word "key=value".
func pairs(words string) []byte {
	var all []byte
	for _, word := range strings.Fields(words) {
		key, value, _ := strings.Cut(word, "=")
		all = record(all, 0, key, value)
	}
	return all
}

// interval is an encoded interval window.
func interval(start, end int64) []byte {
	return window.AppendInterval(nil, window.Interval{Start: start, End: end})
}

// identity passes each element on to the PCollection "out".
func identity(b *sdk.Bundle) error {
	return b.Each(func(e sdk.Element) error { return b.Write("out", e.Record) })
}

// onTimePane is a pane that is on time, with an index.
func onTimePane(index int64) coder.PaneInfo {
	return coder.PaneInfo{Timing: coder.OnTime, First: index == 0, Index: index, NonSpeculative: index}
}

// paned is a record with a pane, in the global window.
func paned(at int64, pane coder.PaneInfo, value ...string) []byte {
	b := coder.AppendHeader(nil, at, nil, pane)
	for _, v := range value {
		b = sdk.String(b, v)
	}
	return b
}
