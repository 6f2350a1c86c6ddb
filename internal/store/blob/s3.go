package blob

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"

	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// completeS3 writes into an S3 URL what the AWS SDK would take from the environment of this process, so that errors name
// the endpoint and other hosts open the same bucket. An S3-compatible server is addressed by path unless the URL says
// otherwise, since few have a host name for each bucket; and its region is a word that clients must give.
func completeS3(u *url.URL) {
	q := u.Query()
	first := func(names ...string) string {
		for _, name := range names {
			if value := os.Getenv(name); value != "" {
				return value
			}
		}
		return ""
	}
	set := func(key, value string) {
		if value != "" && !q.Has(key) {
			q.Set(key, value)
		}
	}
	set("endpoint", first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
	set("region", first("AWS_REGION", "AWS_DEFAULT_REGION"))
	if q.Get("endpoint") != "" {
		if !q.Has("s3ForcePathStyle") {
			set("use_path_style", "true")
		}
		if !q.Has("profile") && os.Getenv("AWS_PROFILE") == "" {
			set("region", "us-east-1")
		}
	}
	u.RawQuery = q.Encode()
}

// refusesS3 tells whether an error of S3's driver says that there are no credentials or the wrong ones: gocloud knows
// only one of the codes.
func refusesS3(err error) bool {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		code := response.HTTPStatusCode()
		return code == http.StatusUnauthorized || code == http.StatusForbidden
	}
	// The SDK looked for credentials and found none; it has no error type for that.
	return err != nil && strings.Contains(err.Error(), "get credentials")
}
