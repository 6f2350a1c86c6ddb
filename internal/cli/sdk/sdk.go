// Package sdk knows what each Beam SDK wants to be told to send its pipeline to a job server.
package sdk

import (
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kind is a Beam SDK.
type Kind struct {
	// Name is "python", "java", "go" or "typescript".
	Name string
	// options has %s for the endpoint.
	options []string
	// code is for an SDK whose programs choose the job server in their code.
	code string
}

// Kinds are the SDKs, most used first. All run their user code in the submitting process (LOOPBACK): nothing needs to be
// installed or built for it.
var Kinds = []Kind{
	{Name: "python", options: []string{"--runner=PortableRunner", "--job_endpoint=%s", "--environment_type=LOOPBACK"}},
	{Name: "java", options: []string{"--runner=PortableRunner", "--jobEndpoint=%s", "--defaultEnvironmentType=LOOPBACK"}},
	{Name: "go", options: []string{"--runner=universal", "--endpoint=%s", "--environment_type=LOOPBACK"}},
	{Name: "typescript", code: `new PortableRunner({jobEndpoint: "%s", environmentType: "LOOPBACK"})`},
}

// Options are the pipeline options that send a pipeline to the job server at endpoint; none for an SDK that has no such
// options (TypeScript's createRunner takes no endpoint).
func (k Kind) Options(endpoint string) []string {
	options := make([]string, len(k.options))
	for i, o := range k.options {
		options[i] = strings.ReplaceAll(o, "%s", endpoint)
	}
	return options
}

// Line is Options on one line, or the code that does the same.
func (k Kind) Line(endpoint string) string {
	if k.code != "" {
		return strings.ReplaceAll(k.code, "%s", endpoint)
	}
	return strings.Join(k.Options(endpoint), " ")
}

// ByName finds a kind.
func ByName(name string) (Kind, error) {
	names := make([]string, len(Kinds))
	for i, k := range Kinds {
		if k.Name == name {
			return k, nil
		}
		names[i] = k.Name
	}
	return Kind{}, fmt.Errorf("no SDK %q: it must be one of %s", name, strings.Join(names, ", "))
}

// Detect tells which SDK a command line uses.
func Detect(command []string) (Kind, error) {
	switch name := filepath.Base(command[0]); {
	case strings.HasPrefix(name, "python"), strings.HasPrefix(name, "pypy"), name == "uv", strings.HasSuffix(name, ".py"):
		return ByName("python")
	case name == "java":
		return ByName("java")
	case name == "node", name == "npx", name == "tsx", name == "ts-node":
		return ByName("typescript")
	case name == "go":
		return ByName("go")
	}
	if path, err := exec.LookPath(command[0]); err == nil {
		if _, err := buildinfo.ReadFile(path); err == nil {
			return ByName("go") // a program built by Go
		}
	}
	return Kind{}, fmt.Errorf("cannot tell from %q which SDK the pipeline is written with: say so with --sdk", command[0])
}
