# make build       bin/trestle
# make wordcount   Beam's own WordCount from each SDK on the embedded engine (SDK=go limits it to one)
# make test        everything CI runs
# make help        all of them
#
# Each target does all of its own set-up, below build/, and leaves the machine as it was. What has been set up once is
# kept until its version changes here.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

# What wordcount runs: any of python, go, java, typescript; and in which environments: any of loopback, process, run
# (`trestle run` starts the server and adds the options). Separated by blanks or commas.
SDK ?= python go java typescript
ENVIRONMENT ?= loopback run
# How long each fuzz target runs in make test.
FUZZTIME ?= 5s

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
lint := build/tools/golangci-lint
quietly := test/sdk/quietly

.PHONY: help build setup wordcount test vet lint unit race fuzz clean

help:
	@sed -n '1,/^$$/s/^# \?//p' Makefile
	@echo 'make vet, lint, unit, race, fuzz: parts of make test; make setup: all that they need; make clean: start afresh'

build:
	CGO_ENABLED=0 go build -ldflags '-s -w -X trestle/internal/cli.Version=$(VERSION)' -o bin/trestle ./cmd/trestle

wordcount: build $(text) $(foreach s,$(sdks),$($(s)))
	@go build -o build/wordcount/driver ./test/wordcount
	@build/wordcount/driver -trestle bin/trestle -text $(text) -dir build/wordcount \
	  -sdk '$(sdks)' -environment '$(environments)' \
	  -python $(dir $(python)) -go $(go) -java $(dir $(java)) -typescript $(dir $(typescript))

# The set-up goes first and side by side, since it waits for the network more than it computes; then one thing after
# another, the cheap ones first, so that a failure shows early and its output stands alone. All are tried (-k).
test:
	@$(MAKE) --no-print-directory -j 3 setup
	@$(MAKE) --no-print-directory -k -j 1 build vet lint unit race fuzz wordcount \
	  SDK='python go java typescript' ENVIRONMENT='loopback process run'

setup: $(lint) $(text) $(python) $(go) $(java) $(typescript)

vet:
	go vet ./...

lint: $(lint)
	$(lint) run

unit:
	go test ./...

race:
	go test -race ./...

fuzz:
	@test/fuzz.sh $(FUZZTIME)

clean:
	rm -rf bin build

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

$(java): test/sdk/java/pom.xml
	@$(quietly) 'Beam Java SDK $(beam_java)' build/log/java.log bash -euc \
	  'rm -rf $(@D); mvn -B -q -f $< -DincludeScope=runtime -DoutputDirectory="$(abspath $(@D))" \
	   org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies'
	@touch $@

$(typescript): test/sdk/typescript/package-lock.json test/sdk/typescript/wordcount.js
	@$(quietly) 'Beam TypeScript SDK $(beam_typescript)' build/log/typescript.log bash -euc \
	  'rm -rf $(@D); mkdir -p $(@D); cp test/sdk/typescript/* $(@D)/; cd $(@D); npm ci --ignore-scripts --no-audit --no-fund'
	@touch $@

# A module of its own, so that the linter's two hundred dependencies stay out of trestle's.
$(lint): tools/go.mod tools/go.sum
	@$(quietly) golangci-lint build/log/lint.log go build -C tools -o '$(abspath $@)' github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
