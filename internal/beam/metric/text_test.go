package metric

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// info reads a monitoring info as scenarios write it: name type value [label=value…] [start=seconds]. A value is
// numbers or strings with commas between, in the order of the encoding; hex:… is a payload as it is.
func info(t *testing.T, line string) *pipepb.MonitoringInfo {
	f := strings.Fields(line)
	m := &pipepb.MonitoringInfo{Urn: "beam:metric:" + f[0] + ":v1", Type: "beam:metrics:" + f[1] + ":v1",
		Payload: encode(t, f[1], f[2])}
	for _, l := range f[3:] {
		k, v, _ := strings.Cut(l, "=")
		if k == "start" {
			m.StartTime = &timestamppb.Timestamp{Seconds: whole(t, v)}
			continue
		}
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[k] = v
	}
	return m
}

func whole(t *testing.T, s string) int64 {
	t.Helper()
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// layout says how a type's values stand in a payload: i an integer, d a double, s a string; with a star behind an
// iterable.
var layout = map[string]string{
	"sum_int64": "i", "sum_double": "d", "distribution_int64": "iiii", "distribution_double": "iddd",
	"latest_int64": "ii", "latest_double": "id", "top_n_int64": "i*", "top_n_double": "d*", "bottom_n_int64": "i*",
	"bottom_n_double": "d*", "set_string": "s*", "progress": "d*",
}

func encode(t *testing.T, typ, text string) []byte {
	if h, ok := strings.CutPrefix(text, "hex:"); ok {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var b []byte
	var values []string
	if text != "-" {
		values = strings.Split(text, ",")
	}
	form, many := strings.CutSuffix(layout[typ], "*")
	if many {
		b = binary.BigEndian.AppendUint32(b, uint32(len(values)))
		form = strings.Repeat(form, len(values))
	}
	if len(form) != len(values) {
		t.Fatalf("%s of %q: %d values are wanted", typ, text, len(form))
	}
	for i, v := range values {
		switch form[i] {
		case 'i':
			b = appendVarint(b, whole(t, v))
		case 'd':
			d, err := strconv.ParseFloat(v, 64)
			if err != nil {
				t.Fatal(err)
			}
			b = appendDouble(b, d)
		default:
			b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
		}
	}
	return b
}

// text writes an info as info reads it; tries and histograms as prototext.
func text(t *testing.T, m *pipepb.MonitoringInfo) string {
	typ := strings.TrimSuffix(strings.TrimPrefix(m.GetType(), "beam:metrics:"), ":v1")
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s %s", strings.TrimSuffix(strings.TrimPrefix(m.GetUrn(), "beam:metric:"), ":v1"), typ,
		value(t, typ, m.GetPayload()))
	for _, k := range slices.Sorted(maps.Keys(m.GetLabels())) {
		fmt.Fprintf(&out, " %s=%s", k, m.GetLabels()[k])
	}
	if s := m.GetStartTime(); s != nil {
		fmt.Fprintf(&out, " start=%d", s.GetSeconds())
	}
	return out.String()
}

func value(t *testing.T, typ string, payload []byte) string {
	var m proto.Message
	switch typ {
	case "bounded_trie":
		var trie pipepb.BoundedTrie
		if err := proto.Unmarshal(payload, &trie); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("bound %d:%s", trie.GetBound(), trieText(trie.GetRoot()))
	case "histogram_int64":
		m = new(pipepb.HistogramValue)
	}
	if m != nil {
		if err := proto.Unmarshal(payload, m); err != nil {
			t.Fatal(err)
		}
		// Prototext varies its blanks on purpose.
		return strings.Join(strings.Fields(prototext.MarshalOptions{}.Format(m)), " ")
	}
	form, known := layout[typ]
	if !known {
		return "hex:" + hex.EncodeToString(payload)
	}
	r := reader{b: payload}
	var values []string
	one := func(kind byte) {
		switch kind {
		case 'i':
			values = append(values, fmt.Sprint(r.varint()))
		case 'd':
			values = append(values, fmt.Sprint(r.double()))
		default:
			values = append(values, r.text())
		}
	}
	if form, many := strings.CutSuffix(form, "*"); many {
		r.iterable(func() { one(form[0]) })
	} else {
		for i := range form {
			one(form[i])
		}
	}
	if err := r.end(); err != nil {
		t.Fatalf("%s %x: %v", typ, payload, err)
	}
	if len(values) == 0 {
		return "-"
	}
	return strings.Join(values, ",")
}

// trieText lists a trie's paths; a star stands for what was cut off.
func trieText(n *pipepb.BoundedTrieNode) string {
	switch {
	case n == nil:
		return " nothing"
	case n.GetTruncated():
		return "*"
	case len(n.GetChildren()) == 0:
		return ""
	}
	var out strings.Builder
	for _, k := range slices.Sorted(maps.Keys(n.GetChildren())) {
		sub := trieText(n.GetChildren()[k])
		if strings.HasPrefix(sub, " ") {
			fmt.Fprintf(&out, " %s(%s)", k, strings.TrimSpace(sub))
		} else {
			fmt.Fprintf(&out, " %s%s", k, sub)
		}
	}
	return out.String()
}
