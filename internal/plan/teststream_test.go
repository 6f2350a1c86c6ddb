package plan_test

import (
	"math"
	"strings"
	"testing"
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
)

// An element is encoded in a TestStream as if nothing followed it: in Java and Python, the value of a pair of strings has
// no length. It has one in the coder in which it crosses.
func TestTestStreamElementsAreMadeFitForTheWire(t *testing.T) {
	for _, c := range []struct{ coder, encoded, record string }{
		{"string", "abc", "\x03abc"},
		{"varint", "\x07", "\x07"},
		{"kv(string, string)", "\x01kabc", "\x01k\x03abc"},
		{"kv(string, varint)", "\x01k\x07", "\x01k\x07"},
		{"kv(string, kv(string, string))", "\x01k\x01abc", "\x01k\x04\x01abc"},
		{"kv(my:key, varint)", "key\x07", "\x04key\x07"},
		{"my:coder", "abc", "\x03abc"},
	} {
		t.Run(c.coder, func(t *testing.T) {
			played := testStream(t, "teststream T() > a:"+c.coder+"~\npardo A(a) >")
			out, err := played.TestStreams[0].Event(elements("", c.encoded))
			if err != nil {
				t.Fatal(err)
			}
			w, err := coder.CompileWindowed(played.Coders(), played.Stages[out.Stage].Input.Coder)
			if err != nil {
				t.Fatal(err)
			}
			header, size, err := w.Record(out.Records)
			if err != nil || size != len(out.Records) {
				t.Fatalf("%x is not one record: it ends at %d: %v", out.Records, size, err)
			}
			if got := string(out.Records[header.Size:]); got != c.record {
				t.Errorf("%x has become %x, want %x", c.encoded, got, c.record)
			}
			if header.Timestamp != 5 {
				t.Errorf("its timestamp has become %d, want 5", header.Timestamp)
			}
		})
	}
}

func TestTestStreamEvents(t *testing.T) {
	p := testStream(t, "teststream T() > a:varint~, b:varint~, unread:varint~\npardo A(a) >\npardo B(b) >")
	stream := p.TestStreams[0]
	if out, err := stream.Event(elements("o1", "\x01")); err != nil || p.Stages[out.Stage].Input.PCollection != "b" {
		t.Errorf("elements for o1 go to stage %d: %v", out.Stage, err)
	}
	if out, err := stream.Event(elements("o2", "\x01")); err != nil || out.Stage != -1 {
		t.Errorf("elements that nobody reads go to stage %d: %v", out.Stage, err)
	}
	if _, err := stream.Event(elements("", "\x01")); err == nil {
		t.Error("elements for no output of several are taken")
	}
	forever, err := stream.Event(&pipepb.TestStreamPayload_Event{Event: &pipepb.TestStreamPayload_Event_ProcessingTimeEvent{
		ProcessingTimeEvent: &pipepb.TestStreamPayload_Event_AdvanceProcessingTime{AdvanceDuration: math.MaxInt64},
	}})
	if err != nil || forever.Advance < 200*365*24*time.Hour {
		t.Errorf("to the end of processing time is %v: %v", forever.Advance, err)
	}
}

// Events that a service has are asked of nobody, so that such a TestStream is refused.
func TestTestStreamOfAService(t *testing.T) {
	p := testStreamPipeline(t, "teststream T() > a:string~\n", func(payload *pipepb.TestStreamPayload) {
		payload.Endpoint = &pipepb.ApiServiceDescriptor{Url: "events.example:4711"}
	})
	_, err := plan.Build(p, plan.Options{})
	if err == nil || !strings.Contains(err.Error(), "events.example:4711") {
		t.Errorf("got %v, want a refusal that names the service", err)
	}
}

func testStream(t *testing.T, text string) *plan.Plan {
	t.Helper()
	built, err := plan.Build(testStreamPipeline(t, text, func(*pipepb.TestStreamPayload) {}), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// testStreamPipeline is a pipeline whose TestStream T has no events, but what change does to it.
func testStreamPipeline(t *testing.T, text string, change func(*pipepb.TestStreamPayload)) *pipepb.Pipeline {
	t.Helper()
	p, err := plantest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	// The parser's element of no bytes is none of most coders.
	for _, transform := range p.GetComponents().GetTransforms() {
		var payload pipepb.TestStreamPayload
		if transform.GetUniqueName() != "T" {
			continue
		}
		if err := proto.Unmarshal(transform.GetSpec().GetPayload(), &payload); err != nil {
			t.Fatal(err)
		}
		payload.Events = nil
		change(&payload)
		if transform.Spec.Payload, err = proto.Marshal(&payload); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func elements(tag, encoded string) *pipepb.TestStreamPayload_Event {
	return &pipepb.TestStreamPayload_Event{Event: &pipepb.TestStreamPayload_Event_ElementEvent{
		ElementEvent: &pipepb.TestStreamPayload_Event_AddElements{
			Tag:      tag,
			Elements: []*pipepb.TestStreamPayload_TimestampedElement{{EncodedElement: []byte(encoded), Timestamp: 5}},
		},
	}}
}
