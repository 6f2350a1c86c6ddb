// Package trailer makes gRPC statuses that arrive: their messages travel in HTTP/2 trailers, which clients refuse where they are
// large, with an error that hides the message.
package trailer

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxStatus bounds a status message as it travels, in bytes: percent-encoded, in trailers, of which gRPC's C core and
// Java take 8 KiB by default, all fields together. A client that gets more reports that, and not the message.
const maxStatus = 6 << 10

// Status is a gRPC status with as much of the text as clients can take, cut at a line's end where there is one. Who
// makes one of a long text writes all of that to the log, to which the client is referred.
func Status(code codes.Code, text string) error {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if encodedSize(text) <= maxStatus {
		return status.Error(code, text)
	}
	const note = "… and %d more lines; the server's log has all of them"
	room := maxStatus - 3*len(note)
	at := 0
	for i, r := range text {
		if room -= encodedSize(string(r)); room < 0 {
			break
		}
		at = i + utf8.RuneLen(r)
	}
	kept := text[:at]
	if line := strings.LastIndexByte(kept, '\n'); line > 0 {
		kept = kept[:line]
	}
	more := strings.Count(strings.TrimRight(text[len(kept):], "\n"), "\n")
	if more == 0 {
		return status.Error(code, kept+" … (cut; the server's log has all of it)")
	}
	return status.Error(code, kept+"\n"+fmt.Sprintf(note, more))
}

// encodedSize is what a text takes in a grpc-message header (PROTOCOL-HTTP2.md): bytes outside of printable ASCII, and
// the percent sign, take three.
func encodedSize(text string) int {
	n := 0
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			n += 3
		} else {
			n++
		}
	}
	return n
}
