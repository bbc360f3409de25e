# make help lists the targets. Building and running need Go alone; what a target
# needs beyond that, deploy/need finds or installs, and says so first.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# Knobs, each with the default that make test takes.
FUZZTIME ?= 10m
BENCH ?= .
COUNT ?= 6
CRASH_ROUNDS ?= 15
FAULT_ROUNDS ?= 1000
ARGS ?=

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0
BENCHSTAT := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

STEP := .ci/step

.PHONY: help
help: ## Show what can be made
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET, where TARGET is one of:\n"} \
	  /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2} \
	  END {print "\nKnobs: ARGS= FUZZTIME= BENCH= COUNT= REF= CRASH_ROUNDS= FAULT_ROUNDS="}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/floodgate, one static binary
	@CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/floodgate ./cmd/floodgate

.PHONY: run
run: build ## Run a node on 127.0.0.1:3000 that sells 100 units of demo (ARGS= adds flags)
	@exec bin/floodgate serve $(ARGS)

.PHONY: test
test: ## Prove the promises: format, vet, all tests, all tests under the race detector
	@deploy/need gcc
	@$(STEP) --begin
	@$(STEP) "gofmt" .ci/formatted
	@$(STEP) "go vet" go vet ./...
	@$(STEP) "tests, $(CRASH_ROUNDS) kills of a real node included" \
	  env FLOODGATE_CRASH_ROUNDS=$(CRASH_ROUNDS) go test -count=1 -timeout 15m ./...
	@$(STEP) "tests under the race detector" \
	  env CGO_ENABLED=1 FLOODGATE_CRASH_ROUNDS=3 go test -count=1 -race -timeout 30m ./...
	@$(STEP) --end
	@echo "The promises hold."

.PHONY: race
race: ## Run all tests under the race detector
	@deploy/need gcc
	@CGO_ENABLED=1 go test -race -timeout 30m ./...

.PHONY: fault
fault: ## Kill a real node 1,000 times (FAULT_ROUNDS=), and pull the plug on journal and engine 20 times over
	@FLOODGATE_CRASH_ROUNDS=$(FAULT_ROUNDS) go test -count=1 -v -timeout 6h -run '^TestCrash$$' ./cmd/floodgate
	@go test -count=20 -timeout 6h ./wal ./engine

.PHONY: fuzz
fuzz: ## Run every fuzz target in turn (FUZZTIME= for each)
	@go list ./... | while read -r package; do \
	  list=$$(go test -list '^Fuzz' "$$package"); \
	  for target in $$(grep '^Fuzz' <<<"$$list" || true); do \
	    echo "== $$package $$target, $(FUZZTIME)"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
	  done; \
	done

.PHONY: bench
bench: ## Run the benchmarks (BENCH= picks some), then the whole path against real processes
	@deploy/need wrk
	@go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 1h ./...
	@go run ./bench/path $(ARGS)

.PHONY: bench-compare
bench-compare: ## Compare the benchmarks with those of commit REF= (COUNT= runs of each)
	@test -n "$(REF)" || { echo "say which commit to compare with: make bench-compare REF=HEAD~1" >&2; exit 2; }
	@dir=$$(mktemp -d); trap 'git worktree remove --force "$$dir/tree" >/dev/null 2>&1 || true; rm -rf "$$dir"' EXIT; \
	git worktree add --quiet --detach "$$dir/tree" "$(REF)"; \
	for run in $$(seq $(COUNT)); do \
	  echo "run $$run of $(COUNT)" >&2; \
	  (cd "$$dir/tree" && go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 1h ./...) >>"$$dir/before"; \
	  go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 1h ./... >>"$$dir/after"; \
	done; \
	go run $(BENCHSTAT) "before=$$dir/before" "after=$$dir/after"

.PHONY: lint
lint: ## Run golangci-lint, and govulncheck where its database can be reached
	@.ci/formatted
	@go run $(GOLANGCI) run ./...
	@mkdir -p bin
	@go run $(GOVULNCHECK) ./... 2>bin/govulncheck.err || { \
	  grep -qiE 'fetching vulnerabilities|no such host|connection refused|timeout|forbidden|proxyconnect' bin/govulncheck.err \
	    && echo "govulncheck: its database cannot be reached from here; not checked" \
	    || { cat bin/govulncheck.err >&2; exit 1; }; }

.PHONY: clean
clean: ## Remove what make built; data/ stays
	@rm -rf bin
	@go clean -testcache
