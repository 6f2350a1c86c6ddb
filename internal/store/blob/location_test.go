package blob_test

import (
	"strings"
	"testing"

	"trestle/internal/store/blob"
)

// What other hosts are told has what this process's environment adds, but for the credentials, and means the same there.
func TestPortable(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "the-key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	t.Setenv("AWS_ENDPOINT_URL_S3", "")
	for _, c := range []struct {
		endpoint, region, location, want string
	}{
		{"", "", "s3://b/p", "s3://b/p"},
		{"", "eu-west-1", "s3://b/p", "s3://b/p?region=eu-west-1"},
		{"", "eu-west-1", "s3://b/p?region=x", "s3://b/p?region=x"},
		{"http://minio:9000", "", "s3://b/p", "s3://b/p?endpoint=http%3A%2F%2Fminio%3A9000&region=us-east-1&use_path_style=true"},
		{"http://minio:9000", "", "s3://b?use_path_style=false&endpoint=http://h", "s3://b?endpoint=http%3A%2F%2Fh&region=us-east-1&use_path_style=false"},
		{"", "", "gs://b/p", "gs://b/p"},
		{"", "", "hdfs://namenode:8020/p", "hdfs://namenode:8020/p"},
		{"", "", "/shared/my folder", "file:///shared/my%20folder"},
		{"", "", "file://localhost/shared", "file:///shared"},
	} {
		t.Setenv("AWS_ENDPOINT_URL", c.endpoint)
		t.Setenv("AWS_REGION", c.region)
		got, err := blob.Portable(c.location)
		if err != nil || got != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.location, got, err, c.want)
		}
		t.Setenv("AWS_ENDPOINT_URL", "http://elsewhere")
		t.Setenv("AWS_REGION", "elsewhere")
		if again, err := blob.Portable(got); err != nil || c.endpoint != "" && again != got {
			t.Errorf("%s: where the environment is another it is %s, %v", got, again, err)
		}
	}
	for location, want := range map[string]string{
		"":                                "the location is empty",
		"mem://":                          "cannot be read from another host",
		"s3://key:the-secret@b/p":         "credentials do not belong in the URL",
		"s3://b?session_token=the-secret": "(parameter session_token)",
		"gs://b?access_id=the-secret":     "(parameter access_id)",
	} {
		got, err := blob.Portable(location)
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %s, %v; want %q", location, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "the-secret") {
			t.Errorf("the secret is in %q", err)
		}
	}
}
