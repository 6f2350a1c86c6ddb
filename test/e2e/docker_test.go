package e2e

import (
	"errors"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"trestle/internal/harness/container"
	"trestle/internal/server"
	"trestle/test/containers"
)

// engine is the container engine of this package's tests.
var engine containers.Shared

// failInContainer submits a pipeline for the image to a server with the settings, and answers with what the client's job
// says; or, when the job was not even accepted, with the client's own error.
func failInContainer(t *testing.T, image string, cfg container.Config) (text string, accepted bool) {
	t.Helper()
	s := start(t, server.Config{Containers: cfg})
	p, scope := beam.NewPipelineWithRoot()
	beam.ParDo(scope, identity, beam.CreateList(scope, numbers(10)))
	_, err := submit(t, s, p, "DOCKER", image)
	if err == nil {
		t.Fatal("the job did not fail")
	}
	if strings.Contains(err.Error(), "cannot be run") {
		return err.Error(), false
	}
	return oneError(t, s), true
}

func needEngine(t *testing.T) {
	t.Helper()
	switch err := engine.Need(); {
	case errors.Is(err, containers.ErrNone):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

func hasAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

// TestNoContainerEngine: a host without an engine refuses the pipeline at once, with what to do instead.
func TestNoContainerEngine(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	text, accepted := failInContainer(t, "apache/beam_go_sdk:2.77.0", container.Config{})
	if accepted {
		t.Error("the job was accepted")
	}
	hasAll(t, text, "apache/beam_go_sdk:2.77.0", "none of docker, podman and nerdctl is on the PATH", "--container-engine", "LOOPBACK", "PROCESS")
}

// TestContainerDies: the last words of a container that dies are in the job's one error.
func TestContainerDies(t *testing.T) {
	needEngine(t)
	text, _ := failInContainer(t, containers.Image, container.Config{Args: []string{"--env=" + containers.Part + "=exit"}})
	hasAll(t, text, "ended before it connected", "container trestle-", "image "+containers.Image, "exit code 3", "the very last words")
}

// TestContainerOutOfMemory: a job whose containers run out of memory says so, after as many attempts as a killed harness
// gets.
func TestContainerOutOfMemory(t *testing.T) {
	needEngine(t)
	text, _ := failInContainer(t, containers.Image, container.Config{Args: []string{"--env=" + containers.Part + "=eat-child"}, Memory: 48 << 20})
	hasAll(t, text, "out of memory", "at its limit of 48 MiB", "--container-memory")
}

// TestImageNotPulled: an image that is missing fails the job with what to do.
func TestImageNotPulled(t *testing.T) {
	needEngine(t)
	text, _ := failInContainer(t, "trestle-test/nowhere:1", container.Config{Pull: container.PullNever})
	hasAll(t, text, "image trestle-test/nowhere:1 is not there", "docker pull trestle-test/nowhere:1")
}
