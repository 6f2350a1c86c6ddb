package submission

import "time"

// Report is what a task has measured and said so far, as the job server gets it from a worker, by way of the
// engine. Its JSON form is in
// docs/protocols/socket.md.
type Report struct {
	// Host and Worker are where the task ran: host name, and the worker's process id.
	Host   string `json:"host"`
	Worker int    `json:"worker"`
	// Attempt is how often the engine had started the task before.
	Attempt int `json:"attempt"`
	// Metrics is an encoded MetricResults.
	Metrics []byte `json:"metrics,omitempty"`
	// Messages are the latest.
	Messages []Message `json:"messages,omitempty"`
	// Time is when the report was made.
	Time   time.Time `json:"time"`
	Memory Memory    `json:"memory"`
}

// Message is one for a person to read.
type Message struct {
	// N counts the task's messages from 1.
	N          int       `json:"n"`
	Time       time.Time `json:"time"`
	Importance string    `json:"importance"`
	Text       string    `json:"text"`
}

// Memory is a worker's, in bytes: of its process, and what of its budget is in use, each now and at most so far. What is not
// told is 0.
type Memory struct {
	Resident     int64 `json:"resident"`
	ResidentPeak int64 `json:"residentPeak"`
	Held         int64 `json:"held"`
	HeldPeak     int64 `json:"heldPeak"`
	Budget       int64 `json:"budget"`
}
