package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// watcher shows what happens to a server's jobs.
type watcher struct {
	client jobpb.JobServiceClient
	conn   *grpc.ClientConn
	ended  chan struct{}
	cancel context.CancelFunc
	// begun counts the streams from which nothing has come yet, jobs those that have not ended.
	begun, jobs sync.WaitGroup

	mu      sync.Mutex
	out     io.Writer
	failed  int
	settled bool
	asked   map[string]bool // jobs whose end was asked for before that
}

// lookEvery is how often the watcher looks for new jobs; what they report after that comes as a stream.
const lookEvery = 100 * time.Millisecond

func watchJobs(endpoint string, out io.Writer) (*watcher, error) {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("watch the jobs at %s: %w", endpoint, err)
	}
	w := &watcher{client: jobpb.NewJobServiceClient(conn), conn: conn, out: out, ended: make(chan struct{}), asked: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	known, err := w.list(ctx) // from earlier servers on the same data folder
	if err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("list the jobs at %s: %w", endpoint, err), conn.Close())
	}
	go w.look(ctx, known)
	return w, nil
}

// settle stops looking for new jobs, after a last look, and waits until every job's stream has begun: the server, which
// may stop then, ends those in order, but refuses one that comes too late.
func (w *watcher) settle() {
	w.cancel()
	<-w.ended
	w.begun.Wait()
	w.mu.Lock()
	w.settled = true
	w.mu.Unlock()
}

// failures waits until the jobs' streams have ended, which they have once the server has stopped, and tells how many
// jobs failed, or were cut off by the program's end. It comes after settle.
func (w *watcher) failures() int {
	w.jobs.Wait()
	// The connection has nothing left to tell, and its server is gone.
	_ = w.conn.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

func (w *watcher) list(ctx context.Context) (map[string]bool, error) {
	r, err := w.client.GetJobs(ctx, &jobpb.GetJobsRequest{})
	if err != nil {
		return nil, err
	}
	jobs := map[string]bool{}
	for _, j := range r.GetJobInfo() {
		jobs[j.GetJobId()] = true
	}
	return jobs, nil
}

func (w *watcher) look(ctx context.Context, known map[string]bool) {
	defer close(w.ended)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for last := false; !last; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			last = true
		}
		jobs, err := w.list(context.WithoutCancel(ctx))
		if err != nil {
			w.print("list the jobs: %v\n", err)
			return
		}
		for id := range jobs {
			if !known[id] {
				known[id] = true
				w.begun.Add(1)
				w.jobs.Go(func() { w.follow(id, sync.OnceFunc(w.begun.Done)) })
			}
		}
	}
}

// follow shows a job's messages until it has ended, or the server has. It calls begun once a first one has come, which
// it does at once since a job's states are among them, or none will.
func (w *watcher) follow(job string, begun func()) {
	defer begun()
	stream, err := w.client.GetMessageStream(context.Background(), &jobpb.JobMessagesRequest{JobId: job})
	for err == nil {
		var r *jobpb.JobMessagesResponse
		if r, err = stream.Recv(); err == nil {
			begun()
			w.show(job, r)
		}
	}
	if !errors.Is(err, io.EOF) {
		w.print("%s: %v\n", job, err)
	}
}

func (w *watcher) show(job string, r *jobpb.JobMessagesResponse) {
	if s := r.GetStateResponse(); s != nil {
		w.print("%s %s\n", job, s.GetState())
		w.state(job, s.GetState())
		return
	}
	if m := r.GetMessageResponse(); m.GetImportance() >= jobpb.JobMessage_JOB_MESSAGE_DETAILED {
		w.print("%s %s\n", job, m.GetMessageText())
	}
}

// state counts the jobs that have not ended well. One that is cancelled when the program has ended, and not by the program,
// has not: it had nobody to wait for it.
func (w *watcher) state(job string, state jobpb.JobState_Enum) {
	w.mu.Lock()
	cut := false
	switch state {
	case jobpb.JobState_CANCELLING:
		w.asked[job] = w.asked[job] || !w.settled
	case jobpb.JobState_CANCELLED:
		cut = w.settled && !w.asked[job]
	}
	if cut || state == jobpb.JobState_FAILED {
		w.failed++
	}
	w.mu.Unlock()
	if cut {
		w.print("%s had not ended when its program did, which has to wait for it (Python's and Java's run() does not by itself)\n", job)
	}
}

func (w *watcher) print(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A person's terminal that is gone is no reason to fail the job.
	_, _ = fmt.Fprintf(w.out, format, args...)
}
