package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/protobuf/proto"
)

// Digest is a sha256, in hex, of all that a plan says: two processes of one version of Trestle that have planned the same
// pipeline tell by it that they mean the same stages and exchanges by the same numbers. Another version may come to another digest.
func (p *Plan) Digest() (string, error) {
	d := digest{Hash: sha256.New()}
	d.message(p.Pipeline)
	for _, s := range p.Stages {
		in := s.Input
		d.say("stage", s.Index, s.Name, s.Environment, s.Transforms, in.Kind, in.PCollection, in.Source, in.Coder, in.Exchanges, in.Splittable, in.Stable)
		d.descriptor(s.Descriptor)
		if g := in.Group; g != nil {
			d.say("group", g.Transform, g.StateBacked, g.Coder)
			d.message(g.Windowing)
			if m := g.Merging; m != nil {
				d.say("merging", m.Environment, m.Source, m.Sink, m.Input, m.Output)
				d.descriptor(m.Descriptor)
			}
		}
		for _, side := range s.SideInputs {
			d.say("side", side.Transform, side.Tag, side.PCollection, side.AccessPattern, side.Coder, side.Exchanges, side.Same)
			if side.Windowing != nil {
				d.message(side.Windowing)
			}
			if m := side.Mapping; m != nil {
				d.say("mapping", m.Source, m.Sink, m.Input, m.Output)
				d.descriptor(m.Descriptor)
			}
		}
		for _, out := range s.Outputs {
			d.say("output", out)
		}
	}
	for _, e := range p.Exchanges {
		d.say("exchange", *e)
	}
	if d.err != nil {
		return "", fmt.Errorf("digest of the plan: %w", d.err)
	}
	return hex.EncodeToString(d.Sum(nil)), nil
}

// digest is a hash of values, each told apart from the next.
type digest struct {
	hash.Hash
	err error
}

func (d *digest) say(values ...any) {
	for _, v := range values {
		fmt.Fprintf(d, "%#v\x00", v) // a hash does not fail
	}
}

func (d *digest) descriptor(b *fnpb.ProcessBundleDescriptor) {
	if b != nil {
		d.message(b)
	}
}

func (d *digest) message(m proto.Message) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil && d.err == nil {
		d.err = err
	}
	d.say(b)
}
