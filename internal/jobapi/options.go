package jobapi

import (
	"context"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/job"
)

// DescribePipelineOptions lists the options that Trestle itself heeds. Python's client asks for them, to let its parser
// take them: it drops options that neither the SDK nor the runner has. It takes an option that both have as the SDK's.
// Options that are not listed here pass through to the harness as they are.
func (s *Service) DescribePipelineOptions(
	context.Context, *jobpb.DescribePipelineOptionsRequest,
) (*jobpb.DescribePipelineOptionsResponse, error) {
	return &jobpb.DescribePipelineOptionsResponse{Options: []*jobpb.PipelineOptionDescriptor{{
		Name: job.ParallelismOption,
		Type: jobpb.PipelineOptionType_INTEGER,
		Description: "The number of tasks that each stage of the pipeline runs as. " +
			"0, the default, lets the engine choose: the embedded one takes as many as there are processors.",
		DefaultValue: "0",
		Group:        "Trestle",
	}, {
		Name: job.AttemptsOption,
		Type: jobpb.PipelineOptionType_INTEGER,
		Description: "How often a bundle is tried before its failure is the job's: the first time and the retries, 4 by default. " +
			"What the user's code says twice in the same words ends the job at once. " +
			"SDKs that do not have the option take it as --experiments=" + job.AttemptsOption + "=N.",
		Group: "Trestle",
	}, {
		Name: job.EngineOption,
		Type: jobpb.PipelineOptionType_STRING,
		Description: "The engine that runs the pipeline, of those that the server has: local, flink. The server's own choice when it is not set. " +
			"SDKs that do not have the option take it as --experiments=" + job.EngineOption + "=NAME.",
		Group: "Trestle",
	}}}, nil
}
