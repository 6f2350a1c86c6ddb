package storage

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"trestle/test/cluster"
)

const (
	s3Port   = 7070
	s3Region = "us-east-1"
	s3Key    = "trestle"
	s3Secret = "trestle-secret"
)

// S3 is an S3 server with one bucket.
type S3 struct {
	// Bucket is its name.
	Bucket string

	host    *cluster.Host
	process *cluster.Process
	// binary is the server's program, folder where the buckets are.
	binary, folder string
	client         *s3.Client
}

// StartS3 starts versitygw on a host, with an empty bucket. binary is its program.
func StartS3(ctx context.Context, h *cluster.Host, binary, bucket string) (*S3, error) {
	folder := filepath.Join(h.Dir(), "s3")
	// A folder is a bucket.
	if err := os.MkdirAll(h.Outside(filepath.Join(folder, bucket)), 0o755); err != nil {
		return nil, err
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	s := &S3{Bucket: bucket, host: h, binary: binary, folder: folder}
	if s.process, err = s.start("s3"); err != nil {
		return nil, err
	}
	s.client = s3.New(s3.Options{BaseEndpoint: aws.String(s.Endpoint()), UsePathStyle: true, Region: s3Region,
		Credentials: credentials.NewStaticCredentialsProvider(s3Key, s3Secret, "")})
	return s, s.up(ctx, s.process)
}

// start starts the program, with further options, under a name.
func (s *S3) start(name string, more ...string) (*cluster.Process, error) {
	argv := append([]string{s.binary, "--port", fmt.Sprintf("%v:%d", s.host.IP, s3Port), "--region", s3Region}, more...)
	return s.host.Start(cluster.Command{Name: name, Argv: append(argv, "posix", s.folder),
		Env: []string{"ROOT_ACCESS_KEY=" + s3Key, "ROOT_SECRET_KEY=" + s3Secret}})
}

// up waits until a process answers as the server.
func (s *S3) up(ctx context.Context, p *cluster.Process) error {
	return up(ctx, "the S3 server", p, func(ctx context.Context) bool {
		_, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.Bucket})
		return err == nil
	})
}

// Revive starts the server again after it has ended, or ends it first.
func (s *S3) Revive(ctx context.Context) (err error) {
	if s.process, err = s.process.Restart(); err != nil {
		return err
	}
	return s.up(ctx, s.process)
}

// ReadOnly ends the server and has another in its place, with the same objects, which takes no more. The caller kills that before
// it calls Revive.
func (s *S3) ReadOnly(ctx context.Context) (*cluster.Process, error) {
	if err := s.process.Kill(); err != nil {
		return nil, err
	}
	p, err := s.start("s3-read-only", "--readonly")
	if err != nil {
		return nil, err
	}
	return p, s.up(ctx, p)
}

// Endpoint is where hosts find the server: by address, since clients then take the bucket's name for the first part of the
// path, and not of the host's name.
func (s *S3) Endpoint() string { return fmt.Sprintf("http://%v:%d", s.host.IP, s3Port) }

// Env is what the AWS SDKs want to know of it, as environment variables.
func (s *S3) Env() []string {
	return []string{"AWS_ENDPOINT_URL=" + s.Endpoint(), "AWS_REGION=" + s3Region, "AWS_ACCESS_KEY_ID=" + s3Key,
		"AWS_SECRET_ACCESS_KEY=" + s3Secret, "AWS_EC2_METADATA_DISABLED=true"}
}

// Credentials are the key and the secret, for clients that take them as options.
func (s *S3) Credentials() (key, secret, region string) { return s3Key, s3Secret, s3Region }

// URL is s3://bucket/path.
func (s *S3) URL(path string) string { return "s3://" + s.Bucket + "/" + path }

// Process is the server's.
func (s *S3) Process() *cluster.Process { return s.process }

// Put implements Store.
func (s *S3) Put(ctx context.Context, local, path string) error {
	file, err := os.Open(local)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.Bucket, Key: &path, Body: file})
	return s.wrap("put", path, err)
}

// List implements Store.
func (s *S3) List(ctx context.Context, folder string) ([]string, error) {
	prefix := strings.TrimSuffix(folder, "/") + "/"
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.Bucket, Prefix: &prefix})
	var paths []string
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, s.wrap("list", folder, err)
		}
		for _, object := range page.Contents {
			if key := aws.ToString(object.Key); !strings.HasSuffix(key, "/") {
				paths = append(paths, key)
			}
		}
	}
	return paths, nil
}

// Get implements Store.
func (s *S3) Get(ctx context.Context, path string) (io.ReadCloser, error) {
	object, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.Bucket, Key: &path})
	if err != nil {
		return nil, s.wrap("get", path, err)
	}
	return object.Body, nil
}

func (s *S3) wrap(operation, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", operation, s.URL(path), err)
}
