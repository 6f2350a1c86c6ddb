package urn

// Window functions that all SDKs agree on: the payload messages' PROPERTIES in standard_window_fns.proto.
const (
	WindowFnGlobal   = "beam:window_fn:global_windows:v1"
	WindowFnFixed    = "beam:window_fn:fixed_windows:v1"
	WindowFnSliding  = "beam:window_fn:sliding_windows:v1"
	WindowFnSessions = "beam:window_fn:session_windows:v1"
)
