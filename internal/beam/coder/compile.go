package coder

import (
	"fmt"
	"math"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// The URNs of the coders that are walked: StandardCoders.Enum in beam_runner_api.proto.
const (
	urnBytes          = "beam:coder:bytes:v1"
	urnString         = "beam:coder:string_utf8:v1"
	urnKV             = "beam:coder:kv:v1"
	urnBool           = "beam:coder:bool:v1"
	urnVarint         = "beam:coder:varint:v1"
	urnDouble         = "beam:coder:double:v1"
	urnIterable       = "beam:coder:iterable:v1"
	urnStateBacked    = "beam:coder:state_backed_iterable:v1"
	urnTimer          = "beam:coder:timer:v1"
	urnIntervalWindow = "beam:coder:interval_window:v1"
	urnGlobalWindow   = "beam:coder:global_window:v1"
	urnCustomWindow   = "beam:coder:custom_window:v1"
	urnLengthPrefix   = "beam:coder:length_prefix:v1"
	urnWindowedValue  = "beam:coder:windowed_value:v1"
	urnParamWindowed  = "beam:coder:param_windowed_value:v1"
	urnShardedKey     = "beam:coder:sharded_key:v1"
	urnNullable       = "beam:coder:nullable:v1"
)

// arity is the number of components of each coder that is walked.
var arity = map[string]int{
	urnBytes: 0, urnString: 0, urnKV: 2, urnBool: 0, urnVarint: 0, urnDouble: 0, urnIterable: 1, urnStateBacked: 1,
	urnTimer: 2, urnIntervalWindow: 0, urnGlobalWindow: 0, urnCustomWindow: 1, urnLengthPrefix: 1,
	urnWindowedValue: 2, urnParamWindowed: 2, urnShardedKey: 1, urnNullable: 1,
}

const (
	// maxDepth bounds how deep coders nest, and so the recursion of a walk.
	maxDepth = 100
	// maxInline bounds a program's length: a coder shared n levels deep would otherwise unfold to 2ⁿ steps.
	maxInline = 32
)

// Known tells whether the runner can walk elements of a coder with this URN, given that it can walk its components.
// A coder that is not known must be given a length prefix.
func Known(urn string) bool {
	_, ok := arity[urn]
	return ok
}

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
	urn, ids := p.GetSpec().GetUrn(), p.GetComponentCoderIds()
	want, ok := arity[urn]
	switch {
	case !ok:
		return nil, c.fail("the runner does not know %q and no length prefix is around it", urn)
	case len(ids) != want:
		return nil, c.fail("%s has %d components, should have %d", urn, len(ids), want)
	}
	k := &Coder{id: id, urn: urn}
	if urn == urnLengthPrefix {
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
	case urnBytes, urnString:
		k.op(opPrefix, 0, nil)
	case urnVarint:
		k.op(opVarint, 0, nil)
	case urnBool:
		k.op(opFixed, 1, nil)
	case urnDouble:
		k.op(opFixed, 8, nil)
	case urnGlobalWindow: // nothing
	case urnIntervalWindow: // the end, then the span
		k.op(opFixed, 8, nil)
		k.op(opVarint, 0, nil)
	case urnCustomWindow: // the maximal timestamp, then the window
		k.op(opFixed, 8, nil)
		k.inline(k.comps[0])
	case urnKV:
		k.inline(k.comps[0])
		k.inline(k.comps[1])
	case urnShardedKey: // the shard, then the key
		k.op(opPrefix, 0, nil)
		k.inline(k.comps[0])
	case urnIterable:
		k.op(opIterable, 0, k.comps[0])
	case urnStateBacked:
		k.op(opBacked, 0, k.comps[0])
	case urnNullable:
		k.op(opNullable, 0, k.comps[0])
	case urnWindowedValue:
		k.op(opFixed, 8, nil)
		k.op(opWindows, 0, k.comps[1])
		k.op(opPane, 0, nil)
		k.inline(k.comps[0])
	case urnParamWindowed: // the value alone: the rest is the coder's payload
		k.inline(k.comps[0])
	case urnTimer:
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
