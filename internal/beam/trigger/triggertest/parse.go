// Package triggertest reads triggers as tests write them, which is as trigger.Machine prints them:
//
//	Repeat(AfterAny(ElementCount(3), AfterProcessingTime(delay 1000, align to 60000 from 0)))
//	AfterEndOfWindow(early=ElementCount(1), late=Always)
//
// and has a generator of random ones.
package triggertest

import (
	"fmt"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// Parse returns the trigger that text is.
func Parse(text string) (*pipepb.Trigger, error) {
	p := parser{text: text}
	t, err := p.trigger()
	if err == nil && strings.TrimSpace(p.text) != "" {
		err = fmt.Errorf("%q is left", p.text)
	}
	if err != nil {
		return nil, fmt.Errorf("trigger %q: %w", text, err)
	}
	return t, nil
}

type parser struct{ text string }

// take takes the text if it is next.
func (p *parser) take(text string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(p.text), text)
	if ok {
		p.text = rest
	}
	return ok
}

// until takes what is before any of the stops.
func (p *parser) until(stops string) string {
	i := strings.IndexAny(p.text, stops)
	if i < 0 {
		i = len(p.text)
	}
	word := p.text[:i]
	p.text = p.text[i:]
	return strings.TrimSpace(word)
}

func (p *parser) trigger() (*pipepb.Trigger, error) {
	switch name := p.until("(,)"); name {
	case "":
		return nil, nil
	case "unset":
		return &pipepb.Trigger{}, nil
	case "Default":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_Default_{Default: &pipepb.Trigger_Default{}}}, nil
	case "Always":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_Always_{Always: &pipepb.Trigger_Always{}}}, nil
	case "Never":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_Never_{Never: &pipepb.Trigger_Never{}}}, nil
	case "AfterSynchronizedProcessingTime":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_AfterSynchronizedProcessingTime_{
			AfterSynchronizedProcessingTime: &pipepb.Trigger_AfterSynchronizedProcessingTime{},
		}}, nil
	case "ElementCount":
		return p.count()
	case "AfterProcessingTime":
		return p.processingTime()
	case "AfterEndOfWindow":
		return p.endOfWindow()
	case "AfterAll", "AfterAny", "AfterEach", "Repeat", "OrFinally":
		subs, err := p.list()
		if err != nil {
			return nil, err
		}
		return composite(name, subs)
	default:
		return nil, fmt.Errorf("no trigger is called %q", name)
	}
}

func (p *parser) count() (*pipepb.Trigger, error) {
	var n int32
	if !p.take("(") {
		return nil, fmt.Errorf("ElementCount of how many")
	}
	if _, err := fmt.Sscan(p.until(")"), &n); err != nil {
		return nil, err
	}
	p.take(")")
	return &pipepb.Trigger{Trigger: &pipepb.Trigger_ElementCount_{ElementCount: &pipepb.Trigger_ElementCount{ElementCount: n}}}, nil
}

func (p *parser) processingTime() (*pipepb.Trigger, error) {
	t := &pipepb.Trigger_AfterProcessingTime{}
	if p.take("(") {
		for !p.take(")") {
			text := p.until(",)")
			p.take(",")
			var delay, period, offset int64
			transform := &pipepb.TimestampTransform{}
			if n, _ := fmt.Sscanf(text, "align to %d from %d", &period, &offset); n == 2 {
				transform.TimestampTransform = &pipepb.TimestampTransform_AlignTo_{
					AlignTo: &pipepb.TimestampTransform_AlignTo{Period: period, Offset: offset},
				}
			} else if n, _ := fmt.Sscanf(text, "delay %d", &delay); n == 1 {
				transform.TimestampTransform = &pipepb.TimestampTransform_Delay_{
					Delay: &pipepb.TimestampTransform_Delay{DelayMillis: delay},
				}
			} else if text != "unset" {
				return nil, fmt.Errorf("no timestamp transform %q", text)
			}
			t.TimestampTransforms = append(t.TimestampTransforms, transform)
		}
	}
	return &pipepb.Trigger{Trigger: &pipepb.Trigger_AfterProcessingTime_{AfterProcessingTime: t}}, nil
}

func (p *parser) endOfWindow() (*pipepb.Trigger, error) {
	t := &pipepb.Trigger_AfterEndOfWindow{}
	if p.take("(") {
		for !p.take(")") {
			part := &t.EarlyFirings
			if p.take("late=") {
				part = &t.LateFirings
			} else if !p.take("early=") {
				return nil, fmt.Errorf("neither early= nor late= at %q", p.text)
			}
			var err error
			if *part, err = p.trigger(); err != nil {
				return nil, err
			}
			p.take(",")
		}
	}
	return &pipepb.Trigger{Trigger: &pipepb.Trigger_AfterEndOfWindow_{AfterEndOfWindow: t}}, nil
}

func (p *parser) list() (subs []*pipepb.Trigger, err error) {
	if !p.take("(") {
		return nil, nil
	}
	for !p.take(")") {
		sub, err := p.trigger()
		if err != nil {
			return nil, err
		}
		if !p.take(",") && !strings.HasPrefix(strings.TrimSpace(p.text), ")") {
			return nil, fmt.Errorf("no end at %q", p.text)
		}
		subs = append(subs, sub)
	}
	return subs, nil
}

func composite(name string, subs []*pipepb.Trigger) (*pipepb.Trigger, error) {
	at := func(i int) *pipepb.Trigger {
		if i < len(subs) {
			return subs[i]
		}
		return nil
	}
	switch name {
	case "AfterAll":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_AfterAll_{AfterAll: &pipepb.Trigger_AfterAll{Subtriggers: subs}}}, nil
	case "AfterAny":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_AfterAny_{AfterAny: &pipepb.Trigger_AfterAny{Subtriggers: subs}}}, nil
	case "AfterEach":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_AfterEach_{AfterEach: &pipepb.Trigger_AfterEach{Subtriggers: subs}}}, nil
	case "Repeat":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_Repeat_{Repeat: &pipepb.Trigger_Repeat{Subtrigger: at(0)}}}, nil
	default:
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_OrFinally_{
			OrFinally: &pipepb.Trigger_OrFinally{Main: at(0), Finally: at(1)},
		}}, nil
	}
}
