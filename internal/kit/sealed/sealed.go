// Package sealed is a first line for files that are written once: it says which format what follows has, and has the sum of both.
// The line is the same in all formats of a kind of file, so that one that is damaged can be told from one of another format.
package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// ErrDamaged is Decode's error for what is not as Encode made it.
var ErrDamaged = errors.New("it does not read back as it was written")

// Encode is the file's bytes: a line of magic, which says what kind of file it is and ends with a space, the version and the sum;
// then the body.
func Encode(magic string, version int, body []byte) []byte {
	return append(line(magic, version, body), body...)
}

func line(magic string, version int, body []byte) []byte {
	return fmt.Appendf(nil, "%s%d %s\n", magic, version, sum(version, body))
}

// Decode takes such a file apart. The body is part of b.
func Decode(magic string, b []byte) (version int, body []byte, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	digits, _, found := bytes.Cut(rest, []byte(" "))
	_, body, ended := bytes.Cut(rest, []byte("\n"))
	version, bad := strconv.Atoi(string(digits))
	if !ok || !found || !ended || bad != nil || !bytes.Equal(b[:len(b)-len(body)], line(magic, version, body)) {
		return 0, nil, ErrDamaged
	}
	return version, body, nil
}

// sum is sha256, in hex, of the version in decimal, a newline and the body.
func sum(version int, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", version)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}
