// Package boot is what stands between "start a harness" and a running SDK worker: it asks the server what the worker
// needs, fetches the artifacts, installs what has to be installed, and runs the SDK's own worker program. Beam's
// container images have a boot program each for it; a process environment has this.
//
// Workers of one job and environment on a host share a folder. What is fetched and installed there is so once: the
// first worker does it under a file lock, the others wait.
//
// Sources: the container contract, beam_provision_api.proto, beam_artifact_api.proto, and the environment variables that
// the SDKs' worker programs read.
package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/harness/process"
)

// provisioning bounds the wait for the server's answer. The server has just started us: it is there, or it is gone.
const provisioning = 20 * time.Second

// Config is how the container contract starts a worker. ID and Provision are required; the other endpoints may come
// with the provision info instead, which has precedence.
type Config struct {
	// ID is the worker's.
	ID string
	// Provision, Logging, Artifact and Control are host:port endpoints.
	Provision, Logging, Artifact, Control string
	// Dir is the folder for what is fetched and installed. Empty: the one that the server has set up for the job
	// (process.DirVar), or else a temporary one that is removed at the end.
	Dir string
	// Stdout and Stderr are the worker's. An installer writes to Stderr.
	Stdout, Stderr *os.File
	// Log tells what boot does.
	Log *slog.Logger
}

// SDK is a language's way to start a worker.
type SDK interface {
	// install makes ready what all workers of the job share. It is called once per folder, under its lock.
	install(ctx context.Context, job *job) error
	// command is the worker program, once install has been done.
	command(ctx context.Context, job *job) (*command, error)
}

// job is what an SDK's worker is made from.
type job struct {
	Config
	info  *fnpb.ProvisionInfo
	files []file // in staging order
	// options is the file with the pipeline options as JSON.
	options string
}

// staged is the folder of the fetched artifacts; Python's worker looks for it by that name.
func (j *job) staged() string { return filepath.Join(j.Dir, "staged") }

// command is a program to run. Env is added to our own environment.
type command struct {
	path string
	args []string
	env  []string
	// died, when it is not nil, keeps what a worker that was started at began, and has not ended well, leaves for its user.
	died func(ctx context.Context, began time.Time) error
}

// Exit is the error of a worker that has not ended with code 0.
type Exit struct {
	// Code is the worker's exit code; 128+n when signal n ended it.
	Code int
	// Signal ended the worker; 0 when it exited by itself.
	Signal syscall.Signal
}

// Error says how the worker ended.
func (e *Exit) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("the worker was ended by signal %d (%v)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("the worker ended with exit code %d", e.Code)
}

// Run starts the SDK's worker and returns when it has ended: nil after exit code 0, an [*Exit] after another, any other
// error when the worker could not be started. Signals for this process are passed on to the worker.
func Run(ctx context.Context, cfg Config, sdk SDK) (err error) {
	if err := cfg.check(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	cmd, done, err := prepare(ctx, cfg, sdk, signals)
	defer func() { err = errors.Join(err, done()) }()
	if err != nil {
		return err
	}
	cfg.Log.Info("start the worker", "program", cmd.path, "arguments", strings.Join(cmd.args, " "))
	began := time.Now()
	err = run(ctx, cfg, cmd, signals)
	var exit *Exit
	if cmd.died != nil && errors.As(err, &exit) && exit.Signal != syscall.SIGTERM {
		if told := cmd.died(ctx, began); told != nil {
			cfg.Log.Warn("what the worker that died has left could not be kept", "error", told)
		}
	}
	return err
}

func (c *Config) check() error {
	var errs []error
	if c.ID == "" {
		errs = append(errs, errors.New("the worker's id is missing: --id"))
	}
	if c.Provision == "" {
		errs = append(errs, errors.New("the endpoint to ask for what to run is missing: --provision_endpoint"))
	}
	return errors.Join(errs...)
}

// prepare gets everything ready. done removes what it leaves behind, and is never nil.
func prepare(ctx context.Context, cfg Config, sdk SDK, signals <-chan os.Signal) (_ *command, done func() error, err error) {
	done = func() error { return nil }
	ctx, stop := interruptible(ctx, signals)
	defer stop()
	defer func() {
		var interrupted *Exit
		if err != nil && errors.As(context.Cause(ctx), &interrupted) {
			err = interrupted
		}
	}()

	ctx = metadata.AppendToOutgoingContext(ctx, "worker_id", cfg.ID)
	info, err := provision(ctx, cfg.Provision)
	if err != nil {
		return nil, done, err
	}
	cfg.apply(info)
	if cfg.Dir == "" {
		cfg.Dir = os.Getenv(process.DirVar)
	}
	if cfg.Dir == "" {
		if cfg.Dir, err = os.MkdirTemp("", "trestle-boot-"); err != nil {
			return nil, done, fmt.Errorf("make a folder for the worker: %w", err)
		}
		done = func() error { return os.RemoveAll(cfg.Dir) }
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, done, fmt.Errorf("the worker's folder: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, done, fmt.Errorf("the worker's folder: %w", err)
	}
	j := &job{Config: cfg, info: info}
	if err := j.share(ctx, sdk); err != nil {
		return nil, done, err
	}
	if err := j.writeOptions(); err != nil {
		return nil, done, err
	}
	cmd, err := sdk.command(ctx, j)
	return cmd, done, err
}

// interruptible ends the context at the first signal, with an Exit as a shell would give it. After stop, signals are
// the caller's again.
func interruptible(ctx context.Context, signals <-chan os.Signal) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case s := <-signals:
			if sig, ok := s.(syscall.Signal); ok {
				cancel(&Exit{Code: 128 + int(sig), Signal: sig})
			}
		case <-over:
		}
	}()
	return ctx, func() {
		close(over)
		<-gone
		cancel(nil)
	}
}

// provision asks the server what the worker needs.
func provision(ctx context.Context, endpoint string) (*fnpb.ProvisionInfo, error) {
	conn, err := dial(endpoint)
	if err != nil {
		return nil, fmt.Errorf("ask %s for provision info: %w", endpoint, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, provisioning)
	defer cancel()
	resp, err := fnpb.NewProvisionServiceClient(conn).GetProvisionInfo(ctx, &fnpb.GetProvisionInfoRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask %s for provision info: is this the job server's address as seen from here, and does the job still run? %w", endpoint, err)
	}
	return resp.GetInfo(), nil
}

// maxMessage lets provision infos with thousands of artifacts and large options through.
const maxMessage = 256 << 20

func dial(endpoint string) (*grpc.ClientConn, error) {
	return grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
}

// apply takes over the endpoints that the server names. One that is named nowhere is where the provision info is.
func (c *Config) apply(info *fnpb.ProvisionInfo) {
	for _, e := range []struct {
		field *string
		url   string
	}{
		{&c.Logging, info.GetLoggingEndpoint().GetUrl()},
		{&c.Artifact, info.GetArtifactEndpoint().GetUrl()},
		{&c.Control, info.GetControlEndpoint().GetUrl()},
	} {
		switch {
		case e.url != "":
			*e.field = e.url
		case *e.field == "":
			*e.field = c.Provision
		}
	}
}

// writeOptions writes the pipeline options where the worker program reads them. A file, because a variable of the
// environment is limited to 128 KiB.
func (j *job) writeOptions() error {
	options := j.info.GetPipelineOptions()
	if options == nil {
		options = &structpb.Struct{}
	}
	text, err := protojson.Marshal(options)
	if err != nil {
		return fmt.Errorf("write the pipeline options as JSON: %w", err)
	}
	j.options = filepath.Join(j.Dir, "options-"+strings.Map(fileNameRune, j.ID)+".json")
	if err := os.WriteFile(j.options, text, 0o600); err != nil {
		return fmt.Errorf("write the pipeline options: %w", err)
	}
	return nil
}

func fileNameRune(r rune) rune {
	if r == '/' || r == '\\' || r == 0 {
		return '_'
	}
	return r
}

// environment is what all SDKs' workers get. The descriptors are in the protos' text format.
func (j *job) environment() []string {
	descriptor := func(url string) string { return "url: " + strconv.Quote(url) }
	env := []string{
		"WORKER_ID=" + j.ID,
		"PIPELINE_OPTIONS_FILE=" + j.options,
		"SEMI_PERSISTENT_DIRECTORY=" + j.Dir,
		"LOGGING_API_SERVICE_DESCRIPTOR=" + descriptor(j.Logging),
		"CONTROL_API_SERVICE_DESCRIPTOR=" + descriptor(j.Control),
		"RUNNER_CAPABILITIES=" + strings.Join(j.info.GetRunnerCapabilities(), " "),
	}
	if status := j.info.GetStatusEndpoint().GetUrl(); status != "" {
		env = append(env, "STATUS_API_SERVICE_DESCRIPTOR="+descriptor(status))
	}
	for _, m := range [][2]string{{"JOB_ID", "job_id"}, {"JOB_NAME", "job_name"}} {
		if value, ok := j.info.GetMetadata()[m[1]]; ok {
			env = append(env, m[0]+"="+value)
		}
	}
	return env
}
