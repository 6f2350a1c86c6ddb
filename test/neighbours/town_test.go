// Package neighbours runs jobs that misbehave, and clients and harnesses that break the protocols, on a server on which a
// job of somebody else's is under way: that one must not notice. The cases are what makes other runners panic or hang,
// and what their kind suggests.
package neighbours

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"trestle/internal/server"
	"trestle/test/gopipeline"
)

func TestMain(m *testing.M) { gopipeline.Main(m) }

// patience is how long anything may take here, on a machine that does other things as well.
const patience = 4 * time.Minute

// town is a server on which a job runs that minds its own business.
type town struct {
	*gopipeline.Server
	conn *grpc.ClientConn
	jobs jobpb.JobServiceClient
	dir  string // the quiet job's
	id   string // the same job's
}

// settle starts the server and the quiet job. When the test ends, that job ends too, and must have done all of its work in
// one attempt.
func settle(t *testing.T) *town {
	t.Helper()
	s, err := gopipeline.Start(t.Context(), server.Config{
		Data: t.TempDir(), Memory: 1 << 20, Parallelism: 2, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(s.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := gopipeline.StartPool()
	if err != nil {
		t.Fatal(err)
	}
	n := &town{Server: s, conn: conn, jobs: jobpb.NewJobServiceClient(conn), dir: t.TempDir()}
	ended := make(chan error, 1)
	go func() { ended <- n.quietJob(pool.Environment()) }()
	t.Cleanup(func() {
		err := os.WriteFile(filepath.Join(n.dir, "stop"), nil, 0o600)
		err = errors.Join(err, <-ended, n.checkQuietJob(), pool.Close(), conn.Close(), n.Close())
		if err != nil {
			t.Errorf("the other job: %v", err)
		}
	})
	n.awaitQuietJob(t)
	return n
}

func (n *town) quietJob(env gopipeline.Environment) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	p, s := beam.NewPipelineWithRoot()
	sums := beam.ParDo(s, count, beam.GroupByKey(s, beam.ParDo(s, &pump{n.dir}, beam.Impulse(s))))
	beam.ParDo0(s, &keep{n.dir}, beam.GroupByKey(s, beam.AddFixedKey(s, sums)))
	r, err := n.Run(ctx, "quiet", p, env)
	if err == nil && r.State != jobpb.JobState_DONE {
		err = fmt.Errorf("it ended as %v: %q", r.State, r.Errors)
	}
	return err
}

// awaitQuietJob waits until elements flow.
func (n *town) awaitQuietJob(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		list, err := n.jobs.GetJobs(t.Context(), &jobpb.GetJobsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(n.dir, "starts")); err == nil && len(list.GetJobInfo()) > 0 {
			n.id = list.GetJobInfo()[0].GetJobId()
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("the quiet job does not begin")
}

// quiet checks that the other job runs, and lets nothing of any other pass for an end of it.
func (n *town) quiet(t *testing.T) {
	t.Helper()
	if st, err := n.jobs.GetState(t.Context(), &jobpb.GetJobStateRequest{JobId: n.id}); err != nil || st.GetState() != jobpb.JobState_RUNNING {
		t.Errorf("the other job is %v, %v; want it to run", st.GetState(), err)
	}
}

func (n *town) checkQuietJob() error {
	files := map[string]string{}
	for _, name := range []string{"starts", "sent", "received"} {
		b, err := os.ReadFile(filepath.Join(n.dir, name))
		if err != nil {
			return err
		}
		files[name] = string(b)
	}
	if files["starts"] != "start\n" {
		return fmt.Errorf("its work was begun again: %q", files["starts"])
	}
	if files["sent"] != files["received"] {
		return fmt.Errorf("it sent %s elements, and received %s", files["sent"], files["received"])
	}
	return nil
}

func init() {
	beam.RegisterDoFn(&pump{})
	beam.RegisterDoFn(&keep{})
	register.Function2x1(count)
	register.Emitter2[int, int]()
	register.Iter1[int]()
}

// pump sends elements until there is a file called stop, and then tells how many in a file.
type pump struct{ Dir string }

func (p *pump) ProcessElement(ctx context.Context, _ []byte, emit func(int, int)) error {
	f, err := os.OpenFile(filepath.Join(p.Dir, "starts"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("start\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for n := 1; ; n++ {
		emit(n%7, n)
		if n%100 > 0 {
			continue
		}
		if _, err := os.Stat(filepath.Join(p.Dir, "stop")); err == nil {
			return os.WriteFile(filepath.Join(p.Dir, "sent"), fmt.Append(nil, n), 0o600)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func count(_ int, values func(*int) bool) int {
	n := 0
	for v := 0; values(&v); {
		n++
	}
	return n
}

// keep writes the sum of all into a file.
type keep struct{ Dir string }

func (k *keep) ProcessElement(_ int, counts func(*int) bool) error {
	sum := 0
	for n := 0; counts(&n); {
		sum += n
	}
	return os.WriteFile(filepath.Join(k.Dir, "received"), fmt.Append(nil, sum), 0o600)
}

// outcome is how a job ended.
type outcome struct {
	state  jobpb.JobState_Enum
	errors string
}

// submit runs a pipeline proto that has nothing to stage. The error is a refusal.
func (n *town) submit(ctx context.Context, name string, p *pipepb.Pipeline) (id string, err error) {
	prepared, err := n.jobs.Prepare(ctx, &jobpb.PrepareJobRequest{Pipeline: p, JobName: name})
	if err != nil {
		return "", err
	}
	run, err := n.jobs.Run(ctx, &jobpb.RunJobRequest{PreparationId: prepared.GetPreparationId()})
	return run.GetJobId(), err
}

// end waits for a job's end.
func (n *town) end(t *testing.T, id string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := n.jobs.GetMessageStream(ctx, &jobpb.JobMessagesRequest{JobId: id})
	var o outcome
	for err == nil {
		var r *jobpb.JobMessagesResponse
		if r, err = stream.Recv(); err != nil {
			break
		}
		if m := r.GetMessageResponse(); m.GetImportance() == jobpb.JobMessage_JOB_MESSAGE_ERROR {
			o.errors += m.GetMessageText() + "\n"
		}
		if st := r.GetStateResponse(); st != nil {
			o.state = st.GetState()
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatalf("job %s, last %v: %v", id, o.state, err)
	}
	return o
}

// runs waits until a job runs, and a while longer unless it ends: time enough to get stuck.
func (n *town) runs(t *testing.T, id string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		// The first answer waits a second for the job's end.
		st, err := n.jobs.GetState(t.Context(), &jobpb.GetJobStateRequest{JobId: id})
		if err == nil && st.GetState() == jobpb.JobState_STARTING && time.Now().Before(deadline) {
			<-time.After(10 * time.Millisecond)
			continue
		}
		if err != nil || st.GetState() != jobpb.JobState_RUNNING {
			t.Errorf("the job is %v, %v", st.GetState(), err)
		}
		return
	}
}

// failed checks that a job failed and says why.
func (n *town) failed(t *testing.T, id, says string) {
	t.Helper()
	o := n.end(t, id)
	if o.state != jobpb.JobState_FAILED || !strings.Contains(o.errors, says) {
		t.Errorf("the job ended as %v: %.2000s\nwant FAILED, and it to say %q", o.state, o.errors, says)
	}
	if len(o.errors) > 2<<20 {
		t.Errorf("the error has %d bytes", len(o.errors))
	}
}
