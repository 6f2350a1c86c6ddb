package submission

import "encoding/json"

// Probe is what `trestle doctor` has tried from each of an engine's hosts.
type Probe struct {
	// Trestle is the version of whoever asks.
	Trestle string `json:"trestle"`
	// Artifacts is where workers are to find artifacts; Mark is an object that was written to the bucket, to be read.
	Artifacts Artifacts `json:"artifacts"`
	Mark      string    `json:"mark,omitempty"`
	// Containers is how workers run containers, in the form of package harness.
	Containers json.RawMessage `json:"containers,omitempty"`
}

// Finding is what came of trying one thing.
type Finding struct {
	// Text is a line that says what was tried, from which host, and what to do if it failed.
	Text string `json:"text"`
	// Need says what for it is needed, when it may be missing: a container engine for docker environments.
	Need   string `json:"need,omitempty"`
	Failed bool   `json:"failed,omitempty"`
}
