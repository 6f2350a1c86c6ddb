package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"trestle/test/cluster"
	"trestle/test/cluster/storage"
	"trestle/test/wordcount/example"
)

// Where artifacts are staged, and where inputs and outputs are.
const (
	onS3      = "s3"
	onHDFS    = "hdfs"
	onNothing = "none" // the job server itself serves the artifacts
)

// The environments in which a pipeline's code runs.
const (
	inDocker   = "docker"
	inProcess  = "process"
	inExternal = "external"
)

// cell is one run of one SDK's WordCount.
type cell struct {
	// sdk is python, go or java.
	sdk, environment string
	// staging is where its artifacts go, data where its input and output are.
	staging, data string
	// mark tells runs of the same kind apart; it may be empty.
	mark string
}

func (c cell) name() string {
	name := c.sdk + "-" + c.environment + "-" + c.staging + "-" + c.data
	if c.mark != "" {
		name += "-" + c.mark
	}
	return name
}

func of(sdk, environment, staging, data string) cell {
	return cell{sdk: sdk, environment: environment, staging: staging, data: data}
}

// matrix is what runs on the versions of Flink, the first of which is the older. Not every combination: each SDK in each
// environment that it has, each environment with each way of staging, each way of staging with each SDK; the two versions
// take the other halves. Go reads and writes S3 only, Java has its file system for HDFS; neither ships a worker pool.
func matrix(version int, quick bool) []cell {
	if quick {
		return []cell{of("go", inProcess, onS3, onS3), of("python", inProcess, onS3, onS3)}
	}
	if version%2 == 0 {
		return []cell{
			of("go", inDocker, onS3, onS3), of("python", inDocker, onS3, onS3), of("java", inDocker, onS3, onHDFS),
			of("go", inProcess, onHDFS, onS3), of("python", inProcess, onHDFS, onHDFS), of("java", inProcess, onHDFS, onHDFS),
			of("go", inProcess, onNothing, onS3), of("python", inDocker, onNothing, onHDFS), of("python", inExternal, onNothing, onS3),
		}
	}
	return []cell{
		of("go", inProcess, onS3, onS3), of("python", inProcess, onS3, onS3), of("java", inProcess, onS3, onHDFS),
		of("go", inDocker, onHDFS, onS3), of("python", inDocker, onHDFS, onHDFS), of("python", inExternal, onHDFS, onS3),
		of("java", inDocker, onNothing, onHDFS), of("python", inProcess, onNothing, onS3),
	}
}

// inputPath is where the text is in every store, and image what an SDK's image is called on every engine.
const inputPath = "in/text.txt"

func image(sdk string) string { return "trestle-test/beam-" + sdk }

// poolPort is where external workers listen, each TaskManager's on its own host.
const poolPort = 50000

// command is how the cell's program is started on the job server's host, and what it calls a word.
func (r *rig) command(c cell, endpoint string) (cluster.Command, func(string) []string, error) {
	output := c.output() + "/counts"
	in, out := r.url(c, inputPath), r.url(c, output)
	argv, words, err := r.sdks.Command(c.sdk, in, out)
	if err != nil {
		return cluster.Command{}, nil, err
	}
	command := cluster.Command{Name: c.name()}
	kind, settings := "", ""
	// A harness that is a process gets its variables by its environment's configuration, one in a container from the server's.
	process := map[string]string{}
	switch c.sdk {
	case "python":
		process["PATH"] = filepath.Join(r.sdks.Python, "bin") + ":/usr/local/bin:/usr/bin:/bin"
		argv = append(argv, r.pythonOptions(c)...)
	case "go":
		argv = append(argv, "--worker_binary="+r.sdks.Go)
		command.Env = r.s3.Env()
		process = environ(r.s3.Env())
	case "java":
		argv[slices.Index(argv, "-cp")+1] = filepath.Join(r.sdks.Java, "*") + ":" + filepath.Join(r.hadoop, "*")
		configuration, err := json.Marshal([]map[string]string{{"fs.defaultFS": r.hdfs.Root()}})
		if err != nil {
			return command, nil, err
		}
		argv = append(argv, "--hdfsConfiguration="+string(configuration))
	}
	switch c.environment {
	case inDocker:
		kind, settings = "DOCKER", image(c.sdk)
	case inExternal:
		kind, settings = "EXTERNAL", fmt.Sprintf("localhost:%d", poolPort)
	case inProcess:
		text, err := json.Marshal(map[string]any{"command": "trestle boot " + c.sdk, "env": process})
		if err != nil {
			return command, nil, err
		}
		kind, settings = "PROCESS", string(text)
	}
	if c.sdk != "java" {
		argv = append(argv, "--parallelism=4")
	}
	command.Argv = append(argv, example.Portable(c.sdk, endpoint, kind, settings)...)
	return command, words, nil
}

// output is the folder of the cell's output in its store.
func (c cell) output() string { return "out/" + c.name() }

// url is what the cell's SDK calls a path in its store.
func (r *rig) url(c cell, path string) string {
	if c.data == onHDFS && c.sdk == "python" {
		return "hdfs://" + path // the server is in the options
	}
	return r.store(c).URL(path)
}

func (r *rig) store(c cell) storage.Store {
	if c.data == onHDFS {
		return r.hdfs
	}
	return r.s3
}

func (r *rig) pythonOptions(c cell) []string {
	if c.data == onHDFS {
		host, port := r.hdfs.Web()
		return []string{"--hdfs_host=" + host, fmt.Sprintf("--hdfs_port=%d", port), "--hdfs_user=root"}
	}
	key, secret, region := r.s3.Credentials()
	return []string{"--s3_endpoint_url=" + r.s3.Endpoint(), "--s3_access_key_id=" + key, "--s3_secret_access_key=" + secret, "--s3_region_name=" + region}
}
