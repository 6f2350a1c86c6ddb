package plan

import (
	"slices"
	"strconv"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
)

// wires makes the coders in which records cross between stages. It adds them to the pipeline's coders, the same id for the
// same coder, so that two ends agree when their ids do.
type wires struct {
	coders map[string]*pipepb.Coder
	// made has the wire form of a coder, by the coder's id.
	made map[string]string
	// class numbers coders by what they are (URN, payload, the components' classes): coders that differ only in their
	// ids have one number. first is the id that stands for a class.
	class map[string]int
	byKey map[string]int
	first []string
}

func newWires(coders map[string]*pipepb.Coder) *wires {
	return &wires{coders: coders, made: map[string]string{}, class: map[string]int{}, byKey: map[string]int{}}
}

// element is the coder in which values of the given coder cross: every coder in it that the runner cannot walk is in a
// length prefix, once.
func (w *wires) element(id string) string {
	if made, ok := w.made[id]; ok {
		return made
	}
	c := w.coders[id]
	made := id
	switch name := c.GetSpec().GetUrn(); {
	case !urn.KnownCoder(name):
		made = w.make(id+"-prefixed", urn.CoderLengthPrefix, nil, id)
	case name == urn.CoderLengthPrefix: // the prefix tells the length: what is in it is the SDK's own affair
	default:
		components := make([]string, 0, len(c.GetComponentCoderIds()))
		for _, comp := range c.GetComponentCoderIds() {
			components = append(components, w.element(comp))
		}
		if !slices.Equal(components, c.GetComponentCoderIds()) {
			made = w.make(id+"-wire", name, c.GetSpec().GetPayload(), components...)
		}
	}
	made = w.canonical(made)
	w.made[id] = made
	return made
}

// window is the coder in which windows of the given coder cross: one that tells their ends. (CUSTOM_WINDOW among
// StandardCoders in beam_runner_api.proto is for all windows but the two kinds that every runner knows.)
func (w *wires) window(id string) string {
	made := w.element(id)
	switch w.coders[made].GetSpec().GetUrn() {
	case urn.CoderGlobalWindow, urn.CoderIntervalWindow, urn.CoderCustomWindow:
		return made
	}
	return w.make(id+"-timed", urn.CoderCustomWindow, nil, made)
}

// windowed is the windowed-value coder of an element coder and a window coder that are wire coders already.
func (w *wires) windowed(element, window string) string {
	return w.make(element+"-windowed", urn.CoderWindowedValue, nil, element, window)
}

// make finds the coder, or adds it under an id made from the wanted one.
func (w *wires) make(id, name string, payload []byte, components ...string) string {
	if n, ok := w.byKey[w.key(name, payload, components)]; ok {
		return w.first[n]
	}
	for base, n := id, 2; w.coders[id] != nil; n++ {
		id = base + "-" + strconv.Itoa(n)
	}
	w.coders[id] = &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: name, Payload: payload}, ComponentCoderIds: components}
	return w.canonical(id)
}

// canonical is the id that stands for all coders that are the same as the given one.
func (w *wires) canonical(id string) string { return w.first[w.classOf(id)] }

func (w *wires) classOf(id string) int {
	if n, ok := w.class[id]; ok {
		return n
	}
	c := w.coders[id]
	key := w.key(c.GetSpec().GetUrn(), c.GetSpec().GetPayload(), c.GetComponentCoderIds())
	n, ok := w.byKey[key]
	if !ok {
		n = len(w.first)
		w.byKey[key] = n
		w.first = append(w.first, id)
	}
	w.class[id] = n
	return n
}

func (w *wires) key(name string, payload []byte, components []string) string {
	b := strconv.AppendQuote(nil, name)
	b = strconv.AppendQuote(b, string(payload))
	for _, comp := range components {
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(w.classOf(comp)), 10)
	}
	return string(b)
}

// keyValue takes a KV coder apart.
func (w *wires) keyValue(id string) (key, value string, ok bool) {
	c := w.coders[id]
	if c.GetSpec().GetUrn() != urn.CoderKV || len(c.GetComponentCoderIds()) != 2 {
		return "", "", false
	}
	return c.GetComponentCoderIds()[0], c.GetComponentCoderIds()[1], true
}
