package job_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"trestle/internal/job"
)

var allEvents = []job.Event{job.Submitted, job.Running, job.CancelAsked, job.DrainAsked, job.Resumed, job.Done, job.Failed, job.Cancelled}

func eventNamed(t *testing.T, name string) job.Event {
	for _, e := range allEvents {
		if e.String() == name {
			return e
		}
	}
	t.Fatalf("no event %q", name)
	return 0
}

func prepared() *job.Prepared {
	return &job.Prepared{
		Info: &jobpb.JobInfo{JobId: "wordcount-abcd", JobName: "WordCount"},
		Time: timestamppb.New(time.Unix(1, 0)),
	}
}

// TestScenarios runs testdata. "table" prints what every event makes of every state. "life" goes through events, one a
// line, from a prepared job on. "log" applies records, one a line.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "table":
				return table()
			case "life":
				return life(t, d.Input)
			case "log":
				return replay(t, d.Input)
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
}

func table() string {
	var b strings.Builder
	for n := range len(jobpb.JobState_Enum_name) {
		s := job.State(n)
		fmt.Fprintf(&b, "%v", s)
		if job.Terminal(s) {
			b.WriteString(" (terminal)")
		}
		b.WriteString(":")
		none := true
		for _, e := range allEvents {
			if next, err := job.Next(s, e); err == nil {
				fmt.Fprintf(&b, " [%v] → %v", e, next)
				none = false
			}
		}
		if none {
			b.WriteString(" nothing can happen")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func life(t *testing.T, input string) string {
	var b strings.Builder
	s := jobpb.JobState_STOPPED
	for line := range strings.Lines(input) {
		line = strings.TrimSpace(line)
		next, err := job.Next(s, eventNamed(t, line))
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", line, err)
		} else {
			fmt.Fprintf(&b, "%s: %v\n", line, next)
		}
		s = next
	}
	return b.String()
}

func replay(t *testing.T, input string) string {
	var b strings.Builder
	var l job.Life
	for line := range strings.Lines(input) {
		line = strings.TrimSpace(line)
		if err := l.Apply(recordNamed(t, line)); err != nil {
			fmt.Fprintf(&b, "%s: %v\n", line, err)
		}
	}
	fmt.Fprintf(&b, "state %v, %d messages, %d errors, handle %q\n", l.State, l.Messages, l.Errors, l.Handle)
	return b.String()
}

func recordNamed(t *testing.T, line string) job.Record {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "prepared":
		return prepared()
	case "state":
		return &job.StateChange{JobStateEvent: &jobpb.JobStateEvent{State: job.State(jobpb.JobState_Enum_value[rest])}}
	case "again":
		return &job.Again{JobStateEvent: &jobpb.JobStateEvent{State: job.State(jobpb.JobState_Enum_value[rest])}}
	case "message":
		return &job.Message{JobMessage: &jobpb.JobMessage{
			Importance: jobpb.JobMessage_MessageImportance(jobpb.JobMessage_MessageImportance_value["JOB_MESSAGE_"+rest])}}
	case "metrics":
		return &job.Metrics{MetricResults: &jobpb.MetricResults{}}
	case "accepted":
		return &job.Accepted{Handle: rest}
	}
	t.Fatalf("no record %q", line)
	return nil
}

// TestNextProperties: whatever happens, a terminal state is never left, but for FAILED by what resumes it; every state that is left has a way to a terminal
// one; and the changes that the machine makes are the ones that a log takes back.
func TestNextProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l job.Life
		if err := l.Apply(prepared()); err != nil {
			t.Fatal(err)
		}
		for _, e := range rapid.SliceOf(rapid.SampledFrom(allEvents)).Draw(t, "events") {
			before := l.State
			next, err := job.Next(before, e)
			if err != nil {
				if !errors.Is(err, job.ErrTransition) || next != before {
					t.Fatalf("Next(%v, %v) = %v, %v", before, e, next, err)
				}
				continue
			}
			if job.Terminal(before) && next != before && e != job.Resumed {
				t.Fatalf("%v is left for %v", before, next)
			}
			event := &jobpb.JobStateEvent{State: next}
			var change, other job.Record = &job.StateChange{JobStateEvent: event}, &job.Again{JobStateEvent: event}
			if e == job.Resumed {
				change, other = other, change
			}
			if err := l.Apply(other); err == nil {
				t.Fatalf("a log takes %v after %v by a %T", next, before, other)
			}
			err = l.Apply(change)
			if next == before && !errors.Is(err, job.ErrTransition) {
				t.Fatalf("a log takes %v after %v: %v", next, before, err)
			}
			if next != before && (err != nil || l.State != next) {
				t.Fatalf("a log does not take %v after %v: %v", next, before, err)
			}
		}
		if !endable(l.State, nil) {
			t.Fatalf("no way from %v to a terminal state", l.State)
		}
	})
}

func endable(s job.State, seen []job.State) bool {
	if job.Terminal(s) {
		return true
	}
	if slices.Contains(seen, s) {
		return false
	}
	for _, e := range allEvents {
		if next, err := job.Next(s, e); err == nil && endable(next, append(seen, s)) {
			return true
		}
	}
	return false
}

func TestEventOf(t *testing.T) {
	for n := range len(jobpb.JobState_Enum_name) {
		s := job.State(n)
		e, err := job.EventOf(s)
		switch s {
		case jobpb.JobState_RUNNING, jobpb.JobState_DONE, jobpb.JobState_FAILED, jobpb.JobState_CANCELLED:
			if next, _ := job.Next(jobpb.JobState_STARTING, e); err != nil || next != s {
				t.Errorf("EventOf(%v) = %v, %v, which leads to %v", s, e, err, next)
			}
		default:
			if !errors.Is(err, job.ErrTransition) {
				t.Errorf("EventOf(%v) = %v, %v; want it refused", s, e, err)
			}
		}
	}
}

func TestParallelism(t *testing.T) {
	options := func(v any) *structpb.Struct {
		s, err := structpb.NewStruct(map[string]any{"beam:option:parallelism:v1": v})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		options *structpb.Struct
		want    int
		refused string
	}{
		{nil, 0, ""},
		{&structpb.Struct{}, 0, ""},
		{options(nil), 0, ""},
		{options(4.0), 4, ""},
		{options("4"), 4, ""},
		{options(0.0), 0, ""},
		{options(-1.0), 0, ""},
		{options("-1"), 0, ""},
		{options(-2.0), 0, "pipeline option parallelism: -2 is not a number of tasks"},
		{options(1.5), 0, "pipeline option parallelism: 1.5 is not a whole number"},
		{options(math.NaN()), 0, "pipeline option parallelism: NaN is not a whole number"},
		{options(math.Inf(1)), 0, "pipeline option parallelism: Infinity is not a whole number"},
		{options(1e300), 0, "pipeline option parallelism: 1e+300 is not a whole number"},
		{options("many"), 0, `pipeline option parallelism: "many" is not a whole number`},
		{options("99999999999"), 0, "pipeline option parallelism: 99999999999 is not a number of tasks"},
		{options(true), 0, "pipeline option parallelism: true is not a whole number"},
	} {
		got, err := job.Parallelism(c.options)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != c.want || text != c.refused {
			t.Errorf("Parallelism(%v) = %d, %q; want %d, %q", c.options, got, text, c.want, c.refused)
		}
	}
}

func TestAttempts(t *testing.T) {
	for _, c := range []struct {
		options map[string]any
		want    int
		refused string
	}{
		{nil, 0, ""},
		{map[string]any{"beam:option:bundle_attempts:v1": nil}, 0, ""},
		{map[string]any{"beam:option:bundle_attempts:v1": 7.0}, 7, ""},
		{map[string]any{"beam:option:bundle_attempts:v1": "1"}, 1, ""},
		{map[string]any{"beam:option:experiments:v1": []any{"x", "bundle_attempts=3"}}, 3, ""},
		{map[string]any{"beam:option:bundle_attempts:v1": 2.0, "beam:option:experiments:v1": []any{"bundle_attempts=3"}}, 2, ""},
		{map[string]any{"beam:option:bundle_attempts:v1": 0.0}, 0, "pipeline option bundle_attempts: a bundle is tried between 1 and 1000 times, not 0"},
		{map[string]any{"beam:option:bundle_attempts:v1": -1.0}, 0, "pipeline option bundle_attempts: a bundle is tried between 1 and 1000 times, not -1"},
		{map[string]any{"beam:option:bundle_attempts:v1": 1001.0}, 0, "pipeline option bundle_attempts: a bundle is tried between 1 and 1000 times, not 1001"},
		{map[string]any{"beam:option:bundle_attempts:v1": true}, 0, "pipeline option bundle_attempts: true is not a whole number"},
		{map[string]any{"beam:option:experiments:v1": []any{"bundle_attempts=many"}}, 0, `pipeline option bundle_attempts: "many" is not a whole number`},
	} {
		options, err := structpb.NewStruct(c.options)
		if err != nil {
			t.Fatal(err)
		}
		got, err := job.Attempts(options)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != c.want || text != c.refused {
			t.Errorf("Attempts(%v) = %d, %q; want %d, %q", c.options, got, text, c.want, c.refused)
		}
	}
}
