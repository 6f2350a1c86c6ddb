// Package flink runs plans on a remote Flink cluster. It submits the adapter's jar and a plan through Flink's REST API, and
// follows the job there; on each TaskManager the adapter starts a worker (package worker), which runs the tasks. Flink moves
// the blocks, places and restarts tasks; nothing of Beam's semantics is here or in the adapter.
//
// A job of Flink's outlives the job server: a run's handle is the cluster's address and Flink's job id.
package flink

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/engine"
	"trestle/internal/job/submission"
	"trestle/internal/plan"
)

// Config is what the engine needs. Address, Version, Dir, Artifacts and Log are required.
type Config struct {
	// Address is the URL of a JobManager's REST API: http://host:8081.
	Address string
	// Version is this program's.
	Version string
	// Dir is a folder for the adapters' jars, completed with the workers' programs.
	Dir string
	// Artifacts is where workers find a job's artifacts.
	Artifacts submission.Artifacts
	// Memory is how many bytes each worker may keep of a job's data.
	Memory int64
	// KeyGroups is Flink's maximum parallelism; 0 stands for DefaultKeyGroups.
	KeyGroups int
	// Attempts and BundleBytes are those of the tasks: see stage.Spec.
	Attempts, BundleBytes int
	// Containers is how workers run containers, in the form of package harness; nil for its defaults.
	Containers json.RawMessage
	Log        *slog.Logger
}

// DefaultKeyGroups is Flink's own default for the maximum parallelism of small jobs.
const DefaultKeyGroups = 128

// restarts is how Flink starts failed tasks anew: after 1, 2, 4, 8, 10 and 10 seconds, six times in all. The first ones are for a
// worker that is lost. The others are for a TaskManager: Flink takes up to twenty seconds (two heartbeats) to notice that
// it is gone, and sends it the tasks again and again until then. Failures of user code that will come again are not among
// them (trestle.flink.JobFailed).
var restarts = map[string]string{
	"restart-strategy.type":                                            "exponential-delay",
	"restart-strategy.exponential-delay.initial-backoff":               "1 s",
	"restart-strategy.exponential-delay.backoff-multiplier":            "2.0",
	"restart-strategy.exponential-delay.max-backoff":                   "10 s",
	"restart-strategy.exponential-delay.attempts-before-reset-backoff": "6",
}

// Engine is a Flink cluster.
type Engine struct {
	cfg  Config
	rest *rest

	completing sync.Mutex // a jar is completed, and uploaded, once
}

// New makes an engine. It does not call Flink yet. An error says what is wrong with the address.
func New(cfg Config) (*Engine, error) {
	r, err := newREST(cfg.Address)
	if err != nil {
		return nil, err
	}
	if cfg.KeyGroups == 0 {
		cfg.KeyGroups = DefaultKeyGroups
	}
	return &Engine{cfg: cfg, rest: r}, nil
}

// Name is "flink".
func (e *Engine) Name() string { return "flink" }

// Check asks the cluster whether it is there, of a version that there is an adapter for, and has TaskManagers. What an
// environment needs on the workers' hosts is seen there.
func (e *Engine) Check(ctx context.Context, _ *pipepb.Pipeline, p *plan.Plan, parallelism int) error {
	var errs []error
	if p != nil && p.Streaming {
		errs = append(errs, errors.New("on Flink, this version of Trestle runs bounded pipelines only, and this is a streaming one: it has an unbounded collection, a TestStream, or what else needs time to pass. Run it on the embedded engine (pipeline option engine=local)"))
	}
	if parallelism > e.cfg.KeyGroups {
		errs = append(errs, fmt.Errorf("parallelism %d: must be from 1 to %d, the number of key groups", parallelism, e.cfg.KeyGroups))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, unanswered(checkTimeout))
	defer cancel()
	cluster, err := e.reach(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if _, err := e.adapter(cluster); err != nil {
		errs = append(errs, err)
	}
	if cluster.TaskManagers == 0 {
		grows, err := e.grows(ctx)
		if err == nil && !grows {
			err = fmt.Errorf("the Flink at %s has no TaskManager, and so none of the slots of which a job needs one at least: start one (it takes some seconds to register), and look at its log if it does not", e.rest.base)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// reach is the cluster's overview; an error says what to do about a cluster that is not there.
func (e *Engine) reach(ctx context.Context) (overview, error) {
	cluster, err := e.rest.overview(ctx)
	if err != nil {
		err = fmt.Errorf("%w: is its JobManager up, and is that (--flink) the address of its REST API, as this host reaches it?", err)
	}
	return cluster, err
}

func (e *Engine) adapter(cluster overview) (string, error) {
	adapter, err := adapterFor(cluster.Version)
	if err != nil {
		return "", fmt.Errorf("the Flink at %s: %w", e.rest.base, err)
	}
	return adapter, nil
}

// Submit hands the job to Flink, and returns when Flink has it.
func (e *Engine) Submit(ctx context.Context, j engine.Job) (engine.Run, error) {
	cluster, err := e.rest.overview(ctx)
	if err != nil {
		return nil, err
	}
	if j.Parallelism == 0 {
		if j.Parallelism, err = e.rest.defaultParallelism(ctx); err != nil {
			return nil, err
		}
	}
	argument, err := e.encode(j)
	if err != nil {
		return nil, err
	}
	id := jobID(j.ID)
	if err := j.Events.Handle(e.handle(id)); err != nil {
		return nil, fmt.Errorf("the job is not submitted to Flink, because its log cannot be kept: %w", err)
	}
	switch err := e.submit(ctx, cluster, id, argument); {
	case errors.Is(err, errUnheard):
		j.Events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("%v; looking there for the job %s", err, id))
		return e.follow(id, j.Events, arrival), nil
	case err != nil:
		return nil, err
	}
	j.Events.Message(jobpb.JobMessage_JOB_MESSAGE_BASIC, fmt.Sprintf("Flink at %s has the job as %s, with %d stages.", e.rest.base, id, len(j.Plan.Stages)))
	if lack := cluster.lack(max(1, j.Parallelism)); lack != "" {
		j.Events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, lack)
	}
	return e.follow(id, j.Events, 0), nil
}

// handle is the cluster's address and a job's id there.
func (e *Engine) handle(id string) string { return e.rest.base + " " + id }

// encode makes the adapter's argument.
func (e *Engine) encode(j engine.Job) (string, error) {
	digest, err := j.Plan.Digest()
	if err != nil {
		return "", err
	}
	inner := submission.Job{
		Trestle: e.cfg.Version, ID: j.ID, Name: j.Name, Pipeline: j.Pipeline, Planned: j.Planned, Digest: digest, Options: j.Options,
		KeyGroups: e.cfg.KeyGroups, Artifacts: e.cfg.Artifacts, Memory: e.cfg.Memory, Attempts: cmp.Or(j.Attempts, e.cfg.Attempts),
		BundleBytes: e.cfg.BundleBytes, Containers: e.cfg.Containers,
	}
	encoded, err := inner.Encode()
	if err != nil {
		return "", err
	}
	graph := submission.Graph{
		Name: j.Name, Parallelism: j.Parallelism, KeyGroups: e.cfg.KeyGroups, Plan: j.Plan, Job: encoded,
		Settings: restarts,
	}
	return base64.StdEncoding.EncodeToString(graph.Encode()), nil
}

// jobID is Flink's id for a job of ours: made from ours, so that a job is never submitted twice.
func jobID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// errUnheard says that Flink may have a job, and has not said so.
var errUnheard = errors.New("whether Flink has taken the job is not known")

// submit runs the adapter's main method in the JobManager, with the adapter that is there from an earlier job if it still is.
func (e *Engine) submit(ctx context.Context, cluster overview, id, argument string) error {
	for again := true; ; again = false {
		jar, err := e.jar(ctx, cluster)
		if err != nil {
			return err
		}
		err = e.start(ctx, jar, id, argument)
		if err == nil || !again || !notFound(err) {
			return err
		}
		// The JobManager was restarted just now, and its jars are gone with it.
	}
}

// start has Flink run a jar. Once it has been asked, ctx does not matter any more: Flink goes on whether or not anybody
// waits for its answer, and then has a job that is to be cancelled there.
func (e *Engine) start(ctx context.Context, jar, id, argument string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	body := map[string]any{"entryClass": "trestle.flink.Main", "programArgsList": []string{argument}, "jobId": id}
	err := e.rest.call(context.WithoutCancel(ctx), submitTimeout, "submit the job", http.MethodPost, "/jars/"+jar+"/run", body, nil)
	if unheard(err) {
		return fmt.Errorf("%w: %w", errUnheard, err)
	}
	return err
}

// jar is the id under which the cluster has the adapter's jar. It is uploaded when it is not there.
func (e *Engine) jar(ctx context.Context, cluster overview) (string, error) {
	adapter, err := e.adapter(cluster)
	if err != nil {
		return "", err
	}
	e.completing.Lock()
	defer e.completing.Unlock()
	path, err := completeJar(e.cfg.Dir, adapter)
	if err != nil {
		return "", err
	}
	id, err := e.rest.jar(ctx, filepath.Base(path))
	if id != "" || err != nil {
		return id, err
	}
	e.cfg.Log.Info("uploading the adapter to Flink", "flink", e.rest.base, "jar", path)
	return e.rest.upload(ctx, path)
}

// Attach follows a job again. Whether Flink still has it is reported by the run: the cluster may be out of reach for now.
func (e *Engine) Attach(_ context.Context, handle string, events engine.Events) (engine.Run, error) {
	address, id, ok := strings.Cut(handle, " ")
	if !ok {
		return nil, fmt.Errorf("the handle %q is none of a Flink job's: %w", handle, engine.ErrLost)
	}
	if address == e.rest.base {
		return e.follow(id, events, arrival), nil
	}
	// The server was started with another cluster meanwhile; the job is where it was.
	r, err := newREST(address)
	if err != nil {
		return nil, fmt.Errorf("the handle %q is none of a Flink job's: %w", handle, engine.ErrLost)
	}
	other := Engine{cfg: e.cfg, rest: r}
	return other.follow(id, events, arrival), nil
}
