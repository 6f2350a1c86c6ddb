package urn

// How a harness is started: StandardEnvironments in beam_runner_api.proto.
const (
	EnvDocker   = "beam:env:docker:v1"
	EnvProcess  = "beam:env:process:v1"
	EnvExternal = "beam:env:external:v1"
	EnvDefault  = "beam:env:default:v1"
	EnvAnyOf    = "beam:env:anyof:v1"
)

// Where an artifact is to be had: StandardArtifacts.Types in beam_runner_api.proto.
const (
	ArtifactTypeFile     = "beam:artifact:type:file:v1"
	ArtifactTypeURL      = "beam:artifact:type:url:v1"
	ArtifactTypeEmbedded = "beam:artifact:type:embedded:v1"
	ArtifactTypePyPI     = "beam:artifact:type:pypi:v1"
	ArtifactTypeMaven    = "beam:artifact:type:maven:v1"
	ArtifactTypeDeferred = "beam:artifact:type:deferred:v1"
)

// What an artifact is for: StandardArtifacts.Roles in beam_runner_api.proto.
const (
	ArtifactRoleStagingTo           = "beam:artifact:role:staging_to:v1"
	ArtifactRolePipRequirementsFile = "beam:artifact:role:pip_requirements_file:v1"
	ArtifactRoleGoWorkerBinary      = "beam:artifact:role:go_worker_binary:v1"
)

// What an SDK's harness can do beyond the least: StandardProtocols in beam_runner_api.proto. An environment lists them
// among its capabilities.
const (
	ProtocolProgressReportingV0      = "beam:protocol:progress_reporting:v0"
	ProtocolProgressReporting        = "beam:protocol:progress_reporting:v1"
	ProtocolWorkerStatus             = "beam:protocol:worker_status:v1"
	ProtocolMultiCore                = "beam:protocol:multi_core_bundle_processing:v1"
	ProtocolSiblingWorkers           = "beam:protocol:sibling_workers:v1"
	ProtocolHarnessMonitoringInfos   = "beam:protocol:harness_monitoring_infos:v1"
	ProtocolControlRequestElements   = "beam:protocol:control_request_elements_embedding:v1"
	ProtocolStateCaching             = "beam:protocol:state_caching:v1"
	ProtocolDataSampling             = "beam:protocol:data_sampling:v1"
	ProtocolSDKConsumingReceivedData = "beam:protocol:sdk_consuming_received_data:v1"
	ProtocolOrderedListState         = "beam:protocol:ordered_list_state:v1"
)

// What a runner can do beyond the least: StandardRunnerProtocols in beam_runner_api.proto. The provision service tells a
// harness about them.
const (
	RunnerMonitoringInfoShortIDs  = "beam:protocol:monitoring_info_short_ids:v1"
	RunnerControlResponseElements = "beam:protocol:control_response_elements_embedding:v1"
	RunnerMultimapKeysValues      = "beam:protocol:multimap_keys_values_side_input:v1"
)

// What a pipeline needs of its runner: StandardRequirements in beam_runner_api.proto. A pipeline with a requirement that
// the runner does not know has to be refused.
const (
	RequirementStateful           = "beam:requirement:pardo:stateful:v1"
	RequirementFinalization       = "beam:requirement:pardo:finalization:v1"
	RequirementStableInput        = "beam:requirement:pardo:stable_input:v1"
	RequirementTimeSortedInput    = "beam:requirement:pardo:time_sorted_input:v1"
	RequirementSplittableDoFn     = "beam:requirement:pardo:splittable_dofn:v1"
	RequirementOnWindowExpiration = "beam:requirement:pardo:on_window_expiration:v1"
)

// Wishes about where a transform runs: StandardResourceHints in beam_runner_api.proto. They are part of an environment.
const (
	HintAccelerator         = "beam:resources:accelerator:v1"
	HintMinRAM              = "beam:resources:min_ram_bytes:v1"
	HintCPUCount            = "beam:resources:cpu_count:v1"
	HintMaxBundlesPerWorker = "beam:resources:max_active_bundles_per_worker:v1"
)
