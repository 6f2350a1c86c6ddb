package metric

import (
	"math"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
)

func work(u string, values ...float64) *pipepb.MonitoringInfo {
	payload := newIterable(len(values))
	for _, v := range values {
		payload = appendDouble(payload, v)
	}
	return &pipepb.MonitoringInfo{Urn: u, Type: urn.MetricTypeProgress, Payload: payload}
}

func TestProgress(t *testing.T) {
	for name, c := range map[string]struct {
		infos []*pipepb.MonitoringInfo
		want  float64
		ok    bool
	}{
		"none":         {nil, 0, false},
		"others":       {[]*pipepb.MonitoringInfo{{Urn: urn.MetricElementCount, Payload: []byte{3}}}, 0, false},
		"one":          {[]*pipepb.MonitoringInfo{work(urn.MetricWorkCompleted, 3), work(urn.MetricWorkRemaining, 1)}, 0.75, true},
		"several":      {[]*pipepb.MonitoringInfo{work(urn.MetricWorkCompleted, 1, 2), work(urn.MetricWorkRemaining, 3), work(urn.MetricWorkRemaining, 6)}, 0.25, true},
		"only begun":   {[]*pipepb.MonitoringInfo{work(urn.MetricWorkCompleted), work(urn.MetricWorkRemaining, 5)}, 0, true},
		"not a number": {[]*pipepb.MonitoringInfo{work(urn.MetricWorkCompleted, math.NaN()), work(urn.MetricWorkRemaining, 5)}, 0, false},
		"infinite":     {[]*pipepb.MonitoringInfo{work(urn.MetricWorkCompleted, 1), work(urn.MetricWorkRemaining, math.Inf(1))}, 0, true},
		"negative":     {[]*pipepb.MonitoringInfo{work(urn.MetricWorkCompleted, -1), work(urn.MetricWorkRemaining, 5)}, 0, false},
	} {
		got, ok, err := Progress(c.infos)
		if got != c.want || ok != c.ok || err != nil {
			t.Errorf("%s: %v, %v, %v", name, got, ok, err)
		}
	}
	if _, _, err := Progress([]*pipepb.MonitoringInfo{{Urn: urn.MetricWorkCompleted, Payload: []byte{0, 0, 0, 2, 1}}}); err == nil {
		t.Error("a cut payload is taken")
	}
}

func TestOutput(t *testing.T) {
	count := func(of string, n byte) *pipepb.MonitoringInfo {
		return &pipepb.MonitoringInfo{Urn: urn.MetricElementCount, Type: urn.MetricTypeSumInt64, Payload: []byte{n}, Labels: map[string]string{pcollectionLabel: of}}
	}
	for name, c := range map[string]struct {
		infos    []*pipepb.MonitoringInfo
		some, ok bool
	}{
		"none":         {nil, false, false},
		"others":       {[]*pipepb.MonitoringInfo{work(urn.MetricWorkCompleted, 3)}, false, false},
		"input only":   {[]*pipepb.MonitoringInfo{count("in", 3)}, false, true},
		"nothing yet":  {[]*pipepb.MonitoringInfo{count("in", 3), count("out", 0)}, false, true},
		"some":         {[]*pipepb.MonitoringInfo{count("in", 1), count("out", 0), count("more", 2)}, true, true},
		"no input":     {[]*pipepb.MonitoringInfo{count("out", 1)}, true, true},
		"output first": {[]*pipepb.MonitoringInfo{count("out", 1), count("in", 1)}, true, true},
	} {
		some, ok, err := Output(c.infos, "in")
		if some != c.some || ok != c.ok || err != nil {
			t.Errorf("%s: %v, %v, %v", name, some, ok, err)
		}
	}
	if _, _, err := Output([]*pipepb.MonitoringInfo{{Urn: urn.MetricElementCount, Payload: []byte{0x80}}}, "in"); err == nil {
		t.Error("a cut payload is taken")
	}
}

func TestReadIndex(t *testing.T) {
	index := func(of string, payload ...byte) *pipepb.MonitoringInfo {
		return &pipepb.MonitoringInfo{Urn: urn.MetricDataChannelReadIndex, Payload: payload, Labels: map[string]string{transformLabel: of}}
	}
	n, ok, err := ReadIndex([]*pipepb.MonitoringInfo{work(urn.MetricWorkCompleted, 3), index("other", 9), index("source", 5)}, "source")
	if n != 5 || !ok || err != nil {
		t.Errorf("%d, %v, %v; want 5", n, ok, err)
	}
	if _, ok, err := ReadIndex([]*pipepb.MonitoringInfo{index("other", 9)}, "source"); ok || err != nil {
		t.Errorf("%v, %v of a harness that does not say", ok, err)
	}
	if _, _, err := ReadIndex([]*pipepb.MonitoringInfo{index("source", 0x80)}, "source"); err == nil {
		t.Error("a cut payload is taken")
	}
}
