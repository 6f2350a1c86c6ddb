// Package kv is the ordered store in which tasks keep state: byte strings by byte strings, in the order of the keys' bytes. No
// key is empty.
//
// A [Store] is one task's; it lives as long as its process, since what makes state durable is a snapshot
// ([Store.Checkpoint]): there is no log, and files are not forced to disk. What a bundle changes is staged in an [Overlay]
// and reaches the store when the bundle has succeeded. All stores of a server share a [Cache], which bounds their memory.
//
// It stands on cockroachdb/pebble.
package kv
