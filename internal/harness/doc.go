// Package harness is the life of SDK harnesses: which environments can run here, how a harness is started, how its end
// is noticed and explained, and that nothing of it is left.
//
// A [Pool] belongs to one job. It starts an environment's workers on demand, hands out their Fn API sessions, keeps them
// warm from bundle to bundle and stage to stage, and stops them with the job. Process environments are in the package
// process, docker ones in container, external ones (worker pools, LOOPBACK) in external; boot is what a process
// environment's command may be.
//
// Sources: beam_runner_api.proto (StandardEnvironments), beam_provision_api.proto, and the container contract: a harness
// is started with --id, --logging_endpoint, --artifact_endpoint, --provision_endpoint and --control_endpoint.
package harness
