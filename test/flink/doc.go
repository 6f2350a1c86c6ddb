// Command flink proves Trestle on real Flink clusters, and makes such clusters for development. A cluster is four hosts (job
// server, JobManager, two TaskManagers) and one for storage, made out of one machine: each is a set of namespaces with an
// address, a name, processes and a /tmp of its own (see test/cluster), so that no disk is shared but what is installed.
//
// `make e2e-flink` runs Beam's own WordCount from each SDK in a matrix of environments, ways of staging artifacts and versions
// of Flink (see matrix). Input and output are in S3 or HDFS. Each cell's counts are held against a count made without Beam;
// both TaskManagers must have worked; and on their hosts no process, container or file may be left of it. `make
// e2e-flink-quick` is the part that CI runs, and `make e2e-flink-faults` kills, restarts and cancels while a job is at work. `make
// chaos-flink` runs twenty jobs under random kills.
//
// For development, a cluster by one command, which stays until it is taken down:
//
//	make flink-up FLINK=1.20.5         # or 2.3.0; says every host's address
//	make flink-down
//
// and in between (each takes -dir, the cluster's folder, build/flink/dev by default):
//
//	build/flink/driver status                                  # the hosts, their processes
//	build/flink/driver exec jobserver bin/trestle serve …      # a command on a host, in the foreground
//	build/flink/driver kill taskmanager1                       # kill -9 of Flink's process there
//	build/flink/driver start taskmanager1                      # and a new one
//	build/flink/driver crash taskmanager1                      # the whole host, as by a power cut; start boots it again
//	build/flink/driver smoke                                   # a small job of Flink's own
//
// Logs are in the cluster's folder, log/HOST-PROCESS.log; a host's /tmp is hosts/HOST/tmp there. On a host the machine's disk
// is as it is, but read-only: binaries, SDKs and texts are where they are; what is written goes to /tmp. The hosts find one
// another by name (http://jobmanager:8081) and this machine by its address in their network, which status prints; this
// machine finds them by address. They reach nothing else.
//
// Without root, or with -plain, the hosts are plain: addresses 127.x.y.z, a folder each, no names.
package main
