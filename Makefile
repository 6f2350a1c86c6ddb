# make build       bin/trestle
# make wordcount   Beam's own WordCount from each SDK on the embedded engine (SDK=go limits it to one)
# make validates   Beam's own test suites from each SDK; writes docs/validates.md (SUITE=go ONLY=TestPanes limits it)
# make test        everything CI runs
# make bench       trestle and its peers side by side (SIZE=small tries it out, CASES='gbk-5m tiny' limits it)
# make bench-flink the same on a Flink cluster, beside Beam's own Flink runner (SIZE=large adds what takes minutes)
# make chaos       many jobs while their harnesses are killed and the disk fails; many jobs that must leave nothing
# make help        all of them
#
# Each target does all of its own set-up, below build/, and leaves the machine as it was. What has been set up once is
# kept until its version changes here.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

# What wordcount runs: any of python, go, java, typescript; and in which environments: any of loopback, process, docker
# (Python, Go, Java; with the images and the engine of test/containers), run (`trestle run` starts the server and adds the
# options). Separated by blanks or commas.
SDK ?= python go java typescript
ENVIRONMENT ?= loopback run
# How long each fuzz target runs in make test.
FUZZTIME ?= 5s

# Google's storage library without what only its gRPC API needs, which Trestle does not use: 14 MB of the binary.
export GOFLAGS := $(GOFLAGS) -tags=disable_grpc_modules

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

comma := ,
sdks := $(subst $(comma), ,$(SDK))
environments := $(subst $(comma), ,$(ENVIRONMENT))

# Beam's versions: Go's is the one that go.mod pins, the others' are in test/sdk.
beam_go := $(shell awk '$$1 == "github.com/apache/beam/sdks/v2" { print $$2 }' go.mod)
beam_python := $(shell sed -n 's/^apache-beam==//p' test/sdk/python/requirements.txt)
beam_java := $(shell sed -n 's:.*<beam.version>\(.*\)</beam.version>.*:\1:p' test/sdk/java/pom.xml)
beam_typescript := $(shell sed -n 's/.*"apache-beam". "\(.*\)".*/\1/p' test/sdk/typescript/package.json)

sdk := build/sdk
text := build/text/kjv.txt
python := $(sdk)/python-$(beam_python)/ready
go := $(sdk)/go-$(beam_go)/wordcount
java := $(sdk)/java-$(beam_java)/ready
typescript := $(sdk)/typescript-$(beam_typescript)/ready
# What Beam's own suites need besides; the Java SDK is of another version than WordCount's.
suites_python := $(dir $(python))validates
suites_go := $(sdk)/validates-go-$(beam_go)/ready
suites_go_symbols := $(sdk)/validates-go-$(beam_go)/primitives-symbols.test
suites_java_version := $(shell sed -n 's:.*<beam.version>\(.*\)</beam.version>.*:\1:p' test/validates/java/pom.xml)
suites_java := $(sdk)/validates-java-$(suites_java_version)/ready
suites := $(suites_python) $(suites_go) $(suites_java) $(typescript)
# The Flink versions that the adapter is for: the line with long-term support, and the newest.
flink_versions := 1.20.5 2.3.0
flink = $(sdk)/flink-$(1)/ready
# Which of them the targets for one use.
FLINK ?= $(firstword $(flink_versions))
flinks := $(foreach v,$(flink_versions),$(call flink,$(v)))
# What hosts share when they share no disk, and what the SDKs need to read and write it.
s3server := $(sdk)/versitygw-1.8.0/versitygw
hadoop := $(sdk)/hadoop-3.4.2/ready
gcsserver := $(sdk)/fake-gcs-server-1.56.1/fake-gcs-server
python_storage := $(dir $(python))storage
# Real streaming work: a Kafka broker, and Beam Java with KafkaIO, of the version of Java's suites.
kafka := $(sdk)/kafka-4.0.0/ready
streaming_java := $(sdk)/streaming-java-$(suites_java_version)/ready
go_storage := $(dir $(go))wordcount-s3
# Images of the SDKs' harnesses, and a Docker engine for the time of a test that wants one: DOCKER_HOST=… make takes
# another.
images := build/containers
image_python := $(images)/python-$(beam_python).tar
image_go := $(images)/go-$(beam_go).tar
image_java := $(images)/java-$(beam_java).tar
image_typescript :=
name_python := trestle-test/beam-python:$(beam_python)
name_go := trestle-test/beam-go:$(beam_go)
name_java := trestle-test/beam-java:$(beam_java)
dockered := $(if $(filter docker,$(environments)),$(filter-out typescript,$(sdks)))
lint := build/tools/golangci-lint
manifests := build/tools/manifests/ready
# The engines' adapters, where the program embeds them. Not under version control: `go build` works without them.
adapters := $(addprefix internal/engine/flink/adapter/trestle-flink-,1.20.jar 2.jar)
quietly := test/sdk/quietly

# What bench runs: SIZE is small, full or large; CASES and PEERS are names as in its table, all when empty.
SIZE ?= full
CASES ?=
PEERS ?=
ROUNDS ?= 3
prism := build/bench/prism-$(beam_go)
# The peer of bench-flink.
beam_flink := $(sdk)/beam-flink-$(shell sed -n 's:.*<beam.version>\(.*\)</beam.version>.*:\1:p' test/bench/beamflink/pom.xml)/ready

.PHONY: help build setup wordcount bench test vet lint unit race fuzz clean adapters adapters-test

help:
	@sed -n '1,/^$$/s/^# \?//p' Makefile
	@echo 'make vet, lint, unit, race, fuzz, adapters-test, validates-quick, e2e-flink-quick: parts of make test; make setup: all that they need; make clean: start afresh'

build:
	CGO_ENABLED=0 go build -ldflags '-s -w -X trestle/internal/cli.Version=$(VERSION)' -o bin/trestle ./cmd/trestle

wordcount: build $(text) $(foreach s,$(sdks),$($(s))) $(foreach s,$(dockered),$(image_$(s)))
	@go build -o build/wordcount/driver ./test/wordcount
	@$(if $(dockered),test/containers/with.sh $(images)/engine $(foreach s,$(dockered),$(s)=$(image_$(s))=$(name_$(s))) --) \
	  build/wordcount/driver -trestle bin/trestle -text $(text) -dir build/wordcount \
	  -sdk '$(sdks)' -environment '$(environments)' \
	  -python $(dir $(python)) -go $(go) -java $(dir $(java)) -typescript $(dir $(typescript)) \
	  -images '$(foreach s,$(dockered),$(s)=$(name_$(s)))'

# What of ENVIRONMENT=docker make test does: the images of the other SDKs take longer to make than all else.
.PHONY: wordcount-docker
wordcount-docker:
	@$(MAKE) --no-print-directory wordcount SDK=go ENVIRONMENT=docker

# Images of SDK harnesses, as tar files that test/containers/images.sh imports into any engine; and a Docker engine.
.PHONY: images image-python image-go image-java engine engine-down
images: image-python image-go image-java
image-python: $(image_python)
image-go: $(image_go)
image-java: $(image_java)
engine:
	@test/containers/engine.sh up $(images)/engine
engine-down:
	@test/containers/engine.sh down $(images)/engine

# Not part of make test: it takes a quarter of an hour, and means something on a quiet machine only.
bench: build $(prism) $(text) $(python) $(go)
	@go build -o build/bench/driver ./test/bench
	@go build -o build/bench/pipeline ./test/bench/pipeline
	@build/bench/driver -trestle bin/trestle -prism $(prism) -pipeline build/bench/pipeline -go $(go) -python $(dir $(python)) \
	  -text $(text) -dir build/bench/run -beam $(beam_go) -results test/bench/results \
	  -size '$(SIZE)' -cases '$(CASES)' -peers '$(PEERS)' -rounds '$(ROUNDS)'

# Trestle on Flink beside Beam's own Flink runner, on the same cluster. Not part of make test, for the same reasons.
.PHONY: bench-flink
bench-flink: $(adapters) build $(call flink,$(firstword $(flink_versions))) $(beam_flink) $(text) $(python) $(go)
	@go build -o build/bench/driver ./test/bench
	@go build -o build/bench/pipeline ./test/bench/pipeline
	@build/bench/driver -trestle bin/trestle -flink $(dir $(call flink,$(firstword $(flink_versions)))) -beam-flink $(dir $(beam_flink)) \
	  -pipeline build/bench/pipeline -go $(go) -python $(dir $(python)) -text $(text) -dir build/bench/flink -beam $(beam_go) \
	  -results test/bench/results -size '$(SIZE)' -cases '$(CASES)' -peers '$(PEERS)' -rounds '$(ROUNDS)'

# Not part of make test, which runs fewer jobs.
.PHONY: chaos
chaos:
	go test -count=1 -timeout 30m -v -run 'TestChaos|TestNothingIsLeft' ./test/chaos -chaos.jobs=50 -leak.jobs=500

# A streaming job's process, killed 30 times (make test has three times of it); and jobs that are cut off at any bundle, and in drains.
.PHONY: chaos-streaming
chaos-streaming:
	go test -count=1 -timeout 30m -v -run 'TestKills|TestJobCutOffAnywhere' ./internal/engine/local/streaming -streaming.kills=30 -streaming.cuts=20

# What a snapshot writes of state of which one in a hundred keys has changed.
.PHONY: bench-snapshots
bench-snapshots:
	go test -run XXX -bench Increment -benchtime 40x -timeout 60m ./internal/store/kv -kv.state=$$((1<<30))

# All of Beam's suites, or what SUITE and ONLY name (see test/validates); and a part that takes minutes.
.PHONY: validates validates-quick validates-flink
validates: validates_flags = -suite '$(SUITE)' -only '$(ONLY)' -report docs/validates.md
# Under kills (KILLS=5s) and restarts (RESTARTS=1s): see docs/validates-disturbed.md; HARNESSES=PROCESS has harnesses that can be killed.
validates: validates_flags += $(and $(KILLS),-kills $(KILLS)) $(and $(RESTARTS),-restarts $(RESTARTS)) $(and $(HARNESSES),-environment $(HARNESSES))
validates-quick: validates_flags = -quick
# The same on a Flink cluster of this machine's, with lists of its own.
validates-flink: validates_flags = -suite '$(or $(SUITE),typescript$(comma)go$(comma)python-portable-default$(comma)python-marked-default)' -only '$(ONLY)' \
  -flink $(dir $(call flink,$(FLINK)))
validates-flink: $(adapters) $(call flink,$(FLINK))
validates validates-flink: validates_flags += -gcs $(gcsserver)
validates validates-flink: $(suites_go_symbols) $(gcsserver)
validates validates-quick validates-flink: build $(suites)
	@go build -o build/validates/driver ./test/validates
	@build/validates/driver $(validates_flags) -trestle bin/trestle -source test/validates -dir build/validates/run \
	  -python $(dir $(python)) -go $(dir $(suites_go)) -java $(dir $(suites_java)) -typescript $(dir $(typescript)) \
	  -beam "$$(go list -m -f '{{.Dir}}' github.com/apache/beam/sdks/v2)" \
	  -versions 'Python $(beam_python), Go $(beam_go), Java $(suites_java_version), TypeScript $(beam_typescript); Trestle $(VERSION)'

# Beam's WordCount on real Flink clusters on hosts that share no disk (see test/flink); and its shortest form.
.PHONY: e2e-flink e2e-flink-quick e2e-flink-faults
e2e_flink = build/flink/driver -trestle bin/trestle -text $(text) -dir build/flink/e2e -flinks '$(subst $() ,:,$(abspath $(dir $(flinks))))' \
  -python $(dir $(python)) -go $(go_storage) -java $(dir $(java)) -hadoop $(dir $(hadoop))lib -s3 $(s3server) -only '$(ONLY)'
e2e-flink-quick: $(adapters) build $(text) $(firstword $(flinks)) $(python_storage) $(go_storage) $(s3server)
	@go build -o build/flink/driver ./test/flink
	@$(e2e_flink) -quick e2e

e2e-flink: $(adapters) build $(text) $(flinks) $(python_storage) $(go_storage) $(java) $(s3server) $(hadoop) $(image_go) $(image_python) $(image_java)
	@go build -o build/flink/driver ./test/flink
	@$(e2e_flink) -images $(images) e2e

# Jobs to which something happens: TaskManager, worker, harness, host, job server killed; cancelled from both ends.
e2e-flink-faults: $(adapters) build $(text) $(call flink,$(FLINK)) $(go_storage) $(python_storage) $(s3server) $(image_go)
	@go build -o build/flink/driver ./test/flink
	@$(e2e_flink) -flinks '$(abspath $(dir $(call flink,$(FLINK))))' -images $(images) faults

# Twenty jobs under random kills of harnesses, workers and TaskManagers. SEED=7 has what is killed follow from it.
.PHONY: chaos-flink
JOBS ?= 20
SEED ?= 0
chaos-flink: $(adapters) build $(text) $(call flink,$(FLINK)) $(go_storage) $(s3server) $(image_go)
	@go build -o build/flink/driver ./test/flink
	@CGO_ENABLED=0 go build -trimpath=false -ldflags '-s -w' -o build/flink/shaped ./test/flink/shaped
	@$(e2e_flink) -flinks '$(abspath $(dir $(call flink,$(FLINK))))' -images $(images) -jobs $(JOBS) -seed $(SEED) chaos

# A Flink cluster that stays until flink-down, for development (see test/flink).
.PHONY: flink-up flink-down
flink-up: $(call flink,$(FLINK))
	@go build -o build/flink/driver ./test/flink
	@build/flink/driver -flink $(abspath $(dir $<)) up

flink-down:
	@go build -o build/flink/driver ./test/flink
	@build/flink/driver down

# Streaming pipelines as users have them (see test/streaming): KafkaIO from Python and Java on a real broker, whole, or what
# ONLY names; and a source that polls, for DURATION. Not part of make test: they take minutes.
# And jobs of both kinds while their server is killed, KILLS times (30) at moments drawn from SEED.
.PHONY: e2e-kafka e2e-games e2e-kills e2e-poll
DURATION ?= 10m
SNAPSHOTS ?= 3s
streaming = build/streaming/driver -trestle bin/trestle -python $(dir $(python)) -source test/streaming
e2e-kafka: build $(python) $(kafka) $(streaming_java)
	@go build -o build/streaming/driver ./test/streaming
	@$(streaming) -dir build/streaming/kafka -kafka $(dir $(kafka))lib -java $(dir $(streaming_java)) -only '$(ONLY)' kafka

# Beam's game examples, as they are but for what they read and write.
e2e-games: build $(python) $(kafka) $(streaming_java)
	@go build -o build/streaming/driver ./test/streaming
	@$(streaming) -dir build/streaming/games -kafka $(dir $(kafka))lib -java $(dir $(streaming_java)) -only '$(ONLY)' games

e2e-kills: build $(python) $(kafka) $(streaming_java)
	@go build -o build/streaming/driver ./test/streaming
	@$(streaming) -dir build/streaming/kills -kafka $(dir $(kafka))lib -java $(dir $(streaming_java)) -kills $(or $(KILLS),30) -seed $(SEED) -only '$(ONLY)' kills

e2e-poll: build $(python)
	@go build -o build/streaming/driver ./test/streaming
	@$(streaming) -dir build/streaming/poll -duration $(DURATION) -snapshots $(SNAPSHOTS) -results test/streaming/results poll

# The set-up goes first and side by side, since it waits for the network more than it computes; then one thing after
# another, the cheap ones first, so that a failure shows early and its output stands alone. All are tried (-k).
test:
	@$(MAKE) --no-print-directory -j 3 setup
	@$(MAKE) --no-print-directory -k -j 1 build vet lint unit race fuzz adapters-test manifests-test validates-quick wordcount wordcount-docker e2e-flink-quick \
	  SDK='python go java typescript' ENVIRONMENT='loopback process run'

setup: $(lint) $(text) $(python) $(go) $(java) $(typescript) $(suites) $(adapters) $(flinks) $(image_go) \
  $(s3server) $(hadoop) $(python_storage) $(go_storage)

vet:
	go vet ./...

lint: $(lint)
	$(lint) run

# With the SDKs set up, their own staging clients are tested against ours; with Flink, the rig of its cluster.
unit: $(python) $(typescript) $(flinks) $(s3server) $(hadoop)
	TRESTLE_TEST_S3='$(abspath $(s3server))' TRESTLE_TEST_HADOOP='$(abspath $(dir $(hadoop)))/lib' \
	TRESTLE_TEST_FLINK='$(subst $() ,:,$(abspath $(dir $(flinks))))' \
	TRESTLE_TEST_PYTHON='$(abspath $(dir $(python)))/bin/python' TRESTLE_TEST_TYPESCRIPT='$(abspath $(dir $(typescript)))' go test ./...

race:
	go test -race ./...

# What no other target runs: Google Cloud Storage's API.
.PHONY: storage-gcs
storage-gcs: $(gcsserver)
	TRESTLE_TEST_GCS='$(abspath $(gcsserver))' go test -count=1 -run GCS ./internal/store/blob

fuzz:
	@test/fuzz.sh $(FUZZTIME)

adapters: $(adapters) workers

# The server's own program is its workers' on hosts of its kind; those of other kinds lie beside it, and go into the jar as well.
.PHONY: workers
workers:
	@for arch in amd64 arm64; do [ "$$(go env GOOS GOARCH | paste -sd-)" = linux-$$arch ] || GOOS=linux GOARCH=$$arch CGO_ENABLED=0 \
	  go build -ldflags '-s -w -X trestle/internal/cli.Version=$(VERSION)' -o bin/trestle-linux-$$arch ./cmd/trestle || exit 1; done

# Their tests, and whether they are formatted as google-java-format has it (mvn spotless:apply does it).
adapters-test:
	@$(quietly) "the adapters' tests" build/log/adapters-test.log mvn -B -f adapters/java/pom.xml spotless:check verify

# The manifests of deploy/, against Kubernetes' schemas and those of Flink's operator.
.PHONY: manifests-test
manifests-test: $(manifests)
	@$(dir $<)bin/python test/manifests/check.py $(dir $<)lib/flink-kubernetes-operator-api-*.jar deploy/kubernetes/*.yaml

clean:
	@if [ -e $(images)/engine ]; then test/containers/engine.sh rm $(images)/engine; fi
	rm -rf bin build $(adapters) adapters/java/*/target

$(text): test/sdk/text.sh
	@$(quietly) 'a text to count the words of' build/log/text.log test/sdk/text.sh $(@D)
	@touch $@

$(python): test/sdk/python/requirements.txt
	@$(quietly) 'Beam Python SDK $(beam_python)' build/log/python.log bash -euc \
	  'rm -rf $(@D); python3 -m venv $(@D); $(@D)/bin/pip install --disable-pip-version-check -r $<'
	@touch $@

# Built inside Beam's own module, whose go.sum holds for it. Without -trimpath: the SDK finds a worker's functions by
# the paths in its symbol table.
$(go):
	@$(quietly) 'Beam Go SDK $(beam_go)' build/log/go.log bash -euc \
	  'go mod download github.com/apache/beam/sdks/v2; \
	   go build -C "$$(go list -m -f "{{.Dir}}" github.com/apache/beam/sdks/v2)" -trimpath=false -ldflags "-s -w" -o "$(abspath $@)" ./go/examples/wordcount'

# Inside Beam's own module for the same reason.
$(prism):
	@$(quietly) 'Prism $(beam_go)' build/log/prism.log bash -euc \
	  'go mod download github.com/apache/beam/sdks/v2; \
	   go build -C "$$(go list -m -f "{{.Dir}}" github.com/apache/beam/sdks/v2)" -ldflags "-s -w" -o "$(abspath $@)" ./go/cmd/prism'

$(java): test/sdk/java/pom.xml
	@$(quietly) 'Beam Java SDK $(beam_java)' build/log/java.log bash -euc \
	  'rm -rf $(@D); mvn -B -q -f $< -DincludeScope=runtime -DoutputDirectory="$(abspath $(@D))" \
	   org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies'
	@touch $@

# Beam's own Flink runner, with the jars of the version of Flink that bench-flink runs.
$(beam_flink): test/bench/beamflink/pom.xml
	@$(quietly) "Beam's own Flink runner" build/log/beam-flink.log bash -euc \
	  'rm -rf $(@D); mvn -B -q -f $< -Dflink.version=$(firstword $(flink_versions)) -DincludeScope=runtime \
	   -DoutputDirectory="$(abspath $(@D))/lib" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies'
	@touch $@

$(typescript): test/sdk/typescript/package-lock.json test/sdk/typescript/wordcount.js
	@$(quietly) 'Beam TypeScript SDK $(beam_typescript)' build/log/typescript.log bash -euc \
	  'rm -rf $(@D); mkdir -p $(@D); cp test/sdk/typescript/* $(@D)/; cd $(@D); npm ci --ignore-scripts --no-audit --no-fund'
	@touch $@

# Into WordCount's virtual environment; the version of apache-beam there is the one asked for here.
$(suites_python): test/validates/python/requirements.txt $(python)
	@$(quietly) "what Beam Python's tests need" build/log/validates-python.log \
	  $(@D)/bin/pip install --disable-pip-version-check -r $< apache-beam==$(beam_python)
	@touch $@

# Stripped, they are half as large. In Beam's own module, whose go.sum holds for them.
$(suites_go):
	@$(quietly) "Beam Go's tests" build/log/validates-go.log bash -euc \
	  'go mod download github.com/apache/beam/sdks/v2; mkdir -p $(@D); \
	   for package in integration/primitives integration/synthetic integration/wordcount regression; do \
	     go test -C "$$(go list -m -f "{{.Dir}}" github.com/apache/beam/sdks/v2)" -c -ldflags "-s -w" \
	       -o "$(abspath $(@D))/$${package##*/}.test" "./go/test/$$package"; \
	   done'
	@touch $@

# With symbols, for the one test whose DoFn is found by them only.
$(suites_go_symbols): $(suites_go)
	@$(quietly) "Beam Go's tests, with symbols" build/log/validates-go-symbols.log \
	  go test -C "$$(go list -m -f "{{.Dir}}" github.com/apache/beam/sdks/v2)" -c -ldflags "-w" -o "$(abspath $@)" ./go/test/integration/primitives

$(suites_java): test/validates/java/pom.xml $(wildcard test/validates/java/src/main/java/trestle/validates/*.java)
	@$(quietly) "Beam Java's tests" build/log/validates-java.log bash -euc \
	  'rm -rf $(@D); mvn -B -q -f $< -Dout="$(abspath $(@D))" process-classes'
	@touch $@

# One run of Maven makes all of them.
$(adapters) &: $(shell find adapters/java -name pom.xml -o -path '*/src/main/*.java')
	@$(quietly) "the engines' adapters" build/log/adapters.log mvn -B -q -f adapters/java/pom.xml -DskipTests package
	@cp adapters/java/flink-1.20/target/trestle-flink-1.20.jar adapters/java/flink-2/target/trestle-flink-2.jar $(dir $(firstword $@))

# A cluster may run on the jars of an earlier set-up, so they are exchanged at once.
$(flinks): $(sdk)/flink-%/ready: test/flink/pom.xml
	@$(quietly) 'Flink $*' build/log/flink-$*.log bash -euc \
	  'rm -rf $(@D)/new; mvn -B -q -f $< -Dflink.version=$* -DincludeScope=runtime -DoutputDirectory="$(abspath $(@D))/new" \
	   org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies; \
	   rm -rf $(@D)/lib; mv $(@D)/new $(@D)/lib'
	@touch $@

# It takes a while: it is made for many kinds of disks.
$(s3server):
	@$(quietly) 'an S3 server' build/log/versitygw.log bash -euc \
	  'GOBIN="$(abspath $(@D))" CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" \
	   github.com/versity/versitygw/cmd/versitygw@v$(patsubst versitygw-%,%,$(notdir $(@D)))'

$(gcsserver):
	@$(quietly) "a server of Google Cloud Storage's API" build/log/gcs.log bash -euc \
	  'GOBIN="$(abspath $(@D))" CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" \
	   github.com/fsouza/fake-gcs-server@v$(patsubst fake-gcs-server-%,%,$(notdir $(@D)))'

$(hadoop): test/cluster/storage/pom.xml
	@$(quietly) 'HDFS' build/log/hadoop.log bash -euc \
	  'rm -rf $(@D)/lib; mvn -B -q -f $< -Dhadoop.version=$(patsubst hadoop-%,%,$(notdir $(@D))) -DincludeScope=runtime \
	   -DoutputDirectory="$(abspath $(@D))/lib" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies'
	@touch $@

$(kafka): test/streaming/kafka/pom.xml
	@$(quietly) 'Kafka' build/log/kafka.log bash -euc \
	  'rm -rf $(@D)/lib; mvn -B -q -f $< -Dkafka.version=$(patsubst kafka-%,%,$(notdir $(@D))) -DincludeScope=runtime \
	   -DoutputDirectory="$(abspath $(@D))/lib" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies'
	@touch $@

$(streaming_java): test/streaming/java/pom.xml $(wildcard $(addprefix test/streaming/java/src/main/java/,trestle/streaming/*.java org/apache/beam/examples/complete/game/*.java))
	@$(quietly) 'Beam Java with KafkaIO' build/log/streaming-java.log bash -euc \
	  'rm -rf $(@D); mvn -B -q -f $< -Dout="$(abspath $(@D))" process-classes'
	@touch $@

# Into WordCount's virtual environment, as what Beam's tests need is.
$(python_storage): test/cluster/storage/requirements.txt $(python)
	@$(quietly) 'S3 and HDFS for Beam Python' build/log/python-storage.log \
	  $(@D)/bin/pip install --disable-pip-version-check -r $< apache-beam==$(beam_python)
	@touch $@

# What is in the virtual environment is in the image.
$(image_python): $(python_storage)

# Beam's WordCount as it is, and a file beside it that links Beam's own S3 file system in; with Beam's own requirements.
$(go_storage): test/cluster/storage/s3.go.txt
	@$(quietly) 'Beam Go WordCount with S3' build/log/go-storage.log bash -euc \
	  'go mod download github.com/apache/beam/sdks/v2; beam="$$(go list -m -f "{{.Dir}}" github.com/apache/beam/sdks/v2)"; \
	   rm -rf $@.src; mkdir -p $@.src; cp "$$beam"/go/examples/wordcount/wordcount.go $@.src/; cp $< $@.src/s3.go; \
	   { sed "s:^module .*:module wordcount:" "$$beam/go.mod"; echo "require github.com/apache/beam/sdks/v2 $(beam_go)"; } >$@.src/go.mod; \
	   { cat "$$beam/go.sum"; grep "^github.com/apache/beam/sdks/v2 " go.sum; } >$@.src/go.sum; \
	   go build -C $@.src -mod=mod -trimpath=false -ldflags "-s -w" -o "$(abspath $@)" .'
	@touch $@

$(image_go): test/containers/images.sh $(go)
	@$(quietly) 'image of the Go SDK' build/log/image-go.log test/containers/images.sh go $@ $(go)

$(image_python): test/containers/images.sh $(python)
	@$(quietly) 'image of the Python SDK' build/log/image-python.log test/containers/images.sh python $@ $(dir $(python))

$(image_java): test/containers/images.sh $(java)
	@$(quietly) 'image of the Java SDK' build/log/image-java.log test/containers/images.sh java $@ $(dir $(java))

# A module of its own, so that the linter's two hundred dependencies stay out of trestle's.
$(lint): tools/go.mod tools/go.sum
	@$(quietly) golangci-lint build/log/lint.log go build -C tools -o '$(abspath $@)' github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

$(manifests): test/manifests/requirements.txt test/manifests/pom.xml
	@$(quietly) "schemas of Kubernetes and Flink's operator" build/log/manifests.log bash -euc \
	  'rm -rf $(@D); python3 -m venv $(@D); $(@D)/bin/pip install --disable-pip-version-check -r $<; \
	   mvn -B -q -f test/manifests/pom.xml -DoutputDirectory="$(abspath $(@D))/lib" \
	   org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies'
	@touch $@
