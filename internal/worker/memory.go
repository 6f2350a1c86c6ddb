package worker

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"trestle/internal/job/submission"
)

func (w *Worker) memory() submission.Memory {
	m := submission.Memory{Held: w.budget.Used(), HeldPeak: w.budget.Peak(), Budget: w.budget.Limit()}
	m.Resident, m.ResidentPeak = resident()
	return m
}

// resident is how many bytes of this process are in memory, and were at most; 0 where the kernel does not tell.
func resident() (now, peak int64) {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// Such as "VmRSS:	   12345 kB".
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(words[1], 10, 64)
		switch {
		case err != nil:
		case words[0] == "VmRSS:":
			now = kib << 10
		case words[0] == "VmHWM:":
			peak = kib << 10
		}
	}
	return now, peak
}

// told is by how many bytes memory may change before a task that has nothing else to report does.
const told = 8 << 20

// differs tells whether memory is another than it was when it was reported last.
func differs(now, before submission.Memory) bool {
	far := func(a, b int64) bool { return a-b >= told || b-a >= told }
	return far(now.Resident, before.Resident) || far(now.Held, before.Held) || far(now.HeldPeak, before.HeldPeak)
}
