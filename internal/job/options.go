package job

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// ParallelismOption is the pipeline option that says how many tasks a stage has.
const ParallelismOption = "parallelism"

// Option looks up a pipeline option by its snake-case name. SDKs send it as beam:option:<name>:v1; a null is as good as
// none.
func Option(options *structpb.Struct, name string) (*structpb.Value, bool) {
	v, ok := options.GetFields()["beam:option:"+name+":v1"]
	if _, null := v.GetKind().(*structpb.Value_NullValue); !ok || null {
		return nil, false
	}
	return v, true
}

// Parallelism is the option of that name, 0 where it is not set or zero: then the engine chooses. Java, Go and
// TypeScript send a number, Python a string of digits. Java's Flink and Spark options have -1 for "not set".
func Parallelism(options *structpb.Struct) (int, error) {
	v, ok := Option(options, ParallelismOption)
	if !ok {
		return 0, nil
	}
	n := v.GetNumberValue()
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
	case *structpb.Value_StringValue:
		i, err := strconv.ParseInt(k.StringValue, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("pipeline option %s: %q is not a whole number", ParallelismOption, k.StringValue)
		}
		n = float64(i)
	default:
		return 0, fmt.Errorf("pipeline option %s: %v is not a whole number", ParallelismOption, v.AsInterface())
	}
	if n == -1 {
		return 0, nil
	}
	if n < 0 || n > math.MaxInt32 || n != math.Trunc(n) {
		return 0, fmt.Errorf("pipeline option %s: %v is not a number of tasks", ParallelismOption, n)
	}
	return int(n), nil
}

// EngineOption is the pipeline option that says which of a server's engines runs the job.
const EngineOption = "engine"

// Engine is the option of that name, "" where it is not set. An SDK whose own options do not have it passes it on among its
// experiments, as engine=NAME.
func Engine(options *structpb.Struct) (string, error) {
	v, ok := Option(options, EngineOption)
	if !ok {
		return experiment(options, EngineOption), nil
	}
	if _, text := v.GetKind().(*structpb.Value_StringValue); !text {
		return "", fmt.Errorf("pipeline option %s: %v is not an engine's name", EngineOption, v.AsInterface())
	}
	return v.GetStringValue(), nil
}

// experiment is the value of an experiment of the form name=value, "" where there is none.
func experiment(options *structpb.Struct, name string) string {
	list, _ := Option(options, "experiments")
	for _, e := range list.GetListValue().GetValues() {
		if value, ok := strings.CutPrefix(e.GetStringValue(), name+"="); ok {
			return value
		}
	}
	return ""
}
