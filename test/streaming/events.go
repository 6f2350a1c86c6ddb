package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"trestle/test/streaming/kafka"
)

// groups is what has come of a topic whose records have START COUNT as their values: a count by KEY START.
type groups struct {
	got   map[string]int
	total int
	// again are groups that came more than once.
	again []string
}

// take adds a record.
func (g *groups) take(r kafka.Record) error {
	start, count, _ := strings.Cut(r.Value, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return fmt.Errorf("the pipeline wrote a record %q", r.Value)
	}
	name := r.Key + " " + start
	if _, ok := g.got[name]; ok {
		g.again = append(g.again, name)
	}
	g.got[name] += n
	g.total += n
	return nil
}

// collect reads what a pipeline writes to a topic until it has counted as many records as went in.
func collect(ctx context.Context, b *kafka.Broker, topic string, records int) (groups, error) {
	g := groups{got: map[string]int{}}
	var wrong error
	err := b.Consume(ctx, topic, func(r kafka.Record) bool {
		wrong = g.take(r)
		return wrong != nil || g.total >= records
	})
	if err == nil {
		err = wrong
	}
	if err != nil {
		return g, fmt.Errorf("%d of %d records are counted: %w", g.total, records, err)
	}
	if len(g.again) > 0 {
		return g, fmt.Errorf("%d groups came more than once, such as %s", len(g.again), g.again[0])
	}
	return g, nil
}

// count counts records of a topic as it lies in the broker, by key and window of their own time, in seconds.
func count(ctx context.Context, b *kafka.Broker, topic string, records, window int) (map[string]int, error) {
	want := map[string]int{}
	n := 0
	err := b.Consume(ctx, topic, func(r kafka.Record) bool {
		start := r.Time.Unix() / int64(window) * int64(window)
		want[fmt.Sprintf("%s %d", r.Key, start)]++
		n++
		return n == records
	})
	return want, err
}

// someRecords are n records in each of the partitions named, of keys at random and with times that grow from first to last.
func someRecords(seed uint64, partitions []int, n, keys int, first, last time.Time) []kafka.Record {
	random := rand.New(rand.NewPCG(seed, 0))
	var all []kafka.Record
	for i := range n {
		for _, partition := range partitions {
			at := first.Add(time.Duration(float64(last.Sub(first)) * float64(i) / float64(n)))
			key := fmt.Sprintf("k%02d", random.IntN(keys))
			all = append(all, kafka.Record{Partition: partition, Key: key, Value: fmt.Sprintf("%s-%d", key, i), Time: at})
		}
	}
	return all
}
