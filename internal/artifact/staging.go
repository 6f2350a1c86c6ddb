package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// patience is how long Resolved waits for a staging in which nothing moves. It covers what moves unseen: one large
// artifact on its way from scratch to a distant bucket.
const patience = 5 * time.Minute

// Staging takes jobs' artifacts from their clients into a store: the server of Beam's ArtifactStagingService. The
// package's documentation tells how it talks to the SDKs. Its methods may be called concurrently.
type Staging struct {
	jobpb.UnimplementedArtifactStagingServiceServer

	store *Store
	log   *slog.Logger

	mu       sync.Mutex
	sessions map[string]*session
}

// session is one job's staging; guarded by Staging.mu.
type session struct {
	token string
	// wanted is what Begin was given. It does not change.
	wanted map[string][]*pipepb.ArtifactInformation
	// result is what the harnesses shall be given; nil until staging has succeeded.
	result map[string][]*pipepb.ArtifactInformation
	// failed is why the latest attempt failed.
	failed error
	// attempt is the stream under way, if any.
	attempt *attempt
}

// NewStaging makes a staging service over a store.
func NewStaging(s *Store, log *slog.Logger) *Staging {
	return &Staging{store: s, log: log, sessions: map[string]*session{}}
}

// Begin expects a client to stage what the environments of a job depend on, under a token that is new. The artifacts
// stay the caller's, and must not change any more.
func (s *Staging) Begin(token string, byEnvironment map[string][]*pipepb.ArtifactInformation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[token] = &session{token: token, wanted: byEnvironment}
}

// Forget drops a token. A stream that is under way for it is ended; what it had put into the store stays there.
func (s *Staging) Forget(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session := s.sessions[token]; session != nil && session.attempt != nil {
		session.attempt.cancel(fmt.Errorf("the job of staging token %q is gone: %w", token, errForgotten))
	}
	delete(s.sessions, token)
}

// errForgotten ends a stream whose token was dropped.
var errForgotten = errors.New("it was cancelled, or removed, or the server is being stopped")

// Resolved tells what the harnesses of each environment shall be given. It waits for staging that is under way, until
// ctx ends or nothing has moved for some minutes. An SDK that has nothing to stage may never open the stream: then
// artifacts that the server has or can get without the client (embedded, URL, already in the store, packages by name)
// pass, and any other is an error that lists what is missing. When the client's last attempt failed, its error is
// returned. The result must not be modified.
func (s *Staging) Resolved(ctx context.Context, token string) (map[string][]*pipepb.ArtifactInformation, error) {
	result, err := s.resolved(ctx, token)
	if err != nil {
		return nil, fmt.Errorf("artifacts of the job with staging token %q: %w", token, err)
	}
	return result, nil
}

func (s *Staging) resolved(ctx context.Context, token string) (map[string][]*pipepb.ArtifactInformation, error) {
	for {
		s.mu.Lock()
		session := s.sessions[token]
		if session == nil {
			s.mu.Unlock()
			return nil, unknownToken(token)
		}
		result, failed, attempt := session.result, session.failed, session.attempt
		s.mu.Unlock()
		switch {
		case result != nil:
			return result, nil
		case attempt != nil:
			if err := attempt.wait(ctx); err != nil {
				return nil, err
			}
		case failed != nil:
			return nil, fmt.Errorf("staging failed: %w", failed)
		default:
			c := collector{store: s.store, log: s.log.With("token", token)}
			result, err := c.collect(ctx, session.wanted)
			if err != nil {
				return nil, err
			}
			s.mu.Lock()
			session.result = result
			s.mu.Unlock()
			return result, nil
		}
	}
}

// ReverseArtifactRetrievalService serves one client's stream.
func (s *Staging) ReverseArtifactRetrievalService(stream jobpb.ArtifactStagingService_ReverseArtifactRetrievalServiceServer) error {
	// At once, and even when nothing follows: TypeScript's client waits for the headers.
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "stage artifacts: the client closed the stream before it sent a staging token")
	}
	if err != nil {
		return err
	}
	token := first.GetStagingToken()
	log := s.log.With("token", token)
	session, attempt, err := s.begin(stream.Context(), token)
	if err != nil {
		return toStatus(fmt.Errorf("stage artifacts: %w", err))
	}
	if attempt == nil {
		log.Debug("artifacts are already staged")
		return nil
	}
	c := collector{store: s.store, log: log, client: newClient(attempt, stream)}
	result, err := c.collect(attempt.ctx, session.wanted)
	if err != nil && stream.Context().Err() != nil {
		err = fmt.Errorf("the client went away: %w", err)
	}
	s.end(session, attempt, result, err)
	if err != nil {
		log.Warn("staging failed", "error", err)
		return toStatus(fmt.Errorf("stage artifacts: %w", err))
	}
	log.Info("staged artifacts", "sent", c.sent, "bytes", c.bytes, "known", c.known)
	return nil
}

// begin registers a stream as its session's attempt; a nil attempt when there is nothing left to do. An earlier stream
// of the same session is ended first: its client has given it up, since it opened this one.
func (s *Staging) begin(ctx context.Context, token string) (*session, *attempt, error) {
	for {
		s.mu.Lock()
		session := s.sessions[token]
		if session == nil {
			s.mu.Unlock()
			return nil, nil, unknownToken(token)
		}
		if session.result != nil {
			s.mu.Unlock()
			return session, nil, nil
		}
		earlier := session.attempt
		if earlier == nil {
			session.attempt = newAttempt(ctx)
			attempt := session.attempt
			s.mu.Unlock()
			return session, attempt, nil
		}
		s.mu.Unlock()
		earlier.cancel(errors.New("the client began again on another stream"))
		select {
		case <-earlier.done:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

func (s *Staging) end(session *session, a *attempt, result map[string][]*pipepb.ArtifactInformation, err error) {
	s.mu.Lock()
	session.attempt, session.result, session.failed = nil, result, err
	s.mu.Unlock()
	a.cancel(nil)
	close(a.done)
}

func unknownToken(token string) error {
	return refuse(fmt.Errorf("no job is being prepared under staging token %q: call Prepare first, and stage to the same server, before the job is cancelled", token))
}
