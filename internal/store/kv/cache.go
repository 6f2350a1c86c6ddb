package kv

import "github.com/cockroachdb/pebble/v2"

// Cache bounds what the stores that share it keep in memory: the blocks that they have read, and what they have not yet
// written to files, which is never less than one memory table (4 MiB at most, as long as there is little in it 256 KiB) a
// store. It is safe for concurrent use.
type Cache struct{ blocks *pebble.Cache }

// NewCache makes a cache of about so many bytes. The caller closes it after the stores.
func NewCache(bytes int64) *Cache { return &Cache{pebble.NewCache(bytes)} }

// Close frees the cache.
func (c *Cache) Close() { c.blocks.Unref() }
