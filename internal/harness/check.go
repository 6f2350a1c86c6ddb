package harness

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/harness/container"
	"trestle/internal/harness/process"
)

// embeddedPython is an environment of the Python SDK's own runners, which Beam's model does not have.
const embeddedPython = "beam:env:embedded_python:v1"

// maxNesting bounds environments within environments: they come from outside.
const maxNesting = 8

const instead = `run with --environment_type=LOOPBACK, or with --environment_type=PROCESS and an environment config such as {"command": "trestle boot python"}`

// Check says whether harnesses of the environments, by id, can be started on this host, or why not: all reasons at once.
// A container engine is looked for, and asked whether it is there, when an environment needs one; an image is not, nor
// is a worker pool's address tried. endpoint is Config.Endpoint.
func Check(ctx context.Context, environments map[string]*pipepb.Environment, containers container.Config, endpoint string) error {
	on := newHost(ctx, containers, endpoint)
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(environments)) {
		if _, err := resolve(environments[id], 0, on); err != nil {
			errs = append(errs, fmt.Errorf("environment %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// host is where harnesses are started, as far as docker environments go.
type host struct {
	// engine finds the container engine, once, for containers that can reach the server.
	engine     func() (*container.Engine, error)
	containers container.Config
}

func newHost(ctx context.Context, cfg container.Config, endpoint string) *host {
	return &host{containers: cfg, engine: sync.OnceValues(func() (*container.Engine, error) {
		e, err := container.Find(ctx, cfg)
		if err != nil {
			return nil, err
		}
		_, err = e.Reach(endpoint)
		return e, err
	})}
}

// runnable is an environment that we can run: exactly one of the payloads is set.
type runnable struct {
	env      *pipepb.Environment
	process  *pipepb.ProcessPayload
	external *pipepb.ExternalPayload
	docker   *pipepb.DockerPayload
	path     string            // of the process's program
	args     []string          // that come before ours
	engine   *container.Engine // that runs the container
}

// bootOf is the command that runs what an image is for, as far as its name says.
func bootOf(image string) string {
	for _, sdk := range []string{"java", "python", "go"} {
		if strings.Contains(image, "beam_"+sdk) {
			return "trestle boot " + sdk
		}
	}
	return "COMMAND"
}

func runProcess(env *pipepb.Environment, payload *pipepb.ProcessPayload) (*runnable, error) {
	path, args, err := process.Command(payload)
	if err != nil {
		return nil, err
	}
	return &runnable{env: env, process: payload, path: path, args: args}, nil
}

// resolve finds what to run: the environment itself, or the first of its alternatives that can run here. A docker
// environment whose image the host has a command for is a process environment of that command.
func resolve(env *pipepb.Environment, depth int, on *host) (*runnable, error) {
	switch env.GetUrn() {
	case urn.EnvProcess:
		var payload pipepb.ProcessPayload
		if err := proto.Unmarshal(env.GetPayload(), &payload); err != nil {
			return nil, fmt.Errorf("payload of the process environment: %w", err)
		}
		return runProcess(env, &payload)
	case urn.EnvExternal:
		var payload pipepb.ExternalPayload
		if err := proto.Unmarshal(env.GetPayload(), &payload); err != nil {
			return nil, fmt.Errorf("payload of the external environment: %w", err)
		}
		if payload.GetEndpoint().GetUrl() == "" {
			return nil, errors.New("the external environment names no worker pool: give its host:port in the environment config")
		}
		if payload.GetEndpoint().GetAuthentication() != nil {
			return nil, fmt.Errorf("the worker pool at %s wants authentication, which is not supported", payload.GetEndpoint().GetUrl())
		}
		return &runnable{env: env, external: &payload}, nil
	case urn.EnvAnyOf:
		if depth >= maxNesting {
			return nil, fmt.Errorf("environments are nested more than %d deep", maxNesting)
		}
		var payload pipepb.AnyOfEnvironmentPayload
		if err := proto.Unmarshal(env.GetPayload(), &payload); err != nil {
			return nil, fmt.Errorf("payload of the environment with alternatives: %w", err)
		}
		if len(payload.GetEnvironments()) == 0 {
			return nil, errors.New("the environment names no alternative")
		}
		var errs []error
		for _, e := range payload.GetEnvironments() {
			r, err := resolve(e, depth+1, on)
			if err == nil {
				return r, nil
			}
			errs = append(errs, err)
		}
		return nil, fmt.Errorf("none of the environment's alternatives can run here: %w", errors.Join(errs...))
	case urn.EnvDocker:
		var payload pipepb.DockerPayload
		if err := proto.Unmarshal(env.GetPayload(), &payload); err != nil {
			return nil, fmt.Errorf("payload of the docker environment: %w", err)
		}
		if err := container.CheckImage(payload.GetContainerImage()); err != nil {
			return nil, err
		}
		if command := on.containers.Command(payload.GetContainerImage()); command != "" {
			r, err := runProcess(env, &pipepb.ProcessPayload{Command: command})
			if err != nil {
				return nil, fmt.Errorf("what is to run instead of the image %s: %w", payload.GetContainerImage(), err)
			}
			return r, nil
		}
		engine, err := on.engine()
		if errors.Is(err, container.ErrNone) {
			err = fmt.Errorf("%w: install one, name one to the server with --container-engine, or %s", err, instead)
		}
		if err != nil {
			return nil, fmt.Errorf("the docker environment's image %[1]s cannot be run: %[2]w; a process can run in its stead where the server is told of one: --container-instead '%[1]s=%[3]s'",
				payload.GetContainerImage(), err, bootOf(payload.GetContainerImage()))
		}
		return &runnable{env: env, docker: &payload, engine: engine}, nil
	case embeddedPython, urn.EnvDefault, "":
		return nil, fmt.Errorf("environment %q runs only inside the SDK's own runners: %s", env.GetUrn(), instead)
	default:
		return nil, fmt.Errorf("unknown environment %q: %s", env.GetUrn(), instead)
	}
}
