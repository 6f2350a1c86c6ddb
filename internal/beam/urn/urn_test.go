package urn

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Every constant is the URN of an enum value of Beam's protos, and no two constants are the same.
func TestConstantsAreBeams(t *testing.T) {
	beams := protoURNs()
	seen := map[string]string{}
	for name, value := range constants(t) {
		if beams[value] == "" {
			t.Errorf("%s = %q is in none of Beam's protos", name, value)
		}
		if other := seen[value]; other != "" {
			t.Errorf("%s and %s are both %q", name, other, value)
		}
		seen[value] = name
	}
	if len(seen) < 100 {
		t.Errorf("found %d constants only: the test reads the wrong files", len(seen))
	}
}

// A group that a runner has to know whole is whole: a URN that a later Beam adds to it fails here.
func TestGroupsAreWhole(t *testing.T) {
	have := map[string]bool{}
	for _, value := range constants(t) {
		have[value] = true
	}
	const pkg = "org.apache.beam.model.pipeline.v1."
	whole := []string{
		pkg + "StandardCoders.", pkg + "StandardRequirements.", pkg + "StandardSideInputTypes.",
		pkg + "StandardEnvironments.", pkg + "StandardArtifacts.", pkg + "StandardProtocols.",
		pkg + "StandardRunnerProtocols.", pkg + "MonitoringInfoSpecs.", pkg + "MonitoringInfoTypeUrns.",
		"org.apache.beam.model.fn_execution.v1.FnApiTransforms.",
	}
	for value, name := range protoURNs() {
		for _, prefix := range whole {
			if strings.HasPrefix(name, prefix) && !have[value] {
				t.Errorf("%s = %q has no constant", name, value)
			}
		}
	}
}

func TestKnownCoder(t *testing.T) {
	for name, value := range constants(t) {
		if !strings.HasPrefix(name, "Coder") {
			continue
		}
		if want := name != "CoderRow"; KnownCoder(value) != want {
			t.Errorf("KnownCoder(%s) = %v, want %v", name, !want, want)
		}
	}
}

// constants are the string constants of this package, by name.
func constants(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != 1 || len(spec.Values) != 1 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				value, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				out[spec.Names[0].Name] = value
			}
			return true
		})
	}
	return out
}

// protoURNs are the URNs that Beam's protos give to enum values, with the value's full name.
func protoURNs() map[string]string {
	out := map[string]string{}
	enums := func(list protoreflect.EnumDescriptors) {
		for i := range list.Len() {
			values := list.Get(i).Values()
			for j := range values.Len() {
				v := values.Get(j)
				if s, _ := proto.GetExtension(v.Options(), pipepb.E_BeamUrn).(string); s != "" {
					out[s] = string(v.FullName())
				}
				if m, _ := proto.GetExtension(v.Options(), pipepb.E_MonitoringInfoSpec).(*pipepb.MonitoringInfoSpec); m.GetUrn() != "" {
					out[m.GetUrn()] = string(v.FullName())
				}
			}
		}
	}
	var messages func(protoreflect.MessageDescriptors)
	messages = func(list protoreflect.MessageDescriptors) {
		for i := range list.Len() {
			enums(list.Get(i).Enums())
			messages(list.Get(i).Messages())
		}
	}
	for _, f := range []protoreflect.FileDescriptor{
		pipepb.File_org_apache_beam_model_pipeline_v1_beam_runner_api_proto,
		pipepb.File_org_apache_beam_model_pipeline_v1_metrics_proto,
		pipepb.File_org_apache_beam_model_pipeline_v1_standard_window_fns_proto,
		fnpb.File_org_apache_beam_model_fn_execution_v1_beam_fn_api_proto,
	} {
		enums(f.Enums())
		messages(f.Messages())
	}
	return out
}
