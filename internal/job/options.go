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

// Parallelism is the option of that name, 0 where it is not set or zero: then the engine chooses. Java's Flink and Spark
// options have -1 for "not set".
func Parallelism(options *structpb.Struct) (int, error) {
	n, ok, err := whole(options, ParallelismOption)
	switch {
	case err != nil || !ok || n == -1:
		return 0, err
	case n < 0 || n > math.MaxInt32:
		return 0, fmt.Errorf("pipeline option %s: %d is not a number of tasks", ParallelismOption, n)
	}
	return int(n), nil
}

const (
	// AttemptsOption is the pipeline option that says how often a bundle is tried before its failure is the job's.
	AttemptsOption = "bundle_attempts"
	// maxAttempts is far more than helps: the option is a number of tries, and not a way to try for ever.
	maxAttempts = 1000
)

// Attempts is the option of that name, 0 where it is not set: then the engine chooses. An SDK whose own options do not have
// it passes it on among its experiments, as bundle_attempts=N.
func Attempts(options *structpb.Struct) (int, error) {
	n, ok, err := whole(options, AttemptsOption)
	switch {
	case err != nil || !ok:
		return 0, err
	case n < 1 || n > maxAttempts:
		return 0, fmt.Errorf("pipeline option %s: a bundle is tried between 1 and %d times, not %d", AttemptsOption, maxAttempts, n)
	}
	return int(n), nil
}

// whole is an option that is a whole number, or an experiment of that name. Java, Go and TypeScript send options as numbers,
// Python as strings of digits.
func whole(options *structpb.Struct, name string) (n int64, ok bool, err error) {
	v, ok := Option(options, name)
	if !ok {
		text := experiment(options, name)
		if text == "" {
			return 0, false, nil
		}
		v = structpb.NewStringValue(text)
	}
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		if n := int64(k.NumberValue); float64(n) == k.NumberValue {
			return n, true, nil
		}
	case *structpb.Value_StringValue:
		if n, err := strconv.ParseInt(k.StringValue, 10, 64); err == nil {
			return n, true, nil
		}
		return 0, false, fmt.Errorf("pipeline option %s: %q is not a whole number", name, k.StringValue)
	}
	return 0, false, fmt.Errorf("pipeline option %s: %v is not a whole number", name, v.AsInterface())
}

// StreamingOption is Beam's own: whether a pipeline runs as a stream even if all of its collections are bounded.
const StreamingOption = "streaming"

// Streaming is the option of that name, false where it is not set.
func Streaming(options *structpb.Struct) (bool, error) {
	v, ok := Option(options, StreamingOption)
	if !ok {
		return false, nil
	}
	switch kind := v.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return kind.BoolValue, nil
	case *structpb.Value_StringValue: // as SDKs send what they do not know
		if is, err := strconv.ParseBool(kind.StringValue); err == nil {
			return is, nil
		}
	}
	return false, fmt.Errorf("pipeline option %s: %v is neither true nor false", StreamingOption, v.AsInterface())
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

// HasExperiment tells whether the user has asked for an experiment, with a value or without.
func HasExperiment(options *structpb.Struct, name string) bool {
	list, _ := Option(options, "experiments")
	for _, e := range list.GetListValue().GetValues() {
		if e.GetStringValue() == name || strings.HasPrefix(e.GetStringValue(), name+"=") {
			return true
		}
	}
	return false
}
