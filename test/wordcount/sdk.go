package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"trestle/test/wordcount/example"
)

// The environments in which a pipeline's code can run, and ways to hand the pipeline over.
const (
	loopback = "loopback" // the worker is the submitting process; the server is ours
	process  = "process"  // the server starts the worker with `trestle boot`
	docker   = "docker"   // the server starts the worker in a container, whose image has Beam's own boot program
	run      = "run"      // `trestle run` starts the server and adds the options
)

// pipeline is one run of one language's WordCount.
type pipeline struct {
	sdk, environment string
	// what tells runs of one SDK apart when the environment does not.
	what string
	// argv and env are how it is started; env adds to ours.
	argv, env []string
	// want is the count made without Beam, by the same definition of a word.
	want example.Counts
	// wholeText is set when the pipeline counts the text that all share.
	wholeText bool
	// read finds the counts that the pipeline made, given what it printed.
	read func(stdout string) (example.Counts, error)
}

// name is fit for a file.
func (p pipeline) name() string {
	name := p.sdk + "-" + p.environment
	if p.what != "" {
		name += "-" + p.what
	}
	return name
}

// place is where things are. All paths are absolute: workers have working directories of their own.
type place struct {
	trestle, text, dir string
	example.SDKs
	// images are what docker environments run: SDK=IMAGE, separated by blanks.
	images string
}

// image is the SDK's.
func (at place) image(sdk string) (string, error) {
	for _, word := range strings.Fields(at.images) {
		if name, image, ok := strings.Cut(word, "="); ok && name == sdk {
			return image, nil
		}
	}
	return "", fmt.Errorf("no image of %s is named; -images %s=IMAGE does that", sdk, sdk)
}

// pipelines are the runs of an SDK in an environment, on the server at endpoint; none when the SDK has no such
// environment. For run there is no endpoint.
func (at place) pipelines(sdk, environment, endpoint string) ([]pipeline, error) {
	p := pipeline{sdk: sdk, environment: environment, wholeText: true}
	output := filepath.Join(at.dir, "out", p.name())
	p.read = func(string) (example.Counts, error) { return example.ReadOutput(output) }
	if sdk == "typescript" {
		if environment != loopback {
			return nil, nil // its client offers docker and loopback only
		}
		return at.typescriptPipelines(endpoint)
	}
	argv, words, err := at.Command(sdk, at.text, output)
	if err != nil {
		return nil, err
	}
	p.argv = argv
	switch environment {
	case loopback:
		p.argv = append(p.argv, example.Portable(sdk, endpoint, "LOOPBACK", "")...)
	case process:
		var env map[string]string
		if sdk == "python" {
			// The interpreter that has the SDK is found by the PATH, as in an activated virtual environment.
			env = map[string]string{"PATH": filepath.Join(at.Python, "bin") + string(filepath.ListSeparator) + os.Getenv("PATH")}
		}
		p.argv = append(p.argv, example.Portable(sdk, endpoint, "PROCESS", mustConfig(sdk, env))...)
	case docker:
		image, err := at.image(sdk)
		if err != nil {
			return nil, err
		}
		p.argv = append(p.argv, example.Portable(sdk, endpoint, "DOCKER", image)...)
	case run:
		p.argv = append([]string{at.trestle, "run", "--data", filepath.Join(at.dir, "data-run"), "--"}, p.argv...)
	}
	switch {
	case sdk == "go" && (environment == process || environment == docker):
		// Without a worker binary the client compiles one out of its source, which takes minutes.
		p.argv = append(p.argv, "--worker_binary="+at.Go)
	case sdk == "java" && environment == loopback:
		// The client stages its class path, 60 MB, unless told what to stage; a loopback worker has it already.
		none := filepath.Join(at.dir, "nothing-to-stage")
		if err := os.WriteFile(none, nil, 0o600); err != nil {
			return nil, err
		}
		p.argv = append(p.argv, "--filesToStage="+none)
	}
	if p.want, err = example.CountFile(at.text, words); err != nil {
		return nil, err
	}
	return []pipeline{p}, nil
}

// typescriptPipelines are Beam's own example, which counts four lines that it holds itself and prints the counts, and
// one over the whole text with the same transforms.
func (at place) typescriptPipelines(endpoint string) ([]pipeline, error) {
	script := filepath.Join(at.TypeScript, "node_modules", "apache-beam", "dist", "src", "apache_beam", "examples", "wordcount.js")
	own, err := exampleLines(script)
	if err != nil {
		return nil, err
	}
	four := pipeline{sdk: "typescript", environment: loopback, what: "example", read: readPrinted}
	four.argv = []string{"node", script, "--runner=universal", "--environmentType=LOOPBACK"}
	// Its universal runner starts a server of its own, in Python, unless told where one is (apache_beam/utils/service).
	override, err := json.Marshal(map[string]string{"python:apache_beam.runners.portability.local_job_service_main": endpoint})
	if err != nil {
		return nil, err
	}
	four.env = []string{"BEAM_SERVICE_OVERRIDES=" + string(override)}
	four.want, err = example.Count(strings.NewReader(own), example.LowerCase)
	if err != nil {
		return nil, err
	}

	text := pipeline{sdk: "typescript", environment: loopback, what: "text", wholeText: true}
	output := filepath.Join(at.dir, "out", text.name())
	text.argv = []string{"node", filepath.Join(at.TypeScript, "wordcount.js"), endpoint, at.text, output}
	text.read = func(string) (example.Counts, error) { return example.ReadOutput(output) }
	if text.want, err = example.CountFile(at.text, example.Matching(example.JavaWord)); err != nil {
		return nil, err
	}
	return []pipeline{four, text}, nil
}

var (
	createRE  = regexp.MustCompile(`(?s)beam\.create\(\[(.*?)\]\)`)
	literalRE = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	printedRE = regexp.MustCompile(`(?m)^\{ element: '(.*)', count: (\d+) \}$`)
)

// exampleLines takes the lines that the example counts out of its source.
func exampleLines(script string) (string, error) {
	source, err := os.ReadFile(script)
	if err != nil {
		return "", err
	}
	list := createRE.FindSubmatch(source)
	if list == nil {
		return "", fmt.Errorf("%s creates no collection of lines: is it another version?", script)
	}
	var lines strings.Builder
	for _, literal := range literalRE.FindAllString(string(list[1]), -1) {
		line, err := strconv.Unquote(literal)
		if err != nil {
			return "", fmt.Errorf("%s: line %s: %w", script, literal, err)
		}
		fmt.Fprintln(&lines, line)
	}
	return lines.String(), nil
}

// readPrinted reads the counts that the TypeScript example prints among other things.
func readPrinted(stdout string) (example.Counts, error) {
	counts := example.Counts{}
	for _, match := range printedRE.FindAllStringSubmatch(stdout, -1) {
		n, err := strconv.Atoi(match[2])
		if err != nil {
			return nil, err
		}
		if _, again := counts[match[1]]; again {
			return nil, fmt.Errorf("%q is counted a second time", match[1])
		}
		counts[match[1]] = n
	}
	if len(counts) == 0 {
		// The example exits with 0 when its job failed.
		return nil, errors.New("the example printed no count; what it printed:\n    " + strings.ReplaceAll(stdout, "\n", "\n    "))
	}
	return counts, nil
}

// mustConfig is the configuration of a process environment, as all SDKs take it.
func mustConfig(sdk string, env map[string]string) string {
	type payload struct {
		Command string            `json:"command"`
		Env     map[string]string `json:"env,omitempty"`
	}
	text, err := json.Marshal(payload{Command: "trestle boot " + sdk, Env: env})
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(text)
}
