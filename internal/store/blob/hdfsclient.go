package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/user"
	"strings"
	"sync"
	"time"

	"github.com/colinmarc/hdfs/v2"
	"github.com/colinmarc/hdfs/v2/hadoopconf"
)

const (
	namenodePort = "8020" // Hadoop's default
	// hdfsDial bounds an attempt at a connection to an address that does not answer at all.
	hdfsDial = 10 * time.Second
	// paramHostname is the one parameter of an HDFS URL.
	paramHostname = "use_datanode_hostname"
)

// hdfsOptions are the client's for a URL: from the URL, and from Hadoop's configuration where the environment names one.
func hdfsOptions(u *url.URL) (hdfs.ClientOptions, error) {
	conf, err := hadoopconf.LoadFromEnvironment()
	if err != nil {
		return hdfs.ClientOptions{}, fmt.Errorf("the Hadoop configuration that HADOOP_CONF_DIR or HADOOP_HOME names: %w", err)
	}
	options := hdfs.ClientOptionsFromConf(conf)
	if options.KerberosClient != nil {
		return hdfs.ClientOptions{}, errors.New("the Hadoop configuration asks for Kerberos, which is not supported: name a store that does without, such as s3://")
	}
	for key, values := range u.Query() {
		if key != paramHostname || len(values) != 1 || values[0] != "true" && values[0] != "false" {
			return hdfs.ClientOptions{}, fmt.Errorf("unknown query parameter %q: an HDFS URL takes %s=true or false", key, paramHostname)
		}
		options.UseDatanodeHostname = values[0] == "true"
	}
	if options.Addresses, err = namenodes(conf, u.Host); err != nil {
		return hdfs.ClientOptions{}, err
	}
	if options.User = os.Getenv("HADOOP_USER_NAME"); options.User == "" {
		current, err := user.Current()
		if err != nil {
			return hdfs.ClientOptions{}, fmt.Errorf("say the user with HADOOP_USER_NAME: %w", err)
		}
		options.User = current.Username
	}
	return options, nil
}

// namenodes are the addresses that a URL's host stands for: itself, or those of a name service.
func namenodes(conf hadoopconf.HadoopConf, host string) ([]string, error) {
	if host == "" {
		return nil, errors.New("it names no NameNode: write hdfs://host:port/path")
	}
	if members := conf["dfs.ha.namenodes."+host]; members != "" {
		var addresses []string
		for member := range strings.SplitSeq(members, ",") {
			key := "dfs.namenode.rpc-address." + host + "." + strings.TrimSpace(member)
			if conf[key] == "" {
				return nil, fmt.Errorf("the Hadoop configuration has no %s", key)
			}
			addresses = append(addresses, conf[key])
		}
		return addresses, nil
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), namenodePort)
	}
	return []string{host}, nil
}

// session is a client for one operation. The library's operations know no context, and a connection that has failed stays
// in the client; so each operation has connections of its own, which end with its context. To a NameNode, one more is
// cheap.
type session struct {
	client *hdfs.Client
	cancel context.CancelFunc

	mu    sync.Mutex
	conns []net.Conn
	ended bool
	// broken is why the first DataNode's connection took no more bytes.
	broken error
}

// lenient is a connection to a DataNode that seems to take what is written when it has broken. The library's writer ends
// its goroutines only when all its packets have been sent and the answers to them were read, or were not: it finds out by
// those.
type lenient struct {
	net.Conn
	session *session
}

func (l lenient) Write(p []byte) (int, error) {
	if _, err := l.Conn.Write(p); err != nil {
		l.session.mu.Lock()
		defer l.session.mu.Unlock()
		if l.session.broken == nil {
			l.session.broken = err
		}
		l.Close() // so that no answer is waited for
	}
	return len(p), nil
}

// whileWhole is a reader that fails once the session's connection to a DataNode has: nothing more need be read then.
type whileWhole struct {
	io.Reader
	session *session
}

func (w whileWhole) Read(p []byte) (int, error) {
	w.session.mu.Lock()
	broken := w.session.broken
	w.session.mu.Unlock()
	if broken != nil {
		return 0, fmt.Errorf("send to a DataNode: %w", broken)
	}
	return w.Reader.Read(p)
}

func (h *hadoop) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &session{cancel: cancel}
	context.AfterFunc(ctx, s.cut)
	options := h.options
	dialer := net.Dialer{Timeout: hdfsDial}
	dial := func(_ context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return conn, s.keep(conn)
	}
	options.NamenodeDialFunc = dial
	options.DatanodeDialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return lenient{conn, s}, nil
	}
	var err error
	if s.client, err = hdfs.NewClient(options); err != nil {
		cancel()
		return nil, h.translate(err)
	}
	return s, nil
}

func (s *session) keep(conn net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errors.Join(net.ErrClosed, conn.Close())
	}
	s.conns = append(s.conns, conn)
	return nil
}

// cut closes all connections, so that whatever waits for one returns.
func (s *session) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, conn := range s.conns {
		conn.Close() // twice does no harm, and it has no more to say
	}
	s.conns = nil
}

func (s *session) close() error {
	s.cut()
	s.cancel()
	if err := s.client.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// do carries out an operation over a session of its own.
func (h *hadoop) do(ctx context.Context, operation func(*hdfs.Client) error) error {
	return h.session(ctx, func(s *session) error { return operation(s.client) })
}

func (h *hadoop) session(ctx context.Context, operation func(*session) error) error {
	s, err := h.connect(ctx)
	if err != nil {
		return err
	}
	err = operation(s)
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, errLeft) {
		err = h.translate(err)
	}
	return errors.Join(err, s.close())
}
