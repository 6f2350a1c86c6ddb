package artifact

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
)

// Digests are the sha256 of what a job's harnesses are given out of the store, in the form in which [Staging.Resolved]
// answers, each once.
func Digests(byEnvironment map[string][]*pipepb.ArtifactInformation) []string {
	var all []string
	seen := map[string]bool{}
	for _, infos := range byEnvironment {
		for _, info := range infos {
			var file pipepb.ArtifactFilePayload
			if info.GetTypeUrn() != typeFile || proto.Unmarshal(info.GetTypePayload(), &file) != nil {
				continue // a package by its name
			}
			if digest := file.GetSha256(); digest != "" && !seen[digest] {
				seen[digest] = true
				all = append(all, digest)
			}
		}
	}
	return all
}

// Swept is what a Sweep removed.
type Swept struct {
	Artifacts int
	Bytes     int64
}

// Sweep removes the artifacts that are not in keep, by their sha256 in hex, and that nobody has put into this store or found
// in it since a time. One that is being staged just now is left, or is found missing and sent again: never found and then
// removed. The store must be the only one over its bucket: it knows nothing of what others find there. After an error it
// goes on with the next artifact.
func (s *Store) Sweep(ctx context.Context, keep map[string]bool, since time.Time) (swept Swept, err error) {
	var errs []error
	for object, err := range s.bucket.List(ctx, keyPrefix) {
		if err != nil {
			errs = append(errs, err)
			break
		}
		digest := strings.TrimPrefix(object.Key, keyPrefix)
		if normal, err := normalizeSHA256(digest); err != nil || normal != digest || keep[digest] {
			continue
		}
		switch removed, err := s.remove(ctx, digest, since); {
		case err != nil:
			errs = append(errs, err)
		case removed:
			swept.Artifacts++
			swept.Bytes += object.Size
		}
	}
	if err := errors.Join(errs...); err != nil {
		return swept, fmt.Errorf("sweep artifacts: %w", err)
	}
	return swept, nil
}

// Unused forgets which artifacts were used last before a time: a Sweep since that time or a later one need not know.
func (s *Store) Unused(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.used, func(_ string, at time.Time) bool { return at.Before(before) })
}

// remove removes an artifact unless it was used since, or is being used.
func (s *Store) remove(ctx context.Context, digest string, since time.Time) (removed bool, err error) {
	s.mu.Lock()
	if s.writing[digest] != nil || !s.used[digest].Before(since) {
		s.mu.Unlock()
		return false, nil
	}
	release := s.claimLocked(digest)
	s.mu.Unlock()
	defer release()
	if err := s.bucket.Delete(ctx, keyPrefix+digest); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.used, digest)
	delete(s.suspect, digest)
	return true, nil
}
