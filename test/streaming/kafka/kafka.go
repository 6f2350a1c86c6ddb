// Package kafka runs a Kafka broker of one node, in KRaft mode, and speaks to it: a real one, from Maven's jars.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	proc "trestle/test/process"
)

// patience is how long a broker may take to start, and to stop.
const patience = 5 * time.Minute

// Broker is a running broker. Its methods may be used concurrently.
type Broker struct {
	// Address is its host:port, for bootstrap.servers.
	Address string

	cmd    *exec.Cmd
	log    string
	client *kgo.Client
	admin  *kadm.Client
	// ended is closed when the process has ended, with how in err.
	ended chan struct{}
	err   error
}

const properties = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=%[3]s
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
`

// Start starts a broker with an empty log below dir, and waits until it answers. lib is the folder with Kafka's jars.
// ctx's end kills it; whoever starts it calls Stop.
func Start(ctx context.Context, lib, dir string) (*Broker, error) {
	logs := filepath.Join(dir, "logs")
	if err := errors.Join(os.RemoveAll(logs), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}
	listen, err := FreeAddresses(2)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(config, fmt.Appendf(nil, properties, listen[0], listen[1], logs), 0o644); err != nil {
		return nil, err
	}
	java := func(class string, args ...string) []string {
		return append([]string{"java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(lib, "*"), class}, args...)
	}
	format := proc.Run{
		Argv: java("kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", config),
		Log:  filepath.Join(dir, "format.log"),
	}
	if err := format.Do(ctx); err != nil {
		return nil, fmt.Errorf("format a Kafka log: %w", err)
	}
	b := &Broker{Address: listen[0], log: filepath.Join(dir, "broker.log"), ended: make(chan struct{})}
	file, err := os.Create(b.log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	argv := java("kafka.Kafka", config)
	b.cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	b.cmd.Stdout, b.cmd.Stderr = file, file
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Kafka: %w", err)
	}
	go func() {
		b.err = b.cmd.Wait()
		close(b.ended)
	}()
	if err := b.up(ctx); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

// up waits until the broker answers.
func (b *Broker) up(ctx context.Context) error {
	var err error
	b.client, err = kgo.NewClient(kgo.SeedBrokers(b.Address), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	b.admin = kadm.NewClient(b.client)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the Kafka broker at %s did not answer within %v", b.Address, patience))
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if err = b.client.Ping(ctx); err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-b.ended:
			return fmt.Errorf("the Kafka broker ended: %w\n%s", b.err, proc.Tail(b.log))
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)\n%s", context.Cause(ctx), err, proc.Tail(b.log))
		}
	}
}

// Stop ends the broker; nothing of it runs afterwards.
func (b *Broker) Stop() error {
	if b.client != nil {
		b.client.Close()
	}
	select {
	case <-b.ended:
		return fmt.Errorf("the Kafka broker had ended: %w\n%s", b.err, proc.Tail(b.log))
	default:
	}
	// A log that is thrown away need not be closed well.
	if err := syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop Kafka: %w", err)
	}
	<-b.ended
	return nil
}

// Create makes a topic. times is whose time its records have, as Kafka calls it: CreateTime or LogAppendTime.
func (b *Broker) Create(ctx context.Context, topic string, partitions int, times string) error {
	_, err := b.admin.CreateTopic(ctx, int32(partitions), 1, map[string]*string{"message.timestamp.type": &times}, topic)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return nil
}

// Record is one of a topic.
type Record struct {
	Partition  int
	Key, Value string
	// Time is the record's own; zero for now.
	Time time.Time
}

// Produce appends records to a topic, and waits until they are in it.
func (b *Broker) Produce(ctx context.Context, topic string, records ...Record) error {
	all := make([]*kgo.Record, len(records))
	for i, r := range records {
		all[i] = &kgo.Record{Topic: topic, Partition: int32(r.Partition), Key: []byte(r.Key), Value: []byte(r.Value), Timestamp: r.Time}
	}
	if err := b.client.ProduceSync(ctx, all...).FirstErr(); err != nil {
		return fmt.Errorf("produce to %s: %w", topic, err)
	}
	return nil
}

// Consume gives each record of a topic to take, from the first on, as it comes, until take says that it has enough.
func (b *Broker) Consume(ctx context.Context, topic string, take func(Record) (enough bool)) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Address), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return fmt.Errorf("consume %s: %w", topic, errors.Join(err, context.Cause(ctx)))
		}
		for _, r := range fetched.Records() {
			if take(Record{Partition: int(r.Partition), Key: string(r.Key), Value: string(r.Value), Time: r.Timestamp}) {
				return nil
			}
		}
	}
}

// Len is how many records a topic has, all partitions together, of one that has never lost any.
func (b *Broker) Len(ctx context.Context, topic string) (n int64, err error) {
	ends, err := b.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("ends of topic %s: %w", topic, err)
	}
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n, nil
}

// All is each record that is in a topic now.
func (b *Broker) All(ctx context.Context, topic string) ([]Record, error) {
	n, err := b.Len(ctx, topic)
	if err != nil || n == 0 {
		return nil, err
	}
	var all []Record
	err = b.Consume(ctx, topic, func(r Record) bool {
		all = append(all, r)
		return int64(len(all)) == n
	})
	return all, err
}

// Committed is the offset that a consumer group has committed of each partition of a topic that it has one of.
func (b *Broker) Committed(ctx context.Context, group, topic string) (map[int]int64, error) {
	offsets, err := b.admin.FetchOffsets(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", group, err)
	}
	committed := map[int]int64{}
	for partition, o := range offsets[topic] {
		committed[int(partition)] = o.At
	}
	return committed, nil
}

// FreeAddresses are addresses of this machine at which nothing listens, for programs that are told where to listen.
func FreeAddresses(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all, nil
}
