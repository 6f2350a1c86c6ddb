package main

import "testing"

// The matrix is not every combination; this is what it promises to have.
func TestMatrixCovers(t *testing.T) {
	has := map[string]bool{}
	for version := range 2 {
		for _, c := range matrix(version, false) {
			for _, pair := range []string{c.sdk + " in " + c.environment, c.environment + " with " + c.staging, c.sdk + " with " + c.staging,
				c.sdk + " over " + c.data, c.staging + " on the " + []string{"older", "newer"}[version]} {
				has[pair] = true
			}
			if c.sdk == "go" && c.data != onS3 || c.sdk == "java" && c.data != onHDFS || c.sdk != "python" && c.environment == inExternal {
				t.Errorf("%s cannot be: see matrix", c.name())
			}
		}
	}
	want := []string{"python in external", "python over s3", "python over hdfs", "go over s3", "java over hdfs"}
	for _, sdk := range []string{"python", "go", "java"} {
		want = append(want, sdk+" in docker", sdk+" in process")
		for _, staging := range []string{onS3, onHDFS, onNothing} {
			want = append(want, sdk+" with "+staging, staging+" on the older", staging+" on the newer")
		}
	}
	for _, environment := range []string{inDocker, inProcess} {
		for _, staging := range []string{onS3, onHDFS, onNothing} {
			want = append(want, environment+" with "+staging)
		}
	}
	for _, pair := range want {
		if !has[pair] {
			t.Errorf("nowhere is %s", pair)
		}
	}
}

func TestFilesThatFlinkKeeps(t *testing.T) {
	for path, own := range map[string]bool{
		"hsperfdata_root/12":                         true,
		"flink/tmp/tm_taskmanager1-1/blobStorage/x":  true,
		"flink/tmp/flink-io-1234/channel":            true,
		"flink/tmp/trestle-05628d78f662add3/trestle": true,
		"flink/tmp/trestle-05628d78f662add3/other":   false,
		"flink/tmp/trestle-worker-12-ab/spill":       false,
		"flink/tmp/jaas-1.conf":                      true,
		"home/.cache/x":                              false,
	} {
		if flinksOwn(path) != own {
			t.Errorf("%s: %v", path, !own)
		}
	}
}
