package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"golang.org/x/sync/errgroup"

	"trestle/internal/store/blob"
)

// lookups is how many artifacts the bucket is asked about at a time.
const lookups = 16

// collector brings the artifacts of a job's environments into the store.
type collector struct {
	store *Store
	log   *slog.Logger
	// client may be nil: then only what can be had without it is collected.
	client *client

	// have has what the store had under the promised sha256s when the collection began.
	have map[string]Digest
	// got has what this collection has fetched, by type and payload: what several environments share is sent once.
	got map[string]Digest
	// missing are the artifacts that only the absent client could give.
	missing []string
	// sent counts the artifacts that the client sent, bytes their bytes, known those that the store had.
	sent, known int
	bytes       int64
}

// collect returns what harnesses shall be given for each environment. What is wrong with the artifacts as the client has
// resolved them is told all at once, before the first is transferred.
func (c *collector) collect(ctx context.Context, wanted map[string][]*pipepb.ArtifactInformation) (map[string][]*pipepb.ArtifactInformation, error) {
	c.got = map[string]Digest{}
	environments := slices.Sorted(maps.Keys(wanted))
	dependencies := map[string][]*dependency{}
	var problems []error
	for _, environment := range environments {
		infos := wanted[environment]
		if c.client != nil {
			var err error
			if infos, err = c.client.resolve(environment, infos); err != nil {
				return nil, err
			}
		}
		deps, err := decodeAll(environment, infos)
		problems = append(problems, err)
		dependencies[environment] = deps
	}
	if err := errors.Join(problems...); err != nil {
		return nil, refuse(err)
	}
	if err := c.look(ctx, dependencies); err != nil {
		return nil, err
	}
	result := map[string][]*pipepb.ArtifactInformation{}
	for _, environment := range environments {
		infos, err := c.environment(ctx, environment, dependencies[environment])
		if err != nil {
			return nil, err
		}
		result[environment] = infos
	}
	if len(c.missing) > 0 {
		return nil, refuse(fmt.Errorf("%d artifacts were never staged: the SDK did not connect to the artifact staging endpoint "+
			"that Prepare gave it, under this token (does the address resolve where the SDK runs?):\n  %s",
			len(c.missing), strings.Join(c.missing, "\n  ")))
	}
	return result, nil
}

// look finds out which of the promised artifacts the store has: a second run of a pipeline stages nothing. A Java class
// path is hundreds of jars, and a distant bucket takes its time for each, so several are looked for at once.
func (c *collector) look(ctx context.Context, dependencies map[string][]*dependency) error {
	c.have = map[string]Digest{}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookups)
	seen := map[string]bool{}
	for _, deps := range dependencies {
		for _, dep := range deps {
			if dep.sum == "" || seen[dep.sum] {
				continue
			}
			seen[dep.sum] = true
			group.Go(func() error {
				d, err := c.store.Stat(ctx, dep.sum)
				if blob.IsNotFound(err) {
					return nil
				}
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				c.have[dep.sum] = d
				return nil
			})
		}
	}
	return group.Wait()
}

// environment collects one environment's artifacts, in their order.
func (c *collector) environment(ctx context.Context, environment string, deps []*dependency) ([]*pipepb.ArtifactInformation, error) {
	var infos []*pipepb.ArtifactInformation
	names := newNames()
	for _, dep := range deps {
		if dep.pkg != "" {
			infos = append(infos, dep.info)
			continue
		}
		digest, ok, err := c.artifact(ctx, environment, dep)
		if err != nil {
			return nil, fmt.Errorf("environment %q: artifact %s: %w", environment, describe(dep.info), err)
		}
		if !ok {
			c.missing = append(c.missing, fmt.Sprintf("environment %q: artifact %s", environment, describe(dep.info)))
			continue
		}
		if dep.name != "" {
			again, err := names.take(dep.name, digest)
			if err != nil {
				return nil, refuse(fmt.Errorf("environment %q: artifact %s: %w", environment, describe(dep.info), err))
			}
			if again {
				continue // once is enough, and twice would be a race in the harness
			}
		}
		info, err := staged(dep.info, digest)
		if err != nil {
			return nil, fmt.Errorf("environment %q: artifact %s: %w", environment, describe(dep.info), err)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// artifact brings one artifact into the store; false when it cannot be had without a client.
func (c *collector) artifact(ctx context.Context, environment string, dep *dependency) (_ Digest, ok bool, _ error) {
	key := ""
	if dep.embedded == nil {
		key = dep.info.GetTypeUrn() + "\x00" + string(dep.info.GetTypePayload())
		if d, ok := c.got[key]; ok {
			return d, true, nil
		}
	}
	d, ok, err := c.fetch(ctx, environment, dep)
	if ok && err == nil && key != "" {
		c.got[key] = d
	}
	return d, ok, err
}

func (c *collector) fetch(ctx context.Context, environment string, dep *dependency) (_ Digest, ok bool, _ error) {
	if d, ok := c.have[dep.sum]; ok {
		c.known++
		return d, true, nil
	}
	switch {
	case dep.embedded != nil:
		d, err := c.store.Put(ctx, bytes.NewReader(dep.embedded.GetData()), "")
		return d, true, err
	case dep.url != nil:
		d, err := c.store.putURL(ctx, dep.url.GetUrl(), dep.sum)
		return d, true, err
	case c.client == nil:
		return Digest{}, false, nil
	}
	r, err := c.client.get(environment, dep.info)
	if err != nil {
		return Digest{}, false, err
	}
	d, err := c.store.Put(ctx, r, dep.sum)
	if err != nil {
		return Digest{}, false, err
	}
	c.sent++
	c.bytes += d.Size
	c.log.Debug("staged artifact", "environment", environment, "artifact", describe(dep.info), "sha256", d.SHA256, "bytes", d.Size)
	return d, true, nil
}
