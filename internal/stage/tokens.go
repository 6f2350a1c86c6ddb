package stage

import (
	"bytes"
	"encoding/binary"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
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
