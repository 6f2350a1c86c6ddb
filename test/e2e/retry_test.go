package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/stats"

	"trestle/internal/server"
)

func init() {
	register.Function1x2(failTwice)
	register.Function1x2(failAlways)
	register.Function1x2(failAnew)
	beam.RegisterDoFn(&dieOnce{})
	beam.RegisterDoFn(&slowRange{})
}

var failures atomic.Int32

// failTwice fails at one element, each time in another way, before it lets it pass.
func failTwice(x int) (int, error) {
	if x == 500 {
		switch failures.Add(1) {
		case 1:
			return 0, errors.New("first failure")
		case 2:
			return 0, errors.New("second failure")
		}
	}
	return x, nil
}

// TestRetry: a bundle that fails runs again on the same input, and nothing that it put out before is seen twice, at
// either kind of exchange.
func TestRetry(t *testing.T) {
	s := start(t, server.Config{})
	failures.Store(0)
	mustRun(t, s, func(s beam.Scope) {
		out := beam.ParDo(s, failTwice, beam.CreateList(s, numbers(1000)))
		passert.Equals(s, stats.Sum(s, out), 499500)
		passert.Equals(s, beam.ParDo(s, sumValues, beam.GroupByKey(s, beam.ParDo(s, modThree, out))),
			"0:166833/334", "1:166167/333", "2:166500/333")
		passert.Equals(s, stats.Sum(s, beam.Reshuffle(s, out)), 499500)
		passert.Equals(s, beam.ParDo(s, withSide, beam.Create(s, 1), beam.SideInput{Input: out}), 499501)
	})
	if n := failures.Load(); n != 3 {
		t.Errorf("the element was tried %d times", n)
	}
}

// failAnew fails always, each time in another way.
func failAnew(int) (int, error) { return 0, fmt.Errorf("failure %d", failures.Add(1)) }

// TestAttemptsOption: a job says how often its bundles are tried, as an experiment, which all SDKs have; nonsense is refused
// before anything runs.
func TestAttemptsOption(t *testing.T) {
	s := start(t, server.Config{})
	for _, c := range []struct {
		experiment string
		tries      int32
		says       string
	}{
		{"", 4, "failure 4"},
		{"bundle_attempts=1", 1, "failure 1"},
		{"bundle_attempts=6", 6, "failure 6"},
		{"bundle_attempts=0", 0, "pipeline option bundle_attempts: a bundle is tried between 1 and 1000 times, not 0"},
	} {
		set(t, jobopts.Experiments, c.experiment)
		failures.Store(0)
		_, err := execute(t, s, func(s beam.Scope) { beam.ParDo(s, failAnew, beam.Create(s, 1)) })
		if err == nil || failures.Load() != c.tries || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %d tries, and %v; want %d", c.experiment, failures.Load(), err, c.tries)
		}
	}
}

func failAlways(x int) (int, error) {
	failures.Add(1)
	return 0, errors.New("always the same")
}

// TestDeterministicFailure: what fails twice in the same way is not tried a third time.
func TestDeterministicFailure(t *testing.T) {
	s := start(t, server.Config{})
	failures.Store(0)
	if _, err := execute(t, s, func(s beam.Scope) { beam.ParDo(s, failAlways, beam.Create(s, 1)) }); err == nil {
		t.Fatal("the job did not fail")
	}
	if n := failures.Load(); n != 2 {
		t.Errorf("it was tried %d times", n)
	}
	if text := oneError(t, s); !strings.HasPrefix(text, "always the same") {
		t.Errorf("error: %s", text)
	}
}

// dieOnce counts what it gets, and dies once in the middle.
type dieOnce struct{ Marker string }

func (d *dieOnce) ProcessElement(ctx context.Context, x int, emit func(int)) {
	beam.NewCounter("e2e", "got").Inc(ctx, 1)
	emit(x)
	if x != 500 {
		return
	}
	f, err := os.OpenFile(d.Marker, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return // it has died before
	}
	defer f.Close()
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err == nil {
		select {} // until the signal arrives
	}
}

// gotten is what a job has measured of dieOnce's counter.
func gotten(t *testing.T, result beam.PipelineResult) (committed, attempted int64) {
	t.Helper()
	got := result.Metrics().Query(func(r beam.MetricResult) bool { return r.Name() == "got" }).Counters()
	if len(got) != 1 {
		t.Fatalf("counters %v", got)
	}
	return got[0].Committed, got[0].Attempted
}

// TestHarnessDies: a harness that dies costs its bundles, not the job; what is committed of its metrics is what the job has done.
func TestHarnessDies(t *testing.T) {
	s := start(t, server.Config{})
	p, scope := beam.NewPipelineWithRoot()
	out := beam.ParDo(scope, &dieOnce{filepath.Join(t.TempDir(), "died")}, beam.CreateList(scope, numbers(1000)))
	passert.Equals(scope, stats.Sum(scope, out), 499500)
	result, err := submit(t, s, p, "PROCESS", bootCommand(t))
	if err != nil {
		t.Fatal(err)
	}
	if committed, attempted := gotten(t, result); committed != 1000 || attempted < committed {
		t.Errorf("committed %d, attempted %d", committed, attempted)
	}
}

// slowRange puts out the numbers of one long range, slowly, and lets itself be split.
type slowRange struct{}

func (*slowRange) CreateInitialRestriction(n int) offsetrange.Restriction {
	return offsetrange.Restriction{Start: 0, End: int64(n)}
}

func (*slowRange) SplitRestriction(_ int, r offsetrange.Restriction) []offsetrange.Restriction {
	return []offsetrange.Restriction{r}
}

func (*slowRange) RestrictionSize(_ int, r offsetrange.Restriction) float64 { return r.Size() }

func (*slowRange) CreateTracker(r offsetrange.Restriction) *sdf.LockRTracker {
	return sdf.NewLockRTracker(offsetrange.NewTracker(r))
}

// together counts calls of ProcessElement side by side, and the most there were.
var together struct {
	sync.Mutex
	now, most int
}

func (*slowRange) ProcessElement(rt *sdf.LockRTracker, _ int, emit func(int)) {
	together.Lock()
	together.now++
	together.most = max(together.most, together.now)
	together.Unlock()
	defer func() {
		together.Lock()
		together.now--
		together.Unlock()
	}()
	for i := rt.GetRestriction().(offsetrange.Restriction).Start; rt.TryClaim(i); i++ {
		emit(int(i))
		time.Sleep(time.Millisecond) // this is the work
	}
}

// TestSplit: one long restriction is split while it is processed, because other tasks are idle; nothing is lost and
// nothing comes twice.
func TestSplit(t *testing.T) {
	s := start(t, server.Config{Parallelism: 4})
	mustRun(t, s, func(s beam.Scope) {
		out := beam.ParDo(s, &slowRange{}, beam.Create(s, 2000))
		passert.Count(s, out, "numbers", 2000)
		passert.Equals(s, stats.Sum(s, out), 1999000)
	})
	together.Lock()
	defer together.Unlock()
	if together.most < 2 {
		t.Errorf("at most %d parts were processed side by side", together.most)
	}
}

// TestProgress: a job that runs for a while says how far it is. (The Go SDK does not report on restrictions under way: they
// count when they are done.)
func TestProgress(t *testing.T) {
	s := start(t, server.Config{Parallelism: 1})
	mustRun(t, s, func(s beam.Scope) { beam.ParDo(s, &slowRange{}, beam.Create(s, 6000)) })
	said := regexp.MustCompile(`^([0-9]+) % done$`)
	var fractions []int
	for _, text := range details(t, s) {
		if m := said.FindStringSubmatch(text); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			fractions = append(fractions, n)
		}
	}
	// The restriction takes longer than the time between two reports, so that one at least comes while it is the only
	// work left; how early the first one comes, and whether one comes when all is done, is the machine's affair.
	if !slices.ContainsFunc(fractions, func(n int) bool { return n >= 50 && n <= 99 }) || !slices.IsSorted(fractions) {
		t.Errorf("progress %v", fractions)
	}
}
