package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/dustin/go-humanize"

	"trestle/internal/beam/urn"
)

// Hints are an environment's resource hints as people read them, in a fixed order: "at least 64 GiB of memory". SDKs write numbers
// as decimals (StandardResourceHints in beam_runner_api.proto); what is none, or of a hint that is not known, is shown as it is.
func Hints(env *pipepb.Environment) (all []string) {
	for _, name := range slices.Sorted(maps.Keys(env.GetResourceHints())) {
		value := string(env.GetResourceHints()[name])
		number, err := strconv.ParseUint(value, 10, 64)
		switch {
		case name == urn.HintAccelerator:
			all = append(all, fmt.Sprintf("accelerator %q", value))
		case name == urn.HintMinRAM && err == nil:
			all = append(all, "at least "+humanize.IBytes(number)+" of memory")
		case name == urn.HintCPUCount && err == nil:
			all = append(all, "CPUs: "+value)
		case name == urn.HintMaxBundlesPerWorker && err == nil:
			all = append(all, "bundles at a time in a worker: at most "+value)
		default:
			all = append(all, fmt.Sprintf("%s=%q", name, value))
		}
	}
	return all
}

// Wishes says of each environment with resource hints which transforms have them, and what becomes of them. Beam leaves it to a
// runner to ignore hints: here they have workers of their own, since other hints are another environment, which no stage shares.
func Wishes(p *Plan) (texts []string) {
	names, environments := map[string][]string{}, []string{}
	for _, s := range p.Stages {
		if len(p.Pipeline.GetComponents().GetEnvironments()[s.Environment].GetResourceHints()) == 0 {
			continue
		}
		if names[s.Environment] == nil {
			environments = append(environments, s.Environment)
		}
		names[s.Environment] = append(names[s.Environment], s.Name)
	}
	for _, id := range environments {
		texts = append(texts, fmt.Sprintf("%s: the pipeline wishes for %s. Workers of environment %q, which is theirs alone, run it; Trestle does not act on "+
			"the wish otherwise, and neither reserves nor looks for any of that: see to it that the workers' hosts, or their containers, have it",
			strings.Join(names[id], "; "), strings.Join(Hints(p.Pipeline.GetComponents().GetEnvironments()[id]), ", "), id))
	}
	return texts
}
