package plan

import (
	"bytes"

	"trestle/internal/beam/urn"
)

// javaCoder is the URN of Java's coders that the model does not have. Their payload is the coder's object, serialized.
const javaCoder = "beam:coders:javasdk:0.1"

// javaInteger is how an object of the coder of Java's Integer begins, serialized: a Java stream, an object, the name of its
// class. (The payload is compressed, but not before a stream's first repetition.)
var javaInteger = []byte("\xac\xed\x00\x05sr\x00\x26org.apache.beam.sdk.coders.VarIntCoder")

// walkable is a coder that the runner can walk, of values that an SDK writes with the given one and with nothing around
// them; "" when there is none. Java's Integer is a varint, which its SDK does not say.
func (w *wires) walkable(id string) string {
	if c := w.coders[id]; c.GetSpec().GetUrn() == javaCoder && bytes.Contains(c.GetSpec().GetPayload(), javaInteger) {
		return w.make(id+"-varint", urn.CoderVarInt, nil)
	}
	if made := w.element(id); made == w.canonical(id) {
		return made
	}
	return ""
}
