package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// self is the first word of a command that means this very program, whatever the PATH holds: server and boot are then
// of one version.
const self = "trestle"

// Command finds the program that a process environment names. Its command is the path of a file, or a name in the PATH,
// or a line of words, quoted as in a shell, of which the first is either: "trestle boot python --python /opt/py/bin/python".
// An operating system or architecture that is named must be this machine's.
func Command(payload *pipepb.ProcessPayload) (path string, args []string, err error) {
	var errs []error
	if os := payload.GetOs(); os != "" && !strings.EqualFold(os, runtime.GOOS) {
		errs = append(errs, fmt.Errorf("the process environment is for the operating system %q, this is %s", os, runtime.GOOS))
	}
	if arch := payload.GetArch(); arch != "" && goarch(arch) != runtime.GOARCH {
		errs = append(errs, fmt.Errorf("the process environment is for the architecture %q, this is %s", arch, runtime.GOARCH))
	}
	path, args, err = find(payload.GetCommand())
	if err := errors.Join(append(errs, err)...); err != nil {
		return "", nil, err
	}
	return path, args, nil
}

func find(command string) (string, []string, error) {
	if strings.TrimSpace(command) == "" {
		return "", nil, errors.New(`the process environment names no command: give one in the environment config, as in {"command": "trestle boot python"}`)
	}
	// A path may hold spaces: as a whole it comes first.
	if info, err := os.Stat(command); err == nil && !info.IsDir() {
		path, err := executable(command)
		return path, nil, err
	}
	words, err := split(command)
	if err != nil {
		return "", nil, fmt.Errorf("command %q of the process environment: %w", command, err)
	}
	if words[0] == self {
		path, err := os.Executable()
		if err != nil {
			return "", nil, fmt.Errorf("command %q of the process environment: find this program's own file: %w", command, err)
		}
		return path, words[1:], nil
	}
	path, err := executable(words[0])
	return path, words[1:], err
}

// executable is the absolute path of a program.
func executable(name string) (string, error) {
	if !strings.ContainsRune(name, filepath.Separator) {
		if info, err := os.Stat(name); err == nil && !info.IsDir() {
			name = "." + string(filepath.Separator) + name
		}
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EISDIR):
		return "", fmt.Errorf("command %q of the process environment is not an executable file on this host: %w", name, err)
	default:
		return "", fmt.Errorf("command %q of the process environment is not on this host: %w", name, err)
	}
}

// goarch gives the names that uname and the JVM have for an architecture Go's name.
func goarch(name string) string {
	switch name = strings.ToLower(name); name {
	case "x86_64", "x86-64", "x64":
		return "amd64"
	case "aarch64":
		return "arm64"
	default:
		return name
	}
}

// split cuts a line into words: at spaces that are neither quoted by ' or " nor preceded by a backslash. It expands
// nothing. The line holds at least one word.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("no words")
	}
	return words, nil
}
