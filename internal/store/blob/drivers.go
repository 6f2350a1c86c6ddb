package blob

// The drivers of gocloud's that are opened by URL. Each registers its scheme; another one is one more line here. Those that
// this package opens itself (gs, hdfs) are in newDriver.
import (
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/s3blob"   // s3://
)
