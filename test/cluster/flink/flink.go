// Package flink runs a real Flink session cluster on the hosts of a test cluster: a JobManager and TaskManagers, each in a
// JVM of its own, killed and started again at will; and asks its REST API what a test wants to know.
package flink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trestle/test/cluster"
)

// restPort is Flink's own; a plain host has addresses enough.
const restPort = 8081

// Options are what a Flink cluster is like.
type Options struct {
	// Home is the folder whose lib has Flink's jars.
	Home string
	// JobManager is the host of that part; TaskManagers are the hosts of these.
	JobManager   *cluster.Host
	TaskManagers []*cluster.Host
	// Slots is the number of task slots of a TaskManager; 2 when it is 0.
	Slots int
	// Memory is what a TaskManager has; DefaultMemory when it is the zero value.
	Memory Memory
	// Config adds to Flink's configuration, or replaces what is set here.
	Config map[string]string
	// JVM are further options of every JVM; Env adds to the environment of all.
	JVM, Env []string
}

// Memory are the parts of a TaskManager's memory that jobs have different wants of, in MB.
type Memory struct{ TaskHeap, Network, Managed, Metaspace int }

// DefaultMemory is enough for four pipelined stages in 2 slots; most of it is touched by big jobs only. A blocking exchange
// takes 16 MB of Network for each task that feeds it.
var DefaultMemory = Memory{TaskHeap: 256, Network: 160, Managed: 64, Metaspace: 128}

// The other parts, in MB. Started without Flink's scripts, a TaskManager computes none of them and wants each set.
const (
	jobManagerHeap  = 320
	frameworkHeap   = 64
	frameworkDirect = 64
	taskDirect      = 64
	overhead        = 64
)

// Flink is a running session cluster. It is for use by one goroutine.
type Flink struct {
	options Options
	client  *http.Client
	// jobManager and taskManagers, by their hosts' names, are what was started last; dead ones included.
	jobManager   *cluster.Process
	taskManagers map[string]*cluster.Process
}

// Start starts all parts, and waits until all slots are there.
func Start(ctx context.Context, o Options) (*Flink, error) {
	f := attach(o)
	if _, err := os.Stat(filepath.Join(o.Home, "lib")); err != nil {
		return nil, fmt.Errorf("no Flink there: %w", err)
	}
	if err := f.StartJobManager(); err != nil {
		return nil, err
	}
	for _, h := range o.TaskManagers {
		if err := f.StartTaskManager(h); err != nil {
			return nil, err
		}
	}
	return f, f.Await(ctx)
}

// Attach finds a Flink that was started on hosts that are kept.
func Attach(o Options) (*Flink, error) {
	f := attach(o)
	var err error
	if f.jobManager, err = o.JobManager.Process("jobmanager"); err != nil {
		return nil, err
	}
	for _, h := range o.TaskManagers {
		if f.taskManagers[h.Name], err = h.Process("taskmanager"); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func attach(o Options) *Flink {
	if o.Slots == 0 {
		o.Slots = 2
	}
	if o.Memory == (Memory{}) {
		o.Memory = DefaultMemory
	}
	return &Flink{options: o, taskManagers: map[string]*cluster.Process{},
		client: &http.Client{Transport: &http.Transport{}}}
}

// URL is where the hosts find Flink's REST API.
func (f *Flink) URL() string {
	return fmt.Sprintf("http://%s:%d", f.options.JobManager.Address(), restPort)
}

// JobManager is its process.
func (f *Flink) JobManager() *cluster.Process { return f.jobManager }

// TaskManager is the process of the one on a host.
func (f *Flink) TaskManager(h *cluster.Host) *cluster.Process { return f.taskManagers[h.Name] }

// StartJobManager starts one, which the caller has seen to have no living predecessor.
func (f *Flink) StartJobManager() (err error) {
	f.jobManager, err = f.launch(f.options.JobManager, "jobmanager", []string{fmt.Sprintf("-Xmx%dm", jobManagerHeap)},
		"org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint")
	return err
}

// StartTaskManager starts one on a host, which the caller has seen to have none that lives.
func (f *Flink) StartTaskManager(h *cluster.Host) (err error) {
	// A name that no earlier one on the host had, so that one can wait until Flink has this one, and misses that one.
	id := fmt.Sprintf("%s-%d", h.Name, time.Now().UnixMilli())
	f.taskManagers[h.Name], err = f.launch(h, "taskmanager", []string{
		fmt.Sprintf("-Xmx%dm", frameworkHeap+f.options.Memory.TaskHeap),
		fmt.Sprintf("-XX:MaxDirectMemorySize=%dm", frameworkDirect+taskDirect+f.options.Memory.Network),
	}, "org.apache.flink.runtime.taskexecutor.TaskManagerRunner", "-D", resourceID+id)
	return err
}

const resourceID = "taskmanager.resource-id="

// launch writes the part's configuration on its host and starts its JVM.
func (f *Flink) launch(h *cluster.Host, part string, jvm []string, class string, arguments ...string) (*cluster.Process, error) {
	folder := filepath.Join(h.Dir(), "flink")
	conf := filepath.Join(folder, "conf-"+part)
	for _, dir := range []string{conf, filepath.Join(folder, "tmp")} {
		if err := os.MkdirAll(h.Outside(dir), 0o755); err != nil {
			return nil, err
		}
	}
	for name, text := range map[string]string{"config.yaml": f.config(h, folder), "log4j.properties": logging} {
		if err := os.WriteFile(h.Outside(filepath.Join(conf, name)), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	java, err := javaCommand()
	if err != nil {
		return nil, err
	}
	home, err := filepath.Abs(f.options.Home)
	if err != nil {
		return nil, err
	}
	argv := slices.Concat([]string{java}, jvm,
		[]string{fmt.Sprintf("-XX:MaxMetaspaceSize=%dm", f.options.Memory.Metaspace), "-XX:+UseSerialGC",
			"-Djava.io.tmpdir=" + filepath.Join(folder, "tmp"),
			"-Dlog4j.configurationFile=" + filepath.Join(conf, "log4j.properties")},
		openModules(), f.options.JVM,
		[]string{"-cp", filepath.Join(home, "lib", "*"), class, "--configDir", conf}, arguments)
	return h.Start(cluster.Command{Name: part, Argv: argv, Env: f.options.Env, Dir: folder})
}

func javaCommand() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return filepath.Join(home, "bin", "java"), nil
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("Flink needs a Java: %w", err)
	}
	return java, nil
}

// config is Flink's configuration on a host.
func (f *Flink) config(h *cluster.Host, folder string) string {
	mb := func(n int) string { return fmt.Sprintf("%dm", n) }
	memory, jobManager := f.options.Memory, f.options.JobManager.Address()
	// The REST handlers of 1.20 look for the JobManager's blob server at localhost, wherever it is: it must listen everywhere.
	// On plain hosts so does every cluster's; then their ports differ as their addresses do.
	bind, rpcPort := "0.0.0.0", 6123
	if ip := h.IP.As4(); ip[0] == 127 {
		rpcPort = 10000 + (int(ip[1])<<8|int(ip[2]))%20000
	}
	config := map[string]string{
		"jobmanager.rpc.address":                     jobManager,
		"jobmanager.rpc.port":                        fmt.Sprint(rpcPort),
		"jobmanager.bind-host":                       bind,
		"rest.address":                               jobManager,
		"rest.bind-address":                          h.IP.String(),
		"rest.port":                                  fmt.Sprint(restPort),
		"taskmanager.host":                           h.Address(),
		"taskmanager.bind-host":                      h.IP.String(),
		"taskmanager.numberOfTaskSlots":              fmt.Sprint(f.options.Slots),
		"taskmanager.cpu.cores":                      fmt.Sprintf("%d.0", f.options.Slots),
		"io.tmp.dirs":                                filepath.Join(folder, "tmp"),
		"web.upload.dir":                             filepath.Join(folder, "tmp", "upload"),
		"parallelism.default":                        "1",
		"taskmanager.memory.framework.heap.size":     mb(frameworkHeap),
		"taskmanager.memory.framework.off-heap.size": mb(frameworkDirect),
		"taskmanager.memory.task.heap.size":          mb(memory.TaskHeap),
		"taskmanager.memory.task.off-heap.size":      mb(taskDirect),
		"taskmanager.memory.network.min":             mb(memory.Network),
		"taskmanager.memory.network.max":             mb(memory.Network),
		"taskmanager.memory.managed.size":            mb(memory.Managed),
		"taskmanager.memory.jvm-metaspace.size":      mb(memory.Metaspace),
		"taskmanager.memory.jvm-overhead.min":        mb(overhead),
		"taskmanager.memory.jvm-overhead.max":        mb(overhead),
		// Both TaskManagers are to work: the first name is of old versions.
		"cluster.evenly-spread-out-slots": "true",
		"taskmanager.load-balance.mode":   "SLOTS",
		// A TaskManager that starts before the JobManager listens would wait ten seconds.
		"cluster.registration.error-delay": "250",
		// One that is killed is missed after seconds, and not after a minute.
		"heartbeat.interval": "1000",
		"heartbeat.timeout":  "10000",
		// Operators and hosts are looked up by name while the job runs.
		"metrics.fetcher.update-interval": "500",
		"web.refresh-interval":            "500",
	}
	maps.Copy(config, f.options.Config)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(config)) {
		fmt.Fprintf(&b, "%s: %s\n", key, config[key])
	}
	return b.String()
}

const logging = `rootLogger.level = INFO
rootLogger.appenderRef.c.ref = C
appender.c.name = C
appender.c.type = CONSOLE
appender.c.layout.type = PatternLayout
appender.c.layout.pattern = %d{HH:mm:ss,SSS} %-5p %-40.40c - %m%n
`

// openModules are what Flink's own scripts open to it on Java 17.
func openModules() []string {
	var options []string
	for _, name := range []string{"java.base/sun.net.util", "java.rmi/sun.rmi.registry", "java.security.jgss/sun.security.krb5"} {
		options = append(options, "--add-exports="+name+"=ALL-UNNAMED")
	}
	for _, name := range []string{"java.lang", "java.lang.reflect", "java.net", "java.io", "java.nio", "java.text", "java.time",
		"java.util", "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch"} {
		options = append(options, "--add-opens=java.base/"+name+"=ALL-UNNAMED")
	}
	return options
}

// Await waits until the JobManager answers and has all TaskManagers that run, and none that does not; a part that ends
// meanwhile is an error.
func (f *Flink) Await(ctx context.Context) error {
	const patience = 5 * time.Minute // of three JVMs on a machine that others keep busy; a part that ends is noticed at once
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("Flink did not come up within %v", patience))
	defer cancel()
	var want []string
	parts := map[string]*cluster.Process{f.options.JobManager.Name: f.jobManager}
	for name, p := range f.taskManagers {
		if p.Running() {
			parts[name] = p
			want = append(want, strings.TrimPrefix(p.Command().Argv[len(p.Command().Argv)-1], resourceID))
		}
	}
	slices.Sort(want)
	return poll(ctx, func() (bool, error) {
		for name, p := range parts {
			if !p.Running() {
				return false, fmt.Errorf("Flink's process on %s ended (%w); the end of its log %s", name, p.Err(), p.Log) //nolint:staticcheck // a name
			}
		}
		registered, err := f.registered(ctx)
		// A TaskManager tells of its slots a moment after it has registered.
		o, failed := f.Overview(ctx)
		ready := slices.Equal(registered, want) && o.SlotsTotal == len(want)*f.options.Slots
		return err == nil && failed == nil && ready, nil
	})
}

// poll asks again and again until the answer is yes, an error, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Stop ends all parts, TaskManagers first. What has ended before is no error.
func (f *Flink) Stop() error {
	var errs []error
	for _, p := range f.taskManagers {
		errs = append(errs, p.Stop())
	}
	return errors.Join(append(errs, f.jobManager.Stop())...)
}
