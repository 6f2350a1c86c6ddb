package streaming

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/stage/stagetest/sdk"
)

// oneRestriction is a job that would keep one task busy: a bounded restriction, whose positions are grouped by windows.
const oneRestriction = `
env other
window fixed fn=fixed
impulse start() > I
pardo source(I) > in:string env=other
pardo work(in) > pair:kv(string,string)@fixed restriction=string env=other
gbk group(pair) > grouped
pardo last(grouped) > end:string@global env=other
`

// shared is the harness of such a job.
type shared struct {
	positions int
	each      time.Duration // how long a position takes
	every     time.Duration // SnapshotEvery: while one is under way, no part changes hands
	working   atomic.Int32  // bundles under way
	most      atomic.Int32  // the most at once
}

// rest is the element of the restriction's positions from one on and before another.
func rest(from, to int) []byte {
	b := coder.AppendHeader(nil, coder.MinTimestamp, nil, coder.NoFiring)
	b = sdk.String(sdk.String(b, "s"), fmt.Sprintf("%d-%d", from, to))
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

func (s *shared) source(b *sdk.Bundle) error {
	return b.Each(func(sdk.Element) error { return b.Write("work-sized", rest(0, s.positions)) })
}

// claims are how far a bundle is in its elements.
type claims struct {
	sync.Mutex
	elements [][3]int // of each that has come, the next position, the end and the first
	at       int      // of the one under way
	last     bool     // those behind it were given away
}

// begin begins with an element, if it was not given away.
func (c *claims) begin(from, to int) bool {
	c.Lock()
	defer c.Unlock()
	if c.last {
		return false
	}
	c.elements = append(c.elements, [3]int{from, to, from})
	c.at = len(c.elements) - 1
	return true
}

// claim is the next position of the element under way, unless there is none.
func (c *claims) claim() (position int, ok bool) {
	c.Lock()
	defer c.Unlock()
	e := &c.elements[c.at]
	if e[0] >= e[1] {
		return 0, false
	}
	e[0]++
	return e[0] - 1, true
}

// split leaves the element under way a part of what is left of it, and gives all behind it away.
func (c *claims) split(fraction float64) *fnpb.ProcessBundleSplitResponse {
	c.Lock()
	defer c.Unlock()
	if len(c.elements) == 0 {
		return &fnpb.ProcessBundleSplitResponse{}
	}
	e := &c.elements[c.at]
	at := e[0] + int(math.Ceil(float64(e[1]-e[0])*fraction))
	if at >= e[1] {
		return &fnpb.ProcessBundleSplitResponse{}
	}
	answer := &fnpb.ProcessBundleSplitResponse{
		PrimaryRoots: []*fnpb.BundleApplication{{TransformId: "work", InputId: "i0", Element: rest(e[2], at)}},
		ResidualRoots: []*fnpb.DelayedBundleApplication{{Application: &fnpb.BundleApplication{
			TransformId: "work", InputId: "i0", Element: rest(at, e[1]), IsBounded: pipepb.IsBounded_BOUNDED,
			OutputWatermarks: map[string]*timestamppb.Timestamp{"o0": timestamppb.New(time.UnixMilli(int64(at)))},
		}}},
		ChannelSplits: []*fnpb.ProcessBundleSplitResponse_ChannelSplit{{
			LastPrimaryElement: int64(c.at) - 1, FirstResidualElement: int64(c.at) + 1,
		}},
	}
	e[1], c.last = at, true
	return answer
}

func (s *shared) work(b *sdk.Bundle) error {
	now := s.working.Add(1)
	defer s.working.Add(-1)
	for was := s.most.Load(); now > was && !s.most.CompareAndSwap(was, now); was = s.most.Load() {
	}
	var c claims
	b.OnProgress(func() []*pipepb.MonitoringInfo { return nil }) // it counts nothing, so that it may be asked to put off what is left
	b.OnSplit(func(r *fnpb.ProcessBundleSplitRequest) *fnpb.ProcessBundleSplitResponse {
		for source, d := range r.GetDesiredSplits() {
			answer := c.split(d.GetFractionOfRemainder())
			for _, split := range answer.ChannelSplits {
				split.TransformId = source
			}
			return answer
		}
		return &fnpb.ProcessBundleSplitResponse{}
	})
	return b.Each(func(e sdk.Element) error {
		words, err := sdk.Strings(e.Value[:len(e.Value)-8])
		if err != nil {
			return err
		}
		var from, to int
		if _, err := fmt.Sscanf(words[1], "%d-%d", &from, &to); err != nil {
			return err
		}
		if !c.begin(from, to) {
			return nil
		}
		for {
			p, ok := c.claim()
			if !ok {
				return nil
			}
			if s.each > 0 {
				select { // it is work
				case <-time.After(s.each):
				case <-b.Gone():
				}
			}
			start := int64(p - p%size)
			out := coder.AppendHeader(nil, int64(p), window.AppendInterval(nil, window.Interval{Start: start, End: start + size}), coder.NoFiring)
			if err := b.Write("pair", sdk.String(sdk.String(out, "k"), strconv.Itoa(p))); err != nil {
				return err
			}
		}
	})
}

// sharingRig is for a job of one restriction.
func sharingRig(t *testing.T, positions int, each time.Duration) *rig {
	r := newRig(t)
	r.pipeline, r.shared = oneRestriction, &shared{positions: positions, each: each, every: 300 * time.Millisecond}
	return r
}

// all looks whether each position is in its window, once.
func (r *rig) all() {
	r.t.Helper()
	left := r.shared.positions
	for of, values := range r.panes {
		var key string
		var number int
		if _, err := fmt.Sscanf(strings.Replace(of, "@", " ", 1), "%s %d", &key, &number); err != nil {
			r.t.Fatal(err)
		}
		var want []string
		for p := number * size; p < min((number+1)*size, r.shared.positions); p++ {
			want = append(want, strconv.Itoa(p))
		}
		slices.Sort(want)
		left -= len(want)
		if values != strings.Join(want, ",") {
			r.t.Errorf("window %d has %s", number, values)
		}
	}
	if left != 0 {
		r.t.Errorf("%d positions are in no window", left)
	}
}

// toEnd runs the job to its end.
func (r *rig) toEnd(parallelism int) {
	r.t.Helper()
	run, err := r.open(parallelism)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := run.job.Run(ctx); err != nil {
		r.t.Error(err)
	}
	run.close()
}

// TestTasksShareARestriction: an idle task gets a part of what another does, and what comes out is the same, each window once, when
// the job is left alone, when bundles fail, and when it begins again from snapshots with another number of tasks.
func TestTasksShareARestriction(t *testing.T) {
	t.Run("left alone", func(t *testing.T) {
		r := sharingRig(t, 1500, time.Millisecond)
		r.toEnd(3)
		r.all()
		if most := r.shared.most.Load(); most < 2 {
			t.Errorf("%d tasks at once had a part of the restriction", most)
		}
	})
	t.Run("failing", func(t *testing.T) {
		r := sharingRig(t, 1500, time.Millisecond)
		r.trouble = &trouble{random: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))}
		r.toEnd(3)
		r.all()
	})
	t.Run("cut off", func(t *testing.T) {
		r := sharingRig(t, 20_000, time.Millisecond)
		for i := range 4 {
			r.until(1+(i+1)%3, 1+i%2)
		}
		r.shared.each = 0
		r.toEnd(3)
		r.all()
	})
}
