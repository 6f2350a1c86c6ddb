// Package plan turns a portable pipeline into what an engine runs: stages joined by exchanges.
//
// The package is pure: protos in, a [Plan] out, no goroutine, socket, file or clock. Build validates the pipeline
// whole, expands what the runner must expand, lifts combines, cuts the graph into stages and gives each cut a reason.
package plan

import (
	"slices"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// Plan is what Trestle makes of a pipeline and what an engine gets. It is immutable once built.
type Plan struct {
	// Pipeline is the pipeline after all rewrites. Ids in stages refer to its components.
	Pipeline *pipepb.Pipeline
	// Stages in topological order: a stage's inputs come from earlier stages only.
	Stages []*Stage
	// Exchanges, indexed by their ID.
	Exchanges []*Exchange
	// Streaming is set when the pipeline has a collection that is not bounded, or a TestStream, or by Options: then exchanges are
	// pipelined, watermarks flow behind the records, and inputs never end otherwise than by their watermark. State,
	// timers and triggers alone do not make a plan a streaming one: over bounded collections a task has all input of a
	// key before any timer is due.
	Streaming bool
	// TestStreams are the roots that the engine plays, in the order of the pipeline.
	TestStreams []*TestStream
	// Cuts tells, for each PCollection that crosses from one stage to another, why it does.
	Cuts []Cut
}

// Stage is a chain of transforms fused to run in one environment, with the runner's own work at its mouth.
type Stage struct {
	// Index is the stage's place in Plan.Stages.
	Index int
	// Name is what a person recognises: the fused transforms' unique names, with their common prefixes folded.
	Name string
	// Environment is the id of the environment that runs the stage; "" when the runner alone does (a GroupByKey
	// whose result is a side input, say): then the input's elements go to the outputs as they are, in the input's coder.
	Environment string
	// Transforms are the ids of the fused transforms, in topological order.
	Transforms []string
	// Input is the stage's main input.
	Input Input
	// SideInputs are the PCollections that the stage's transforms read as side inputs.
	SideInputs []SideInput
	// Outputs are the PCollections that leave the stage.
	Outputs []Output
	// Descriptor is what the harness is told to run; nil when Environment is "". Its source and sink transforms
	// carry RemoteGrpcPorts with a coder id and no endpoint: whoever hands it to a harness fills that in.
	Descriptor *fnpb.ProcessBundleDescriptor
}

// InputKind says what a stage's mouth makes of what arrives.
type InputKind int

const (
	// Impulse: nothing arrives; the stage's first task gets one empty element in the global window.
	Impulse InputKind = iota
	// Elements: the records that arrive are the elements.
	Elements
	// Groups: records are KVs that are grouped by key and window (GroupByKey); an element is a KV<K, Iterable<V>>.
	Groups
	// Played: the records are those of an output of a TestStream. The engine brings them, and the watermark.
	Played
	// KeyedElements: the records that arrive are KVs and are the elements, in one window each, those of a key all in one
	// task: the stage's first transform has state or timers.
	KeyedElements
)

// Input is a stage's main input.
type Input struct {
	Kind InputKind
	// PCollection is the collection whose elements the stage's source hands to the harness.
	PCollection string
	// Source is the id of the beam:runner:source:v1 transform in the stage's descriptor; "" when there is none.
	Source string
	// Coder is the id, in Coders, of the windowed-value coder in which elements reach the harness.
	Coder string
	// Group is set for Groups only.
	Group *Grouping
	// State is set for KeyedElements only.
	State *State
	// Exchanges are the ids of the exchanges that bring the records: several when a Flatten was sunk into the input, the
	// same sender twice where it took one PCollection twice, none for an Impulse or for a Flatten of nothing.
	Exchanges []int
	// Splittable is set when the input's consumer is a splittable DoFn's process step: elements may be split
	// while they run and come back as residuals.
	Splittable bool
	// Stable is set in a streaming plan when the input's consumer wants it stable: the same again whenever the task begins anew.
	Stable bool
	// Truncation is how restrictions are cut short when a streaming plan is drained; nil where the input is not splittable,
	// or its SDK does not know the step.
	Truncation *Truncation
}

// Grouping is what a GroupByKey at a stage's mouth needs to know.
type Grouping struct {
	// Transform is the id of the GroupByKey.
	Transform string
	// StateBacked tells that Input.Coder has the values in a beam:coder:state_backed_iterable:v1: a long group may end
	// in a token for which the harness reads the rest over the state API. Otherwise the whole group is in the element.
	StateBacked bool
	// Coder is the id, in Coders, of the windowed-value coder of the records that arrive: a windowed KV<K, V>.
	Coder string
	// Windowing is the strategy of the collection that is grouped. Its window coder is one that the runner can walk and
	// that tells windows' ends; its merge status and output time are never unspecified.
	Windowing *pipepb.WindowingStrategy
	// Merging is set when the windows have to be merged and only their SDK knows how. Other windows that have to be
	// merged are sessions.
	Merging *Merging
}

// State is what a stage of KeyedElements keeps for its first transform.
type State struct {
	// Transform is the id of the transform.
	Transform string
	// Kinds are the protocols of the transform's states (StandardUserStateTypes in beam_runner_api.proto), by state id.
	Kinds map[string]string
	// Values are the ids, in Coders, of the value coders of multimaps that the runner can walk, by state id.
	Values map[string]string
	// Timers are the transform's timer families, by name.
	Timers []TimerFamily
	// Expiration is the name of the one among Timers that is told of the end of each window with a key; "" when none is.
	Expiration string
	// Sorted is set when the elements of a key have to be processed in the order of their timestamps.
	Sorted bool
	// Windowing is the strategy of the input.
	Windowing *pipepb.WindowingStrategy
}

// TimerFamily is a family of timers of one transform.
type TimerFamily struct {
	Name string
	// Coder is the id, in Coders, of the beam:coder:timer:v1 in which timers travel.
	Coder string
	// ProcessingTime is set when the family's timers go by processing time; otherwise they go by event time.
	ProcessingTime bool
}

// Merging is how an SDK is asked to merge the windows of keys (MERGE_WINDOWS in StandardPTransforms of
// beam_runner_api.proto): a bundle of its own, of elements KV<nonce, Iterable<window>>.
type Merging struct {
	// Environment is the id of the environment that has the window function.
	Environment string
	// Descriptor is like a stage's.
	Descriptor *fnpb.ProcessBundleDescriptor
	// Source and Sink are the ids of its ends.
	Source, Sink string
	// Input and Output are the ids, in Coders, of the windowed-value coders at the ends. Output's elements are
	// KV<nonce, KV<Iterable<unmerged window>, Iterable<KV<merged window, Iterable<window that went into it>>>>>.
	Input, Output string
}

// Truncation is how an SDK is asked what is left to do of the restrictions of a splittable DoFn when its job is drained
// (TRUNCATE_SIZED_RESTRICTION in StandardPTransforms of beam_runner_api.proto): a bundle of its own. Records have the coder
// of the stage's input at both ends; a restriction of which nothing is left has none.
type Truncation struct {
	// Descriptor is like a stage's.
	Descriptor *fnpb.ProcessBundleDescriptor
	// Source and Sink are the ids of its ends.
	Source, Sink string
}

// SideInput is a PCollection that a transform of the stage reads as a side input.
type SideInput struct {
	// Transform and Tag are the reading transform's id and the local name of its input: the address that the
	// harness uses in its state requests.
	Transform, Tag string
	// PCollection is the collection that is read.
	PCollection string
	// AccessPattern is beam:side_input:iterable:v1 or beam:side_input:multimap:v1.
	AccessPattern string
	// Coder is the id, in Coders, of the windowed-value coder in which the records arrive. Its element coder is
	// also the one that the harness decodes answers with.
	Coder string
	// Exchanges are the broadcasts that bring the records.
	Exchanges []int
	// Windowing is the strategy of the collection, of streaming plans: it says in which panes the side input comes. Its
	// window coder tells windows' ends.
	Windowing *pipepb.WindowingStrategy
	// Mapping is how the SDK is asked which window of the side input an element's window reads, of streaming plans. It is nil
	// where nobody has to be asked: where the side input's only window is the global one, or (Same) the windows are the same.
	Mapping *Mapping
	Same    bool
}

// Mapping is how an SDK is asked to map windows of a main input to windows of a side input (MAP_WINDOWS in
// StandardPTransforms of beam_runner_api.proto): a bundle of its own, of elements KV<nonce, window>, in the environment of the
// stage.
type Mapping struct {
	// Descriptor is like a stage's.
	Descriptor *fnpb.ProcessBundleDescriptor
	// Source and Sink are the ids of its ends.
	Source, Sink string
	// Input and Output are the ids, in Coders, of the windowed-value coders at the ends.
	Input, Output string
}

// Output is a PCollection that leaves a stage.
type Output struct {
	PCollection string
	// Sink is the id of the beam:runner:sink:v1 transform in the descriptor; "" when the stage has no environment.
	Sink string
	// Coder is the id, in Coders, of the windowed-value coder in which the harness writes the elements. A PCollection
	// that goes to readers in several coders has an Output for each.
	Coder string
	// Exchanges are the ids of the exchanges that carry the elements on.
	Exchanges []int
}

// ExchangeKind says how records pass between stages.
type ExchangeKind int

const (
	// Forward passes blocks on as they are, to any task of the receiving stage.
	Forward ExchangeKind = iota
	// Rebalance spreads single records evenly over the receiving stage's tasks (Reshuffle, split points).
	Rebalance
	// Keyed brings all records of a key to one task.
	Keyed
	// Broadcast brings all records to every worker.
	Broadcast
)

// Exchange carries the records of one output to one input.
type Exchange struct {
	ID   int
	Kind ExchangeKind
	// From is the index of the sending stage, Output the index in its Outputs.
	From, Output int
	// To is the index of the receiving stage. Side is the index in its SideInputs, or -1 for the main input.
	To, Side int
	// Coder is the id of the windowed-value coder of the records: that of the Output and of the Input alike.
	Coder string
}

// Cut is a PCollection that crosses between stages, and why it could not be fused away.
type Cut struct {
	PCollection string
	// From and To are transform ids.
	From, To string
	Reason   string
}

// Coders are the coders that the ids in stages and exchanges refer to.
func (p *Plan) Coders() map[string]*pipepb.Coder { return p.Pipeline.GetComponents().GetCoders() }

// KeepsState tells whether its tasks have stores of state: all tasks of streams may, others where transforms keep state.
func (p *Plan) KeepsState() bool {
	return p.Streaming || slices.ContainsFunc(p.Stages, func(s *Stage) bool { return s.Input.State != nil })
}
