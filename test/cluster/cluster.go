// Package cluster makes several hosts out of one machine, for tests of what is distributed: each with an address, a name,
// processes and a disk of its own, so that whatever works by accident on one machine fails here.
//
// A host is a set of Linux namespaces (network, mount, process, UTS, IPC). Its file system is the machine's, read-only, so
// that toolchains and the project's build are there at their own paths; /tmp, /run, /var/tmp and /dev/shm are its own, and
// of the other hosts' it sees nothing. All hosts hang on one switch, know one another by name, and have no way out of it;
// the process that started them reaches them by address. A folder may be shared read-write by all (Options.Shared).
//
// Where namespaces cannot be made (no root, no `ip`), or when Options.Plain asks for it, hosts are plain: a loopback address
// (127.x.y.z) and a folder each, no names, and nothing keeps a process from what is not its host's. Tests that are about
// distribution itself ask Cluster.Plain first.
//
// Nothing outlives the process that started the hosts, killed or not, unless Options.Keep: a host's init ends when its
// standard input does, the kernel ends what is left in its namespaces, and the network goes with them. What plain hosts
// leave after a kill is swept by the next Start in the same folder.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"trestle/test/process"
)

// Patience is how long a process or a host may take to end, and a host to start.
const Patience = process.Patience

// Options are what a cluster consists of.
type Options struct {
	// Dir gets everything of the cluster: disks, logs, state. Start empties it. Two clusters do not share one.
	Dir string
	// Hosts are the names, at most 30.
	Hosts []string
	// Software are folders, or files, which hosts need although they are below /tmp or the like; they see them read-only.
	Software []string
	// Shared makes a folder that all hosts can write to; see Cluster.Shared.
	Shared bool
	// Plain does without namespaces even where they can be had.
	Plain bool
	// Keep lets hosts and processes outlive this process; Attach and Close then end them.
	Keep bool
}

// Cluster is a set of hosts. It is for use by one goroutine, its hosts and processes by any.
type Cluster struct {
	Hosts []*Host
	// Plain says why hosts are not isolated from one another; "" when they are.
	Plain string

	options Options
	// hub holds the network namespace with the switch; nil when hosts are plain.
	hub *Host
}

// Start ends what an earlier cluster in the same folder has left, and starts the hosts. It is an error when another process
// has a cluster there, or when one was kept there. ctx bounds the start only.
func Start(ctx context.Context, o Options) (c *Cluster, err error) {
	if len(o.Hosts) == 0 || len(o.Hosts) > 30 {
		return nil, fmt.Errorf("a cluster has 1 to 30 hosts, not %d", len(o.Hosts))
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	for i, dir := range o.Software {
		if o.Software[i], err = filepath.Abs(dir); err != nil {
			return nil, err
		}
	}
	if err := vacate(o.Dir); err != nil {
		return nil, err
	}
	for _, dir := range []string{"log", "hosts", "run", "shared"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	c = &Cluster{options: o}
	if o.Plain {
		c.Plain = "asked for"
	} else {
		c.Plain = noNamespaces()
	}
	defer func(begun *Cluster) {
		if err != nil { // and c is nil by then
			err = errors.Join(err, begun.end())
		}
	}(c)
	if err := c.address(); err != nil {
		return nil, err
	}
	if err := c.save(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, fmt.Errorf("the hosts did not start within %v", Patience))
	defer cancel()
	if c.hub != nil {
		if err := c.hub.bootHub(ctx); err != nil {
			return nil, fmt.Errorf("make the hosts' network: %w", err)
		}
	}
	for _, h := range c.Hosts {
		if err := h.Boot(ctx); err != nil {
			return nil, err
		}
	}
	return c, c.save()
}

// noNamespaces says why hosts cannot be isolated here; "" when they can.
func noNamespaces() string {
	if os.Geteuid() != 0 {
		return "namespaces need root"
	}
	for _, tool := range []string{"ip", "mount", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "there is no `" + tool + "` here"
		}
	}
	if out, err := tryNamespaces(); err != nil {
		return fmt.Sprintf("namespaces cannot be made: %v %s", err, out)
	}
	return ""
}

// address gives each host its address: plain ones on the loopback device, others in a network of 30 out of 198.18.0.0/15,
// which is set apart for tests of networks (RFC 2544). Which one follows from the folder, so that clusters side by side
// differ.
func (c *Cluster) address() error {
	hash := fnv.New32a()
	hash.Write([]byte(c.options.Dir))
	sum := hash.Sum32()
	for try := range uint32(64) {
		n := sum + try
		var first netip.Addr
		if c.Plain != "" {
			first = netip.AddrFrom4([4]byte{127, byte(n>>8)&0x7f | 0x40, byte(n), 0})
		} else {
			first = netip.AddrFrom4([4]byte{198, 18 | byte(n>>11&1), byte(n >> 3), byte(n<<5) & 0xe0})
		}
		gateway := first.Next()
		taken, err := inUse(gateway, c.Plain != "")
		if err != nil {
			return err
		}
		if taken {
			continue
		}
		if c.Plain == "" {
			c.hub = &Host{Name: "switch", IP: gateway, cluster: c}
		}
		c.Hosts = nil
		ip := gateway
		for _, name := range c.options.Hosts {
			ip = ip.Next()
			c.Hosts = append(c.Hosts, &Host{Name: name, IP: ip, cluster: c})
		}
		return nil
	}
	return errors.New("64 networks out of 198.18.0.0/15 are in use on this machine: are clusters left over? `ip address` shows them")
}

// inUse says whether an address is one of this machine's; those of the loopback device always are, and two clusters with the
// same are too unlikely to look for.
func inUse(ip netip.Addr, plain bool) (bool, error) {
	if plain {
		return false, nil
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	for _, a := range addresses {
		if strings.HasPrefix(a.String(), ip.String()+"/") {
			return true, nil
		}
	}
	return false, nil
}

// Host is the host of that name; nil when there is none.
func (c *Cluster) Host(name string) *Host {
	for _, h := range c.Hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Gateway is this machine's address in the hosts' network, or on plain hosts one of its own.
func (c *Cluster) Gateway() netip.Addr {
	if c.hub == nil {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return c.hub.IP
}

// Shared is the folder that all hosts can write to, as they see it. What is there, this process finds in Dir/shared.
func (c *Cluster) Shared() string {
	if c.Plain != "" {
		return filepath.Join(c.options.Dir, "shared")
	}
	return sharedInside
}

// Dir is the folder of the cluster, as this process sees it.
func (c *Cluster) Dir() string { return c.options.Dir }

// Tails is the end of every process's log, for a person who asks why something failed.
func (c *Cluster) Tails() string {
	logs, err := filepath.Glob(filepath.Join(c.options.Dir, "log", "*.log"))
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, log := range logs {
		fmt.Fprintf(&b, "%s:\n%s\n", strings.TrimSuffix(filepath.Base(log), ".log"), process.Tail(log))
	}
	return b.String()
}

// Close ends all processes and hosts and removes their disks; logs stay. Processes that should have ended by themselves
// are looked for before (Host.Processes).
func (c *Cluster) Close() error {
	err := c.end()
	for _, dir := range []string{"hosts", "run", "shared"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(c.options.Dir, dir)))
	}
	return errors.Join(err, os.Remove(c.stateFile()))
}

// end ends all processes and hosts; disks stay.
func (c *Cluster) end() error {
	var errs []error
	for _, h := range c.Hosts {
		errs = append(errs, h.Crash())
	}
	if c.hub != nil {
		errs = append(errs, c.hub.Crash())
	}
	return errors.Join(append(errs, removeCgroups(c.options.Dir))...)
}
