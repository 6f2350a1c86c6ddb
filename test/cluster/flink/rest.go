package flink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Overview is what Flink says of itself.
type Overview struct {
	Version        string `json:"flink-version"`
	TaskManagers   int    `json:"taskmanagers"`
	SlotsTotal     int    `json:"slots-total"`
	SlotsAvailable int    `json:"slots-available"`
}

// Overview asks for it.
func (f *Flink) Overview(ctx context.Context) (o Overview, err error) {
	return o, f.get(ctx, "/overview", &o)
}

// registered are the ids of the TaskManagers that the JobManager knows, in order; those it has missed not yet included.
func (f *Flink) registered(ctx context.Context) (ids []string, err error) {
	var answer struct {
		TaskManagers []struct {
			ID string `json:"id"`
		} `json:"taskmanagers"`
	}
	err = f.get(ctx, "/taskmanagers", &answer)
	for _, t := range answer.TaskManagers {
		ids = append(ids, t.ID)
	}
	slices.Sort(ids)
	return ids, err
}

// Job is a job as Flink tells of it.
type Job struct {
	ID       string   `json:"jid"`
	Name     string   `json:"name"`
	State    string   `json:"state"`
	Type     string   `json:"job-type"` // BATCH or STREAMING
	Vertices []Vertex `json:"vertices"`
}

// Ended says whether the job is in a final state.
func (j Job) Ended() bool {
	return j.State == "FINISHED" || j.State == "FAILED" || j.State == "CANCELED"
}

// Vertex is a chain of a job's operators.
type Vertex struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Parallelism int    `json:"parallelism"`
}

// Jobs are all that the JobManager knows, without their vertices.
func (f *Flink) Jobs(ctx context.Context) ([]Job, error) {
	var answer struct{ Jobs []Job }
	err := f.get(ctx, "/jobs/overview", &answer)
	return answer.Jobs, err
}

// Job is one of them.
func (f *Flink) Job(ctx context.Context, id string) (j Job, err error) {
	return j, f.get(ctx, "/jobs/"+id, &j)
}

// AwaitJob waits for the end of a job; that it failed is no error.
func (f *Flink) AwaitJob(ctx context.Context, id string) (j Job, err error) {
	err = poll(ctx, func() (bool, error) {
		j, err = f.Job(ctx, id)
		return j.Ended(), err
	})
	return j, err
}

// FirstRunning is when the first of a job's tasks ran, by the TaskManager's clock; an error when none has.
func (f *Flink) FirstRunning(ctx context.Context, id string) (first time.Time, err error) {
	j, err := f.Job(ctx, id)
	if err != nil {
		return first, err
	}
	for _, v := range j.Vertices {
		var answer struct {
			Subtasks []struct {
				Timestamps map[string]int64 `json:"timestamps"`
			} `json:"subtasks"`
		}
		if err := f.get(ctx, "/jobs/"+id+"/vertices/"+v.ID+"/subtasktimes", &answer); err != nil {
			return first, err
		}
		for _, task := range answer.Subtasks {
			if ms := task.Timestamps["RUNNING"]; ms > 0 && (first.IsZero() || ms < first.UnixMilli()) {
				first = time.UnixMilli(ms)
			}
		}
	}
	if first.IsZero() {
		return first, fmt.Errorf("no task of the job %s has run", id)
	}
	return first, nil
}

// Failure is the root exception of a job that failed, "" of others.
func (f *Flink) Failure(ctx context.Context, id string) (string, error) {
	var answer struct {
		History struct {
			Entries []struct {
				Stacktrace string `json:"stacktrace"`
			} `json:"entries"`
		} `json:"exceptionHistory"`
	}
	err := f.get(ctx, "/jobs/"+id+"/exceptions", &answer)
	if err != nil || len(answer.History.Entries) == 0 {
		return "", err
	}
	return answer.History.Entries[0].Stacktrace, nil
}

// Cancel cancels a job as Flink's own page does.
func (f *Flink) Cancel(ctx context.Context, id string) error {
	return f.do(ctx, http.MethodPatch, "/jobs/"+id+"?mode=cancel", "", nil, nil)
}

// Work is what the tasks of one job did on one host.
type Work struct {
	// Tasks is the number of tasks whose last attempt was there; Records and Bytes are what these took in and put out, as Flink
	// counts both.
	Tasks          int
	Records, Bytes int64
}

// WorkByHost tells where a job's tasks were, by the hosts' names.
func (f *Flink) WorkByHost(ctx context.Context, id string) (map[string]Work, error) {
	j, err := f.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	work := map[string]Work{}
	for _, v := range j.Vertices {
		var answer struct {
			Subtasks []struct {
				Endpoint string         `json:"endpoint"`
				Metrics  map[string]any `json:"metrics"`
			} `json:"subtasks"`
		}
		if err := f.get(ctx, "/jobs/"+id+"/vertices/"+v.ID, &answer); err != nil {
			return nil, err
		}
		for _, task := range answer.Subtasks {
			at := f.hostName(task.Endpoint)
			w := work[at]
			w.Tasks++
			w.Records += number(task.Metrics["read-records"]) + number(task.Metrics["write-records"])
			w.Bytes += number(task.Metrics["read-bytes"]) + number(task.Metrics["write-bytes"])
			work[at] = w
		}
	}
	return work, nil
}

// number is a JSON number; 0 when it is none.
func number(v any) int64 {
	n, _ := v.(float64)
	return int64(n)
}

// hostName is the host of an endpoint of a TaskManager, by the name that tests know.
func (f *Flink) hostName(endpoint string) string {
	address, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		address = endpoint
	}
	for _, h := range f.options.TaskManagers {
		if h.Name == address || h.IP.String() == address {
			return h.Name
		}
	}
	return address
}

// Upload uploads a job's jar and returns its id.
func (f *Flink) Upload(ctx context.Context, jar string) (string, error) {
	file, err := os.Open(jar)
	if err != nil {
		return "", err
	}
	defer file.Close()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("jarfile", filepath.Base(jar))
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(part, file); err != nil {
		return "", err
	}
	if err := form.Close(); err != nil {
		return "", err
	}
	var answer struct {
		Filename string `json:"filename"`
	}
	err = f.do(ctx, http.MethodPost, "/jars/upload", form.FormDataContentType(), &body, &answer)
	return path.Base(answer.Filename), err
}

// Run starts an uploaded jar's main class and returns the job's id.
func (f *Flink) Run(ctx context.Context, jar string, parallelism int, arguments ...string) (string, error) {
	request, err := json.Marshal(map[string]any{"parallelism": parallelism, "programArgsList": arguments})
	if err != nil {
		return "", err
	}
	var answer struct {
		ID string `json:"jobid"`
	}
	err = f.do(ctx, http.MethodPost, "/jars/"+jar+"/run", "application/json", bytes.NewReader(request), &answer)
	return answer.ID, err
}

func (f *Flink) get(ctx context.Context, path string, into any) error {
	return f.do(ctx, http.MethodGet, path, "", nil, into)
}

// askPatience and submitPatience are how long an answer may take: a submission runs the job's main method in a JVM that may be cold.
const (
	askPatience    = 20 * time.Second
	submitPatience = 3 * time.Minute
)

// do asks Flink's REST API; an answer that says no is an error with its text.
func (f *Flink) do(ctx context.Context, method, path, kind string, body io.Reader, into any) (err error) {
	patience := askPatience
	if method == http.MethodPost {
		patience = submitPatience
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	url := fmt.Sprintf("http://%s:%d%s", f.options.JobManager.IP, restPort, path)
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return fmt.Errorf("ask Flink: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("ask Flink: %s %s: %w", method, url, err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("ask Flink: %s %s: %s: %s", method, url, response.Status, strings.TrimSpace(string(text)))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("ask Flink: %s %s: %w: %s", method, url, err, text)
	}
	return nil
}
