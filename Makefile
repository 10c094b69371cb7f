# The verbs of this project. `make help` lists them.
SHELL := /bin/bash
export PATH := $(PATH):/usr/local/go/bin:$(HOME)/.cargo/bin
BIN := target/x86_64-unknown-linux-gnu/debug
LAB := $(BIN)/outboard-lab
RELEASE := target/x86_64-unknown-linux-gnu/release
CARGO_FLAGS := --workspace --all-features

# Tests that bring up a Kubernetes cluster: after all others, so that a broken unit is known in minutes.
E2E_TESTS := $(notdir $(basename $(wildcard e2e/tests/*.rs)) $(patsubst %/main.rs,%,$(wildcard e2e/tests/*/main.rs)))
CLUSTER_TESTS := $(filter-out tidy ovn_lab,$(sort $(E2E_TESTS)))

.DEFAULT_GOAL := help
.PHONY: setup build demo test bench lab lab-down fmt lint images help

setup: ## install packages and build the lab's tools (Kubernetes, cnitool); seconds when all is there
	@e2e/tools/setup.sh

build: ## compile everything, static, into target/
	cargo build $(CARGO_FLAGS)

demo: setup build ## bring up a lab, show pods, Services, DNS and IPv6 on it, take it down again
	@$(LAB) demo

test: setup build ## every test: units first, then the ones that need a cluster
	cargo test $(CARGO_FLAGS) --exclude e2e
	cargo test -p e2e --all-features --lib --bins --test tidy --test ovn_lab
	$(if $(CLUSTER_TESTS),cargo test -p e2e --all-features $(addprefix --test ,$(CLUSTER_TESTS)))

bench: setup ## measure release builds, print tables; JSON in target/bench/ (ONLY=add,burst: some sections)
	cargo build --release -p cni-node -p cni-controller -p e2e
	cargo build --profile plugin -p cni-bin
	@cp target/x86_64-unknown-linux-gnu/plugin/outboard $(RELEASE)/
	@OUTBOARD_BIN=$(CURDIR)/$(RELEASE) $(RELEASE)/outboard-lab bench $(if $(ONLY),--only $(ONLY)) $(BENCH_FLAGS)

lab: setup build ## bring up a lab with Outboard in it and leave it running; then: source target/lab/env
	@$(LAB) up

lab-down: ## take down what `make lab` brought up
	@if [ -x $(LAB) ]; then $(LAB) down; else echo "no lab program: nothing was brought up from this checkout"; fi

fmt: ## format the sources
	cargo fmt --all

lint: ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

images: setup build ## build the container images into target/images/ as OCI archives
	@manifests/images/build.sh target/images

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r verb text; do printf '  make %-9s %s\n' "$$verb" "$$text"; done
