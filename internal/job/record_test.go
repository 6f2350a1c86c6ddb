package job_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/job"
)

// records has each kind of record, with every field set, and without any.
func records() []job.Record {
	when := timestamppb.New(time.Date(2026, 11, 23, 14, 0, 0, 42, time.UTC))
	options := &structpb.Struct{Fields: map[string]*structpb.Value{"beam:option:app_name:v1": structpb.NewStringValue("x")}}
	info := []*pipepb.MonitoringInfo{{Urn: "beam:metric:element_count:v1", Payload: []byte{7}}}
	return []job.Record{
		&job.Prepared{
			Info:     &jobpb.JobInfo{JobId: "wordcount-abcd", JobName: "WordCount", PipelineOptions: options},
			Pipeline: job.PipelineRef{File: "pipeline.pb", Size: 1 << 40, SHA256: [32]byte{1, 31: 2}},
			Time:     when,
		},
		&job.Prepared{Info: &jobpb.JobInfo{}, Time: &timestamppb.Timestamp{}},
		&job.StateChange{JobStateEvent: &jobpb.JobStateEvent{State: jobpb.JobState_RUNNING, Timestamp: when}},
		&job.StateChange{JobStateEvent: &jobpb.JobStateEvent{}},
		&job.Message{JobMessage: &jobpb.JobMessage{
			MessageId: "1", Time: "now", Importance: jobpb.JobMessage_JOB_MESSAGE_ERROR, MessageText: "no such file"}},
		&job.Message{JobMessage: &jobpb.JobMessage{}},
		&job.Metrics{MetricResults: &jobpb.MetricResults{Attempted: info, Committed: info}},
		&job.Metrics{MetricResults: &jobpb.MetricResults{}},
		&job.Accepted{Handle: "flink:1234", Time: when},
		&job.Accepted{Time: &timestamppb.Timestamp{}},
		&job.Staged{SHA256: []string{strings.Repeat("ab", 32), strings.Repeat("01", 32)}},
		&job.Staged{},
		&job.Again{JobStateEvent: &jobpb.JobStateEvent{State: jobpb.JobState_STARTING, Timestamp: when}},
		&job.Again{JobStateEvent: &jobpb.JobStateEvent{}},
	}
}

func encode(t testing.TB, r job.Record) []byte {
	b, err := job.Encode(r)
	if err != nil {
		t.Fatalf("Encode(%v): %v", r, err)
	}
	return b
}

func TestRecordsRoundTrip(t *testing.T) {
	for _, want := range records() {
		got, err := job.Decode(encode(t, want))
		if err != nil {
			t.Errorf("Decode(%T): %v", want, err)
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Errorf("%T (-want +got):\n%s", want, d)
		}
	}
}

// TestEncodingIsFixed has records as version 1 writes them: they must be readable for ever.
func TestEncodingIsFixed(t *testing.T) {
	b := encode(t, &job.StateChange{JobStateEvent: &jobpb.JobStateEvent{State: jobpb.JobState_DONE}})
	if want := []byte{1, 2, 8, 3}; !bytes.Equal(b, want) {
		t.Errorf("state change: % x, want % x", b, want)
	}
	b = encode(t, &job.Accepted{Handle: "h", Time: &timestamppb.Timestamp{Seconds: 5}})
	if want := []byte{1, 5, 0x0a, 1, 'h', 0x12, 2, 8, 5}; !bytes.Equal(b, want) {
		t.Errorf("accepted: % x, want % x", b, want)
	}
}

// TestStagedIsKnown: a log that says that a job was given nothing is another than one that does not say.
func TestStagedIsKnown(t *testing.T) {
	var l job.Life
	for _, r := range []job.Record{prepared(), &job.Message{JobMessage: &jobpb.JobMessage{}}} {
		if err := l.Apply(r); err != nil || l.Artifacts != nil {
			t.Errorf("after %T: %v, %v", r, l.Artifacts, err)
		}
	}
	if err := l.Apply(&job.Staged{}); err != nil || l.Artifacts == nil {
		t.Errorf("after a Staged of nothing: %v, %v", l.Artifacts, err)
	}
}

func TestRefusedRecords(t *testing.T) {
	for _, c := range []struct {
		bytes []byte
		says  string
	}{
		{nil, "0 bytes"},
		{[]byte{1}, "1 bytes"},
		{[]byte{2, 2, 8, 3}, "version 2, and this Trestle reads version 1"},
		{[]byte{1, 0}, "kind 0: unknown kind of record"},
		{[]byte{1, 99, 8, 3}, "kind 99: unknown kind of record; the log was written by a newer Trestle"},
		{[]byte{1, 2, 8}, "kind 2"},
		{[]byte{1, 1, 0x1a, 1, 0}, "field 3: a sha256 of 1 bytes"},
		{[]byte{1, 1, 0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "a pipeline of negative size"},
		{[]byte{1, 1, 0x22, 0}, "field 4"},
		{[]byte{1, 5, 0x0a, 9}, "unexpected EOF"},
		{[]byte{1, 6, 0x0a, 1, 0}, "field 1: a sha256 of 1 bytes"},
	} {
		_, err := job.Decode(c.bytes)
		if !errors.Is(err, job.ErrRecord) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Decode(% x) = %v; want an error that says %q", c.bytes, err, c.says)
		}
	}
	if _, err := job.Encode(&job.Message{JobMessage: &jobpb.JobMessage{MessageText: "\xff"}}); err == nil {
		t.Error("Encode takes a text that is not UTF-8")
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range records() {
		f.Add(encode(f, r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := job.Decode(b)
		if err != nil {
			if !errors.Is(err, job.ErrRecord) {
				t.Fatalf("%v does not wrap ErrRecord", err)
			}
			return
		}
		again, err := job.Decode(encode(t, r))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, again, protocmp.Transform()); d != "" {
			t.Fatalf("encoded and decoded again (-want +got):\n%s", d)
		}
	})
}
