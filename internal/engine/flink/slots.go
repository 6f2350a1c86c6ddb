package flink

import (
	"fmt"
	"strings"
)

// A bounded job can be run with one slot, since its exchanges are blocking: its tasks take turns. So a parallelism that is larger
// than a cluster is no reason to refuse it, and what is missing is told (decision 22).

// lack says how many slots are missing for a parallelism, and what that means to a bounded job; "" when all are there.
func (o overview) lack(parallelism int) string {
	missing := parallelism - o.Free
	if missing <= 0 {
		return ""
	}
	has := fmt.Sprintf("It wants %s (its parallelism), and of the cluster's %d, %s: %d %s missing",
		count(parallelism, "slot"), o.Slots, areFree(o.Free), missing, isAre(missing))
	if held := o.Slots - o.Free; held > 0 {
		has += fmt.Sprintf(", and %s %s held by other jobs (%d running)", count(held, "slot"), isAre(held), o.Running)
	}
	if o.Free == 0 {
		return has + ". It waits until one is free; start more TaskManagers, or end another job, for it to begin sooner."
	}
	return has + ". Its tasks take turns."
}

func areFree(n int) string {
	switch n {
	case 0:
		return "none is free"
	case 1:
		return "1 is free"
	}
	return fmt.Sprintf("%d are free", n)
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// elastic tells whether a cluster of this configuration starts TaskManagers when a job asks for slots: Flink's own integration with
// Kubernetes or YARN. That such a one has none now says nothing.
func elastic(configuration map[string]string) bool {
	target := configuration["execution.target"]
	return configuration["kubernetes.cluster-id"] != "" || configuration["yarn.application.id"] != "" ||
		strings.HasPrefix(target, "kubernetes") || strings.HasPrefix(target, "yarn")
}
