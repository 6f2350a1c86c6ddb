// Package shuffle moves and groups encoded records in bounded memory: it cuts a harness's output into blocks per key
// group, groups blocks by key and window with an external sort, queues blocks between stages, and keeps side inputs and
// large groups in pages that can be read again.
//
// A [Budget] bounds the memory of all of a server's shuffles together; past it, they spill to files below a folder that
// belongs to the job. A spill file is unlinked as soon as it is open, so that none outlives the process, kill -9 included.
//
// # The way of a record
//
// A [Partitioner] takes what a harness wrote, hashes each key, and hands out blocks. Some engine carries them to the task
// that owns their key group, where a [Grouper] takes them in. When the input has ended, [Groups] go to the harness, or,
// for a multimap side input, into a [Table]. Records that are not keyed wait in a [Spool] for any task of the next stage,
// or, as an iterable side input, in [Pages].
//
// A bundle may fail when a part of what it wrote is on its way already, and its retry writes that again. So each block is
// of an [Attempt], and a grouper and a spool keep what an open attempt has brought apart until it is settled: from then on
// it counts, or it is gone. The sender holds nothing back.
//
// Nothing is decoded on this way, and no record is moved in memory to be sorted: the sort works on entries of 16 bytes.
//
// # Keyed blocks
//
// A keyed block is a run of entries, all of one key group:
//
//	entry := uvarint(len key) key  uvarint(len window) window  timestamp(8, big endian, as Beam's windowed-value header has it)
//	         uvarint(len value) value
//
// key, window and value are the bytes that the SDK wrote (nested encoding); a value in several windows has an entry for
// each. A uvarint takes as few bytes as possible. The runs of a grouper and the blocks of a table hold the same entries.
//
// # Spilled blocks
//
// On disk, entries and records are in blocks of about 128 KiB (a table's of 32 KiB), each with its checksum, compressed
// where that saves 30 % and more:
//
//	block := version(1) codec(1: 0 none, 1 S2) length(4) stored(4) crc(4) payload    numbers little endian
//
// A block that does not read back as it was written is an error with the file's folder and the block's offset.
package shuffle
