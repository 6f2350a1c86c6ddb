package job_test

import (
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/job"
)

func TestStreaming(t *testing.T) {
	for _, c := range []struct {
		value   any
		want    bool
		refused string
	}{
		{nil, false, ""},
		{true, true, ""},
		{false, false, ""},
		{"true", true, ""},
		{"False", false, ""},
		{"yes, please", false, "pipeline option streaming: yes, please is neither true nor false"},
		{1.0, false, "pipeline option streaming: 1 is neither true nor false"},
	} {
		options, err := structpb.NewStruct(map[string]any{"beam:option:streaming:v1": c.value})
		if err != nil {
			t.Fatal(err)
		}
		got, err := job.Streaming(options)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != c.want || text != c.refused {
			t.Errorf("Streaming(%v) = %v, %q; want %v, %q", c.value, got, text, c.want, c.refused)
		}
	}
	if got, err := job.Streaming(nil); got || err != nil {
		t.Errorf("Streaming(nil) = %v, %v", got, err)
	}
}
