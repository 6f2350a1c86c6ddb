package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	proc "trestle/test/process"
	"trestle/test/streaming/kafka"
)

// A window of the Kafka pipelines, in seconds.
const kafkaWindow = 5

// kafkaCase is a pipeline that counts a topic's records by key and window, and writes the counts to another.
type kafkaCase struct {
	name string
	// argv is the pipeline's command, but for what all have.
	argv []string
	// policy is Beam's name of what time a record has.
	policy string
	// partitions of the topic; the last is empty where empty says so.
	partitions int
	empty      bool
	// stamped: times are the broker's, of when it got the record.
	stamped bool
	// commits: the offsets of all that was read are committed soon after it was. KafkaIO for Python commits those of
	// windows of 5 minutes, once these have ended.
	commits bool
	// unsafe: no snapshot is taken, so that no offset may be committed.
	unsafe bool
}

// kafkaPipelines runs KafkaIO from Python and from Java, with and without a partition that nobody writes to.
func (f *flags) kafkaPipelines(ctx context.Context) error {
	return f.withKafka(ctx, nil, f.kafkaCases)
}

// withKafka calls work with a broker, a server, and the address of an expansion service, which end when it does.
func (f *flags) withKafka(ctx context.Context, serve []string, work func(_ context.Context, _ *kafka.Broker, _ *proc.Server, expansion string) error) error {
	if f.kafka == "" || f.java == "" {
		return errors.New("-kafka and -java are needed; the Makefile's targets give them")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := kafka.Start(ctx, f.kafka, filepath.Join(f.dir, "kafka"))
	if err != nil {
		return err
	}
	s, err := proc.Serve(ctx, f.trestle, f.dir, append([]string{"--verbose", "--container-instead", javaInstead}, serve...)...)
	if err != nil {
		return errors.Join(err, b.Stop())
	}
	expansion, gone, err := f.expansionService(ctx)
	if err == nil {
		err = work(ctx, b, s, expansion)
	}
	err = errors.Join(err, s.Stop(), b.Stop())
	cancel()
	<-gone
	return err
}

// javaInstead is what takes the place of the image that the expansion service names.
const javaInstead = "apache/beam_java*=trestle boot java --heap 256m"

// timed tells how long something took, and how it went.
func (f *flags) timed(name string, do func() error) error {
	began := time.Now()
	err := do()
	outcome := "ok"
	if err != nil {
		outcome = "FAILED"
		err = fmt.Errorf("%s: %w", name, err)
	}
	fmt.Printf("%-24s %6.1f s  %s\n", name, time.Since(began).Seconds(), outcome)
	return err
}

func (f *flags) kafkaCases(ctx context.Context, b *kafka.Broker, s *proc.Server, expansion string) error {
	python := []string{filepath.Join(f.python, "bin", "python"), filepath.Join(f.source, "python", "kafka.py"), "--expansion_service", expansion,
		"--runner=PortableRunner", "--job_endpoint=ENDPOINT"}
	loopback := append(python[:len(python):len(python)], "--environment_type=LOOPBACK")
	process := append(python[:len(python):len(python)], "--environment_type=PROCESS",
		`--environment_config={"command": "trestle boot python --python `+python[0]+`"}`)
	java := []string{"java", "-Xmx256m", "-cp", filepath.Join(f.java, "classes") + ":" + filepath.Join(f.java, "lib", "*"), "trestle.streaming.Kafka",
		"--runner=PortableRunner", "--jobEndpoint=ENDPOINT"}
	javaProcess := append(java[:len(java):len(java)], "--defaultEnvironmentType=PROCESS", `--defaultEnvironmentConfig={"command": "trestle boot java --heap 256m"}`)
	java = append(java, "--defaultEnvironmentType=LOOPBACK")
	var errs []error
	for _, c := range []kafkaCase{
		{name: "python-loopback", argv: loopback, policy: "CreateTime", partitions: 3, commits: true},
		{name: "python-process", argv: process, policy: "CreateTime", partitions: 3, commits: true},
		{name: "python-empty-partition", argv: loopback, policy: "LogAppendTime", partitions: 4, empty: true, stamped: true},
		{name: "java", argv: java, policy: "CreateTime", partitions: 3, commits: true},
		{name: "java-process", argv: javaProcess, policy: "CreateTime", partitions: 3, commits: true},
		{name: "java-empty-partition", argv: java, policy: "LogAppendTime", partitions: 4, empty: true, stamped: true, commits: true},
		{name: "python-unsafe", argv: loopback, policy: "CreateTime", partitions: 1, unsafe: true},
		{name: "java-unsafe", argv: java, policy: "CreateTime", partitions: 1, unsafe: true},
	} {
		if f.only != "" && !strings.Contains(c.name, f.only) {
			continue
		}
		errs = append(errs, f.timed(c.name, func() error { return c.on(ctx, f, b, s) }))
	}
	return errors.Join(errs...)
}

// on runs the case on a server, or on one of its own where it has to be another.
func (c kafkaCase) on(ctx context.Context, f *flags, b *kafka.Broker, s *proc.Server) (err error) {
	if c.unsafe {
		dir := filepath.Join(f.dir, c.name)
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "log"), 0o755)); err != nil {
			return err
		}
		if s, err = proc.Serve(ctx, f.trestle, dir, "--verbose", "--container-instead", javaInstead, "--snapshots", "24h"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
	}
	argv := slices.Clone(c.argv)
	for i := range argv {
		argv[i] = strings.Replace(argv[i], "ENDPOINT", s.Endpoint, 1)
	}
	c.argv = argv
	return c.run(ctx, f, b)
}

// run runs the pipeline until it has told of all windows, and cancels it: a topic has no end.
func (c kafkaCase) run(ctx context.Context, f *flags, b *kafka.Broker) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("not done after %v", f.timeout))
	defer cancel()
	in, out := c.name+"-in", c.name+"-out"
	times := "CreateTime"
	if c.stamped {
		times = "LogAppendTime"
	}
	if err := errors.Join(b.Create(ctx, in, c.partitions, times), b.Create(ctx, out, 1, "CreateTime")); err != nil {
		return err
	}
	filled := c.partitions
	if c.empty {
		filled--
	}
	var partitions []int
	for i := range filled {
		partitions = append(partitions, i)
	}
	// Records with times of their own are there before the pipeline is: once it has read a partition to its end, KafkaIO
	// says that it is as far as the clock, and what came then with an earlier time would be late. Where the broker tells
	// the time, most come while the pipeline runs.
	const each, keys = 5000, 20
	now := time.Now()
	records := someRecords(1, partitions, each, keys, now.Add(-10*time.Minute), now.Add(-9*time.Minute))
	later := 0
	if c.stamped {
		later = len(records) / 10 * 9
	}
	if err := b.Produce(ctx, in, records[later:]...); err != nil {
		return err
	}
	pipeline, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- proc.Run{
			Argv: append(c.argv[:len(c.argv):len(c.argv)], "--bootstrap="+b.Address, "--topic="+in, "--out="+out, "--policy="+c.policy,
				"--window="+strconv.Itoa(kafkaWindow), "--group="+c.name),
			Log: filepath.Join(f.dir, "log", c.name+".log"),
		}.Do(pipeline)
	}()
	fed := make(chan error, 1)
	go func() { fed <- feed(pipeline, b, in, records[:later]) }()
	counted := make(chan error, 1)
	var got groups
	go func() {
		var err error
		got, err = collect(pipeline, b, out, len(records))
		counted <- err
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("the pipeline ended by itself: %w", err)
	case err := <-counted:
		if err == nil && c.commits {
			err = committed(ctx, b, c.name, in, partitions, each)
		}
		if err == nil && c.unsafe {
			err = uncommitted(ctx, b, c.name, in)
		}
		stop()
		if end := <-ended; !errors.Is(end, context.Canceled) {
			return fmt.Errorf("the pipeline did not run until it was stopped: %w", errors.Join(end, err))
		}
		if err = errors.Join(<-fed, err); err != nil {
			return err
		}
	}
	want, err := count(ctx, b, in, len(records), kafkaWindow)
	if err != nil {
		return err
	}
	return compare(c.name, got.got, want)
}

// committed waits until a group has committed what was read of each of a topic's partitions, all n records of it.
func committed(ctx context.Context, b *kafka.Broker, group, topic string, partitions []int, n int64) error {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		at, err := b.Committed(ctx, group, topic)
		if err != nil {
			return err
		}
		all := true
		for _, partition := range partitions {
			switch {
			case at[partition] > n:
				return fmt.Errorf("group %s has committed offset %d of partition %d, which has %d records", group, at[partition], partition, n)
			case at[partition] < n:
				all = false
			}
		}
		if all {
			fmt.Printf("%s: the offsets of all records are committed\n", group)
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("group %s has committed offsets %v of %d records in each of the partitions %v: %w", group, at, n, partitions, context.Cause(ctx))
		}
	}
}

// uncommitted looks whether a group has committed nothing of a topic, a while after all of it was counted.
func uncommitted(ctx context.Context, b *kafka.Broker, group, topic string) error {
	select {
	case <-time.After(10 * time.Second): // longer than the others need, which commit
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	at, err := b.Committed(ctx, group, topic)
	if err == nil && len(at) > 0 {
		err = fmt.Errorf("group %s has committed offsets %v, and no snapshot was taken", group, at)
	}
	return err
}

// expansionService starts Beam's, with KafkaIO, and returns where it listens. It ends with ctx; gone is closed when it has.
func (f *flags) expansionService(ctx context.Context) (at string, gone <-chan struct{}, err error) {
	over := make(chan struct{})
	free, err := kafka.FreeAddresses(1)
	if err != nil {
		close(over)
		return "", over, err
	}
	at = free[0]
	port := at[strings.LastIndexByte(at, ':')+1:]
	log := filepath.Join(f.dir, "log", "expansion.log")
	ended := make(chan error, 1)
	go func() {
		defer close(over)
		ended <- proc.Run{
			Argv: []string{"java", "-Xmx256m", "-cp", filepath.Join(f.java, "lib", "*"), "org.apache.beam.sdk.expansion.service.ExpansionService", port},
			Log:  log,
		}.Do(ctx)
	}()
	return at, over, await(ctx, at, ended)
}

// await waits until something listens at an address.
func await(ctx context.Context, at string, ended <-chan error) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at); err == nil {
			return conn.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the expansion service ended: %w", err)
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// feed appends records to a topic, a few at a time.
func feed(ctx context.Context, b *kafka.Broker, topic string, records []kafka.Record) error {
	const waves = 10
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for some := range slices.Chunk(records, max(1, len(records)/waves)) {
		if err := b.Produce(ctx, topic, some...); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
