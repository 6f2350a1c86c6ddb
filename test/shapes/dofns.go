package shapes

import (
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/state"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
)

// DoFns are registered for reflection: what register.DoFn makes is faster, and takes the compiler six seconds each.
func init() {
	beam.RegisterDoFn(&source{})
	beam.RegisterDoFn(&eachElement{})
	beam.RegisterDoFn(&fat{})
	beam.RegisterDoFn(&ranges{})
	beam.RegisterDoFn(&counter{})
	register.Function2x2(digestFat)
	register.Function2x2(digestGroup)
	register.Function3x2(digestBoth)
	register.Function1x2(total)
	register.Function3x2(withSide)
	register.Function3x2(withLookup)
	register.Function3x0(timed)
	register.Function3x2(sumInWindow)
	register.Function3x2(digestInWindow)
	register.Combiner3[summed, int, int](&summary{})
	register.Emitter2[string, int]()
	register.Emitter2[string, string]()
	register.Emitter3[beam.EventTime, string, int]()
	register.Iter1[int]()
	register.Iter1[string]()
}

// source makes Size elements.
type source struct{ Size, Seed int }

func (f *source) ProcessElement(_ []byte, emit func(string, int)) {
	for i := range f.Size {
		e := element(f.Seed, i)
		emit(e.K, e.V)
	}
}

type eachElement struct{ Op Op }

func (f *eachElement) ProcessElement(k string, v int, emit func(string, int)) {
	each(f.Op, k, v, emit)
}

type fat struct{ Op Op }

func (f *fat) ProcessElement(k string, v int, emit func(string, string)) { emit(k, fatten(f.Op, v)) }

// ranges is a splittable DoFn: it counts from 0 up to a value.
type ranges struct{}

func (*ranges) CreateInitialRestriction(_ string, v int) offsetrange.Restriction {
	return offsetrange.Restriction{End: width(v)}
}

func (*ranges) SplitRestriction(_ string, _ int, r offsetrange.Restriction) []offsetrange.Restriction {
	return r.EvenSplits(2)
}

func (*ranges) RestrictionSize(_ string, _ int, r offsetrange.Restriction) float64 { return r.Size() }

func (*ranges) CreateTracker(r offsetrange.Restriction) *sdf.LockRTracker {
	return sdf.NewLockRTracker(offsetrange.NewTracker(r))
}

func (*ranges) ProcessElement(rt *sdf.LockRTracker, k string, _ int, emit func(string, int)) {
	for i := rt.GetRestriction().(offsetrange.Restriction).Start; rt.TryClaim(i); i++ {
		emit(k, int(i))
	}
}

// counter numbers the elements of a key, in whatever order they come.
type counter struct{ Seen state.Value[int] }

func (f *counter) ProcessElement(p state.Provider, k string, _ int) (string, int, error) {
	seen, _, err := f.Seen.Read(p)
	if err != nil {
		return k, 0, err
	}
	return k, seen + 1, f.Seen.Write(p, seen+1)
}

func gather[T any](values func(*T) bool) (all []T) {
	for v := *new(T); values(&v); {
		all = append(all, v)
	}
	return all
}

func digestGroup(k string, values func(*int) bool) (string, int) { return k, digest(gather(values)) }

func digestFat(k string, values func(*string) bool) (string, int) {
	return k, digestTexts(gather(values))
}

func digestBoth(k string, a, b func(*int) bool) (string, int) {
	return k, both(digest(gather(a)), digest(gather(b)))
}

func total(v int) (string, int) { return "total", v }

func withSide(k string, v int, side func(*int) bool) (string, int) {
	return k, both(v, digest(gather(side)))
}

func withLookup(k string, v int, side func(string) func(*int) bool) (string, int) {
	return k, both(v, digest(gather(side(k))))
}

func timed(k string, v int, emit func(beam.EventTime, string, int)) {
	emit(mtime.FromMilliseconds(int64(second(v))*1000), k, v)
}

func sumInWindow(w beam.Window, k string, v int) (string, int) {
	iw := w.(window.IntervalWindow)
	return inWindow(k, int64(iw.Start), int64(iw.End)), v
}

func digestInWindow(w beam.Window, k string, values func(*int) bool) (string, int) {
	iw := w.(window.IntervalWindow)
	return inWindow(k, int64(iw.Start), int64(iw.End)), digest(gather(values))
}
