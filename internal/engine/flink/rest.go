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
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"trestle/internal/kit/here"
)

const (
	// callTimeout bounds a call to Flink that is not an upload or a submission: those take as long as they take.
	callTimeout = 5 * time.Second
	// checkTimeout bounds all that is asked before a job is accepted: whoever submits it is told within 5 s of a Flink that is not there.
	checkTimeout = 4500 * time.Millisecond
	// submitTimeout bounds the submission of a job: Flink runs the adapter's main method before it answers.
	submitTimeout = 2 * time.Minute
	// uploadTimeout bounds the upload of the adapter's jar, of some ten MB.
	uploadTimeout = 5 * time.Minute
	// answerBytes bounds what is read of an answer.
	answerBytes = 64 << 20
)

// rest is Flink's REST API at one address. It may be used concurrently.
type rest struct {
	base string // without a slash at its end
	http *http.Client
}

// statusError is an answer other than a success.
type statusError struct {
	address, what string
	code          int
	gone          bool   // Flink does not have what it was asked about
	text          string // Flink's own words, cut to the cause
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the Flink at %s: %s: %s (HTTP %d)", e.address, e.what, e.text, e.code)
}

// notFound tells whether Flink says that it does not have something.
func notFound(err error) bool {
	var status *statusError
	return errors.As(err, &status) && status.gone
}

// noJob is in what Flink says of a job that it does not have. Most of its handlers say it with the status 404; that of a job's
// status (Flink's JobStatusHandler) lets it become one of 500.
const noJob = "org.apache.flink.runtime.messages.FlinkJobNotFoundException"

// unheard tells of a failed call whether Flink may have done what it was asked for: it was there, and did not say.
func unheard(err error) bool {
	var status *statusError
	var connection *net.OpError
	return err != nil && !errors.As(err, &status) && !(errors.As(err, &connection) && connection.Op == "dial")
}

// newREST checks an address. Nothing is sent.
func newREST(address string) (*rest, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--flink %q: must be the address of a JobManager's REST API, such as http://jobmanager:8081", address)
	}
	if u.User != nil {
		return nil, errors.New("--flink: must not have a user or password in it")
	}
	return &rest{base: strings.TrimSuffix(u.String(), "/"), http: &http.Client{}}, nil
}

// call sends a request and decodes the answer into out, unless that is nil. what says to a person what is being done.
func (r *rest) call(ctx context.Context, timeout time.Duration, what, method, path string, body, out any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return r.send(ctx, timeout, what, method, path, "application/json", bytes.NewReader(b), out)
}

func (r *rest) get(ctx context.Context, what, path string, out any) error {
	return r.call(ctx, callTimeout, what, http.MethodGet, path, nil, out)
}

func (r *rest) send(ctx context.Context, timeout time.Duration, what, method, path, contentType string, body io.Reader, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, unanswered(timeout))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, r.base+path, body)
	if err != nil {
		return fmt.Errorf("the Flink at %s: %s: %w", r.base, what, err)
	}
	request.Header.Set("Content-Type", contentType)
	response, err := r.http.Do(request)
	if err != nil {
		return fmt.Errorf("the Flink at %s cannot be reached from %s: %s: %w", r.base, here.Host(), what, cause(ctx, err))
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerBytes))
	if err != nil {
		return fmt.Errorf("the Flink at %s: %s: read the answer: %w", r.base, what, cause(ctx, err))
	}
	if response.StatusCode >= 300 {
		return &statusError{
			address: r.base, what: what, code: response.StatusCode, text: complaint(answer),
			gone: response.StatusCode == http.StatusNotFound || bytes.Contains(answer, []byte(noJob)),
		}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("the Flink at %s: %s: the answer is no JSON that Flink would give; is this a JobManager's REST API? %w", r.base, what, err)
	}
	return nil
}

// unanswered is why a call ends that Flink does not answer.
func unanswered(timeout time.Duration) error { return fmt.Errorf("no answer within %v", timeout) }

// cause is why a call ended where its context did, and otherwise an error of the HTTP client's without the URL: it has been said.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// complaint is what an answer of Flink's says is wrong: the last cause of what may be pages of stack traces.
func complaint(answer []byte) string {
	var said struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(answer, &said) != nil || len(said.Errors) == 0 {
		return firstLine(string(answer))
	}
	return rootCause(said.Errors[len(said.Errors)-1])
}

// upload sends a jar and returns the id under which Flink has it.
func (r *rest) upload(ctx context.Context, path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	// The form goes through a pipe, so that the jar is never whole in memory.
	reader, writer := io.Pipe()
	form := multipart.NewWriter(writer)
	go func() {
		part, err := form.CreateFormFile("jarfile", filepath.Base(path))
		if err == nil {
			_, err = io.Copy(part, file)
		}
		if err == nil {
			err = form.Close()
		}
		writer.CloseWithError(err)
	}()
	defer func() { reader.CloseWithError(io.ErrClosedPipe) }() // nobody writes to a pipe that is not read any more
	var answer struct {
		Filename string `json:"filename"`
	}
	err = r.send(ctx, uploadTimeout, "upload the adapter", http.MethodPost, "/jars/upload", form.FormDataContentType(), reader, &answer)
	if err != nil {
		return "", err
	}
	return answer.Filename[strings.LastIndexAny(answer.Filename, `/\`)+1:], nil
}

// jar finds an uploaded jar by its name; "" when there is none.
func (r *rest) jar(ctx context.Context, name string) (string, error) {
	var answer struct {
		Files []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"files"`
	}
	if err := r.get(ctx, "list its jars", "/jars", &answer); err != nil {
		return "", err
	}
	for _, f := range answer.Files {
		if f.Name == name {
			return f.ID, nil
		}
	}
	return "", nil
}

// overview is what a cluster has.
type overview struct {
	TaskManagers int    `json:"taskmanagers"`
	Slots        int    `json:"slots-total"`
	Free         int    `json:"slots-available"`
	Running      int    `json:"jobs-running"`
	Version      string `json:"flink-version"`
}

func (r *rest) overview(ctx context.Context) (o overview, err error) {
	err = r.get(ctx, "ask what it has", "/overview", &o)
	return o, err
}

// configuration is what the JobManager was configured with.
func (r *rest) configuration(ctx context.Context) (map[string]string, error) {
	var entries []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	if err := r.get(ctx, "ask for its configuration", "/jobmanager/config", &entries); err != nil {
		return nil, err
	}
	configuration := make(map[string]string, len(entries))
	for _, entry := range entries {
		configuration[entry.Key] = entry.Value
	}
	return configuration, nil
}

// defaultParallelism is the parallelism.default of the cluster's configuration; 0 when that does not say. A program that is
// run through the REST API is not told: there the default is 1.
func (r *rest) defaultParallelism(ctx context.Context) (int, error) {
	configuration, err := r.configuration(ctx)
	text, ok := configuration["parallelism.default"]
	if err != nil || !ok {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("the Flink at %s: its configuration has parallelism.default %q, which is no number of tasks", r.base, text)
	}
	return n, nil
}

// state is the state of a job now.
func (r *rest) state(ctx context.Context, id string) (string, error) {
	var answer struct {
		Status string `json:"status"`
	}
	err := r.get(ctx, "ask for the job's state", "/jobs/"+id+"/status", &answer)
	return answer.Status, err
}

// tasks are how many tasks a job has, and how many of them run or have ended, now.
type tasks struct {
	Total    int `json:"total"`
	Running  int `json:"running"`
	Finished int `json:"finished"`
}

func (r *rest) tasks(ctx context.Context, id string) (tasks, error) {
	var answer struct {
		Jobs []struct {
			ID    string `json:"jid"`
			Tasks tasks  `json:"tasks"`
		} `json:"jobs"`
	}
	err := r.get(ctx, "ask for the job's tasks", "/jobs/overview", &answer)
	for _, j := range answer.Jobs {
		if j.ID == id {
			return j.Tasks, nil
		}
	}
	return tasks{}, err
}

// graphState is a job's state in the picture of it that Flink answers from when it is asked for accumulators, exceptions and the
// like: it keeps one for 3 s (web.refresh-interval) from the first such question on.
func (r *rest) graphState(ctx context.Context, id string) (string, error) {
	var answer struct {
		State string `json:"state"`
	}
	err := r.get(ctx, "ask for the job", "/jobs/"+id, &answer)
	return answer.State, err
}

// exception is an entry of a job's exception history.
type exception struct {
	Name        string `json:"exceptionName"`
	Trace       string `json:"stacktrace"`
	Timestamp   int64  `json:"timestamp"`
	Task        string `json:"taskName"`
	Endpoint    string `json:"endpoint"`
	TaskManager string `json:"taskManagerId"`
}

// exceptions are what made the job's tasks fail, the latest first.
func (r *rest) exceptions(ctx context.Context, id string) ([]exception, error) {
	var answer struct {
		History struct {
			Entries []exception `json:"entries"`
		} `json:"exceptionHistory"`
		Root string `json:"root-exception"`
	}
	if err := r.get(ctx, "ask why the job failed", "/jobs/"+id+"/exceptions", &answer); err != nil {
		return nil, err
	}
	if len(answer.History.Entries) == 0 && answer.Root != "" {
		return []exception{{Trace: answer.Root}}, nil
	}
	return answer.History.Entries, nil
}

// accumulators are the values of a job's accumulators, by name.
func (r *rest) accumulators(ctx context.Context, id string) (map[string]string, error) {
	var answer struct {
		Tasks []struct {
			Name  string `json:"name"`
			Value string `json:"value"`
		} `json:"user-task-accumulators"`
	}
	if err := r.get(ctx, "ask for the job's accumulators", "/jobs/"+id+"/accumulators", &answer); err != nil {
		return nil, err
	}
	values := make(map[string]string, len(answer.Tasks))
	for _, a := range answer.Tasks {
		values[a.Name] = a.Value
	}
	return values, nil
}
