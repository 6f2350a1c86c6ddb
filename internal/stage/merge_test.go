package stage

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	gocmp "github.com/google/go-cmp/cmp"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/fnapi"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
	"trestle/internal/shuffle"
	"trestle/internal/stage/stagetest/sdk"
)

// customPlan groups intervals that merge in a way that their SDK knows.
func customPlan(t *testing.T) *plan.Plan {
	t.Helper()
	pipeline, err := plantest.Parse(`
window custom fn=my:windows merge=needs env=sdk
impulse start() > I
pardo source(I) > in:kv(bytes,bytes)@custom
gbk group(in) > grouped
pardo work(grouped) >
`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Build(pipeline, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// evens is how the tests' window function merges: windows that start at an even time become one, from the first start to
// the last end; others stay.
func evens(windows []window.Interval) (unchanged, from []window.Interval, into window.Interval) {
	for _, w := range windows {
		switch {
		case w.Start%2 != 0:
			unchanged = append(unchanged, w)
			continue
		case from == nil:
			into = w
		}
		into.Start, into.End = min(into.Start, w.Start), max(into.End, w.End)
		from = append(from, w)
	}
	return unchanged, from, into
}

// question is what a merge_windows transform is asked.
type question struct {
	nonce   []byte
	windows []window.Interval
}

func readQuestion(value []byte) (question, error) {
	if len(value) == 0 || int(value[0]) > len(value)-5 {
		return question{}, fmt.Errorf("question %x", value)
	}
	q := question{nonce: value[:1+value[0]]}
	rest := value[len(q.nonce):]
	count := binary.BigEndian.Uint32(rest)
	for rest = rest[4:]; len(rest) > 0; {
		w, n, err := window.DecodeInterval(rest)
		if err != nil {
			return question{}, err
		}
		q.windows, rest = append(q.windows, w), rest[n:]
	}
	if int(count) != len(q.windows) {
		return question{}, fmt.Errorf("%d windows announced, %d there", count, len(q.windows))
	}
	return q, nil
}

// intervals appends an iterable of windows, with its length or, as SDKs may write it too, in chunks.
func intervals(dst []byte, windows []window.Interval, chunks bool) []byte {
	if !chunks {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(windows)))
		for _, w := range windows {
			dst = window.AppendInterval(dst, w)
		}
		return dst
	}
	dst = binary.BigEndian.AppendUint32(dst, 0xffffffff)
	for _, w := range windows {
		dst = window.AppendInterval(append(dst, 1), w)
	}
	return append(dst, 0)
}

// appendAnswer appends the record of an answer with one merged window.
func appendAnswer(dst, nonce []byte, unchanged, from []window.Interval, into window.Interval, chunks bool) []byte {
	dst = coder.AppendHeader(dst, coder.MinTimestamp, nil, coder.NoFiring)
	dst = intervals(append(dst, nonce...), unchanged, chunks)
	if len(from) == 0 {
		return append(dst, 0, 0, 0, 0)
	}
	dst = window.AppendInterval(append(dst, 0, 0, 0, 1), into)
	return intervals(dst, from, chunks)
}

// mergeEvens answers as evens says; the keys' answers come in another order than the questions.
func mergeEvens(b *sdk.Bundle) error {
	var answers [][]byte
	err := b.Each(func(e sdk.Element) error {
		q, err := readQuestion(e.Value)
		if err != nil {
			return err
		}
		unchanged, from, into := evens(q.windows)
		answers = append(answers, appendAnswer(nil, q.nonce, unchanged, from, into, len(answers)%2 > 0))
		return nil
	})
	if err != nil {
		return err
	}
	slices.Reverse(answers)
	return b.Write("merged", slices.Concat(answers...))
}

// harnesses connects harnesses that play the scripts, each the next, the last one for all that follow.
func harnesses(t *testing.T, scripts ...sdk.Script) Harness {
	t.Helper()
	pair, err := sdk.NewPair()
	if err != nil {
		t.Fatal(err)
	}
	var connected []*sdk.Harness
	t.Cleanup(func() {
		for _, h := range connected {
			h.Close()
		}
		if err := pair.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(ctx context.Context) (*fnapi.Session, error) {
		script := scripts[min(len(connected), len(scripts)-1)]
		session, h, err := pair.Connect(ctx, map[string]sdk.Script{"merge-windows": script})
		if err == nil {
			connected = append(connected, h)
		}
		return session, err
	}
}

// TestCustomWindowsAreMergedAsTheirSDKSays: whatever the keys and windows, the groups are those of the window function's
// answer, in however little memory, and however many questions it takes.
func TestCustomWindowsAreMergedAsTheirSDKSays(t *testing.T) {
	p := customPlan(t)
	harness := harnesses(t, mergeEvens)
	session, err := harness(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		store := shuffle.NewStore(dir, shuffle.NewBudget(rapid.SampledFrom([]int64{0, 1 << 30}).Draw(t, "budget")))
		defer func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()
		m, err := newCustomMerging(Spec{
			Plan: p, Stage: p.Stages[1], KeyGroups: 4, Store: store, Attempts: 1, Out: emitted{},
			MergeHarness: func(context.Context) (*fnapi.Session, error) { return session, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		grouper := store.NewGrouper(4)
		partitioner, err := shuffle.NewPartitioner(sessionRecords(t), 4, func(keyGroup int, block []byte) error {
			return grouper.Add(0, keyGroup, block)
		})
		if err != nil {
			t.Fatal(err)
		}
		m.limit = rapid.SampledFrom([]int{1, 500, mergeBytes}).Draw(t, "limit")
		padding := strings.Repeat("x", rapid.SampledFrom([]int{0, 0, 20_000}).Draw(t, "padding")) // the backlog spills
		windows, values := map[string][]window.Interval{}, map[keyedWindow][]stamped{}
		for i := range rapid.IntRange(0, 40).Draw(t, "values") {
			key := rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e"}).Draw(t, "key")
			start := rapid.Int64Range(-20, 20).Draw(t, "start")
			w := window.Interval{Start: start, End: start + rapid.Int64Range(1, 10).Draw(t, "span")}
			v := stamped{fmt.Sprint(i, padding), start}
			if err := partitioner.Write(sessionRecord(key, w, v)); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(windows[key], w) {
				windows[key] = append(windows[key], w)
			}
			values[keyedWindow{key, w}] = append(values[keyedWindow{key, w}], v)
		}
		if err := partitioner.Flush(); err != nil {
			t.Fatal(err)
		}
		want := map[keyedWindow][]stamped{}
		for key, in := range windows {
			_, from, into := evens(in)
			for _, w := range in {
				to := keyedWindow{key, w}
				if slices.Contains(from, w) {
					to.Window = into
				}
				want[to] = append(want[to], values[keyedWindow{key, w}]...)
			}
		}
		sorted, err := grouper.Seal()
		if err != nil {
			t.Fatal(err)
		}
		groups, err := m.merge(context.Background(), sorted)
		if err != nil {
			t.Fatal(err)
		}
		got := readGroups(t, groups, false)
		order := cmpopts.SortSlices(func(a, b stamped) int { return cmp.Compare(a.Value, b.Value) })
		if d := gocmp.Diff(want, got, order); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
		if err := m.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// answering is a script that answers each question with a record.
func answering(answer func(q question) []byte) sdk.Script {
	return func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			q, err := readQuestion(e.Value)
			if err != nil {
				return err
			}
			return b.Write("merged", answer(q))
		})
	}
}

// TestMergingThatFails: what an SDK may answer amiss is an error that says what; what another attempt may mend is repeated.
func TestMergingThatFails(t *testing.T) {
	other := window.Interval{Start: 77, End: 78}
	failing := func(*sdk.Bundle) error { return errors.New("cannot merge these") }
	for _, c := range []struct {
		name    string
		scripts []sdk.Script
		want    string // "" when it ends well
	}{
		{"a window is lost", []sdk.Script{answering(func(q question) []byte {
			return appendAnswer(nil, q.nonce, q.windows[1:], nil, other, false)
		})}, "lost window"},
		{"a window comes twice", []sdk.Script{answering(func(q question) []byte {
			return appendAnswer(nil, q.nonce, q.windows, q.windows[:1], other, true)
		})}, "and into"},
		{"a window that was not given", []sdk.Script{answering(func(q question) []byte {
			return appendAnswer(nil, q.nonce, append(q.windows, other), nil, other, false)
		})}, "which it was not given"},
		{"a nonce that was not given", []sdk.Script{answering(func(q question) []byte {
			return appendAnswer(nil, []byte{1, 99}, q.windows, nil, other, false)
		})}, "which was never sent"},
		{"a nonce of no bytes", []sdk.Script{answering(func(q question) []byte {
			return appendAnswer(nil, []byte{0}, q.windows, nil, other, false)
		})}, "which was never sent"},
		{"no record", []sdk.Script{answering(func(question) []byte { return []byte("nonsense") })}, "merged windows"},
		{"no answer", []sdk.Script{func(b *sdk.Bundle) error { return b.Each(func(sdk.Element) error { return nil }) }}, "lost window"},
		{"user code that fails alike", []sdk.Script{failing}, "cannot merge these"},
		{"a harness that dies", []sdk.Script{(*sdk.Bundle).Vanish, mergeEvens}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := customPlan(t)
			m, err := newWindowMerger(Spec{
				Plan: p, Stage: p.Stages[1], Attempts: 4, Out: emitted{}, MergeHarness: harnesses(t, c.scripts...),
			})
			if err != nil {
				t.Fatal(err)
			}
			w := func(start, end int64) unmergedWindow {
				return unmergedWindow{window: window.AppendInterval(nil, window.Interval{Start: start, End: end}), values: 1}
			}
			keys := []unmerged{{windows: []unmergedWindow{w(0, 10), w(2, 12), w(3, 13)}}}
			err = m.merge(t.Context(), keys)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				into := window.AppendInterval(nil, window.Interval{Start: 0, End: 12})
				if string(keys[0].windows[1].into) != string(into) {
					t.Errorf("merged into %x, want %x", keys[0].windows[1].into, into)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// TestMergedByAnother: a harness that goes away between two questions costs the second one no attempt.
func TestMergedByAnother(t *testing.T) {
	p := customPlan(t)
	m, err := newWindowMerger(Spec{Plan: p, Stage: p.Stages[1], Attempts: 1, Out: emitted{}, MergeHarness: harnesses(t, mergeEvens)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w := window.AppendInterval(nil, window.Interval{Start: 0, End: 10})
		if err := m.merge(t.Context(), []unmerged{{windows: []unmergedWindow{{window: w, values: 1}}}}); err != nil {
			t.Fatal(err)
		}
		m.session.Close(errors.New("the worker was taken away"))
	}
}
