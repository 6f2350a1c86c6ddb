package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/status"
)

// downloads is how many artifacts are fetched at a time: enough to hide the round trips of many small jars.
const downloads = 4

// File is an artifact as [Fetch] brought it.
type File struct {
	// Info is the artifact as the server resolved it; its role says what the file is for.
	Info *pipepb.ArtifactInformation
	// Package is the package that a pypi ("name==version") or maven ("group:artifact:version") artifact names for the
	// harness to install. Nothing is fetched for it, and all that follows is empty.
	Package string
	// Name is the staged name: a clean, slash-separated path below the folder. An artifact without one gets a name
	// that starts with "artifact-".
	Name string
	// Path is where the file is.
	Path string
	// SHA256 in lower-case hex and Size in bytes of what was fetched.
	SHA256 string
	Size   int64
}

// Fetch brings a harness's dependencies into a folder, which is made if missing, and returns them in their order (it is
// the order of a Java class path). Each file is written beside its place, verified by its sha256, and only then named:
// when Fetch fails there may be whole files in the folder, but no part of one. Files are executable, as a worker binary
// must be. A staged name that would leave the folder, also by way of a symbolic link, is refused, and nothing fetched.
// The client's connection stays the caller's.
func Fetch(ctx context.Context, client jobpb.ArtifactRetrievalServiceClient, deps []*pipepb.ArtifactInformation, dir string, log *slog.Logger) (_ []File, err error) {
	if len(deps) == 0 {
		return nil, nil
	}
	response, err := client.ResolveArtifacts(ctx, &jobpb.ResolveArtifactsRequest{Artifacts: deps})
	if err != nil {
		return nil, fmt.Errorf("fetch artifacts: resolve: %w", plain(err))
	}
	files, err := layOut(response.GetReplacements())
	if err != nil {
		return nil, fmt.Errorf("fetch artifacts: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("fetch artifacts: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("fetch artifacts: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(downloads)
	seen := map[string]bool{}
	for i := range files {
		f := &files[i]
		if f.Package != "" || seen[f.Name] {
			continue
		}
		seen[f.Name] = true
		f.Path = filepath.Join(dir, filepath.FromSlash(f.Name))
		group.Go(func() error {
			if err := download(ctx, client, f, root); err != nil {
				return fmt.Errorf("fetch artifact %s: %w", describe(f.Info), err)
			}
			log.Debug("fetched artifact", "name", f.Name, "sha256", f.SHA256, "bytes", f.Size)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return fillIn(files), nil
}

// layOut decodes the artifacts and decides where each goes, and tells all that is wrong at once. File.SHA256 is set to
// what the artifact promises, if it does.
func layOut(infos []*pipepb.ArtifactInformation) ([]File, error) {
	var errs []error
	files := make([]File, 0, len(infos))
	taken := newNames()
	for i, info := range infos {
		d, err := decode(info)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f := File{Info: info, Package: d.pkg, Name: d.name}
		if d.pkg == "" {
			f.SHA256 = d.sum
			if f.Name == "" {
				f.Name = fmt.Sprintf("artifact-%d", i)
				if d.url != nil {
					f.Name += "-" + urlBase(d.url.GetUrl())
				}
			}
			// An unpromised digest is told apart by its place, so that one name for two of them is refused.
			digest := Digest{SHA256: f.SHA256}
			if digest.SHA256 == "" {
				digest.Size = int64(i) + 1
			}
			if _, err := taken.take(f.Name, digest); err != nil {
				errs = append(errs, fmt.Errorf("artifact %s: %w", describe(info), err))
				continue
			}
		}
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

// urlBase is the last element of a URL's path, where it is fit for a file name.
func urlBase(address string) string {
	address, _, _ = strings.Cut(address, "?")
	address, _, _ = strings.Cut(address, "#")
	base := path.Base(address)
	if name, err := stagedName(base); err == nil && len(name) < 200 {
		return name
	}
	return "url"
}

// fillIn gives files that share a name what was fetched for the first of them.
func fillIn(files []File) []File {
	first := map[string]File{}
	for i, f := range files {
		if f.Package != "" {
			continue
		}
		if earlier, ok := first[f.Name]; ok {
			files[i].Path, files[i].SHA256, files[i].Size = earlier.Path, earlier.SHA256, earlier.Size
			continue
		}
		first[f.Name] = f
	}
	return files
}

// download fetches one file into the folder. It sets the file's digest.
func download(ctx context.Context, client jobpb.ArtifactRetrievalServiceClient, f *File, root *os.Root) (err error) {
	name := filepath.FromSlash(f.Name)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	partial := filepath.Join(filepath.Dir(name), ".fetch-"+uuid.NewString())
	file, err := root.OpenFile(partial, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if removing := root.Remove(partial); !errors.Is(removing, fs.ErrNotExist) {
				err = errors.Join(err, removing)
			}
		}
	}()
	digest, err := receive(ctx, client, f.Info, file)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if f.SHA256 != "" && f.SHA256 != digest.SHA256 {
		return fmt.Errorf("%w: the %d bytes that arrived have sha256 %s, but %s was promised",
			ErrMismatch, digest.Size, digest.SHA256, f.SHA256)
	}
	if err := root.Rename(partial, name); err != nil {
		return err
	}
	f.SHA256, f.Size = digest.SHA256, digest.Size
	return nil
}

// receive streams an artifact to w.
func receive(ctx context.Context, client jobpb.ArtifactRetrievalServiceClient, info *pipepb.ArtifactInformation, w io.Writer) (Digest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream where it is left before its end
	stream, err := client.GetArtifact(ctx, &jobpb.GetArtifactRequest{Artifact: info})
	if err != nil {
		return Digest{}, plain(err)
	}
	hasher := sha256.New()
	var size int64
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return Digest{SHA256: hex.EncodeToString(hasher.Sum(nil)), Size: size}, nil
		}
		if err != nil {
			return Digest{}, fmt.Errorf("after %d bytes: %w", size, plain(err))
		}
		hasher.Write(chunk.GetData())
		n, err := w.Write(chunk.GetData())
		size += int64(n)
		if err != nil {
			return Digest{}, err
		}
	}
}

// plain takes gRPC's "rpc error: code = … desc =" off a message that goes to a person; status.Code still finds the code.
func plain(err error) error { return rpcError{err} }

type rpcError struct{ error }

func (e rpcError) Error() string {
	s := status.Convert(e.error)
	return fmt.Sprintf("%s (%s)", s.Message(), s.Code())
}

func (e rpcError) Unwrap() error { return e.error }

func (e rpcError) GRPCStatus() *status.Status { return status.Convert(e.error) }
