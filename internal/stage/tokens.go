package stage

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/fnapi"
)

// cacheTokens let a harness keep, from one bundle to the next, what it has read of a stage's side inputs
// (ProcessBundleRequest.cache_tokens in beam_fn_api.proto). In a bounded plan they are whole before the first bundle, and do
// not change: so these Views have one token for ever. Others of the same stage, as when an engine begins again, have
// another, because what they were given need not be the same. In a streaming plan there is another token when a window reads
// differently than it did, or may have done.
func (v *Views) tokens(changes uint64) []*fnpb.ProcessBundleRequest_CacheToken {
	token := v.token
	if v.live != nil {
		token = binary.AppendUvarint(bytes.Clone(token), changes)
	}
	var tokens []*fnpb.ProcessBundleRequest_CacheToken
	for _, in := range v.stage.SideInputs {
		tokens = append(tokens, &fnpb.ProcessBundleRequest_CacheToken{
			Type: &fnpb.ProcessBundleRequest_CacheToken_SideInput_{
				SideInput: &fnpb.ProcessBundleRequest_CacheToken_SideInput{TransformId: in.Transform, SideInputId: in.Tag},
			},
			Token: token,
		})
	}
	return tokens
}

// stateToken lets a harness keep, from one bundle to the next, what it has read of a task's user state, with what it has done to it
// since (ProcessBundleRequest.cache_tokens in beam_fn_api.proto). That is right while all that happens to the state is what
// bundles of this harness did that have succeeded: so there is another token for another task (one that begins again from a
// snapshot, or has taken over key groups, is another), for another harness, and after an attempt that failed, whose changes
// the harness may have kept. State goes without the harness only where its key and window do not come again.
type stateToken struct {
	task  string
	of    *fnapi.Session
	turns uint64
	token []*fnpb.ProcessBundleRequest_CacheToken // one; nil when another is due
}

// on is the token for the next bundle, which goes to a harness.
func (t *stateToken) on(harness *fnapi.Session) []*fnpb.ProcessBundleRequest_CacheToken {
	if t.token != nil && t.of == harness {
		return t.token
	}
	if t.task == "" {
		t.task = rand.Text()
	}
	t.of, t.turns = harness, t.turns+1
	t.token = []*fnpb.ProcessBundleRequest_CacheToken{{
		Type:  &fnpb.ProcessBundleRequest_CacheToken_UserState_{UserState: &fnpb.ProcessBundleRequest_CacheToken_UserState{}},
		Token: binary.AppendUvarint([]byte(t.task), t.turns),
	}}
	return t.token
}

// change has the next bundle read all state anew.
func (t *stateToken) change() { t.token = nil }
