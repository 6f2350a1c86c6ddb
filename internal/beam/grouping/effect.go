package grouping

import (
	"math"

	"trestle/internal/beam/coder"
)

// None is no hold, and the time of a timer that is not set.
const None int64 = math.MaxInt64

// Kind is what an Effect is.
type Kind uint8

// The kinds of effects; the package's comment says what is to be done.
const (
	Append Kind = iota
	Move
	Emit
	Clear
	Hold
	EventTimer
	ProcessingTimer
	Save
	Forget
	Drop
)

// Reason is why an element is dropped.
type Reason uint8

const (
	// Late is for a window that has expired.
	Late Reason = iota
	// Closed is for a window whose trigger has finished.
	Closed
)

// Effect is something that the host has to do. Which fields have a meaning depends on Kind. What slices point to is the
// Key's, or the caller's own, until the Key is used again.
type Effect struct {
	Kind   Kind
	Window []byte // of all but Move

	Element int // its index in the argument of Elements: of Append, Drop
	Dropped Reason

	Bag  []byte // of Append, Move, Emit, Clear
	From []byte // the bag that is moved
	At   int64
	N    int64

	Timestamp int64 // ms
	Pane      coder.PaneInfo

	Was, Is int64 // of Hold, EventTimer, ProcessingTimer, in ms
	State   []byte
	New     bool // of Save: nothing has been saved of the window, or it was forgotten
}

// Now is how far time has come, in milliseconds since the epoch.
type Now struct {
	// Input and Output are the watermarks of the grouping's input and output: see the package's comment.
	Input, Output int64
	// Processing is the time by the clock.
	Processing int64
}

// Element is an element of the key, once for each of its windows.
type Element struct {
	Window    []byte
	Timestamp int64 // ms
}

// Merge says that windows have become one: those of From, in which Into may be as well.
type Merge struct {
	Into []byte
	From [][]byte
}
