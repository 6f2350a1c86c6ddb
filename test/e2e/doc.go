// Package e2e runs whole pipelines, written with Beam's Go SDK, against a server in the test's process. The harness is the
// SDK's own: in this process (LOOPBACK), or this test binary started by `trestle boot go` (PROCESS).
package e2e
