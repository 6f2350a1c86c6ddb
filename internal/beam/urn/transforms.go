package urn

// Transforms that carry the model: StandardPTransforms.Primitives in beam_runner_api.proto.
const (
	TransformParDo        = "beam:transform:pardo:v1"
	TransformFlatten      = "beam:transform:flatten:v1"
	TransformGroupByKey   = "beam:transform:group_by_key:v1"
	TransformImpulse      = "beam:transform:impulse:v1"
	TransformWindowInto   = "beam:transform:window_into:v1"
	TransformTestStream   = "beam:transform:teststream:v1"
	TransformMapWindows   = "beam:transform:map_windows:v1"
	TransformMergeWindows = "beam:transform:merge_windows:v1"
	TransformToString     = "beam:transform:to_string:v1"
)

// Primitives of older pipelines: StandardPTransforms.DeprecatedPrimitives in beam_runner_api.proto.
const (
	TransformRead       = "beam:transform:read:v1"
	TransformCreateView = "beam:transform:create_view:v1"
)

// Composites that a runner may replace by something of its own: StandardPTransforms.Composites in
// beam_runner_api.proto.
const (
	TransformCombinePerKey           = "beam:transform:combine_per_key:v1"
	TransformCombineGlobally         = "beam:transform:combine_globally:v1"
	TransformReshuffle               = "beam:transform:reshuffle:v1"
	TransformRedistributeByKey       = "beam:transform:redistribute_by_key:v1"
	TransformRedistributeArbitrarily = "beam:transform:redistribute_arbitrarily:v1"
)

// The parts of a lifted combine, each with a CombinePayload: StandardPTransforms.CombineComponents in
// beam_runner_api.proto.
const (
	CombinePrecombine            = "beam:transform:combine_per_key_precombine:v1"
	CombineMergeAccumulators     = "beam:transform:combine_per_key_merge_accumulators:v1"
	CombineExtractOutputs        = "beam:transform:combine_per_key_extract_outputs:v1"
	CombineGroupedValues         = "beam:transform:combine_grouped_values:v1"
	CombineConvertToAccumulators = "beam:transform:combine_per_key_convert_to_accumulators:v1"
)

// The parts of an expanded splittable DoFn, each with the DoFn's ParDoPayload:
// StandardPTransforms.SplittableParDoComponents in beam_runner_api.proto.
const (
	SDFPairWithRestriction  = "beam:transform:sdf_pair_with_restriction:v1"
	SDFSplitAndSize         = "beam:transform:sdf_split_and_size_restrictions:v1"
	SDFProcessSizedElements = "beam:transform:sdf_process_sized_element_and_restrictions:v1"
	SDFTruncateRestriction  = "beam:transform:sdf_truncate_sized_restrictions:v1"
)

// The ends of a bundle, with a RemoteGrpcPort payload: FnApiTransforms.Runner in beam_fn_api.proto.
const (
	RunnerSource = "beam:runner:source:v1"
	RunnerSink   = "beam:runner:sink:v1"
)

// How a DoFn reads a side input: StandardSideInputTypes in beam_runner_api.proto.
const (
	SideInputIterable = "beam:side_input:iterable:v1"
	SideInputMultimap = "beam:side_input:multimap:v1"
)

// The protocols of user state: StandardUserStateTypes in beam_runner_api.proto.
const (
	UserStateBag         = "beam:user_state:bag:v1"
	UserStateMultimap    = "beam:user_state:multimap:v1"
	UserStateOrderedList = "beam:user_state:ordered_list:v1"
)
