// Package grouping is what a GroupByKey does with one key in a stream: it drops what is too late, merges windows, asks the
// trigger when a window's values go out, says as what pane and with which timestamp, holds the watermark meanwhile, and
// forgets the window when it has expired.
//
// It is pure: events go in, effects come out, in the order in which they are to happen. Values, timers and holds are the
// host's, which keeps them in its store and is told what to do with them. What is remembered of a key and window is a
// few bytes, its state, which the host keeps as well.
//
// # How it is used
//
// For each key that something happens to, in one transaction of the host's:
//
//	k.Reset()
//	k.Load(window, state)        // for each window that may matter: see below
//	effects, err := k.Elements(now, elements, nil)   // or k.Wake(now, window)
//	… carry the effects out, one after the other …
//
// The windows to be loaded are those of the elements, or the one that is woken; all that the key has states of when
// Machine.Merging. One that has no state is not loaded. A Key is scratch memory: it may be used for any number of keys, one
// after the other, by one goroutine at a time.
//
// Effects:
//
//	Append     element Element becomes value number At of Bag
//	Move       values 0 to N-1 of From become values At to At+N-1 of Bag; From is gone
//	Emit       values 0 to N-1 of Bag, in this order, go out: with the key, in Window, at Timestamp, with Pane. N may be 0
//	Clear      values 0 to N-1 of Bag are deleted, which are all that it has
//	Hold       the output watermark must not pass Is for this window; before, it must not pass Was. None: no hold, or one
//	           that follows from the event timer: the host tells no output watermark before it has woken who is due
//	EventTimer Wake wants to be called for the window once the input's watermark is Is or later; that of Was is gone
//	ProcessingTimer
//	           the same, once the processing time is Is or later
//	Save       the window's state is State
//	Forget     the window has no state any more
//	Drop       element Element is dropped, for the reason Dropped; for a metric and a debug message
//
// A window has one hold, one event timer and one processing timer at most. Bags are named by bytes that are unique to
// the key: those of the window unless windows merge, and short names else, which stay as their windows grow. Waking a
// window too often, or one that has no state, is harmless; not at all is not.
//
// # The watermarks
//
// Now.Output is the output watermark that the host has told; the host tells one that is the minimum of the input's
// watermark and of all holds, and does that after everything that the input's watermark has made due has happened.
// Then nothing that is put out on time is late for who comes next: an element's hold is there before the watermark can
// pass it, and goes when its pane is out.
//
// # Rules
//
// They are those of Beam's ReduceFnRunner, WatermarkHold and PaneInfoTracker (runners/core-java), except where it says
// so here.
//
//   - A window ends at its last millisecond E, expires at G = E + allowed lateness, and both lie no later than the end of
//     the global window. It has ended, or expired, when the watermark is later. An element of an expired window is
//     dropped, before windows merge.
//   - Triggers look at each element by itself: how elements were gathered into bundles changes no pane.
//   - A pane is LATE when the output watermark is past E or a pane before it was not EARLY, else EARLY while the input's
//     watermark is not past E, else ON_TIME.
//   - A pane with nothing new in it goes out only when it is ON_TIME and the on-time behaviour is FIRE_ALWAYS, or when it
//     is the last one and the closing behaviour EMIT_ALWAYS.
//   - A trigger that has finished closes its window: what came in is forgotten, that pane is the last, and what comes
//     later is dropped until the window expires. Where the clock may finish the trigger (Machine.FinishedByClock of package
//     trigger) the window is not closed, and the rest goes out when it expires: see
//     docs/decisions/0015-clock-finishes-nothing.md.
//   - When a window expires, what is left goes out as its last pane, whatever the trigger says, and the window is
//     forgotten.
//   - The timestamp of a pane is that of the elements since the last one, by the strategy's output time; of those that
//     came in time to hold the output watermark, and at E otherwise. That is also where the window holds the watermark.
//     Beam holds it at G, besides, for elements that are too late for that, and for panes that come without any. Here
//     that needs no hold: a watermark that is not past G for the input is not for the output, and one that is makes the
//     window expire before the output's is told. So no pane is dropped by who comes next with the same lateness.
//   - Windows that merge start their panes anew, unless the result is one of them.
package grouping
