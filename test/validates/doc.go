// Command validates runs Beam's own test suites, the ones by which Beam validates a runner, against a trestle server:
// Python's PortableRunnerTest and its tests marked it_validatesrunner, Go's integration tests, Java's category
// ValidatesRunner, TypeScript's primitives. `make validates` sets up what it needs, runs all, and writes docs/validates.md;
// `make validates-quick` runs a part that takes minutes. A worktree has one run at a time: a second one is refused.
//
// What does not pass yet is in listed/, a file for each suite and mode, a line for each test with its reason. The run
// fails when a test fails that is not listed, when a listed one passes or fails in another way than its reason says, and
// when a listed one does not exist: so the lists say the truth, and only shrink.
package main
