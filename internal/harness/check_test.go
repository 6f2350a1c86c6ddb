//go:build linux

package harness

import (
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/beam/urn"
	"trestle/internal/harness/container"
)

// What cannot run is refused with what to do instead, all alternatives' reasons at once.
func TestCheck(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // where no engine is
	anyOf := func(envs ...*pipepb.Environment) *pipepb.Environment {
		return &pipepb.Environment{Urn: urn.EnvAnyOf, Payload: marshal(t, &pipepb.AnyOfEnvironmentPayload{Environments: envs})}
	}
	docker := dockerEnv(t, "some/image")
	ok := processEnv(t, "harness")
	missing := &pipepb.Environment{Urn: urn.EnvProcess, Payload: marshal(t, &pipepb.ProcessPayload{Command: "/no/boot"})}
	deep := ok
	for range maxNesting + 1 {
		deep = anyOf(deep)
	}
	for name, c := range map[string]struct {
		env  *pipepb.Environment
		errs []string
	}{
		"process":            {env: ok},
		"external":           {env: externalEnv(t, "h:1")},
		"second alternative": {env: anyOf(docker, ok)},
		"docker":             {docker, []string{"some/image", "docker, podman and nerdctl", "--container-engine", "LOOPBACK", "trestle boot"}},
		"no image":           {dockerEnv(t, ""), []string{"no image"}},
		"an option as image": {dockerEnv(t, "--privileged"), []string{`"--privileged"`, "no name"}},
		"two words as image": {dockerEnv(t, "a b"), []string{"no name"}},
		"broken docker":      {&pipepb.Environment{Urn: urn.EnvDocker, Payload: []byte{0xff}}, []string{"payload"}},
		"missing command":    {missing, []string{`"/no/boot"`, "not on this host"}},
		"embedded":           {&pipepb.Environment{Urn: embeddedPython}, []string{"embedded_python", "LOOPBACK"}},
		"default":            {&pipepb.Environment{Urn: urn.EnvDefault}, []string{"LOOPBACK"}},
		"unknown":            {&pipepb.Environment{Urn: "beam:env:moon:v1"}, []string{"beam:env:moon:v1"}},
		"none":               {nil, []string{"LOOPBACK"}},
		"no address":         {&pipepb.Environment{Urn: urn.EnvExternal}, []string{"host:port"}},
		"no alternative":     {anyOf(docker, missing), []string{"docker", `"/no/boot"`}},
		"empty alternatives": {anyOf(), []string{"no alternative"}},
		"too deep":           {deep, []string{"nested"}},
		"broken process":     {&pipepb.Environment{Urn: urn.EnvProcess, Payload: []byte{0xff}}, []string{"payload"}},
		"broken external":    {&pipepb.Environment{Urn: urn.EnvExternal, Payload: []byte{0xff}}, []string{"payload"}},
		"broken anyof":       {&pipepb.Environment{Urn: urn.EnvAnyOf, Payload: []byte{0xff}}, []string{"payload"}},
	} {
		err := Check(t.Context(), map[string]*pipepb.Environment{"e": c.env}, container.Config{}, "127.0.0.1:1")
		if (err != nil) != (len(c.errs) > 0) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			hasAll(t, name, err.Error(), append(c.errs, "environment e: ")...)
		}
	}
}

// An engine that was configured is named when it is not there, or is none.
func TestCheckEngine(t *testing.T) {
	envs := map[string]*pipepb.Environment{"e": dockerEnv(t, "some/image")}
	for engine, want := range map[string]string{"/no/engine": `"/no/engine" (--container-engine) is not on host`, "false": "false on host"} {
		err := Check(t.Context(), envs, container.Config{Engine: engine}, "127.0.0.1:1")
		if err == nil {
			t.Fatalf("%s is accepted", engine)
		}
		hasAll(t, engine, err.Error(), "some/image", want)
	}
}

// A process runs where the server is told of one for an image's name; one that is not there is an error of that image.
func TestCheckInstead(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // where no engine is
	cfg := container.Config{Instead: []string{"apache/beam_java*=trestle boot java", "mine/*=/no/boot"}}
	check := func(image string) error {
		return Check(t.Context(), map[string]*pipepb.Environment{"e": dockerEnv(t, image)}, cfg, "127.0.0.1:1")
	}
	if err := check("apache/beam_java17_sdk:2.73.0"); err != nil {
		t.Errorf("a command is there: %v", err)
	}
	for image, want := range map[string][]string{
		"mine/image": {"mine/image", `"/no/boot"`, "not on this host"},
		"apache/beam_python3.11_sdk:2.77.0": {"docker, podman and nerdctl",
			"--container-instead 'apache/beam_python3.11_sdk:2.77.0=trestle boot python'"},
	} {
		err := check(image)
		if err == nil {
			t.Fatalf("%s is accepted", image)
		}
		hasAll(t, image, err.Error(), want...)
	}
}

// How many workers an environment has follows from what its SDK can do and what the user wants.
func TestWorkers(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // where no engine is
	plain := processEnv(t, "harness")
	multi := proto.CloneOf(plain)
	multi.Capabilities = []string{"x", urn.ProtocolMultiCore}
	ext := externalEnv(t, "h:1")
	envs := map[string]*pipepb.Environment{
		"plain": plain, "multi": multi, "ext": ext, "docker": {Urn: urn.EnvDocker},
		"anyof": {Urn: urn.EnvAnyOf, Payload: marshal(t, &pipepb.AnyOfEnvironmentPayload{Environments: []*pipepb.Environment{{Urn: urn.EnvDocker}, multi}})},
	}
	for _, c := range []struct {
		options map[string]any
		want    map[string]int
	}{
		{nil, map[string]int{"plain": 8, "multi": 1, "ext": 8, "anyof": 1, "docker": 1, "nothing": 1}},
		{map[string]any{"beam:option:environment_type:v1": "LOOPBACK"}, map[string]int{"plain": 8, "multi": 1, "ext": 1}},
		{map[string]any{"beam:option:environment_type:v1": "LOOPBACK", "beam:option:experiments:v1": []any{"beam_fn_api", "use_loopback_process_worker"}},
			map[string]int{"plain": 8, "multi": 1, "ext": 8}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": 1}, map[string]int{"plain": 8, "multi": 1}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": 3}, map[string]int{"plain": 3, "multi": 3, "ext": 3}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": "3"}, map[string]int{"plain": 3}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": "many"}, map[string]int{"plain": 8}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": -2}, map[string]int{"plain": 8}},
	} {
		options, err := structpb.NewStruct(c.options)
		if err != nil {
			t.Fatal(err)
		}
		p := NewPool(Config{Environments: envs, Options: options, Cores: 8})
		for env, want := range c.want {
			if got := p.Workers(env); got != want {
				t.Errorf("%v: %s has %d workers, want %d", c.options, env, got, want)
			}
		}
	}
}
