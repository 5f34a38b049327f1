# `make` or `make help` lists what there is. The two that matter: `make run` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CSV ?= examples/prompts.csv
# online, batch or auto; empty: what the rows say.
MODE ?=
DIR ?= .local
# More flags: `make run ARGS='--quota 60'` for the local cloud, `ARGS='-- --campaign spring'` for assetmill submit.
ARGS ?=
# How long `make fuzz` spends on each target.
FUZZTIME ?= 20s

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILD := go build -ldflags '-X main.version=$(VERSION)'

##@ Use

.PHONY: run
run: build ## Send a CSV through the local cloud and a worker: make run [CSV=path] [MODE=batch] [ARGS=...]
	@bin/localcloud run --dir '$(DIR)' --csv '$(CSV)' $(if $(MODE),--mode '$(MODE)') $(ARGS)

.PHONY: local
local: build ## Run the local cloud alone until Ctrl-C; `. .local/env` in another terminal points everything at it
	@bin/localcloud serve --dir '$(DIR)' $(ARGS)

.PHONY: build
build: go ## Build bin/assetmill and bin/localcloud (the first time takes minutes: it compiles a BigQuery emulator)
	@$(BUILD) -o bin/ ./cmd/assetmill ./cmd/localcloud

# Name with tag to push the image to; PUSH=1 pushes it there.
IMAGE ?=
PUSH ?=
# amd64 or arm64.
ARCH := amd64

.PHONY: image
image: go ## Build the container image into .local/image, without Docker: make image [ARCH=arm64] [IMAGE=name:tag PUSH=1]
	@go -C deploy/image run . -arch '$(ARCH)' -version '$(VERSION)' -revision "$$(git rev-parse HEAD)" -created "$$(git log -1 --format=%cI)" \
	  $(if $(IMAGE),-image '$(IMAGE)') $(if $(PUSH),-push)

##@ Check

.PHONY: test
test: go fmt-check vet staticcheck check-generated terraform unit deploy-check ## Everything that must pass: format, vet, staticcheck, generated files, all tests
	@echo '== everything passed'

.PHONY: lint
lint: go fmt-check vet staticcheck ## Format, vet and staticcheck alone

.PHONY: fmt-check
fmt-check:
	@echo '== gofmt'
	@files=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go' 2>/dev/null || find . -name '*.go')); \
	  [[ -z "$$files" ]] || { echo "not formatted; run gofmt -w on:"; echo "$$files"; exit 1; }

.PHONY: vet
vet:
	@echo '== go vet'
	@go vet ./...

.PHONY: staticcheck
staticcheck:
	@echo '== staticcheck ($(STATICCHECK))'
	@go run $(STATICCHECK) ./...

.PHONY: check-generated
check-generated:
	@echo '== generated files are up to date'
	@go run ./schemas/internal/generate -check

.PHONY: terraform
terraform:
	@echo '== Terraform'
	@deploy/check-terraform

# Modules of their own: what they need to check manifests, queries and images is no part of assetmill. -short leaves out what takes minutes: to
# build images, in `go -C deploy/image test ./...` and `go -C deploy/kubernetes/check test ./...`.
.PHONY: deploy-check
deploy-check: go ## Check manifests, queries, image and docs/deploy.md alone, as part of `make test` does
	@echo '== deploy'
	@for module in deploy/kubernetes/check deploy/monitoring/check deploy/image; do \
	  go -C $$module vet ./...; \
	  go -C $$module test -short -timeout 20m ./...; \
	done

# Tests that link the BigQuery emulator run without the race detector. The emulator is generated code, and a compiler takes about 6 GB
# of memory and five minutes to instrument it, which a laptop may not have. `make test RACE=all` does it all the same.
RACE ?= light
EMULATOR := github.com/goccy/bigquery-emulator/server

.PHONY: unit
unit:
	@echo '== tests'
	@tests=$$(go list -test -f '{{if eq .Name "main"}}{{.ImportPath}} {{join .Deps " "}}{{end}}' ./... | grep '^[^ ]*\.test '); \
	  plain=$$(grep ' $(EMULATOR)' <<<"$$tests" | sed 's/\.test .*//' || true); \
	  race=$$(grep -v ' $(EMULATOR)' <<<"$$tests" | sed 's/\.test .*//' || true); \
	  echo '-- with the race detector'; go test -race $$race; \
	  echo '-- those that link the BigQuery emulator (RACE=$(RACE))'; go test $(if $(filter all,$(RACE)),-race) $$plain; \
	  echo '-- the simulation once more without it, with all seeds and every deliberate breakage'; go test ./worker/workertest

# What the simulated day is made of. `make simulate JOBS=1500000 BATCH=0.85` has more than 1.2 million batch jobs (4 GB, 6 min of CPU).
# With SEEDS, that many short days are simulated instead, from SEED on, each with other kinds of faults.
SEED ?= 1
SEEDS ?= 0
JOBS ?= 1200000
HOURS ?= 24
WORKERS ?= 20
# Share of the jobs that are of mode batch.
BATCH ?= 0.5
CONCURRENCY ?= 64
# The kinds of faults, as a number; empty for all. A failed day prints its own.
FAULTS ?=

.PHONY: simulate
simulate: go ## Simulate a day of 1.2 million jobs on which everything breaks, and print its books: make simulate [SEED=n JOBS=n BATCH=share HOURS=n WORKERS=n] [SEEDS=n]
	@if (( $(SEEDS) )); then \
	  go test ./worker/workertest -count=1 -timeout 6h -run '^TestShortDays$$' -day.seed=$(SEED) -day.seeds=$(SEEDS); \
	else \
	  go test ./worker/workertest -count=1 -timeout 6h -run '^TestTheDay$$' -v -day.seed=$(SEED) -day.jobs=$(JOBS) -day.hours=$(HOURS) \
	    -day.workers=$(WORKERS) -day.concurrency=$(CONCURRENCY) -day.batch=$(BATCH) $(if $(FAULTS),-day.faults=$(FAULTS)); \
	fi

.PHONY: torture
torture: go ## Kill, freeze, stop and starve real workers at full size, restart the cloud's services, and balance the books (about an hour)
	@ASSETMILL_TORTURE_FULL=1 go test -v -count 1 -timeout 3h ./internal/torture

.PHONY: fuzz
fuzz: go ## Fuzz every fuzz target for FUZZTIME (20s) each, beyond the seeds that `make test` runs
	@for file in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
	  for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$file"); do \
	    echo "== $$target in $$(dirname "$$file")"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; \
	  done; \
	done

.PHONY: bench
bench: go ## Measure the worker process beside a relay without logic and a naive worker, without a cloud; writes .local/bench.json (11 to 30 min; ARGS=--quick: 1 min)
	@$(BUILD) -o bin/ ./cmd/assetmill
	@go build -o bin/bench ./cmd/bench
	@bin/bench --worker bin/assetmill $(ARGS)

.PHONY: gobench
gobench: go ## Run the Go benchmarks: reading CSV files, taking images out of answers, and what else has one
	@go test -run '^$$' -bench . -benchmem $$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u)

##@ Change

.PHONY: generate
generate: go ## Derive Go types, table schemas and docs/schemas.md from schemas/*.proto
	@go run ./schemas/internal/generate

.PHONY: clean
clean: ## Remove binaries and all local state: images, tables, call log
	@rm -rf bin '$(DIR)'

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Go 1.21 to 1.25 fetch the right toolchain by themselves, unless told not to.
.PHONY: go
go:
	@command -v go >/dev/null || { echo 'Go is missing: install Go 1.26 or later, https://go.dev/doc/install, or run .ci/run'; exit 1; }
	@version=$$(go env GOVERSION 2>&1) && [[ "$$version" =~ ^go1\.(2[6-9]|[3-9][0-9]) || "$$version" =~ ^devel ]] \
	  || { echo "Go 1.26 or later is needed, and this is: $$version"; echo 'install it from https://go.dev/doc/install, or set GOTOOLCHAIN=auto'; exit 1; }
