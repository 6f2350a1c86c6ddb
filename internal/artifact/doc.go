// Package artifact keeps what a pipeline's harnesses need (jars, wheels, a worker binary) and hands it out: staging
// takes artifacts from the SDK, a store keeps each once under its sha256, retrieval serves the harnesses, and [Fetch] is
// the harness's side of it. On hosts where nothing was staged, a [Source] stands in for the store.
//
// # Staging
//
// The protocol is Beam's ArtifactStagingService (beam_artifact_api.proto): one stream on which the roles are swapped.
// The client opens it and names the job by its staging token; then the server asks ("resolve these", "get this one") and
// the client answers, until the server ends the stream. What the four SDKs' clients have in common is less than what
// the proto allows, so that [Staging] asks
//
//   - for one artifact at a time: TypeScript's client answers requests concurrently, and chunks of two would mingle;
//   - for files only: the Go client gives up on any other type, TypeScript's and Java's on a URL;
//   - with its response headers sent at once: TypeScript's client waits for them, and a stream that ends without a single
//     message (nothing to stage) would never bring them; it hangs there on runners that do not;
//   - in requests well under 4 MB, which is what Python's client takes: embedded artifacts are never sent back.
//
// An artifact's end is a message with is_last set, with or without bytes; an empty message without it means nothing.
// A client may try again after a failure, as Go's does, on a new stream with the same token.
//
// # Types
//
// After staging there are only artifacts that a harness anywhere can use: file artifacts whose path is their sha256, for
// what was a file, embedded or an http(s) URL (fetched by the server: pinned for the job's life, and the harness's host
// may have no way out); and pypi and maven artifacts, which name a package for the harness to install. A deferred
// artifact means something only to the expansion service that made it, which the client has to ask.
//
// # Layout
//
// An artifact is the object artifacts/<sha256 in lower-case hex> of the bucket, its bytes as they are. Nothing else is
// kept: which jobs need which artifacts is in the jobs' own records. The address is the content, so the layout has no
// version; another digest would be another folder's worth of names.
//
// # Message sizes
//
// A gRPC server that offers [Staging] must accept messages of tens of megabytes (grpc.MaxRecvMsgSize; the default is
// 4 MB): clients choose the size of their chunks (Go 1 MiB, Java and Python 2 MiB, others more). What this package
// sends stays near 1 MiB, except that [Retrieval] answers a resolution with the artifacts that it was asked about.
package artifact
