package flink

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestPauses: however old a job is, what its end waits to be noticed is a hundredth of that, within bounds.
func TestPauses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		age := time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(t, "age"))
		pause := pauseAfter(age)
		if pause < pollFirst || pause > pollLast {
			t.Fatalf("after %v a pause of %v", age, pause)
		}
		if pause > pollFirst && pause > age/pollPart {
			t.Fatalf("after %v a pause of %v: more than a hundredth", age, pause)
		}
		if pause < pollLast && pause < age/pollPart-1 {
			t.Fatalf("after %v a pause of %v: less than a hundredth", age, pause)
		}
	})
}
