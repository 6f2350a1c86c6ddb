package worker

import (
	"fmt"
	"slices"

	"trestle/internal/plan"
	"trestle/internal/worker/wire"
)

// tooLarge is an element that no engine is given. To try again would not help.
type tooLarge struct {
	bytes          int
	producer, next string // names of a transform and of a stage
}

func (e *tooLarge) Error() string {
	return fmt.Sprintf("transform %q has put out an element of %d MiB for %q, and elements that pass between hosts may have %d MiB at most: an engine keeps several of them in the memory of its own processes. Put large values into a file and pass on its name, or run the job on the embedded engine (pipeline option engine=local), which has no such limit",
		e.producer, e.bytes>>20, e.next, wire.MaxBlock>>20)
}

// newTooLarge names what a block that is too large is of.
func newTooLarge(p *plan.Plan, exchange, bytes int) error {
	e := &tooLarge{bytes: bytes, producer: "unknown", next: "unknown"}
	for _, x := range p.Exchanges {
		if x.ID == exchange {
			e.producer = producer(p, p.Stages[x.From].Outputs[x.Output].PCollection)
			e.next = p.Stages[x.To].Name
		}
	}
	return e
}

// producer is the name of the transform that makes a PCollection: the innermost.
func producer(p *plan.Plan, pcollection string) string {
	name := pcollection
	transforms := p.Pipeline.GetComponents().GetTransforms()
	var ids []string
	for id, t := range transforms {
		for _, out := range t.GetOutputs() {
			if out == pcollection && len(t.GetSubtransforms()) == 0 {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) > 0 {
		slices.Sort(ids)
		name = transforms[ids[0]].GetUniqueName()
	}
	return name
}
