package blob

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	gcblob "gocloud.dev/blob"
)

// Portable is a location in the form in which another host may open it: a URL, with what the environment of this process
// adds to it (an S3 endpoint, a region), and without credentials, which come from the environment there. A location
// that has credentials in it, or that means something on this host only (memory), is refused. The bucket is not asked.
func Portable(location string) (string, error) {
	u, err := parse(location)
	if err != nil {
		return "", err
	}
	if u.Scheme == "mem" {
		return "", fmt.Errorf("bucket %s: what is in this process's memory cannot be read from another host", u)
	}
	return u.String(), nil
}

// parse takes a URL or a plain path for what it is, refuses credentials, and completes it from the environment. Its
// errors name the location.
func parse(location string) (*url.URL, error) {
	if location == "" {
		return nil, errors.New("open bucket: the location is empty: give a folder or a URL such as s3://bucket/path")
	}
	if !strings.Contains(location, "://") {
		abs, err := filepath.Abs(location)
		if err != nil {
			return nil, fmt.Errorf("open bucket %q: %w", location, err)
		}
		return &url.URL{Scheme: "file", Path: abs}, nil
	}
	u, err := url.Parse(location)
	if err != nil {
		var parseError *url.Error
		if errors.As(err, &parseError) {
			err = parseError.Err // without a second copy of the location
		}
		return nil, fmt.Errorf("open bucket %q: %w", location, err)
	}
	if secret := credentials(u); secret != "" {
		return nil, fmt.Errorf("open bucket %s: credentials do not belong in the URL (%s), where logs would show them and other "+
			"hosts be told them: %s", hidden(u), secret, howToAuthenticate(u.Scheme))
	}
	if known := schemes(); !slices.Contains(known, u.Scheme) {
		return nil, fmt.Errorf("open bucket %s: this build has no driver for %s://; it has %s", u, u.Scheme, strings.Join(known, ", "))
	}
	if u.Query().Has("prefix") {
		return nil, fmt.Errorf("open bucket %s: write the prefix as the path: %s://%s/%s", u, u.Scheme, u.Host, u.Query().Get("prefix"))
	}
	if u.Fragment != "" {
		return nil, fmt.Errorf("open bucket %s: a location has no fragment; write # as %%23", u)
	}
	switch u.Scheme {
	case "s3":
		completeS3(u)
	case "file":
		switch u.Host {
		case "", "localhost":
			u.Host = ""
		default:
			return nil, fmt.Errorf("open bucket %s: a file URL has no host, but this one has %q: write file:///%s%s for a folder on this machine",
				u, u.Host, u.Host, u.Path)
		}
		if u.Path == "" {
			return nil, fmt.Errorf("open bucket %s: the path is empty", u)
		}
	}
	return u, nil
}

// schemes are those of the drivers that are linked in.
func schemes() []string {
	known := append(gcblob.DefaultURLMux().BucketSchemes(), "hdfs")
	slices.Sort(known)
	return known
}

// credentials finds what looks like a secret in a URL, and names it.
func credentials(u *url.URL) string {
	if u.User != nil {
		return "user information"
	}
	for key := range u.Query() {
		lower := strings.ToLower(key)
		for _, word := range []string{"secret", "token", "password", "access_key", "accesskey", "access_id", "private_key", "signature", "credential"} {
			if strings.Contains(lower, word) {
				return "parameter " + key
			}
		}
	}
	return ""
}

// hidden is a URL whose secrets may be anywhere but in host and path.
func hidden(u *url.URL) string {
	short := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return short.String()
}

func howToAuthenticate(scheme string) string {
	switch scheme {
	case "s3":
		return "give them in the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or by an instance's role"
	case "gs":
		return "give them in the environment, as GOOGLE_APPLICATION_CREDENTIALS, or by the machine's service account"
	case "hdfs":
		return "say the user in the environment, as HADOOP_USER_NAME"
	case "file":
		return "the folder and what is in it must be readable, and for a job server writable, by the user of this process"
	default:
		return "give them in the environment"
	}
}

// display is the URL as errors name it: options are noise there, but for the endpoint, which tells where the object is.
func display(u *url.URL) string {
	short := hidden(&url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/")})
	if endpoint := u.Query().Get("endpoint"); endpoint != "" {
		short += "?endpoint=" + endpoint
	}
	return short
}
