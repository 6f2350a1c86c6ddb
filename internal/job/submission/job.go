package submission

import (
	"encoding/json"
	"errors"
	"fmt"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/plan"
)

const (
	jobVersion = 1
	// jobLimit bounds what a job is decompressed to: it comes from outside.
	jobLimit = 1 << 30
)

// Job is what a worker needs to run tasks of a job.
type Job struct {
	// Trestle is the version of the job server: a worker of another one refuses the job.
	Trestle string
	// ID is the job's, unique among all jobs of its server, and fit for a file name. Name is the user's.
	ID, Name string
	// Pipeline is as the SDK sent it, but that its environments' dependencies are those that workers can fetch.
	Pipeline *pipepb.Pipeline
	// Planned are the options with which it was planned, Digest is the plan's: see [plan.Plan.Digest].
	Planned plan.Options
	Digest  string
	// Options are the pipeline options as the SDK sent them.
	Options *structpb.Struct
	// KeyGroups is the number of key groups.
	KeyGroups int
	// Artifacts says where artifacts are.
	Artifacts Artifacts
	// Memory is how many bytes a worker may keep of the job's data.
	Memory int64
	// Attempts and BundleBytes are those of the tasks: see stage.Spec.
	Attempts, BundleBytes int
	// Containers is how workers run containers, in the form of package harness.
	Containers json.RawMessage
}

// Artifacts is where a job's artifacts are: one of the two.
type Artifacts struct {
	// Bucket is the URL of the bucket that they were staged to.
	Bucket string `json:"bucket,omitempty"`
	// Server is the host:port of a job server that hands them out.
	Server string `json:"server,omitempty"`
}

// jobJSON is a job as it is encoded.
type jobJSON struct {
	Version     int             `json:"version"`
	Trestle     string          `json:"trestle"`
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Pipeline    []byte          `json:"pipeline"`
	Digest      string          `json:"digest"`
	Plan        planJSON        `json:"plan"`
	Options     json.RawMessage `json:"options,omitempty"`
	KeyGroups   int             `json:"key_groups"`
	Artifacts   Artifacts       `json:"artifacts"`
	Memory      int64           `json:"memory"`
	Attempts    int             `json:"attempts"`
	BundleBytes int             `json:"bundle_bytes"`
	Containers  json.RawMessage `json:"containers,omitempty"`
}

type planJSON struct {
	DisableFusion  bool `json:"disable_fusion"`
	DisableLifting bool `json:"disable_lifting"`
	Streams        bool `json:"streams,omitempty"`
	Streaming      bool `json:"streaming,omitempty"`
}

// Encode writes the job.
func (j *Job) Encode() ([]byte, error) {
	pipeline, err := proto.Marshal(j.Pipeline)
	if err != nil {
		return nil, fmt.Errorf("encode the job's pipeline: %w", err)
	}
	wire := jobJSON{
		Version: jobVersion, Trestle: j.Trestle, ID: j.ID, Name: j.Name, Pipeline: pipeline, Digest: j.Digest, Plan: planJSON(j.Planned),
		KeyGroups: j.KeyGroups, Artifacts: j.Artifacts, Memory: j.Memory, Attempts: j.Attempts, BundleBytes: j.BundleBytes,
		Containers: j.Containers,
	}
	if j.Options != nil {
		if wire.Options, err = protojson.Marshal(j.Options); err != nil {
			return nil, fmt.Errorf("encode the job's options: %w", err)
		}
	}
	b, err := json.Marshal(wire)
	if err != nil {
		return nil, fmt.Errorf("encode the job: %w", err)
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("encode the job: %w", err)
	}
	return w.EncodeAll(b, nil), w.Close()
}

// DecodeJob reads a job. One that trestle of another version than the given one has made is refused.
func DecodeJob(b []byte, trestle string) (*Job, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(jobLimit))
	if err != nil {
		return nil, fmt.Errorf("decode the job: %w", err)
	}
	defer r.Close()
	text, err := r.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("decode the job: %w", err)
	}
	var wire jobJSON
	if err := json.Unmarshal(text, &wire); err != nil {
		return nil, fmt.Errorf("decode the job: %w", err)
	}
	if wire.Version != jobVersion || wire.Trestle != trestle {
		return nil, fmt.Errorf("%w: trestle %s, format %d; this worker is trestle %s, format %d", errVersion, wire.Trestle, wire.Version, trestle, jobVersion)
	}
	if wire.ID == "" || wire.KeyGroups <= 0 {
		return nil, errors.New("decode the job: it has no id, or no key groups")
	}
	j := &Job{
		Trestle: wire.Trestle, ID: wire.ID, Name: wire.Name, Pipeline: &pipepb.Pipeline{}, Digest: wire.Digest, Planned: plan.Options(wire.Plan),
		KeyGroups: wire.KeyGroups, Artifacts: wire.Artifacts, Memory: wire.Memory, Attempts: wire.Attempts, BundleBytes: wire.BundleBytes,
		Containers: wire.Containers,
	}
	if err := proto.Unmarshal(wire.Pipeline, j.Pipeline); err != nil {
		return nil, fmt.Errorf("decode the job's pipeline: %w", err)
	}
	if wire.Options != nil {
		j.Options = &structpb.Struct{}
		if err := protojson.Unmarshal(wire.Options, j.Options); err != nil {
			return nil, fmt.Errorf("decode the job's options: %w", err)
		}
	}
	return j, nil
}

// Build plans the job's pipeline, and makes sure that the plan is the one that the job server made.
func (j *Job) Build() (*plan.Plan, error) {
	p, err := plan.Build(j.Pipeline, j.Planned)
	if err != nil {
		return nil, err
	}
	digest, err := p.Digest()
	if err != nil {
		return nil, err
	}
	if digest != j.Digest {
		return nil, fmt.Errorf("%w: its plan has the digest %s, the one made here has %s", errVersion, j.Digest, digest)
	}
	return p, nil
}
