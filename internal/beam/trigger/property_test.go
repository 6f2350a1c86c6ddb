package trigger

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"trestle/internal/beam/trigger/triggertest"
)

// TestMachineIsItsReference: a machine fires when a trigger does that looks through all that has ever happened, it wants
// to be woken when that becomes ready by time alone, and its state is no less for having been encoded.
func TestMachineIsItsReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := triggertest.Random(3).Draw(t, "trigger")
		proto, err := triggertest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Compile(proto, rapid.Bool().Draw(t, "may merge"))
		if err != nil {
			t.Fatal(err)
		}
		const end = 20
		var (
			state    State
			happened []triggertest.Instant
			now      triggertest.Instant
			fired    = triggertest.NewReference(proto, end, 0)
		)
		for range rapid.IntRange(1, 40).Draw(t, "instants") {
			at := At{End: end, Watermark: now.Watermark, Processing: now.Processing}
			quiet := !m.Ready(&state, at)
			event, processing := m.Wake(&state, at)
			if event <= at.Watermark || processing <= at.Processing {
				t.Fatalf("%s wants to be woken at %d, %d, and it is %+v", m, event, processing, at)
			}
			now.Elements = 0
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				now.Elements = 1
				m.Elements(&state, 1, at)
			case 2:
				now.Watermark += rapid.Int64Range(0, 8).Draw(t, "watermark")
			case 3:
				now.Processing += rapid.Int64Range(0, 12).Draw(t, "clock")
			}
			at = At{End: end, Watermark: now.Watermark, Processing: now.Processing}
			happened = append(happened, now)

			ready := m.Ready(&state, at)
			if want := fired != nil && fired.Ready(happened); ready != want {
				t.Fatalf("%s is ready: %v, and should be: %v, at %+v", m, ready, want, happened)
			}
			if ready && quiet && now.Elements == 0 && now.Watermark < event && now.Processing < processing {
				t.Fatalf("%s is ready at %+v, and wanted to be woken at %d, %d", m, at, event, processing)
			}
			if ready {
				m.Fire(&state, at)
				fired = fired.Fired(happened)
			}
			if m.Finished(&state) != (fired == nil) {
				t.Fatalf("%s is finished: %v, at %+v", m, m.Finished(&state), happened)
			}
			b := m.AppendState(nil, &state)
			if state, err = m.DecodeState(b); err != nil {
				t.Fatal(err)
			}
			if again := m.AppendState(nil, &state); !bytes.Equal(again, b) {
				t.Fatalf("%s: %x comes back as %x", m, b, again)
			}
		}
	})
}

// TestMergingKeepsWhatWaits: if windows have counted n elements that have not been put out, so has what they become,
// however they are merged; and merging a window with nothing changes nothing.
func TestMergingKeepsWhatWaits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		proto, err := triggertest.Parse("AfterEndOfWindow(early=ElementCount(100), late=ElementCount(100))")
		if err != nil {
			t.Fatal(err)
		}
		m, err := Compile(proto, true)
		if err != nil {
			t.Fatal(err)
		}
		at := At{End: 10}
		states := make([]*State, rapid.IntRange(1, 5).Draw(t, "windows"))
		var sum int64
		for i := range states {
			states[i] = &State{}
			n := rapid.Int64Range(1, 20).Draw(t, "elements")
			sum += n
			m.Elements(states[i], n, at)
		}
		left := rapid.IntRange(1, len(states)).Draw(t, "merged first")
		first := m.Merge(states[:left], at)
		all := m.Merge(append([]*State{&first}, states[left:]...), at)
		direct := m.Merge(states, at)
		if a, b := m.AppendState(nil, &all), m.AppendState(nil, &direct); !bytes.Equal(a, b) {
			t.Fatalf("%x in two steps, %x in one", a, b)
		}
		with := m.Merge([]*State{&all, {}}, at)
		if a, b := m.AppendState(nil, &all), m.AppendState(nil, &with); !bytes.Equal(a, b) {
			t.Fatalf("%x, and %x with a new window", a, b)
		}
		if m.Elements(&all, 100-sum-1, at); sum < 99 && m.Ready(&all, at) {
			t.Fatal("ready with 99 elements")
		}
		if m.Elements(&all, 1, at); !m.Ready(&all, at) {
			t.Fatal("not ready with 100 elements")
		}
	})
}

// FuzzDecodeState: no bytes make decoding fail in another way than with an error, and what is decoded can be used.
func FuzzDecodeState(f *testing.F) {
	texts := []string{
		"Default", "Repeat(ElementCount(3))",
		"AfterEndOfWindow(early=AfterAll(ElementCount(2), AfterProcessingTime(delay 5)), late=OrFinally(Always, ElementCount(4)))",
		"AfterEach(AfterAny(ElementCount(1), AfterSynchronizedProcessingTime), Repeat(AfterEndOfWindow))",
	}
	machines := make([]*Machine, len(texts))
	for i, text := range texts {
		proto, err := triggertest.Parse(text)
		if err != nil {
			f.Fatal(err)
		}
		if machines[i], err = Compile(proto, true); err != nil {
			f.Fatal(err)
		}
		var s State
		machines[i].Elements(&s, 3, At{End: 9})
		f.Add(uint8(i), machines[i].AppendState(nil, &s))
		f.Add(uint8(i), []byte{version, 0xff, 1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		m := machines[int(which)%len(machines)]
		s, err := m.DecodeState(b)
		if err != nil {
			return
		}
		again, err := m.DecodeState(m.AppendState(nil, &s))
		if err != nil {
			t.Fatalf("%x cannot be encoded and decoded again: %v", b, err)
		}
		for _, at := range []At{{End: 9}, {End: 9, Watermark: 20, Processing: 1 << 40}} {
			m.Elements(&again, 1, at)
			if m.Ready(&again, at) {
				m.Fire(&again, at)
			}
			m.Wake(&again, at)
			again = m.Merge([]*State{&again, &s}, at)
		}
	})
}
