# `make help` lists the targets. They loop over all modules of the repository.

GO ?= go
MODULES := $(sort $(patsubst %/,%,$(dir $(shell find . -name go.mod -not -path '*/testdata/*' -not -path './.git/*'))))

# Tools, pinned: the same findings and the same statistics on every machine.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
BENCHSTAT   := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# What the coverage floor is about.
ENGINE   := . ./entry ./segment ./segment/compressed ./index ./manifest ./wal ./writer ./capture ./vfs ./markers ./retention ./anchor ./replay
COVERMIN ?= 85

FUZZTIME   ?= 10s
BENCH      ?= .
BENCHTIME  ?= 1s
BENCHFLAGS ?=
ROUNDS     ?= 6
PEERSFLAGS ?=
TESTFLAGS  ?=

# Packages that have rows of the fault matrix.
ROWS  := ./fuzz ./fuzz/slow ./fuzz/steps ./fuzz/mutants ./fuzz/real
HOURS ?= 1

# $(call matrix,ENVIRONMENT) runs all rows, one package after the other, also behind one that fails. What a row has
# found is in its record, and the table tells. A package may also fail without a finding, or before it has a record at all:
# $(matrixok), behind the table, fails then.
matrix = @mkdir -p dist && rm -f dist/crash.jsonl dist/crash.failed; \
	for p in $(ROWS); do (cd $$p && $(1) RUNLOG_MATRIX_OUT=$(CURDIR)/dist/crash.jsonl RUNLOG_MATRIX_PROGRESS=1 \
		$(GO) test -v -count=1 -timeout 100h $(TESTFLAGS) .) || { echo "FAILED: $$p"; echo "$$p" >> dist/crash.failed; }; done
matrixok = @if [ -e dist/crash.failed ]; then echo "FAILED:" $$(cat dist/crash.failed) >&2; exit 1; fi

# $(call each,COMMAND) runs a command in every module; $(call eachown,COMMAND) leaves out those that other stores are built in,
# which need a later Go and other people's stores, cost minutes under the race detector, for each platform, and for each analysis,
# and guard nothing of ours.
each    = @for m in $(MODULES); do (cd $$m && $(1)) || exit 1; done
PEERS  := ./fuzz/peers ./bench/peers
OWN    := $(filter-out $(PEERS),$(MODULES))
eachown = @for m in $(OWN); do (cd $$m && $(1)) || exit 1; done

.DEFAULT_GOAL := help
.PHONY: help demo test test-peers race lint fuzz crash crash-long damage-peers bench bench-peers bench-compare cover cross install clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## a small exchange on 1 M orders' worth of flow, killed twice, recovered twice: under a minute
	@$(GO) run ./examples/exchange demo

test: ## all tests of all modules but the two with other stores
	$(call eachown,$(GO) test $(TESTFLAGS) ./...)

test-peers: ## the tests of those two; they need Go 1.26, and fetch the stores
	@for m in $(PEERS); do (cd $$m && $(GO) test $(TESTFLAGS) ./...) || exit 1; done

race: ## the same under the race detector; needs a C compiler
	$(call eachown,CGO_ENABLED=1 $(GO) test -race $(TESTFLAGS) ./...)

lint: ## gofmt, go vet and staticcheck: all silent
	@bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "not formatted:" >&2; echo "$$bad" >&2; exit 1; fi
	$(call each,$(GO) vet ./...)
	$(call eachown,$(GO) run $(STATICCHECK) ./...)

fuzz: ## every native fuzz target for FUZZTIME (10s)
	@for m in $(OWN); do (cd $$m && GO="$(GO)" $(CURDIR)/tools/fuzz.sh $(FUZZTIME)) || exit 1; done

crash: ## the fault matrix at the counts that guard main: kills, power cuts, failing disks, damage, broken engines
	$(call matrix,RUNLOG_MATRIX=ci)
	@$(GO) run ./fuzz/matrix/table -in dist/crash.jsonl
	$(matrixok)

crash-long: ## the fault matrix for HOURS (1); writes docs/crash-matrix.md
	$(call matrix,RUNLOG_MATRIX=long RUNLOG_MATRIX_HOURS=$(HOURS))
	@$(GO) run ./fuzz/matrix/table -in dist/crash.jsonl -page docs/crash-matrix.md
	$(matrixok)

damage-peers: ## the same damage done to runlog and to other stores; writes docs/damage.md
	cd fuzz/peers && $(GO) run . -out ../../docs/damage.md

bench: ## benchmarks matching BENCH (.) for BENCHTIME (1s), each with its floor; BENCHFLAGS=-large for 4 M entries and more, BENCH_DIR for another disk
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -timeout 2h ./bench $(BENCHFLAGS)

bench-peers: ## runlog, eight other stores and a bare loop at the same work; writes docs/benchmarks.md; PEERSFLAGS=-large for 4 M entries
	cd bench/peers && $(GO) run . -out ../../docs/benchmarks.md $(PEERSFLAGS)

bench-compare: ## benchmarks matching BENCH here and at REF=commit, interleaved ROUNDS (6) times
	@GO="$(GO)" BENCHSTAT="$(BENCHSTAT)" tools/bench-compare.sh "$(REF)" '$(BENCH)' $(BENCHTIME) $(ROUNDS) $(BENCHFLAGS)

cover: ## statement coverage by package; fails below COVERMIN (85) % for an engine package
	@mkdir -p dist
	$(GO) test -count=1 -coverpkg=$$(echo $(ENGINE) | tr ' ' ',') -coverprofile=dist/cover.out $(ENGINE) > dist/cover.log || \
		{ cat dist/cover.log; exit 1; }
	@$(GO) list $(ENGINE) | awk -v min=$(COVERMIN) -f tools/coverage.awk - dist/cover.out

cross: ## does it build where it is not tested?
	@for p in linux/arm64 darwin/arm64 windows/amd64; do for m in $(OWN); do \
		echo "vet $$p $$m"; (cd $$m && CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) vet ./...) || exit 1; done; done

install: ## the runlog tool, into go's bin folder
	cd cmd/runlog && $(GO) install .

clean: ## remove what the targets have made
	rm -rf dist bin
	find . -type f \( -name '*.test' -o -name '*.prof' \) -delete
