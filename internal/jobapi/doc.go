// Package jobapi is Beam's JobService (beam_job_api.proto) as the Java, Python, Go and TypeScript clients call it.
//
// Each job has a folder, Dir/jobs/<job id>/, with the pipeline as it was submitted and an event log, in which everything
// that can be asked about the job later is written: its states, messages and metrics. The log is what streams read, so a
// late reader sees all of it, a slow one holds up nobody, and a restarted server still knows its jobs. Package job has
// the log's records and what may follow what; package journal keeps them in a file.
//
// # What the clients need
//
//   - A preparation id is not a job id. Python's client opens its streams before it calls Run when the preparation id
//     is good for that, and then with a deadline that ends the client's wait for any job that runs longer. With an id
//     of its own it opens them after Run, without one.
//   - Java's client polls the state every three seconds: the first GetState after Run is answered late, see
//     [FirstStateWait]. It shows the first message of importance ERROR, Python's the last one, and Go's the last one
//     before the state FAILED: an engine should send exactly one.
//   - Status messages travel in HTTP/2 trailers, which Python's and Java's clients refuse past 8 KiB, with an error that
//     hides the message: texts are bounded, at a line's end, and say how much is left out. The server's log has all.
//   - Pipelines are larger than gRPC's 4 MiB: serve with fnapi.ServerOptions.
package jobapi
