package boot

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// option finds a pipeline option by its name: among those of the Go SDK, which sends all of its flags in one option; in the
// portable form (beam:option:NAME:v1); or by the Java property of that name below "options". That is also their precedence in
// Beam's boot programs (ParseOptionsFromProto, container/tools).
func option(options *structpb.Struct, name, property string) *structpb.Value {
	flags := options.GetFields()["beam:option:go_options:v1"].GetStructValue().GetFields()["options"].GetStructValue()
	if v, ok := flags.GetFields()[name]; ok {
		return v
	}
	if v, ok := options.GetFields()["beam:option:"+name+":v1"]; ok {
		return v
	}
	return options.GetFields()["options"].GetStructValue().GetFields()[property]
}

// texts are the texts of an option with several values.
func texts(v *structpb.Value) []string {
	var all []string
	if s := v.GetStringValue(); s != "" {
		all = strings.Split(s, ",")
	}
	for _, e := range v.GetListValue().GetValues() {
		if s := e.GetStringValue(); s != "" {
			all = append(all, s)
		}
	}
	return all
}

// experiment says whether the user has asked for an experiment.
func experiment(options *structpb.Struct, name string) bool {
	return slices.Contains(texts(option(options, "experiments", "experiments")), name)
}
