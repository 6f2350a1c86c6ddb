// Package urn names the URNs that Trestle knows, grouped by kind. Each is an enum option in Beam's protos; the group's
// comment says which, and a test holds every constant against the protos that the module is built with.
//
// A name is the kind followed by Beam's own name for the thing: TransformParDo, CoderKV, EnvDocker.
package urn
