package blob

// The drivers of the default build. Each registers its URL scheme; another one (gocloud.dev/blob/gcsblob for gs://,
// gocloud.dev/blob/azureblob for azblob://) is one more line here.
import (
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/s3blob"   // s3://
)
