package trailer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestFits: what a status says arrives at clients that take 8 KiB of trailers, in whole lines.
func TestFits(t *testing.T) {
	for _, line := range []string{"transform %d: “unknown” coder", "%d", strings.Repeat("x", 3000) + " %d"} {
		for _, n := range []int{1, 3, 1000} {
			lines := make([]string, n)
			for i := range lines {
				lines[i] = fmt.Sprintf(line, i)
			}
			text := strings.Join(lines, "\n")
			got := status.Convert(Status(codes.InvalidArgument, text)).Message()
			if size := encodedSize(got); size > 7<<10 {
				t.Errorf("%d lines like %.20q: %d bytes", n, line, size)
			}
			if encodedSize(text) < 6<<10 {
				if got != text {
					t.Errorf("a short text became %q", got)
				}
				continue
			}
			kept := strings.Split(got, "\n")
			var more int
			if _, err := fmt.Sscanf(kept[len(kept)-1], "… and %d more lines", &more); err != nil {
				t.Fatalf("%d lines like %.20q end in %q", n, line, kept[len(kept)-1])
			}
			kept = kept[:len(kept)-1]
			if !slices.Equal(kept, lines[:len(kept)]) {
				t.Errorf("kept are %q", kept)
			}
			if len(kept)+more != n {
				t.Errorf("%d lines: %d are kept, and %d more announced", n, len(kept), more)
			}
		}
	}
	long := strings.Repeat("ü", 10_000)
	if got := status.Convert(Status(codes.Internal, long)).Message(); !strings.Contains(got, "cut; the server's log") || encodedSize(got) > 7<<10 {
		t.Errorf("a long line: %d bytes, ending in %q", encodedSize(got), got[len(got)-60:])
	}
}
