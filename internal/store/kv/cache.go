package kv

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Cache bounds what the stores that share it keep in memory: the blocks that they have read, and as much again of changes that
// are in no file yet, of which a store may have a little whatever the others have (256 KiB, where the cache is not tiny).
// What is on its way to a file is besides that never less than one memory table (4 MiB at most, as long as there is little in
// it 256 KiB) a store. It is safe for concurrent use.
type Cache struct {
	blocks    *pebble.Cache
	bytes     int64
	unwritten atomic.Int64 // changes of all stores that are in no file
}

// NewCache makes a cache of about so many bytes. The caller closes it after the stores.
func NewCache(bytes int64) *Cache { return &Cache{blocks: pebble.NewCache(bytes), bytes: bytes} }

// floor is how much of changes a store may have whatever the others have.
func (c *Cache) floor() int64 { return min(256<<10, c.bytes/16) }

// Limit is about how many bytes the stores keep in memory together: blocks, and changes.
func (c *Cache) Limit() int64 { return 2 * c.bytes }

// Close frees the cache.
func (c *Cache) Close() { c.blocks.Unref() }
