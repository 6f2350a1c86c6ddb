// Package trigger decides when a window's values are put out: the state machines of Beam's triggers.
//
// Compile makes of a trigger an immutable Machine. What a trigger remembers of one key and window is a State, plain
// data with an encoding of its own; the zero State is that of a window nothing has arrived in. Time is passed in (At),
// nothing is set or started: a Machine is asked whether it is Ready, told to Fire, and says by Wake when it wants to be
// asked again. It knows nothing of panes, values and holds, which are package grouping's.
//
// # Rules
//
// They are Beam's (Trigger in beam_runner_api.proto, and what Java's runners make of it). Time passes the end of a
// window when the watermark is past the window's last millisecond. A trigger fires when it is ready and is finished, or
// goes on, after that:
//
//	Default            ready once the end has passed, from then on at every element; never finished
//	Always             always ready, never finished
//	Never              neither
//	ElementCount(n)    n elements have arrived since the last firing; finished by firing
//	AfterProcessingTime
//	                   the processing time of the first element since the last firing, put through the transforms, has
//	                   come; finished by firing
//	AfterSynchronizedProcessingTime
//	                   processing time is later than that of the first element; finished by firing. All tasks take
//	                   theirs from clocks that agree, so that this is the synchronized time as well
//	AfterEndOfWindow   the end has passed; finished by that firing, unless there are late firings. Before it the early
//	                   trigger fires, after it the late one, each begun anew when it is finished
//	AfterAll           all that are not finished are ready; finished by firing
//	AfterAny           one is ready; finished by firing
//	AfterEach          the first that is not finished is ready; finished with the last
//	Repeat             its trigger is ready; begun anew when that is finished, never finished
//	OrFinally          one of the two is ready; finished when the second has fired or the first is finished
//
// A firing takes up the whole pane, so whoever else counts or waits for that pane's elements starts again; only the
// second part of an OrFinally counts over firings.
//
// # Merging
//
// When windows merge, so do their states: counts are added, of deadlines the earliest holds. A count that was reached
// in any of the windows is; a deadline is behind only if it is in all of them; an end of window only if it is in all
// and the merged window has ended too, so that a session that grows fires on time once more. Where windows may merge, a
// trigger that is not the current one counts along, because merging may make it current again.
package trigger
