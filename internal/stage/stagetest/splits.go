package stagetest

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

var splitCases = []testCase{
	{directly + "a task that is idle, or not splittable, gives nothing", splitOfNothing},
	{directly + "a bundle gives elements away, and does not process them in another attempt", splitBetweenElements},
	{directly + "a bundle gives a part of an element away", splitWithinElement},
	{directly + "a bundle that is tried again gives elements away, and may fail once more", splitTriedAgain},
	{directly + "what a task of a stream gives away, another takes, also one that was quiet", splitTaken},
	{directly + "a bundle that has nothing to give may be asked again, and tried again", splitInVain},
	{directly + "an answer that loses elements is refused", splitWrongly},
	{directly + "a harness that does not hold to a split processes what it was to keep once more", splitNotHeld},
	{directly + "an element that a harness says to put off, and processes, is processed once", checkpointNotHeld},
	{directly + "what is given back in an answer that nobody waits for any more is processed all the same", splitLate},
	{directly + "what is put off in an answer that nobody waits for any more is resumed all the same", checkpointLate},
}

// splitStage is a bundle of the elements a to d that stops at the first one until it is told to go on.
type splitStage struct {
	*rig
	asked atomic.Int32  // how often the script was
	goOn  chan error    // what the first attempt ends with
	hold  chan struct{} // closed when requests are to be answered; nil when they are at once
	ended chan error    // what the input's end ended with
	done  [][]string    // elements that each attempt processed
	reads int           // how many the first attempt says that it has read; 0 when it does not
	waits int           // the last attempt that does not go on until it is told
	begun atomic.Int32  // how many attempts have
}

func startSplit(t *testing.T, open Open, answer *fnpb.ProcessBundleSplitResponse) *splitStage {
	return startSplitHeld(t, open, answer, nil, 0)
}

func startSplitHeld(t *testing.T, open Open, answer *fnpb.ProcessBundleSplitResponse, hold chan struct{}, waits int) *splitStage {
	s := &splitStage{goOn: make(chan error, 1), ended: make(chan error, 1), hold: hold, waits: waits}
	s.rig = start(t, open, setup{pipeline: splitting, attempts: 2 + waits, script: func(b *sdk.Bundle) error {
		attempt := len(s.done)
		s.done = append(s.done, nil)
		s.begun.Add(1)
		b.OnSplit(func(r *fnpb.ProcessBundleSplitRequest) *fnpb.ProcessBundleSplitResponse {
			s.asked.Add(1)
			if s.hold != nil {
				<-s.hold
			}
			return answer
		})
		var fails error
		err := b.Each(func(e sdk.Element) error {
			words, err := sdk.Strings(e.Value[:len(e.Value)-8])
			s.done[attempt] = append(s.done[attempt], strings.Join(words, ""))
			return err
		})
		if attempt <= s.waits && err == nil {
			select {
			case fails = <-s.goOn:
			case <-b.Gone():
			}
			if s.reads > 0 {
				hasRead(b, s.reads)
			}
		}
		return errors.Join(err, fails)
	}})
	var all []byte
	for _, element := range []string{"a", "b", "c", "d"} {
		all = append(all, sized(element, 8)...)
	}
	go func() {
		err := s.try(stage.MainInput, all)
		if err == nil {
			err = s.endMain()
		}
		s.ended <- err
	}()
	return s
}

// split asks the first task to split, until the harness has been asked.
func (s *splitStage) split() ([]string, error) {
	s.t.Helper()
	splitter, ok := s.tasks[0].(stage.Splitter)
	if !ok {
		s.t.Fatal("the task is no Splitter")
	}
	for before := s.asked.Load(); s.ctx.Err() == nil; runtime.Gosched() {
		given, err := splitter.Split(s.ctx)
		if s.asked.Load() == before && len(given) == 0 && err == nil {
			continue // the bundle is not as far
		}
		var elements []string
		for _, g := range given {
			words, err := sdk.Strings(s.element(g))
			if err != nil {
				s.t.Fatal(err)
			}
			elements = append(elements, strings.Join(words, ""))
		}
		return elements, err
	}
	s.t.Fatal("the harness is not asked to split")
	return nil, nil
}

// element is what one record holds, without its size.
func (s *splitStage) element(record []byte) []byte {
	header, size, err := s.windowed(s.stage.Input.Coder).Record(record)
	if err != nil || size != len(record) {
		s.t.Fatalf("%x is no record: %v", record, err)
	}
	return record[header.Size : size-8]
}

func (s *splitStage) end(with error) error {
	s.goOn <- with
	return <-s.ended
}

func channelSplit(last, first int64) *fnpb.ProcessBundleSplitResponse {
	return &fnpb.ProcessBundleSplitResponse{ChannelSplits: []*fnpb.ProcessBundleSplitResponse_ChannelSplit{
		{TransformId: "stage-1-source", LastPrimaryElement: last, FirstResidualElement: first}}}
}

func splitOfNothing(t *testing.T, open Open) {
	for _, pipeline := range []string{splitting, straight, impulsive} {
		r := start(t, open, setup{pipeline: pipeline, script: identity})
		splitter, ok := r.tasks[0].(stage.Splitter)
		if !ok {
			t.Fatal("the task is no Splitter")
		}
		for range 2 {
			if given, err := splitter.Split(r.ctx); len(given) > 0 || err != nil {
				t.Errorf("%d records, %v", len(given), err)
			}
			r.end()
		}
	}
}

func splitBetweenElements(t *testing.T, open Open) {
	s := startSplit(t, open, channelSplit(1, 2))
	given, err := s.split()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"c8", "d8"}, given); d != "" {
		t.Errorf("given away (-want +got):\n%s", d)
	}
	if err := s.end(errors.New("the first attempt fails")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a8", "b8"}, s.done[1]); d != "" {
		t.Errorf("the second attempt (-want +got):\n%s", d)
	}
}

func splitTriedAgain(t *testing.T, open Open) {
	s := startSplitHeld(t, open, channelSplit(1, 2), nil, 1)
	s.goOn <- errors.New("the first attempt fails")
	for s.begun.Load() < 2 && s.ctx.Err() == nil {
		runtime.Gosched()
	}
	if given, err := s.split(); err != nil || len(given) != 2 {
		t.Fatalf("given away: %q, %v", given, err)
	}
	if err := s.end(errors.New("so does the second")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([][]string{{"a8", "b8", "c8", "d8"}, {"a8", "b8", "c8", "d8"}, {"a8", "b8"}}, s.done); d != "" {
		t.Errorf("elements of each attempt (-want +got):\n%s", d)
	}
}

// What task 0 gives away, task 1 takes, which had come to its end: its watermark goes back to what task 0 had told, and it is quiet
// anew.
func splitTaken(t *testing.T, open Open) {
	goOn, begun := make(chan struct{}), make(chan struct{})
	var first sync.Once
	var mu sync.Mutex
	var done []string
	r := start(t, open, setup{pipeline: splitting, streaming: true, parallelism: 2, script: func(b *sdk.Bundle) error {
		b.OnSplit(func(*fnpb.ProcessBundleSplitRequest) *fnpb.ProcessBundleSplitResponse {
			answer := channelSplit(0, 2)
			answer.PrimaryRoots = []*fnpb.BundleApplication{{TransformId: "work", Element: sized("b", 3)}}
			answer.ResidualRoots = []*fnpb.DelayedBundleApplication{{Application: &fnpb.BundleApplication{
				TransformId: "work", Element: sized("b", 5), OutputWatermarks: map[string]*timestamppb.Timestamp{"o": {Nanos: 50_000_000}},
			}}}
			return answer
		})
		waits := false
		first.Do(func() { waits = true })
		if waits {
			if err := b.Each(func(sdk.Element) error { return nil }); err != nil {
				return err
			}
			close(begun)
			select {
			case <-goOn:
			case <-b.Gone():
			}
			return b.Write("out", record(nil, 0, "first"))
		}
		return b.Each(func(e sdk.Element) error {
			words, err := sdk.Strings(e.Value[:len(e.Value)-8])
			mu.Lock()
			done = append(done, strings.Join(words, ""))
			mu.Unlock()
			return errors.Join(err, b.Write("out", record(nil, 60, strings.Join(words, ""))))
		})
	}})
	giver, taker := r.streaming(0).(stage.Taker), r.streaming(1).(stage.Taker)
	r.clock(0)
	if err := r.streaming(1).Watermark(r.ctx, stage.MainInput, coder.MaxTimestamp); err != nil {
		t.Fatal(err)
	}
	if !r.outputs[1].quiet {
		t.Fatal("a task with nothing to do is not quiet at the end")
	}
	var all []byte
	for _, element := range []string{"a", "b", "c"} {
		all = append(all, sized(element, 8)...)
	}
	ended := make(chan error, 1)
	go func() {
		err := r.try(stage.MainInput, all)
		if err == nil {
			err = r.streaming(0).Flush(r.ctx)
		}
		ended <- err
	}()
	<-begun
	var parts [][]byte
	for len(parts) == 0 && r.ctx.Err() == nil { // until the bundle has all of its input
		var err error
		if parts, err = giver.Split(r.ctx); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	r.outputs[1].again(40)
	if err := taker.Take(r.ctx, parts, 40); err != nil {
		t.Fatal(err)
	}
	slices.Sort(done)
	if d := cmp.Diff([]string{"b5", "c8"}, done); d != "" {
		t.Errorf("the taker did (-want +got):\n%s", d)
	}
	if o := r.outputs[1]; !o.quiet || len(o.watermarks) != 1 || o.watermarks[0] != coder.MaxTimestamp {
		t.Errorf("the taker told the watermarks %v after it took something, and that it is quiet: %t", o.watermarks, o.quiet)
	}
	close(goOn)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	r.want("b5 c8 first")
	if err := taker.Take(r.ctx, [][]byte{[]byte("nonsense")}, 0); err == nil || !strings.Contains(err.Error(), "from another task") {
		t.Errorf("a part that is none: %v", err)
	}
}

func splitWithinElement(t *testing.T, open Open) {
	answer := channelSplit(0, 2)
	answer.ChannelSplits[0].TransformId = "" // as Java's harness answers
	answer.PrimaryRoots = []*fnpb.BundleApplication{{TransformId: "work", Element: sized("b", 3)}}
	answer.ResidualRoots = []*fnpb.DelayedBundleApplication{{Application: &fnpb.BundleApplication{TransformId: "work", Element: sized("b", 5)}}}
	s := startSplit(t, open, answer)
	given, err := s.split()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"c8", "d8", "b5"}, given); d != "" {
		t.Errorf("given away (-want +got):\n%s", d)
	}
	if err := s.end(errors.New("the first attempt fails")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a8", "b3"}, s.done[1]); d != "" {
		t.Errorf("the second attempt (-want +got):\n%s", d)
	}
}

// A harness that has read 4 elements after it gave two of them away has begun anew meanwhile.
func splitNotHeld(t *testing.T, open Open) {
	for name, c := range map[string]struct {
		reads int
		done  [][]string
	}{
		"held":     {2, [][]string{{"a8", "b8", "c8", "d8"}}},
		"not held": {4, [][]string{{"a8", "b8", "c8", "d8"}, {"a8", "b8"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSplit(t, open, channelSplit(1, 2))
			s.reads = c.reads
			if _, err := s.split(); err != nil {
				t.Fatal(err)
			}
			if err := s.end(nil); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.done, s.done); d != "" {
				t.Errorf("elements of each attempt (-want +got):\n%s", d)
			}
		})
	}
}

// hasRead has a bundle's answer say how many elements it has read.
func hasRead(b *sdk.Bundle, n int) {
	b.Response.MonitoringInfos = append(b.Response.MonitoringInfos, &pipepb.MonitoringInfo{
		Urn: urn.MetricDataChannelReadIndex, Type: urn.MetricTypeSumInt64, Payload: []byte{byte(n)},
		Labels: map[string]string{"PTRANSFORM": "stage-1-source"},
	})
}

func splitInVain(t *testing.T, open Open) {
	s := startSplit(t, open, &fnpb.ProcessBundleSplitResponse{})
	for range 3 {
		if given, err := s.split(); len(given) > 0 || err != nil {
			t.Errorf("%v, %v", given, err)
		}
	}
	if err := s.end(errors.New("the first attempt fails")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a8", "b8", "c8", "d8"}, s.done[1]); d != "" {
		t.Errorf("the second attempt (-want +got):\n%s", d)
	}
}

func splitWrongly(t *testing.T, open Open) {
	other := channelSplit(1, 2)
	other.ChannelSplits[0].TransformId = "elsewhere"
	empty := channelSplit(0, 2)
	empty.ResidualRoots = []*fnpb.DelayedBundleApplication{{}}
	empty.PrimaryRoots = []*fnpb.BundleApplication{{}}
	for name, answer := range map[string]*fnpb.ProcessBundleSplitResponse{
		"elements between":       channelSplit(0, 3),
		"an element between":     channelSplit(0, 2),
		"overlap":                channelSplit(2, 2),
		"behind the end":         channelSplit(3, 5),
		"before the start":       channelSplit(-2, -1),
		"another source":         other,
		"roots and no channel":   {PrimaryRoots: empty.PrimaryRoots},
		"roots without elements": empty,
	} {
		t.Run(name, func(t *testing.T) {
			s := startSplit(t, open, answer)
			if given, err := s.split(); err == nil {
				t.Errorf("no error, but %v", given)
			}
			if err := s.end(nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// giveUp calls ask until the harness is asked, and has it wait no longer.
func (s *splitStage) giveUp(ask func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		for {
			if err := ask(ctx); err != nil || ctx.Err() != nil {
				answered <- err
				return
			}
			runtime.Gosched() // the bundle was not as far
		}
	}()
	for s.asked.Load() == 0 && s.ctx.Err() == nil {
		runtime.Gosched()
	}
	cancel()
	if err := <-answered; err != nil {
		s.t.Error(err)
	}
}

func splitLate(t *testing.T, open Open) {
	hold := make(chan struct{})
	answer := channelSplit(0, 2)
	answer.PrimaryRoots = []*fnpb.BundleApplication{{TransformId: "work", Element: sized("b", 3)}}
	answer.ResidualRoots = []*fnpb.DelayedBundleApplication{{Application: &fnpb.BundleApplication{TransformId: "work", Element: sized("b", 5)}}}
	s := startSplitHeld(t, open, answer, hold, 0)
	splitter, ok := s.tasks[0].(stage.Splitter)
	if !ok {
		t.Fatal("the task is no Splitter")
	}
	s.giveUp(func(ctx context.Context) error {
		given, err := splitter.Split(ctx)
		if len(given) > 0 {
			t.Errorf("%d records are given away, of which nobody had told yet", len(given))
		}
		return err
	})
	s.goOn <- nil
	close(hold)
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	if len(s.done) != 2 {
		t.Fatalf("there were %d bundles, not 2", len(s.done))
	}
	if d := cmp.Diff([]string{"c8", "d8", "b5"}, s.done[1]); d != "" {
		t.Errorf("what was given back (-want +got):\n%s", d)
	}
}

func checkpointLate(t *testing.T, open Open) {
	s := &splitStage{goOn: make(chan error, 1), ended: make(chan error, 1), hold: make(chan struct{})}
	var elements []string
	stream := strings.NewReplacer("in:string", "in:string~", "out:string", "out:string~").Replace(splitting)
	s.rig = start(t, open, setup{pipeline: stream, script: func(b *sdk.Bundle) error {
		first := len(elements) == 0
		b.OnSplit(func(*fnpb.ProcessBundleSplitRequest) *fnpb.ProcessBundleSplitResponse {
			if !first {
				return nil
			}
			s.asked.Add(1)
			<-s.hold
			answer := channelSplit(-1, 1)
			answer.PrimaryRoots = []*fnpb.BundleApplication{{TransformId: "work", Element: sized("a", 3)}}
			answer.ResidualRoots = []*fnpb.DelayedBundleApplication{{Application: &fnpb.BundleApplication{TransformId: "work", Element: sized("a", 5)}}}
			return answer
		})
		err := b.Each(func(e sdk.Element) error {
			words, err := sdk.Strings(e.Value[:len(e.Value)-8])
			elements = append(elements, strings.Join(words, ""))
			return err
		})
		if first && err == nil {
			select {
			case err = <-s.goOn:
			case <-b.Gone():
			}
		}
		return err
	}})
	s.clock(0)
	task, ok := s.tasks[0].(stage.Checkpointer)
	if !ok {
		t.Fatal("the task is no Checkpointer")
	}
	streaming := s.streaming(0)
	go func() {
		err := s.try(stage.MainInput, sized("a", 8))
		if err == nil {
			err = streaming.Flush(s.ctx)
		}
		s.ended <- err
	}()
	s.giveUp(func(ctx context.Context) error { return task.Checkpoint(ctx, true) })
	s.goOn <- nil
	close(s.hold)
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	s.clock(1)
	s.watermark(coder.MaxTimestamp)
	if d := cmp.Diff([]string{"a8", "a5"}, elements); d != "" {
		t.Errorf("processed (-want +got):\n%s", d)
	}
	s.quiet(true)
}

// A harness is at the second of three elements, and asked for a checkpoint, as often as it has answers.
func checkpointNotHeld(t *testing.T, open Open) {
	part := func(size int) *fnpb.BundleApplication {
		return &fnpb.BundleApplication{TransformId: "work", Element: sized("b", size)}
	}
	within := channelSplit(0, 2)
	within.PrimaryRoots = []*fnpb.BundleApplication{part(3)}
	within.ResidualRoots = []*fnpb.DelayedBundleApplication{{Application: part(5)}}
	for name, c := range map[string]struct {
		answers []*fnpb.ProcessBundleSplitResponse
		reads   int
		later   []string
	}{
		"held":                            {[]*fnpb.ProcessBundleSplitResponse{channelSplit(0, 1)}, 1, []string{"b8", "c8"}},
		"an element more":                 {[]*fnpb.ProcessBundleSplitResponse{channelSplit(0, 1)}, 2, []string{"c8"}},
		"an element more, which it split": {[]*fnpb.ProcessBundleSplitResponse{channelSplit(0, 1), within}, 2, []string{"c8", "b5"}},
	} {
		t.Run(name, func(t *testing.T) {
			var elements []string
			goOn, first := make(chan struct{}), true
			var asked atomic.Int32
			stream := strings.NewReplacer("in:string", "in:string~", "out:string", "out:string~").Replace(splitting)
			r := start(t, open, setup{pipeline: stream, script: func(b *sdk.Bundle) error {
				split := first
				first = false
				b.OnSplit(func(*fnpb.ProcessBundleSplitRequest) *fnpb.ProcessBundleSplitResponse {
					if n := int(asked.Load()); split && n < len(c.answers) {
						asked.Add(1)
						return c.answers[n]
					}
					return nil
				})
				err := b.Each(func(e sdk.Element) error {
					words, err := sdk.Strings(e.Value[:len(e.Value)-8])
					elements = append(elements, strings.Join(words, ""))
					return err
				})
				if split && err == nil {
					select {
					case <-goOn:
					case <-b.Gone():
					}
					hasRead(b, c.reads)
				}
				return err
			}})
			r.clock(0)
			task, ok := r.tasks[0].(stage.Checkpointer)
			if !ok {
				t.Fatal("the task is no Checkpointer")
			}
			ended, streaming := make(chan error, 1), r.streaming(0)
			go func() {
				err := r.try(stage.MainInput, slices.Concat(sized("a", 8), sized("b", 8), sized("c", 8)))
				if err == nil {
					err = streaming.Flush(r.ctx)
				}
				ended <- err
			}()
			for int(asked.Load()) < len(c.answers) && r.ctx.Err() == nil {
				if err := task.Checkpoint(r.ctx, true); err != nil {
					t.Fatal(err)
				}
				runtime.Gosched()
			}
			close(goOn)
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			r.clock(1)
			r.watermark(coder.MaxTimestamp)
			if d := cmp.Diff(append([]string{"a8", "b8", "c8"}, c.later...), elements); d != "" {
				t.Errorf("elements of both bundles (-want +got):\n%s", d)
			}
		})
	}
}
