// Package streaming runs a streaming plan on the embedded engine: all stages at once, with watermarks between them.
//
// Each task has one goroutine, which makes all calls of the task contract, and an inbox: blocks and watermarks of all its
// senders in the order in which they came, so that a watermark never overtakes the records before it. What a bundle has
// put out reaches the inboxes when the bundle has succeeded, all at once. A task's watermark of an input is the least of
// what the tasks that send to it have said.
//
// Back-pressure: a task begins nothing new while an inbox that it sends to is full. A task never waits for anything else
// than those behind it, and plans have no cycle: so the last full inbox is always being emptied. What one bundle puts out
// may exceed a full inbox's bound; it is then on disk (shuffle.Spool).
//
// The job has ended when every task has said that it is quiet: the watermark at the end of time is the mark that nothing
// more will come.
package streaming
