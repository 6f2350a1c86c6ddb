package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"trestle/test/cluster"
)

const (
	hdfsPort     = 8020
	hdfsWebPort  = 9870
	hdfsDataPort = 9866
)

// HDFS is a NameNode and a DataNode.
type HDFS struct {
	host               *cluster.Host
	nameNode, dataNode *cluster.Process
	// client finds the host by its name, which WebHDFS redirects to.
	client *http.Client
}

// StartHDFS formats an HDFS on a host and starts it. lib is the folder with Hadoop's jars.
func StartHDFS(ctx context.Context, h *cluster.Host, lib string) (*HDFS, error) {
	lib, err := filepath.Abs(lib)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(h.Dir(), "hdfs")
	// Both parts want these folders on the class path; the jars hold only what is in them.
	for _, name := range []string{"webapps/hdfs", "webapps/datanode"} {
		if err := os.MkdirAll(h.Outside(filepath.Join(folder, name)), 0o755); err != nil {
			return nil, err
		}
	}
	for name, text := range map[string]string{"core-site.xml": hdfsConfig(h, folder), "hdfs-site.xml": "<configuration/>", "log4j.properties": hdfsLogging} {
		if err := os.WriteFile(h.Outside(filepath.Join(folder, name)), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	java := func(class string, arguments ...string) cluster.Command {
		return cluster.Command{Name: strings.ToLower(class[strings.LastIndexByte(class, '.')+1:]), Dir: folder,
			// WebHDFS's old JAXB needs the package open.
			Argv: append([]string{"java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "--add-opens=java.base/java.lang=ALL-UNNAMED",
				"-Djava.io.tmpdir=" + h.Dir(), "-cp", folder + ":" + filepath.Join(lib, "*"), class}, arguments...)}
	}
	const nameNode = "org.apache.hadoop.hdfs.server.namenode.NameNode"
	if _, err := h.Run(ctx, java(nameNode, "-format", "-nonInteractive")); err != nil {
		return nil, fmt.Errorf("format HDFS: %w", err)
	}
	s := &HDFS{host: h}
	dialer := &net.Dialer{}
	s.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return dialer.DialContext(ctx, network, net.JoinHostPort(h.IP.String(), port)) // there is one host
	}}}
	if s.nameNode, err = h.Start(java(nameNode)); err != nil {
		return nil, err
	}
	if s.dataNode, err = h.Start(java("org.apache.hadoop.hdfs.server.datanode.DataNode")); err != nil {
		return nil, err
	}
	return s, up(ctx, "HDFS", s.nameNode, func(ctx context.Context) bool {
		text, ok := httpGet(ctx, s.client, fmt.Sprintf("http://%v:%d/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState", h.IP, hdfsWebPort))
		return ok && strings.Contains(string(text), `"NumLiveDataNodes" : 1`)
	})
}

func hdfsConfig(h *cluster.Host, folder string) string {
	at := func(port int) string { return fmt.Sprintf("%s:%d", h.Address(), port) }
	config := map[string]string{
		"fs.defaultFS":                    "hdfs://" + at(hdfsPort),
		"hadoop.tmp.dir":                  filepath.Join(folder, "data"),
		"dfs.replication":                 "1",
		"dfs.permissions.enabled":         "false",
		"dfs.namenode.http-address":       at(hdfsWebPort),
		"dfs.datanode.address":            at(hdfsDataPort),
		"dfs.datanode.http.address":       at(hdfsDataPort - 2),
		"dfs.datanode.ipc.address":        at(hdfsDataPort + 1),
		"dfs.datanode.hostname":           h.Address(),
		"dfs.namenode.safemode.extension": "0",
		// A name server would be asked for the DataNode's name; there is none.
		"dfs.namenode.datanode.registration.ip-hostname-check": "false",
	}
	var b strings.Builder
	b.WriteString("<configuration>\n")
	for _, name := range slices.Sorted(maps.Keys(config)) {
		fmt.Fprintf(&b, "<property><name>%s</name><value>%s</value></property>\n", name, config[name])
	}
	b.WriteString("</configuration>\n")
	return b.String()
}

const hdfsLogging = `log4j.rootLogger=WARN,c
log4j.appender.c=org.apache.log4j.ConsoleAppender
log4j.appender.c.layout=org.apache.log4j.PatternLayout
log4j.appender.c.layout.ConversionPattern=%d %p %c{1} %m%n
`

// Root is what Hadoop's clients call the file system: hdfs://host:port.
func (s *HDFS) Root() string { return fmt.Sprintf("hdfs://%s:%d", s.host.Address(), hdfsPort) }

// Web is the host and port of WebHDFS.
func (s *HDFS) Web() (host string, port int) { return s.host.Address(), hdfsWebPort }

// URL is hdfs://host:port/path.
func (s *HDFS) URL(path string) string { return s.Root() + "/" + path }

// Process is the NameNode's.
func (s *HDFS) Process() *cluster.Process { return s.nameNode }

// Put implements Store.
func (s *HDFS) Put(ctx context.Context, local, path string) error {
	file, err := os.Open(local)
	if err != nil {
		return err
	}
	defer file.Close()
	// The NameNode names a DataNode, which takes the bytes.
	var at struct{ Location string }
	if err := s.ask(ctx, http.MethodPut, path, "CREATE&overwrite=true&noredirect=true", &at); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, at.Location, file)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return fmt.Errorf("put %s: %w", s.URL(path), err)
	}
	text, err := io.ReadAll(response.Body)
	err = errors.Join(err, response.Body.Close())
	if err == nil && response.StatusCode != http.StatusCreated {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", s.URL(path), err)
	}
	return nil
}

// List implements Store.
func (s *HDFS) List(ctx context.Context, folder string) ([]string, error) {
	var answer struct {
		FileStatuses struct {
			FileStatus []struct{ PathSuffix, Type string }
		}
	}
	if err := s.ask(ctx, http.MethodGet, folder, "LISTSTATUS", &answer); err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range answer.FileStatuses.FileStatus {
		name := path.Join(folder, entry.PathSuffix)
		if entry.Type != "DIRECTORY" {
			paths = append(paths, name)
			continue
		}
		below, err := s.List(ctx, name)
		if err != nil {
			return nil, err
		}
		paths = append(paths, below...)
	}
	return paths, nil
}

// Get implements Store.
func (s *HDFS) Get(ctx context.Context, path string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint(path, "OPEN"), nil)
	if err != nil {
		return nil, err
	}
	response, err := s.client.Do(request) // it follows to the DataNode
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", s.URL(path), err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("get %s: %s", s.URL(path), response.Status)
	}
	return response.Body, nil
}

func (s *HDFS) endpoint(path, operation string) string {
	return fmt.Sprintf("http://%v:%d/webhdfs/v1/%s?user.name=root&op=%s", s.host.IP, hdfsWebPort, path, operation)
}

// ask asks the NameNode over WebHDFS.
func (s *HDFS) ask(ctx context.Context, method, path, operation string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, s.endpoint(path, operation), nil)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return fmt.Errorf("ask HDFS: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("%s %s of HDFS: %w", operation, path, err)
	}
	return nil
}
