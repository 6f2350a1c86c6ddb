package harness

import (
	"slices"
	"strconv"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/beam/urn"
	"trestle/internal/job"
)

// loopbackProcesses is the experiment of the Python SDK's by which its LOOPBACK starts a process for each worker that it is asked
// for.
const loopbackProcesses = "use_loopback_process_worker"

// workersOf is how many workers an environment shall have. One when the SDK's harness uses all cores by itself, and
// one for LOOPBACK, where the workers would be threads of one Python process under one interpreter lock, unless they are
// processes. Otherwise one a core. What the user asked for comes first.
func workersOf(r *runnable, declared *pipepb.Environment, options *structpb.Struct, cores int) int {
	if n := intOption(options, "sdk_worker_parallelism"); n > 1 {
		return n
	}
	for _, env := range []*pipepb.Environment{declared, r.env} {
		if slices.Contains(env.GetCapabilities(), urn.ProtocolMultiCore) {
			return 1
		}
	}
	if r.external != nil && stringOption(options, "environment_type") == "LOOPBACK" && !job.HasExperiment(options, loopbackProcesses) {
		return 1
	}
	return max(1, cores)
}

func stringOption(options *structpb.Struct, name string) string {
	v, _ := job.Option(options, name)
	return v.GetStringValue()
}

// intOption is a whole number, which some SDKs send as text; 0 when there is none.
func intOption(options *structpb.Struct, name string) int {
	option, _ := job.Option(options, name)
	switch v := option.GetKind().(type) {
	case *structpb.Value_NumberValue:
		if v.NumberValue >= 0 && v.NumberValue <= 1<<20 {
			return int(v.NumberValue)
		}
	case *structpb.Value_StringValue:
		if n, err := strconv.Atoi(v.StringValue); err == nil && n >= 0 && n <= 1<<20 {
			return n
		}
	}
	return 0
}
