package server

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
	"trestle/internal/engine"
	"trestle/internal/plan"
	"trestle/internal/store/blob"
)

// slowStore is a store that answers after a time; slowEngine an engine that does.
type slowStore struct {
	blob.Bucket
	takes time.Duration
	says  error
}

func (s slowStore) Stat(ctx context.Context, _ string) (int64, error) {
	select {
	case <-time.After(s.takes):
		return 0, s.says
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

type slowEngine struct {
	engine.Engine
	takes time.Duration
	says  error
}

func (slowEngine) Name() string { return "slow" }

func (e slowEngine) Check(context.Context, *pipepb.Pipeline, *plan.Plan, int) error {
	<-time.After(e.takes)
	return e.says
}

// An artifact store that is silent does not hold up what an engine has to say against a pipeline; one that answers is heard, and
// where nothing else is wrong it is waited for.
func TestCheckDoesNotWaitForAStore(t *testing.T) {
	gone, refused := errors.New("the engine is gone"), errors.New("the store refuses")
	for _, test := range []struct {
		name   string
		store  slowStore
		engine slowEngine
		says   []error
		within time.Duration
	}{
		{"a silent store", slowStore{takes: time.Hour}, slowEngine{takes: 4 * time.Second, says: gone}, []error{gone}, 5 * time.Second},
		{"both answer", slowStore{takes: time.Second, says: refused}, slowEngine{says: gone, takes: 2 * time.Second}, []error{gone, refused}, 2 * time.Second},
		{"the store answers later", slowStore{takes: 100 * time.Millisecond, says: refused}, slowEngine{says: gone}, []error{gone, refused}, time.Second},
		{"only the store is wrong", slowStore{takes: 20 * time.Second, says: refused}, slowEngine{}, []error{refused}, 21 * time.Second},
		{"a slow store", slowStore{takes: 20 * time.Second, says: blob.ErrNotFound}, slowEngine{}, nil, 21 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := impulse()
				p.Components.Environments = map[string]*pipepb.Environment{"e": {
					Urn: urn.EnvExternal, Dependencies: []*pipepb.ArtifactInformation{{TypeUrn: urn.ArtifactTypeDeferred, RoleUrn: urn.ArtifactRoleGoWorkerBinary}},
				}}
				r := &runner{engines: []engine.Engine{test.engine}, staging: test.store}
				begin := time.Now()
				err := r.Check(t.Context(), p, nil)
				if took := time.Since(begin); took > test.within {
					t.Errorf("it took %v", took)
				}
				for _, want := range test.says {
					if !errors.Is(err, want) {
						t.Errorf("%v: without %v", err, want)
					}
				}
				if errors.Is(err, context.Canceled) || test.says == nil && err != nil {
					t.Error(err)
				}
				if len(test.says) == 1 && strings.Contains(err.Error(), "\n") {
					t.Errorf("more is said than that: %v", err)
				}
			})
		})
	}
}
