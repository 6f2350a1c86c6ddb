package example

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// SDKs is where Beam's SDKs are set up: a virtual environment, the WordCount binary, a folder of jars, a folder with
// node_modules.
type SDKs struct{ Python, Go, Java, TypeScript string }

// pythonMain runs a module as python -m does, and ends without the interpreter's own end: that was seen to wait for ever once the
// job was DONE. gRPC drops its calls there, for which it takes a lock that a thread which is no more may hold.
const pythonMain = `import os, runpy, sys, traceback
status = 0
del sys.argv[0]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    status = end.code if isinstance(end.code, int) else int(end.code is not None)
except BaseException:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
`

// Command is how an SDK's WordCount is started, without the options that send it to a runner; and what it calls a word.
// TypeScript's is another matter.
func (s SDKs) Command(sdk, input, output string) (argv []string, words func(line string) []string, err error) {
	switch sdk {
	case "python":
		return []string{filepath.Join(s.Python, "bin", "python"), "-c", pythonMain, "apache_beam.examples.wordcount",
			"--input", input, "--output", output}, Matching(PythonWord), nil
	case "go":
		return []string{s.Go, "--input=" + input, "--output=" + output}, Matching(GoWord), nil
	case "java":
		return []string{"java", "-cp", filepath.Join(s.Java, "*"), "org.apache.beam.examples.WordCount",
			"--inputFile=" + input, "--output=" + output}, Matching(JavaWord), nil
	default:
		return nil, nil, fmt.Errorf("there is no command for SDK %q, but for python, go and java", sdk)
	}
}

// Portable are the options, as an SDK spells them, that send a program to a job server and say where its code is to run:
// an environment of Beam's (LOOPBACK, PROCESS, …) and its configuration, which may be empty.
func Portable(sdk, endpoint, environment, config string) []string {
	runner, at, kind, settings := "PortableRunner", "job_endpoint", "environment_type", "environment_config"
	switch sdk {
	case "go":
		runner, at = "universal", "endpoint"
	case "java":
		at, kind, settings = "jobEndpoint", "defaultEnvironmentType", "defaultEnvironmentConfig"
	}
	options := []string{"--runner=" + runner, "--" + at + "=" + endpoint, "--" + kind + "=" + environment}
	if config != "" {
		options = append(options, "--"+settings+"="+config)
	}
	return options
}

// CountFile counts a file's words.
func CountFile(path string, words func(line string) []string) (Counts, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return Count(file, words)
}

// LowerCase are the words of TypeScript's example.
func LowerCase(line string) []string { return typescriptGap.Split(strings.ToLower(line), -1) }
