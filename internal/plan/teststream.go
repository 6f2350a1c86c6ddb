package plan

import (
	"encoding/binary"
	"fmt"
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
	"trestle/internal/plan/fuse"
	"trestle/internal/plan/graph"
)

// coderGoCustom is the Go SDK's coder of types of its user's.
const coderGoCustom = "beam:go:coder:custom:v1"

// TestStream is a root that the engine plays (beam:transform:teststream:v1): an event is let out when nothing is left to do
// that follows from those before it.
type TestStream struct {
	// Transform is the TestStream's id.
	Transform string
	// Stages has, by the tag that events name, the indexes of the stages that let an output's elements out. Where there is
	// one output, it is also that of events without a tag. An output that nobody reads has no stage.
	Stages map[string]int
	// Events are what there is to play.
	Events []*pipepb.TestStreamPayload_Event

	tags map[string]bool
	form playedForm
}

// playedForm is how a TestStream's elements are brought into the form in which they cross.
type playedForm struct {
	// coder is the element coder in which they do.
	coder string
	// key is of the first part of an element, which stays as it is; nil if there is no such part.
	key *coder.Coder
	// prefixed says that the rest gets its length before it.
	prefixed bool
}

// TestEvent is an event of a TestStream in the terms of its stages. One of Records, Watermark and Advance is set.
type TestEvent struct {
	// Stage is the index of the stage that the event belongs to; -1 when nobody reads the output, or for Advance.
	Stage int
	// Records are elements, in the coder of the stage's input.
	Records []byte
	// Watermark is the output's new watermark, in milliseconds; HasWatermark that there is one.
	Watermark    int64
	HasWatermark bool
	// Advance is by how much processing time moves on.
	Advance time.Duration
}

// Event puts an event into the terms of the stages. The error says what is wrong with it.
func (t *TestStream) Event(e *pipepb.TestStreamPayload_Event) (TestEvent, error) {
	switch e := e.GetEvent().(type) {
	case *pipepb.TestStreamPayload_Event_ProcessingTimeEvent:
		// A client's way to say "to the end of time" is more than a duration can hold.
		const most = int64(1<<63-1) / int64(time.Millisecond)
		ms := e.ProcessingTimeEvent.GetAdvanceDuration()
		if ms < 0 {
			return TestEvent{}, fmt.Errorf("it advances processing time by %d ms: time does not go back", ms)
		}
		return TestEvent{Stage: -1, Advance: time.Duration(min(ms, most)) * time.Millisecond}, nil
	case *pipepb.TestStreamPayload_Event_WatermarkEvent:
		stage, err := t.stage(e.WatermarkEvent.GetTag())
		return TestEvent{Stage: stage, Watermark: e.WatermarkEvent.GetNewWatermark(), HasWatermark: true}, err
	case *pipepb.TestStreamPayload_Event_ElementEvent:
		stage, err := t.stage(e.ElementEvent.GetTag())
		out := TestEvent{Stage: stage, Records: []byte{}}
		for i, element := range e.ElementEvent.GetElements() {
			if err != nil {
				break
			}
			out.Records = coder.AppendHeader(out.Records, element.GetTimestamp(), nil, coder.NoFiring)
			if out.Records, err = t.element(out.Records, element.GetEncodedElement()); err != nil {
				err = fmt.Errorf("element %d: %w", i, err)
			}
		}
		return out, err
	}
	return TestEvent{}, fmt.Errorf("it is of a kind (%T) that Trestle does not know", e.GetEvent())
}

func (t *TestStream) stage(tag string) (int, error) {
	if stage, ok := t.Stages[tag]; ok {
		return stage, nil
	}
	if !t.tags[tag] {
		return -1, fmt.Errorf("it is for an output %q, which the TestStream has not", tag)
	}
	return -1, nil
}

// element appends an element as it travels. SDKs encode elements as if nothing followed.
func (t *TestStream) element(dst, encoded []byte) ([]byte, error) {
	if t.form.key != nil {
		n, err := t.form.key.Skip(encoded)
		if err != nil {
			return dst, fmt.Errorf("its key: %w", err)
		}
		dst, encoded = append(dst, encoded[:n]...), encoded[n:]
	}
	if t.form.prefixed {
		dst = binary.AppendUvarint(dst, uint64(len(encoded)))
	}
	return append(dst, encoded...), nil
}

// testStream reports what is wrong with a TestStream.
func (v *validator) testStream(n *graph.Node) {
	var payload pipepb.TestStreamPayload
	if err := proto.Unmarshal(n.Proto.GetSpec().GetPayload(), &payload); err != nil {
		v.report(n.Name(), "its payload is no TestStreamPayload", "")
		return
	}
	v.coder(n.Name(), payload.GetCoderId())
	if service := payload.GetEndpoint().GetUrl(); service != "" {
		v.report(n.Name(), fmt.Sprintf("its events come from a service, at %s, which this version of Trestle does not ask", service),
			"give the TestStream its events")
	}
	t := &TestStream{tags: testStreamTags(n)}
	watermarks := map[string]int64{}
	for i, e := range payload.GetEvents() {
		out, err := t.Event(e)
		tag := e.GetWatermarkEvent().GetTag()
		if before, ok := watermarks[tag]; err == nil && out.HasWatermark && ok && out.Watermark < before {
			err = fmt.Errorf("it takes the watermark back, from %d to %d", before, out.Watermark)
		}
		if err != nil {
			v.report(n.Name(), fmt.Sprintf("event %d: %v", i, err), "")
			return
		}
		if out.HasWatermark {
			watermarks[tag] = out.Watermark
		}
	}
	for _, pc := range n.Outputs {
		ws := v.c.GetWindowingStrategies()[v.c.GetPcollections()[pc].GetWindowingStrategyId()]
		if name := v.c.GetCoders()[ws.GetWindowCoderId()].GetSpec().GetUrn(); name != urn.CoderGlobalWindow && name != "" {
			v.report(n.Name(), fmt.Sprintf("its output %q has windows of coder %q: a TestStream's elements are in the global window", pc, name), "")
		}
	}
}

// testStreamTags are the tags that events may name.
func testStreamTags(n *graph.Node) map[string]bool {
	tags := map[string]bool{"": len(n.Outputs) == 1}
	for tag := range n.Proto.GetOutputs() {
		tags[tag] = true
	}
	return tags
}

// played makes a stage one that lets out an output of a TestStream.
func (a *assembly) played(stage *Stage, s *fuse.Stage) {
	t := a.testStream(s.Mouth)
	for tag, pc := range s.Mouth.Proto.GetOutputs() {
		if pc != s.PCollection {
			continue
		}
		t.Stages[tag] = stage.Index
		if len(s.Mouth.Outputs) == 1 {
			t.Stages[""] = stage.Index
		}
	}
}

// testStream is what the plan has of a TestStream.
func (a *assembly) testStream(n *graph.Node) *TestStream {
	for _, t := range a.plan.TestStreams {
		if t.Transform == n.ID {
			return t
		}
	}
	payload := testStreamPayload(n)
	t := &TestStream{
		Transform: n.ID, Stages: map[string]int{}, Events: payload.GetEvents(), tags: testStreamTags(n),
	}
	t.form = a.playedForm(payload.GetCoderId())
	a.plan.TestStreams = append(a.plan.TestStreams, t)
	return t
}

// testStreamPayload is the payload of a TestStream that has been validated.
func testStreamPayload(n *graph.Node) *pipepb.TestStreamPayload {
	payload := &pipepb.TestStreamPayload{}
	// It was decoded before.
	_ = proto.Unmarshal(n.Proto.GetSpec().GetPayload(), payload)
	return payload
}

// playedCoder is the element coder in which an output of a TestStream crosses.
func (a *assembly) playedCoder(n *graph.Node, pcollection string) string {
	id := testStreamPayload(n).GetCoderId()
	if a.comps.GetCoders()[id].GetSpec().GetUrn() == coderGoCustom {
		// The Go SDK names the coder of what is in the length prefix, and its elements have one.
		return a.wires.element(a.comps.GetPcollections()[pcollection].GetCoderId())
	}
	return a.playedForm(id).coder
}

// playedForm tells how elements of a TestStream's coder cross. In the payload, an element is encoded as if nothing
// followed: in Java and Python, a string then has no length. What is inside a length prefix is encoded so, too; so
// everything gets one that does not tell its end by itself, but for a key, which has to be found.
func (a *assembly) playedForm(id string) playedForm {
	c := a.comps.GetCoders()[id]
	if name := c.GetSpec().GetUrn(); name == coderGoCustom || endsItself(name) {
		return playedForm{coder: a.wires.element(id)}
	}
	if c.GetSpec().GetUrn() == urn.CoderKV {
		keyID, valueID := c.GetComponentCoderIds()[0], c.GetComponentCoderIds()[1]
		key, err := coder.Compile(a.comps.GetCoders(), keyID)
		if err == nil && a.wires.element(keyID) == a.wires.canonical(keyID) { // else the runner cannot find its end
			value := a.playedForm(valueID)
			if value.key != nil {
				value = playedForm{coder: a.wires.make(valueID+"-played", urn.CoderLengthPrefix, nil, valueID), prefixed: true}
			}
			return playedForm{
				coder: a.wires.make(id+"-played", urn.CoderKV, nil, a.wires.element(keyID), value.coder), key: key, prefixed: value.prefixed,
			}
		}
	}
	return playedForm{coder: a.wires.make(id+"-played", urn.CoderLengthPrefix, nil, id), prefixed: true}
}

// endsItself tells whether a coder encodes a value the same, whether something follows or not.
func endsItself(name string) bool {
	switch name {
	case urn.CoderVarInt, urn.CoderDouble, urn.CoderBool, urn.CoderIntervalWindow, urn.CoderLengthPrefix:
		return true
	}
	return false
}
