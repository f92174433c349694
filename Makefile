# Parley. `make help` lists the targets.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 30s
DATA     ?= data
# The packages whose coverage CI demands.
COVERED  := ./core/... ./plugins/... ./policy/...
COVERAGE := 85
# The packages of the hot path, which have benchmarks.
BENCHED  := ./core/wire ./core/moderation ./core/journal/codec ./core/journal/disk ./core/liveness ./core/room ./core/session ./plugins ./policy ./policy/decisionlog ./policy/preview
PKGS     ?= $(BENCHED)

.DEFAULT_GOAL := help
.PHONY: help run run-cluster build plugins test check chaos mirror-test vet fmt-check lint bench bench-compare experiments fuzz image setup clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/platform
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/platform ./cmd/platform

plugins: ## build the example plugins from source into bin/plugins and bin/plugins-optional
	@sh examples/plugins/build.sh bin/plugins

run: build plugins ## build everything and start on 127.0.0.1 (chat 8080, TCP 7070, admin 9090)
	@sh examples/plugins/install.sh bin/plugins $(DATA)/plugins
	@exec bin/platform run --data_dir $(DATA) --plugins.dir $(DATA)/plugins

run-cluster: build plugins ## start redis-server and three nodes that share their rooms, rules and plugins
	@sh deploy/run-cluster.sh

setup: ## install what the tests need beyond Go and a C compiler
	@sh .ci/setup

test: setup ## everything, as CI runs it
	@$(MAKE) --no-print-directory fmt-check vet lint
	@mkdir -p bin
	CHAOS_COUNTS=$(CURDIR)/bin/chaos.txt $(GO) test -race -shuffle=on -timeout 20m -coverprofile=bin/coverage.out ./...
	@if [ -f bin/chaos.txt ]; then echo "what was broken on purpose, and what it came to:"; cat bin/chaos.txt; fi
	@sh .ci/coverage bin/coverage.out $(COVERAGE)
	cd deploy/check && $(GO) test -count=1 ./...

check: fmt-check vet lint ## format, vet, staticcheck, import rules, tests without the browser
	$(GO) test -race -shuffle=on -timeout 15m $$($(GO) list ./... | grep -v /browsertest)
	cd deploy/check && $(GO) test -count=1 ./...

mirror-test: ## carry a million messages between two regions over links that stand still, and print error rate and lag
	PARLEY_MIRROR=long $(GO) test ./core/mirror -run TestTwoRegions -count=1 -timeout 80m -v

chaos: ## break a cluster in every way docs/delivery.md speaks of, at length, and print the counts
	PARLEY_CHAOS=long $(GO) test ./core/chaos -count=1 -timeout 80m -v

fmt-check:
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofmt these files:" $$bad; exit 1; fi

vet:
	$(GO) vet ./...

lint:
	$(GO) tool staticcheck ./...

bench: ## benchmarks of the hot path: decode, gate, moderate, append, fan-out
	$(GO) test -run '^$$' -bench . -benchmem $(BENCHED)

bench-compare: ## compare the benchmarks of BASE=<rev> with the working tree's; PKGS="./core/room ..." chooses
	@sh .ci/bench-compare "$(BASE)" "$(PKGS)"

experiments: build plugins ## repeat the experiments and write docs/experiments.md; ONLY=name,... chooses
	@bin/platform experiments --docs docs --only "$(ONLY)"

fuzz: ## run every fuzz test for FUZZTIME (30s)
	@sh .ci/fuzz $(FUZZTIME)

image: ## build a static binary in a scratch OCI archive and print both sizes
	@sh deploy/image.sh $(VERSION)

clean: ## remove what the targets made, but no data
	rm -rf bin
