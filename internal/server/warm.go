package server

import (
	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// warm has Go's protobuf lay out the messages that every job needs. It does so when it first meets a message, and for
// Beam's that takes 10 ms and more, which the server's first job would wait for; while no client is there, nobody does.
func warm() error {
	seen := map[protoreflect.FullName]bool{}
	for _, m := range []proto.Message{
		new(jobpb.PrepareJobRequest), new(jobpb.RunJobRequest), new(jobpb.GetJobMetricsResponse), new(jobpb.JobMessagesResponse),
		new(jobpb.ArtifactRequestWrapper), new(jobpb.ArtifactResponseWrapper),
		new(fnpb.InstructionRequest), new(fnpb.InstructionResponse), new(fnpb.ProcessBundleDescriptor), new(fnpb.LogEntry_List),
		new(fnpb.GetProvisionInfoResponse), new(fnpb.StartWorkerRequest),
	} {
		populate(m.ProtoReflect(), seen)
		b, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		if err := proto.Unmarshal(b, m.ProtoReflect().New().Interface()); err != nil {
			return err
		}
	}
	return nil
}

// populate gives a message one of each message that it can hold, but of each kind only the first that is met.
func populate(m protoreflect.Message, seen map[protoreflect.FullName]bool) {
	seen[m.Descriptor().FullName()] = true
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		kind := field.Message()
		if field.IsMap() {
			kind = field.MapValue().Message()
		}
		if kind == nil || seen[kind.FullName()] {
			continue
		}
		switch {
		case field.IsMap():
			if field.MapKey().Kind() == protoreflect.StringKind {
				populate(m.Mutable(field).Map().Mutable(protoreflect.ValueOfString("x").MapKey()).Message(), seen)
			}
		case field.IsList():
			populate(m.Mutable(field).List().AppendMutable().Message(), seen)
		default:
			populate(m.Mutable(field).Message(), seen)
		}
	}
}
