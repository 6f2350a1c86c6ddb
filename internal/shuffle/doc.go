// Package shuffle moves and groups encoded records in bounded memory: it cuts a harness's output into blocks per key
// group, groups blocks by key and window with an external sort, queues blocks between stages, and keeps side inputs and
// large groups in pages that can be read again.
//
// A [Budget] bounds the memory of all of a server's shuffles together; past it, they spill to files below a folder that
// belongs to the job. A spill file is unlinked as soon as it is open, so that none outlives the process, kill -9 included.
//
// # Keyed blocks
//
// A keyed block is a run of entries, all of one key group:
//
//	entry := uvarint(len key) key  uvarint(len window) window  timestamp(8, big endian, as Beam's windowed-value header has it)
//	         uvarint(len value) value
//
// key, window and value are the bytes that the SDK wrote (nested encoding); a value in several windows has an entry for each.
package shuffle
