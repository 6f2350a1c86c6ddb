package artifact

import (
	"path/filepath"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// Whatever a staged name is, a file by that name lies below its folder, or the name is refused.
func FuzzStagedName(f *testing.F) {
	for _, name := range []string{"a", "a/b", "../a", "a/../../b", "/a", "", ".", "..", "a/..", "a//b", "a\x00", "...", "..a", "a/./b", `..\a`, "a/"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		clean, err := stagedName(name)
		if err != nil {
			return
		}
		if !filepath.IsLocal(filepath.FromSlash(clean)) || clean == "." {
			t.Errorf("%q became %q, which is not below its folder", name, clean)
		}
		// Beam's own boot programs join the name as it was sent.
		if joined := filepath.Join("/harness", name); joined != filepath.Join("/harness", clean) || !strings.HasPrefix(joined, "/harness/") {
			t.Errorf("%q lies at %q for a boot program, and at %q here", name, joined, clean)
		}
		if again, err := stagedName(clean); err != nil || again != clean {
			t.Errorf("%q became %q, and that %q, %v", name, clean, again, err)
		}
	})
}

// Payloads come from outside: any bytes decode or are refused, and an error names the type.
func FuzzDecode(f *testing.F) {
	for _, info := range []*pipepb.ArtifactInformation{
		fileInfo("/f", sum(nil), "n"), fileInfo("/f", "zz", "../n"), urlInfo("http://h/p?q#f", "", "n"), urlInfo("http://[", "", ""),
		embeddedInfo([]byte("x"), "a/b"), {TypeUrn: typePyPI}, {TypeUrn: typeMaven}, {TypeUrn: typeDeferred}, {TypeUrn: "other"},
	} {
		f.Add(info.GetTypeUrn(), info.GetTypePayload(), info.GetRoleUrn(), info.GetRolePayload())
	}
	f.Fuzz(func(t *testing.T, typeURN string, typePayload []byte, roleURN string, rolePayload []byte) {
		info := &pipepb.ArtifactInformation{TypeUrn: typeURN, TypePayload: typePayload, RoleUrn: roleURN, RolePayload: rolePayload}
		d, err := decode(info)
		if err != nil {
			if !strings.Contains(err.Error(), typeURN) {
				t.Errorf("the error does not name type %q: %v", typeURN, err)
			}
			return
		}
		set := 0
		for _, is := range []bool{d.file != nil, d.url != nil, d.embedded != nil, d.pkg != ""} {
			if is {
				set++
			}
		}
		if set != 1 {
			t.Errorf("%d of the types are set: %+v", set, d)
		}
		files, err := layOut([]*pipepb.ArtifactInformation{info})
		if err != nil || len(files) != 1 {
			t.Fatalf("decoded but not laid out: %v, %v", files, err)
		}
		if files[0].Package == "" {
			if clean, err := stagedName(files[0].Name); err != nil || clean != files[0].Name {
				t.Errorf("laid out as %q: %v", files[0].Name, err)
			}
		}
	})
}
