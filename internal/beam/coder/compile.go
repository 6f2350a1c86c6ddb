package coder

import (
	"fmt"
	"math"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
)

const (
	// maxDepth bounds how deep coders nest, and so the recursion of a walk.
	maxDepth = 100
	// maxInline bounds a program's length: a coder shared n levels deep would otherwise unfold to 2ⁿ steps.
	maxInline = 32
)

// Compile prepares the coder with this id. It fails for an id that is missing, a cycle, a wrong number of components,
// nesting deeper than 100 levels, and a coder that the runner does not know and that no length prefix encloses; the
// error has the path of ids from the given one to the faulty one.
func Compile(coders map[string]*pipepb.Coder, id string) (*Coder, error) {
	c := compiler{coders: coders, done: map[string]*Coder{}, opaque: map[string]bool{}}
	return c.compile(id)
}

type compiler struct {
	coders map[string]*pipepb.Coder
	path   []string
	done   map[string]*Coder
	opaque map[string]bool // checked, but not compiled: behind a length prefix
}

func (c *compiler) fail(format string, args ...any) error {
	return fmt.Errorf("coder %s: %s", strings.Join(c.path, " → "), fmt.Sprintf(format, args...))
}

// enter puts id on the path; the caller takes it off.
func (c *compiler) enter(id string) (*pipepb.Coder, error) {
	seen := false
	for _, p := range c.path {
		seen = seen || p == id
	}
	c.path = append(c.path, id)
	switch p := c.coders[id]; {
	case seen:
		return nil, c.fail("a coder cannot contain itself")
	case len(c.path) > maxDepth:
		return nil, c.fail("nested deeper than %d coders", maxDepth)
	case p == nil:
		return nil, c.fail("the pipeline has no coder with the id %q", id)
	default:
		return p, nil
	}
}

func (c *compiler) leave() { c.path = c.path[:len(c.path)-1] }

// check looks at a coder behind a length prefix: any URN will do, but not a missing id or a cycle.
func (c *compiler) check(id string) error {
	if c.opaque[id] {
		return nil
	}
	p, err := c.enter(id)
	defer c.leave()
	if err != nil {
		return err
	}
	for _, comp := range p.GetComponentCoderIds() {
		if err := c.check(comp); err != nil {
			return err
		}
	}
	c.opaque[id] = true
	return nil
}

func (c *compiler) compile(id string) (*Coder, error) {
	if k := c.done[id]; k != nil {
		return k, nil
	}
	p, err := c.enter(id)
	defer c.leave()
	if err != nil {
		return nil, err
	}
	name, ids := p.GetSpec().GetUrn(), p.GetComponentCoderIds()
	want, ok := urn.CoderArity(name)
	switch {
	case !ok:
		return nil, c.fail("the runner does not know %q and no length prefix is around it", name)
	case len(ids) != want:
		return nil, c.fail("%s has %d components, should have %d", name, len(ids), want)
	}
	k := &Coder{id: id, urn: name}
	if name == urn.CoderLengthPrefix {
		if err := c.check(ids[0]); err != nil {
			return nil, err
		}
		k.op(opPrefix, 0, nil)
		c.done[id] = k
		return k, nil
	}
	for _, comp := range ids {
		sub, err := c.compile(comp)
		if err != nil {
			return nil, err
		}
		k.comps = append(k.comps, sub)
	}
	k.assemble()
	if k.fixed > math.MaxInt32 {
		return nil, c.fail("elements of %d bytes are too large", k.fixed)
	}
	c.done[id] = k
	return k, nil
}

// assemble writes the program: what a coder's nested encoding is made of.
func (k *Coder) assemble() {
	switch k.urn {
	case urn.CoderBytes, urn.CoderStringUTF8:
		k.op(opPrefix, 0, nil)
	case urn.CoderVarInt:
		k.op(opVarint, 0, nil)
	case urn.CoderBool:
		k.op(opFixed, 1, nil)
	case urn.CoderDouble:
		k.op(opFixed, 8, nil)
	case urn.CoderGlobalWindow: // nothing
	case urn.CoderIntervalWindow: // the end, then the span
		k.op(opFixed, 8, nil)
		k.op(opVarint, 0, nil)
	case urn.CoderCustomWindow: // the maximal timestamp, then the window
		k.op(opFixed, 8, nil)
		k.inline(k.comps[0])
	case urn.CoderKV:
		k.inline(k.comps[0])
		k.inline(k.comps[1])
	case urn.CoderShardedKey: // the shard, then the key
		k.op(opPrefix, 0, nil)
		k.inline(k.comps[0])
	case urn.CoderIterable:
		k.op(opIterable, 0, k.comps[0])
	case urn.CoderStateBackedIterable:
		k.op(opBacked, 0, k.comps[0])
	case urn.CoderNullable:
		k.op(opNullable, 0, k.comps[0])
	case urn.CoderWindowedValue:
		k.op(opFixed, 8, nil)
		k.op(opWindows, 0, k.comps[1])
		k.op(opPane, 0, nil)
		k.inline(k.comps[0])
	case urn.CoderParamWindowedValue: // the value alone: the rest is the coder's payload
		k.inline(k.comps[0])
	case urn.CoderTimer:
		k.inline(k.comps[0])
		k.op(opPrefix, 0, nil)
		k.op(opWindows, 0, k.comps[1])
		k.op(opTimer, 0, nil)
	}
}

// op appends a step; neighbouring fixed sizes become one.
func (k *Coder) op(o op, n int, sub *Coder) {
	if o != opFixed {
		k.fixed = -1
		k.prog = append(k.prog, step{op: o, n: n, sub: sub})
		return
	}
	if n == 0 {
		return
	}
	if k.fixed >= 0 {
		k.fixed += n
	}
	if last := len(k.prog) - 1; last >= 0 && k.prog[last].op == opFixed {
		k.prog[last].n += n
		return
	}
	k.prog = append(k.prog, step{op: opFixed, n: n})
}

// inline appends a component's steps, or one call of it when the program would grow too long.
func (k *Coder) inline(sub *Coder) {
	if len(k.prog)+len(sub.prog) > maxInline {
		k.op(opCall, 0, sub)
		return
	}
	for _, s := range sub.prog {
		k.op(s.op, s.n, s.sub)
	}
}
