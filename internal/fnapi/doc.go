// Package fnapi is the runner's side of Beam's Fn API: control, data, state, logging, provision and worker status,
// on one gRPC server for all jobs. A harness is known by the worker_id in its call's metadata.
//
// A [Server] is told which harness to expect; the [Session] it answers with lives from there until the harness is
// gone; it has one control and one data stream, and whoever opens another under its id is refused. Bundles
// run on a session; a lost harness fails its bundles with the reason, at once.
//
// Sources: beam_fn_api.proto, beam_provision_api.proto.
package fnapi
