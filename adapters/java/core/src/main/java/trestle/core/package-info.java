/**
 * The engine's side of the task contract over a socket, as docs/protocols/socket.md has it: frames,
 * credits, the worker's process, and the graph that a job is submitted as (docs/formats/job.md). It
 * knows no engine, no record and no window.
 */
package trestle.core;
