// Command worker is a harness for tests of containers: it keeps Beam's container contract as far as to connect, and does
// what TRESTLE_TEST_PART says.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

func main() {
	flags := map[string]string{}
	for _, arg := range os.Args[1:] {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		flags[name] = value
	}
	fmt.Println("worker", flags["id"])
	switch part := os.Getenv("TRESTLE_TEST_PART"); part {
	case "", "connect": // a harness without work
		connect(flags, func() {})
	case "exit": // with last words on both streams
		for i := range 80 {
			fmt.Println("last words", i)
		}
		fmt.Fprintln(os.Stderr, "the very last words")
		os.Exit(3)
	case "log": // as boot programs give up: the reason goes through the Fn API
		giveUp(flags)
	case "silent":
		<-time.After(time.Hour)
	case "eat": // memory, once it has dialled
		connect(flags, eat)
	case "eat-child": // a child does, as boot programs' workers do
		if flags["eat"] != "" {
			eat()
		}
		child := exec.Command(os.Args[0], "--eat=yes")
		child.Stderr = os.Stderr
		fmt.Println("the worker ended:", child.Run())
		// docker hears of memory that ran out and of a container's end by ways of their own, and of the first no more when the
		// second was quicker: in one of 25 runs on a busy machine.
		<-time.After(time.Second)
		os.Exit(1)
	default:
		fmt.Println("no part is called", part)
		os.Exit(2)
	}
}

// connect holds a control stream until it ends.
func connect(flags map[string]string, connected func()) {
	conn, err := grpc.NewClient(flags["control_endpoint"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fail(err)
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "worker_id", flags["id"])
	stream, err := fnpb.NewBeamFnControlClient(conn).Control(ctx, grpc.WaitForReady(true))
	if err != nil {
		fail(err)
	}
	connected()
	_, err = stream.Recv()
	fmt.Println("the connection ended:", err)
}

func giveUp(flags map[string]string) {
	conn, err := grpc.NewClient(flags["logging_endpoint"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fail(err)
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "worker_id", flags["id"])
	stream, err := fnpb.NewBeamFnLoggingClient(conn).Logging(ctx)
	if err != nil {
		fail(err)
	}
	entry := &fnpb.LogEntry{Severity: fnpb.LogEntry_Severity_CRITICAL, Message: "no such artifact\nneither here nor there"}
	if err := stream.Send(&fnpb.LogEntry_List{LogEntries: []*fnpb.LogEntry{entry}}); err != nil {
		fail(err)
	}
	if err := stream.CloseSend(); err != nil {
		fail(err)
	}
	_, err = stream.Recv() // the server's end of it: all was taken
	fmt.Println("the log ended:", err)
	os.Exit(1)
}

// eat takes memory until there is none.
func eat() {
	var eaten [][]byte
	for {
		bite := make([]byte, 1<<20)
		for i := range bite {
			bite[i] = byte(i)
		}
		eaten = append(eaten, bite)
		if len(eaten)%64 == 0 {
			fmt.Fprintln(os.Stderr, len(eaten), "MiB eaten")
		}
	}
}

func fail(err error) {
	fmt.Println(err)
	os.Exit(4)
}
