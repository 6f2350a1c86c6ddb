// Package submission is how a job travels to an engine outside of the job server's process: a [Graph], which an adapter
// builds the engine's own job from, and inside of it the [Job], which workers plan and run. docs/formats/job.md has the bytes.
//
// The package is pure.
package submission

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"trestle/internal/plan"
)

const (
	graphMagic   = "TRSG"
	graphVersion = 1
)

// Graph is the shape of a job: what an engine's adapter needs to know of it.
type Graph struct {
	// Name is the job's, as the engine's own pages show it.
	Name string
	// Parallelism is the number of tasks of a stage; 0 stands for the engine's default.
	Parallelism int
	// KeyGroups is the number of key groups, and the largest parallelism.
	KeyGroups int
	// Settings are the engine's, for this job, by the engine's names.
	Settings map[string]string
	Plan     *plan.Plan
	// Job is an encoded [Job].
	Job []byte
}

// Encode writes the graph.
func (g *Graph) Encode() []byte {
	e := encoder(graphMagic)
	e = binary.BigEndian.AppendUint16(e, graphVersion)
	e.text(g.Name)
	e.number(g.Parallelism)
	e.number(g.KeyGroups)
	e.number(len(g.Settings))
	for _, key := range slices.Sorted(maps.Keys(g.Settings)) {
		e.text(key)
		e.text(g.Settings[key])
	}
	e.number(len(g.Plan.Stages))
	for _, s := range g.Plan.Stages {
		e.text(s.Name)
		e.text(uid(g.Plan, s))
		single := byte(0)
		if s.Input.Kind == plan.Impulse {
			single = 1
		}
		e = append(e, single)
		e.number(len(s.SideInputs))
	}
	e.number(len(g.Plan.Exchanges))
	for _, x := range g.Plan.Exchanges {
		e.number(x.ID)
		e = append(e, byte(x.Kind))
		e.number(x.From)
		e.number(x.To)
		e.number(x.Side + 1)
	}
	e.number(len(g.Job))
	return append(e, g.Job...)
}

type encoder []byte

func (e *encoder) number(n int) { *e = binary.BigEndian.AppendUint32(*e, uint32(n)) }

func (e *encoder) text(s string) {
	e.number(len(s))
	*e = append(*e, s...)
}

// uid names a stage by what it runs, so that a later version of the pipeline has the same name for the same transforms.
func uid(p *plan.Plan, s *plan.Stage) string {
	h := sha256.New()
	named := s.Transforms
	if g := s.Input.Group; g != nil {
		named = append(slices.Clone(named), g.Transform)
	}
	for _, id := range named {
		fmt.Fprintf(h, "%q", p.Pipeline.GetComponents().GetTransforms()[id].GetUniqueName()) // a hash does not fail
	}
	if len(named) == 0 {
		fmt.Fprintf(h, "%q", s.Name)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// errVersion says that two ends are of different versions.
var errVersion = errors.New("the job was made by another version of trestle")
