package stage

import (
	"context"
	"fmt"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
)

// outlets are a task's outputs. Calls are serialised: one bundle of the task writes at a time.
type outlets struct {
	stage   *plan.Stage
	outputs [][]outlet // for each output, one outlet for each of its exchanges
}

// outlet passes an output's records on through one exchange.
type outlet interface {
	// write takes whole records, which are the caller's again on return.
	write(ctx context.Context, records []byte) error
	// flush emits what was gathered.
	flush(ctx context.Context) error
}

func newOutlets(s Spec) (*outlets, error) {
	o := &outlets{stage: s.Stage, outputs: make([][]outlet, len(s.Stage.Outputs))}
	for i, out := range s.Stage.Outputs {
		for _, id := range out.Exchanges {
			made, err := newOutlet(s, s.Plan.Exchanges[id])
			if err != nil {
				return nil, fmt.Errorf("output %s: %w", out.PCollection, err)
			}
			o.outputs[i] = append(o.outputs[i], made)
		}
	}
	return o, nil
}

func newOutlet(s Spec, e *plan.Exchange) (outlet, error) {
	if e.Kind == plan.Forward || e.Kind == plan.Broadcast {
		return &forward{out: s.Out, exchange: e.ID}, nil
	}
	w, err := coder.CompileWindowed(s.coders(), e.Coder)
	if err != nil {
		return nil, err
	}
	if e.Kind == plan.Rebalance {
		return &rebalance{out: s.Out, exchange: e.ID, coder: w, pieces: 4 * s.Parallelism}, nil
	}
	k := &keyed{}
	k.partitioner, err = shuffle.NewPartitioner(w, s.KeyGroups, func(keyGroup int, block []byte) error {
		return s.Out.Emit(k.ctx, e.ID, keyGroup, block)
	})
	if err == nil && s.Plan.Stages[e.To].Input.Kind == plan.KeyedElements {
		k.partitioner.KeepPanes()
	}
	return k, err
}

// write passes records of the i-th output on.
func (o *outlets) write(ctx context.Context, i int, records []byte) error {
	for _, out := range o.outputs[i] {
		if err := out.write(ctx, records); err != nil {
			return o.errorf(i, err)
		}
	}
	return nil
}

func (o *outlets) flush(ctx context.Context) error {
	for i, outs := range o.outputs {
		for _, out := range outs {
			if err := out.flush(ctx); err != nil {
				return o.errorf(i, err)
			}
		}
	}
	return nil
}

func (o *outlets) errorf(i int, err error) error {
	return fmt.Errorf("output %s: %w", o.stage.Outputs[i].PCollection, err)
}

// forward passes bytes through untouched.
type forward struct {
	out      Output
	exchange int
}

func (f *forward) write(ctx context.Context, records []byte) error {
	return f.out.Emit(ctx, f.exchange, 0, records)
}

func (f *forward) flush(context.Context) error { return nil }

// keyed cuts records into blocks per key group.
type keyed struct {
	partitioner *shuffle.Partitioner
	ctx         context.Context // of the call under way, for what the partitioner emits meanwhile
}

func (k *keyed) write(ctx context.Context, records []byte) error {
	k.ctx = ctx
	return k.partitioner.Write(records)
}

func (k *keyed) flush(ctx context.Context) error {
	k.ctx = ctx
	return k.partitioner.Flush()
}

// rebalanceBytes bounds a block of a rebalancing exchange.
const rebalanceBytes = 64 << 10

// rebalance cuts what arrives into blocks small enough that each of the receiving tasks finds its share.
type rebalance struct {
	out      Output
	exchange int
	coder    *coder.Windowed
	pieces   int // to cut one write into, at the least, if it has as many records
}

func (r *rebalance) write(ctx context.Context, records []byte) error {
	limit := min(len(records)/r.pieces, rebalanceBytes)
	start, end := 0, 0
	for end < len(records) {
		_, size, err := r.coder.Record(records[end:])
		if err != nil {
			return fmt.Errorf("cut the SDK's output into records: at byte %d of %d: %w", end, len(records), err)
		}
		end += size
		if end-start > limit || end == len(records) {
			if err := r.out.Emit(ctx, r.exchange, 0, records[start:end]); err != nil {
				return err
			}
			start = end
		}
	}
	return nil
}

func (r *rebalance) flush(context.Context) error { return nil }
