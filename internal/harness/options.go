package harness

import (
	"strconv"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/structpb"
)

// multiCore is the capability of an SDK whose one harness uses all cores (beam_runner_api.proto, StandardProtocols).
const multiCore = "beam:protocol:multi_core_bundle_processing:v1"

// workersOf is how many workers an environment shall have. One when the SDK's harness uses all cores by itself, and
// one for LOOPBACK, where the workers would be threads of one Python process under one interpreter lock. Otherwise one a
// core. What the user asked for comes first.
func workersOf(r *runnable, declared *pipepb.Environment, options *structpb.Struct, cores int) int {
	if n := intOption(options, "sdk_worker_parallelism"); n > 1 {
		return n
	}
	for _, env := range []*pipepb.Environment{declared, r.env} {
		for _, c := range env.GetCapabilities() {
			if c == multiCore {
				return 1
			}
		}
	}
	if r.external != nil && stringOption(options, "environment_type") == "LOOPBACK" {
		return 1
	}
	return max(1, cores)
}

// option is a pipeline option by its name in the SDKs' portable form.
func option(options *structpb.Struct, name string) *structpb.Value {
	return options.GetFields()["beam:option:"+name+":v1"]
}

func stringOption(options *structpb.Struct, name string) string {
	return option(options, name).GetStringValue()
}

// intOption is a whole number, which some SDKs send as text; 0 when there is none.
func intOption(options *structpb.Struct, name string) int {
	switch v := option(options, name).GetKind().(type) {
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
