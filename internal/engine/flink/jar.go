package flink

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// adapters are the adapters' thin jars, where `make adapters` has built them.
//
//go:embed adapter
var adapters embed.FS

// lines are the lines of Flink's versions that there is an adapter for, each with its jar.
var lines = []struct{ prefix, jar string }{
	{"1.20.", "trestle-flink-1.20.jar"},
	{"2.", "trestle-flink-2.jar"},
}

// platforms are those that workers may run on, as Go and the adapter name them.
var platforms = []string{"linux-amd64", "linux-arm64"}

// errNoAdapter is why a trestle that was built with go alone cannot use Flink.
var errNoAdapter = errors.New("this trestle was built without the adapters for Flink: build it with make adapters build")

// adapterFor is the name of the jar for a version of Flink's.
func adapterFor(version string) (string, error) {
	for _, line := range lines {
		if strings.HasPrefix(version, line.prefix) {
			return line.jar, nil
		}
	}
	return "", fmt.Errorf("it is Flink %s, and this trestle has adapters for 1.20 and 2.x: name a cluster of one of these", version)
}

// jar completes an adapter with the workers' binaries, in a folder where it is kept for the next time. Its name has the
// digest of all that is in it, so that it is found again in Flink, and replaced when anything changes.
func completeJar(dir, adapter string) (path string, err error) {
	thin, err := fs.ReadFile(adapters, "adapter/"+adapter)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errNoAdapter
	}
	if err != nil {
		return "", err
	}
	binaries, err := findBinaries()
	if err != nil {
		return "", err
	}
	whole := sha256.New()
	whole.Write(thin)
	for _, b := range binaries {
		fmt.Fprintf(whole, "%s %s\n", b.platform, b.digest)
	}
	name := strings.TrimSuffix(adapter, ".jar") + "-" + hex.EncodeToString(whole.Sum(nil)[:8]) + ".jar"
	path = filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	file, err := os.CreateTemp(dir, "incomplete-*")
	if err != nil {
		return "", err
	}
	err = writeJar(file, thin, binaries)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("complete the adapter in %s: %w", dir, err), os.Remove(file.Name()))
	}
	return path, nil
}

// binary is a worker's program for one platform.
type binary struct{ platform, path, digest string }

// findBinaries are this program itself, and those for other platforms that lie beside it as trestle-OS-ARCH.
func findBinaries() ([]binary, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return binariesBeside(self)
}

func binariesBeside(self string) ([]binary, error) {
	var found []binary
	for _, p := range platforms {
		path := filepath.Join(filepath.Dir(self), "trestle-"+p)
		if p == runtime.GOOS+"-"+runtime.GOARCH {
			path = self
		}
		err := checkMachine(path, p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		digest := ""
		if err == nil {
			digest, err = fileDigest(path)
		}
		if err != nil {
			return nil, fmt.Errorf("worker's program for %s: %w", p, err)
		}
		found = append(found, binary{p, path, digest})
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no worker's program for Flink's hosts: put one beside %s, as trestle-linux-amd64 or trestle-linux-arm64", self)
	}
	return found, nil
}

// checkMachine refuses a program that is not for a platform, which would be found out on one of Flink's hosts only.
func checkMachine(path, platform string) (err error) {
	file, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	want := map[string]elf.Machine{"linux-amd64": elf.EM_X86_64, "linux-arm64": elf.EM_AARCH64}[platform]
	if file.Machine != want {
		return fmt.Errorf("%s is a program for %v, and its name says %s (%v)", path, file.Machine, platform, want)
	}
	return nil
}

func fileDigest(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeJar copies the adapter's entries, and adds the binaries and their digests.
func writeJar(w io.Writer, thin []byte, binaries []binary) error {
	from, err := zip.NewReader(bytes.NewReader(thin), int64(len(thin)))
	if err != nil {
		return err
	}
	to := zip.NewWriter(w)
	for _, entry := range from.File {
		if strings.HasSuffix(entry.Name, "/") {
			continue // class loaders need no folders
		}
		if err := to.Copy(entry); err != nil {
			return err
		}
	}
	digests := &strings.Builder{}
	for _, b := range binaries {
		fmt.Fprintf(digests, "%s=%s\n", b.platform, b.digest)
		entry, err := to.Create("trestle/" + b.platform)
		if err != nil {
			return err
		}
		if err := copyFile(entry, b.path); err != nil {
			return err
		}
	}
	entry, err := to.Create("trestle/digests.properties")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(entry, digests.String()); err != nil {
		return err
	}
	return to.Close()
}

func copyFile(w io.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(w, file)
	return err
}
