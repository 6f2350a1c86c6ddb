// Package container runs harnesses in containers, by the command line of docker, podman or nerdctl: it finds the
// engine, makes sure of the image, starts a container, notices its end and why, keeps its last words, and removes it.
//
// Containers carry the identity of the process that started them as a label, and [Sweep] removes those whose process is
// gone: nothing else can after a kill -9. The label is described in docs/formats/container-labels.md.
//
// Nothing is ever started with the engine's own removal at exit (--rm), which would take a container's last words and
// the reason of its end with it.
package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Pull is when images are pulled.
type Pull string

const (
	PullMissing Pull = "missing" // what is not on the host
	PullAlways  Pull = "always"  // once per job and image, also when it is there
	PullNever   Pull = "never"   // an image that is not on the host is refused
)

// Config is how a host runs containers. The zero value is what most want: the first engine of the PATH, images pulled
// when they are missing, the host's network. It is plain data, so that it can be handed to another process.
type Config struct {
	// Engine is docker, podman or nerdctl, or the path of a program that takes their arguments. Empty: the first of the
	// three on the PATH, in that order.
	Engine string `json:"engine,omitempty"`
	// Pull is the policy; empty stands for PullMissing.
	Pull Pull `json:"pull,omitempty"`
	// PullLimit bounds one pull. Default 15 minutes: the SDKs' images have some hundreds of megabytes.
	PullLimit time.Duration `json:"pull_limit,omitempty"`
	// Network is what containers are connected to, as the engine's --network takes it. Empty stands for the host's own on
	// Linux, where every address of the host is then right in the container too, and for the engine's default elsewhere.
	Network string `json:"network,omitempty"`
	// Advertise is how containers reach the Fn API's server: host:port, or a host, which takes the server's port. Empty
	// stands for the server's own address.
	Advertise string `json:"advertise,omitempty"`
	// CPUs is how many cores a container may use; 0 is no limit. Memory is its limit in bytes; 0 is none.
	CPUs   float64 `json:"cpus,omitempty"`
	Memory int64   `json:"memory,omitempty"`
	// Mounts are SOURCE:TARGET[:OPTIONS], as the engines' --volume takes them.
	Mounts []string `json:"mounts,omitempty"`
	// Args are further arguments for the engine's create command, before the image.
	Args []string `json:"args,omitempty"`
	// Instead are PATTERN=COMMAND: an image whose name matches the pattern, as path.Match has it, is not run; the
	// command, one of a process environment, runs in its stead. The first that matches counts.
	Instead []string `json:"instead,omitempty"`
}

// Command is what runs instead of an image; empty when the image is to be run.
func (c Config) Command(image string) string {
	for _, instead := range c.Instead {
		pattern, command, _ := strings.Cut(instead, "=")
		if ok, err := path.Match(pattern, image); err == nil && ok {
			return strings.TrimSpace(command)
		}
	}
	return ""
}

// Encode writes the configuration for another process of the same version.
func (c Config) Encode() (json.RawMessage, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode the settings for containers: %w", err)
	}
	return b, nil
}

// Decode reads what Encode wrote; nothing at all is the zero Config.
func Decode(b json.RawMessage) (Config, error) {
	var c Config
	if len(b) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, fmt.Errorf("decode the settings for containers: %w", err)
	}
	return c, c.Check()
}

const (
	hostNetwork = "host"
	// desktop is the host's name in the containers of Docker's desktop editions, which run them in a virtual machine.
	desktop = "host.docker.internal"
)

// Check finds what cannot be meant. All reasons at once.
func (c Config) Check() error {
	var errs []error
	if c.Pull != "" && c.Pull != PullMissing && c.Pull != PullAlways && c.Pull != PullNever {
		errs = append(errs, fmt.Errorf("pull policy %q: must be %s, %s or %s", c.Pull, PullMissing, PullAlways, PullNever))
	}
	if c.PullLimit < 0 {
		errs = append(errs, fmt.Errorf("limit of a pull %v: must not be negative", c.PullLimit))
	}
	if c.CPUs < 0 {
		errs = append(errs, fmt.Errorf("a container's CPUs %v: must not be negative", c.CPUs))
	}
	if c.Memory < 0 || c.Memory > 0 && c.Memory < leastMemory {
		errs = append(errs, fmt.Errorf("a container's memory of %d bytes: the engines take no less than 6 MiB", c.Memory))
	}
	for _, m := range c.Mounts {
		if source, target, ok := strings.Cut(m, ":"); !ok || source == "" || !strings.HasPrefix(target, "/") {
			errs = append(errs, fmt.Errorf("mount %q: must be SOURCE:TARGET or SOURCE:TARGET:OPTIONS, the target an absolute path", m))
		}
	}
	for _, instead := range c.Instead {
		pattern, command, _ := strings.Cut(instead, "=")
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" || strings.TrimSpace(command) == "" {
			errs = append(errs, fmt.Errorf("command instead of an image %q: must be PATTERN=COMMAND, as in 'apache/beam_java*=trestle boot java'", instead))
		}
	}
	return errors.Join(errs...)
}

// leastMemory is the least that docker takes.
const leastMemory = 6 << 20

// Reach is the address by which containers reach the server that others reach at server, host:port. It is an error when
// there can be no such address: a container with a network of its own is not on this host's loopback.
func (c Config) Reach(server string) (string, error) { return c.reach(server, runtime.GOOS) }

func (c Config) reach(server, system string) (string, error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return "", fmt.Errorf("the server's address %q: %w", server, err)
	}
	if c.Advertise != "" {
		given, givenPort, err := net.SplitHostPort(c.Advertise)
		if err != nil {
			given, givenPort = strings.Trim(c.Advertise, "[]"), port
		}
		if n, err := strconv.Atoi(givenPort); given == "" || strings.ContainsAny(given, " /") || err != nil || n <= 0 || n > 65535 {
			return "", fmt.Errorf("the address for containers %q: must be host:port, or a host", c.Advertise)
		}
		return net.JoinHostPort(given, givenPort), nil
	}
	if !loopback(host) || c.network(system) == hostNetwork {
		return server, nil
	}
	if system != "linux" {
		return net.JoinHostPort(desktop, port), nil
	}
	return "", fmt.Errorf("containers with a network of their own (%s) cannot reach this host's %s: have the server listen on an address that they can reach, and say which that is for them (--listen, --container-advertise), or leave them the host's network",
		c.Network, server)
}

func (c Config) network(system string) string {
	if c.Network == "" && system == "linux" {
		return hostNetwork
	}
	return c.Network
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (c Config) pullLimit() time.Duration {
	if c.PullLimit > 0 {
		return c.PullLimit
	}
	return 15 * time.Minute
}
