// Package external starts harnesses that are not ours to run: a worker pool, or with LOOPBACK the submitting program
// itself, is asked for them (BeamFnExternalWorkerPool in beam_fn_api.proto).
package external

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"trestle/internal/kit/here"
)

const (
	// dial bounds one attempt to connect. An address that swallows packets is known as dead after it.
	dial = 5 * time.Second
	// answer bounds a call, connecting included. A pool starts a process or a thread in it: that is quick, or stuck.
	answer = 20 * time.Second
)

// Worker is a harness that a pool runs for us.
type Worker struct {
	id, address string
	conn        *grpc.ClientConn
	pool        fnpb.BeamFnExternalWorkerPoolClient
}

// Start asks the pool that the payload names for a worker that shall connect to endpoint. A pool that cannot be reached
// is an error within 5 seconds. The caller calls Stop, whatever becomes of the worker.
func Start(ctx context.Context, payload *pipepb.ExternalPayload, id, endpoint string) (*Worker, error) {
	address := payload.GetEndpoint().GetUrl()
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), // workers are near; a proxy for the web would hide what is wrong
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: dial}),
	)
	if err != nil {
		return nil, fmt.Errorf("worker pool address %q: %w", address, err)
	}
	w := &Worker{id: id, address: address, conn: conn, pool: fnpb.NewBeamFnExternalWorkerPoolClient(conn)}
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	here := &pipepb.ApiServiceDescriptor{Url: endpoint}
	resp, err := w.pool.StartWorker(ctx, &fnpb.StartWorkerRequest{
		WorkerId:          id,
		ControlEndpoint:   here,
		LoggingEndpoint:   here,
		ArtifactEndpoint:  here,
		ProvisionEndpoint: here,
		Params:            payload.GetParams(),
	})
	if err == nil && resp.GetError() != "" {
		err = fmt.Errorf("worker pool at %s refused to start a worker: %s", address, resp.GetError())
	} else if err != nil {
		err = w.explain(err)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return w, nil
}

// explain says of a failed call what failed, from where, and what a person can do.
func (w *Worker) explain(err error) error {
	s := status.Convert(err)
	reason := s.Message()
	if _, dialing, ok := strings.Cut(reason, "Error while dialing: "); ok {
		reason = strings.TrimSuffix(dialing, `"`) // gRPC's wrapping says nothing more
	}
	switch s.Code() {
	case codes.Unavailable:
		return fmt.Errorf("no worker pool answers at %s, tried from %s: %s: either the program that submitted the pipeline has ended (with LOOPBACK it is the worker), or the address cannot be reached from this host: name the pool in the environment config as this host sees it", w.address, here.Host(), reason)
	case codes.Unimplemented:
		return fmt.Errorf("what answers at %s is no Beam worker pool: %s: the environment config must name a worker pool's host:port", w.address, reason)
	case codes.DeadlineExceeded:
		return fmt.Errorf("the worker pool at %s did not answer within %v, asked from %s: is it stuck?", w.address, answer, here.Host())
	default:
		return fmt.Errorf("ask the worker pool at %s for a worker: %w", w.address, err)
	}
}

// Lost says what a broken connection of the worker means.
func (w *Worker) Lost(cause error) error {
	return fmt.Errorf("the worker that %s runs is gone: the process ended, or the network between it and %s broke: %w", w.address, here.Host(), cause)
}

// Stop asks the pool to end the worker, and returns when it has answered or cannot be reached. A pool that is gone, or
// knows the worker no more, is as good: there is nothing left to stop. Any other refusal is an error.
func (w *Worker) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	_, err := w.pool.StopWorker(ctx, &fnpb.StopWorkerRequest{WorkerId: w.id})
	// The answer's own error text is ignored: the SDKs' pools use it for workers that they know no more.
	switch status.Code(err) {
	case codes.OK, codes.Unavailable, codes.Unimplemented:
		err = nil
	default:
		err = fmt.Errorf("ask the worker pool at %s to stop worker %s: %w", w.address, w.id, err)
	}
	return errors.Join(err, w.conn.Close())
}
