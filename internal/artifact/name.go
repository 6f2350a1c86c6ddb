package artifact

import (
	"encoding/hex"
	"fmt"
	"path"
	"strings"
)

// stagedName checks the name that an artifact is to have in a harness's folder, and returns it clean: a relative
// slash-separated path below the folder.
func stagedName(name string) (string, error) {
	switch {
	case name == "":
		return "", fmt.Errorf("staged name %q is empty", name)
	case strings.ContainsRune(name, 0):
		return "", fmt.Errorf("staged name %q has a NUL byte", name)
	case path.IsAbs(name):
		return "", fmt.Errorf("staged name %q is an absolute path: it must lie in the harness's own folder", name)
	}
	clean := path.Clean(name)
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("staged name %q leaves the harness's folder", name)
	}
	if clean == "." {
		return "", fmt.Errorf("staged name %q is the harness's folder itself, not a file in it", name)
	}
	return clean, nil
}

// normalizeSHA256 checks that s is a sha256 in hex and returns it in lower case.
func normalizeSHA256(s string) (string, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != 32 {
		return "", fmt.Errorf("%q is not a sha256: it takes 64 hexadecimal digits", s)
	}
	return hex.EncodeToString(raw), nil
}

// names are the staged names of one environment.
type names struct {
	files map[string]Digest
	// folders has, for each folder that a name lies in, one such name.
	folders map[string]string
}

func newNames() *names { return &names{files: map[string]Digest{}, folders: map[string]string{}} }

// take gives a clean name to an artifact. It tells when that very artifact had it before, and refuses a name that
// another artifact has, or that would have to be a file and a folder at once.
func (n *names) take(name string, digest Digest) (again bool, err error) {
	if earlier, taken := n.files[name]; taken {
		if earlier == digest {
			return true, nil
		}
		return false, fmt.Errorf("staged name %q stands for two different files: sha256 %s (%d bytes) and %s (%d bytes)",
			name, earlier.SHA256, earlier.Size, digest.SHA256, digest.Size)
	}
	if other, taken := n.folders[name]; taken {
		return false, fmt.Errorf("staged names %q and %q: the first would be a file and a folder at once", name, other)
	}
	for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
		if _, taken := n.files[folder]; taken {
			return false, fmt.Errorf("staged names %q and %q: the first would be a file and a folder at once", folder, name)
		}
		n.folders[folder] = name
	}
	n.files[name] = digest
	return false, nil
}
