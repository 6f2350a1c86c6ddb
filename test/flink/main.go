package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"trestle/test/cluster"
	"trestle/test/cluster/flink"
)

// The hosts of a cluster.
const (
	jobServer   = "jobserver"
	jobManager  = "jobmanager"
	storageHost = "storage"
)

var taskManagers = []string{"taskmanager1", "taskmanager2"}

type flags struct {
	dir   string
	flink string
	slots int
	plain bool
	// software is what hosts need to see; the checkout is among it.
	software string

	// What the matrix runs: versions of Flink, their folders separated by colons; the short form; cells with this in their name.
	flinks string
	quick  bool
	only   string
	// What a chaos run has.
	jobs int
	seed uint64
	programs
}

func main() {
	var f flags
	flag.StringVar(&f.dir, "dir", filepath.Join("build", "flink", "dev"), "folder of the cluster")
	flag.StringVar(&f.flink, "flink", "", "up: folder of Flink")
	flag.IntVar(&f.slots, "slots", 2, "up: task slots of a TaskManager")
	flag.BoolVar(&f.plain, "plain", false, "up: do without namespaces")
	flag.StringVar(&f.software, "software", ".", "up: folders that hosts see read-only though they are below /tmp, separated by colons")
	flag.StringVar(&f.flinks, "flinks", "", "e2e: folders of Flink's versions, separated by colons")
	flag.BoolVar(&f.quick, "quick", false, "e2e: the first version and two cells only")
	flag.StringVar(&f.only, "only", "", "e2e and faults: only those with one of these words in their name (sdk-environment-staging-data)")
	flag.IntVar(&f.jobs, "jobs", 20, "chaos: how many jobs")
	flag.Uint64Var(&f.seed, "seed", 0, "chaos: what is killed, and the random pipelines, follow from it; 0 for another each time")
	flag.StringVar(&f.shaped, "shaped", filepath.Join("build", "flink", "shaped"), "chaos: binary of ./test/flink/shaped")
	flag.StringVar(&f.trestle, "trestle", filepath.Join("bin", "trestle"), "e2e: the trestle binary")
	flag.StringVar(&f.text, "text", "", "e2e: the text whose words are counted")
	flag.StringVar(&f.sdks.Python, "python", "", "e2e: virtual environment with Beam's Python SDK")
	flag.StringVar(&f.sdks.Go, "go", "", "e2e: binary of Beam's Go example, with S3")
	flag.StringVar(&f.sdks.Java, "java", "", "e2e: folder of jars with Beam's Java example")
	flag.StringVar(&f.hadoop, "hadoop", "", "e2e: folder of Hadoop's jars")
	flag.StringVar(&f.gateway, "s3", "", "e2e: binary of the S3 server")
	flag.StringVar(&f.images, "images", "", "e2e: folder of the SDKs' images, SDK-VERSION.tar")
	flag.StringVar(&f.imports, "imports", filepath.Join("test", "containers", "images.sh"), "e2e: script that imports these")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := f.run(ctx, flag.Args())
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "flink:", err)
		os.Exit(1)
	}
}

func (f *flags) run(ctx context.Context, arguments []string) error {
	const commands = "e2e, faults, chaos, up, down, status, exec HOST COMMAND…, kill HOST, start HOST, crash HOST, smoke"
	if len(arguments) == 0 {
		return fmt.Errorf("a command is missing: %s", commands)
	}
	command, arguments := arguments[0], arguments[1:]
	switch command {
	case "up":
		return f.up(ctx)
	case "e2e", "faults", "chaos":
		run := map[string]func(context.Context) (bool, error){"e2e": f.e2e, "faults": f.strikes, "chaos": f.chaos}[command]
		ok, err := run(ctx)
		if err == nil && !ok {
			err = errors.New("not all is well")
		}
		return err
	}
	c, err := cluster.Attach(f.dir)
	if err != nil {
		return err
	}
	switch command {
	case "down":
		return c.Close()
	case "status":
		return status(c)
	case "smoke":
		fl, err := f.attach(c)
		if err != nil {
			return err
		}
		return f.smoke(ctx, fl)
	case "exec", "kill", "start", "crash":
	default:
		return fmt.Errorf("there is no command %q, but %s", command, commands)
	}
	if len(arguments) == 0 || c.Host(arguments[0]) == nil {
		return fmt.Errorf("%s needs the name of a host: see status", command)
	}
	h := c.Host(arguments[0])
	switch command {
	case "exec":
		return execute(ctx, h, arguments[1:])
	case "crash":
		return h.Crash()
	case "kill":
		return f.kill(c, h)
	default:
		return f.start(ctx, c, h)
	}
}

// wants tells whether a name is among those that the user has asked for: all, if none.
func (f *flags) wants(name string) bool {
	words := strings.Fields(f.only)
	return len(words) == 0 || slices.ContainsFunc(words, func(word string) bool { return strings.Contains(name, word) })
}

// absolute makes all paths so: hosts have other working folders.
func (f *flags) absolute() error {
	for _, path := range []*string{&f.trestle, &f.text, &f.sdks.Python, &f.sdks.Go, &f.sdks.Java, &f.hadoop, &f.gateway, &f.shaped, &f.images, &f.imports} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	return nil
}

// up starts a cluster that stays.
func (f *flags) up(ctx context.Context) (err error) {
	c, err := cluster.Start(ctx, cluster.Options{Dir: f.dir, Plain: f.plain, Keep: true, Shared: true,
		Hosts: append([]string{jobServer, jobManager, storageHost}, taskManagers...), Software: filepath.SplitList(f.software)})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := os.WriteFile(f.homeFile(), []byte(f.flink), 0o600); err != nil {
		return err
	}
	o, err := f.options(c)
	if err != nil {
		return err
	}
	fl, err := flink.Start(ctx, o)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.Tails())
	}
	if err := f.smoke(ctx, fl); err != nil {
		return err
	}
	return status(c)
}

// homeFile tells later commands where Flink is.
func (f *flags) homeFile() string { return filepath.Join(f.dir, "run", "flink") }

// options are those of the Flink that up starts, or has started.
func (f *flags) options(c *cluster.Cluster) (flink.Options, error) {
	home, err := os.ReadFile(f.homeFile())
	o := flink.Options{Home: string(home), JobManager: c.Host(jobManager), Slots: f.slots}
	for _, name := range taskManagers {
		o.TaskManagers = append(o.TaskManagers, c.Host(name))
	}
	return o, err
}

func (f *flags) attach(c *cluster.Cluster) (*flink.Flink, error) {
	o, err := f.options(c)
	if err != nil {
		return nil, err
	}
	return flink.Attach(o)
}

func (f *flags) smoke(ctx context.Context, fl *flink.Flink) (err error) {
	dir, err := os.MkdirTemp("", "smoke")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := fl.Smoke(ctx, dir); err != nil {
		return err
	}
	fmt.Println("a job of Flink's own ran on every host")
	return nil
}

// status prints the hosts and what runs on them.
func status(c *cluster.Cluster) error {
	if c.Plain != "" {
		fmt.Printf("The hosts are plain (%s): they have addresses and folders, but no names, and share the machine.\n", c.Plain)
	} else {
		fmt.Printf("To the hosts, this machine is %v. All of them can write to %s.\n", c.Gateway(), c.Shared())
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "host\taddress\tits folder, from here\tprocesses")
	for _, h := range c.Hosts {
		processes, err := h.Processes()
		if err != nil {
			return err
		}
		var names []string
		for _, p := range processes {
			names = append(names, fmt.Sprintf("%d %s", p.PID, short(p.Command)))
		}
		fmt.Fprintf(table, "%s\t%v\t%s\t%s\n", h.Name, h.IP, h.Outside(h.Dir()), strings.Join(names, ", "))
	}
	table.Flush()
	fmt.Printf("Flink: http://%v:8081 from here, http://%s:8081 on the hosts\n", c.Host(jobManager).IP, c.Host(jobManager).Address())
	return nil
}

// short is what tells a process to a person: a JVM's main class, the others' first word.
func short(command string) string {
	words := strings.Fields(command)
	if i := slices.Index(words, "-cp"); i >= 0 && i+2 < len(words) {
		class := words[i+2]
		return class[strings.LastIndexByte(class, '.')+1:]
	}
	return filepath.Base(words[0])
}

// execute runs a command on a host, with our standard streams.
func execute(ctx context.Context, h *cluster.Host, argv []string) error {
	if len(argv) == 0 {
		argv = []string{"bash"}
	}
	path, err := exec.LookPath(argv[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = cluster.Patience
	if err := h.Launch(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// kill ends Flink's process on a host by SIGKILL.
func (f *flags) kill(c *cluster.Cluster, h *cluster.Host) error {
	fl, err := f.attach(c)
	if err != nil {
		return err
	}
	if h.Name == jobManager {
		return fl.JobManager().Kill()
	}
	p := fl.TaskManager(h)
	if p == nil {
		return fmt.Errorf("nothing of Flink is on %s", h.Name)
	}
	return p.Kill()
}

// start boots a host that is down, and starts Flink's process there where none runs.
func (f *flags) start(ctx context.Context, c *cluster.Cluster, h *cluster.Host) error {
	if err := h.Boot(ctx); err != nil {
		return err
	}
	fl, err := f.attach(c)
	if err != nil {
		return err
	}
	switch {
	case h.Name == jobManager && fl.JobManager().Running():
		return nil
	case h.Name == jobManager:
		err = fl.StartJobManager()
	case fl.TaskManager(h) == nil || fl.TaskManager(h).Running():
		return nil
	default:
		err = fl.StartTaskManager(h)
	}
	if err != nil {
		return err
	}
	return fl.Await(ctx)
}
