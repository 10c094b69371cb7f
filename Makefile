# The verbs of this project. `make help` lists them.
SHELL := /bin/bash
# What set-up brings goes before the machine's own: its qemu-storage-daemon is newer.
export PATH := $(shell e2e/tools/setup.sh --print-bin):$(PATH):/usr/local/go/bin:$(HOME)/.cargo/bin
BIN := target/x86_64-unknown-linux-gnu/debug
LAB := $(BIN)/outboard-lab
RELEASE := target/x86_64-unknown-linux-gnu/release
CARGO_FLAGS := --workspace --all-features
VERSION := v$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# Tests that bring up a Kubernetes cluster: after all others, so that a broken unit is known in minutes.
E2E_TESTS := $(notdir $(basename $(wildcard e2e/tests/*.rs)) $(patsubst %/main.rs,%,$(wildcard e2e/tests/*/main.rs)))
# Tests that need the machine but no cluster: OVN and OVS, a container runtime, a QEMU machine.
LAB_TESTS := ovn_lab cni_matrix node_faults host_vm csi_chain csi_faults
CLUSTER_TESTS := $(filter-out tidy $(LAB_TESTS),$(sort $(E2E_TESTS)))

# The programs that run in clusters, and the crates that have them.
PROGRAMS := cni-node cni-controller csi-controller csi-node-host csi-node-dpu opi-bridge volume-attacher outboard-engine vhostuser-shim
PROGRAM_CRATES := cni-node cni-controller csi-controller csi-node bridge attacher engine

# Without failpoints: no feature is named.
define release
cargo build --release $(addprefix -p ,$(PROGRAM_CRATES))
cargo build --profile plugin -p cni-bin -p shim
@cp $(addprefix target/x86_64-unknown-linux-gnu/plugin/,outboard vhostuser-shim) $(RELEASE)/
endef

.DEFAULT_GOAL := help
.PHONY: setup build demo test bench lab lab-down fmt lint images help

setup: ## install packages and build the lab's tools (Kubernetes, cnitool); seconds when all is there
	@e2e/tools/setup.sh

build: ## compile everything, static, into target/
	cargo build $(CARGO_FLAGS)

demo: setup build ## bring up labs, show pods, Services, DNS, IPv6, volumes and a DPU's reboot on them, take them down again
	@$(LAB) demo

test: setup build ## every test: units first, then the ones that need a cluster
	cargo test $(CARGO_FLAGS) --exclude e2e
	cargo test -p e2e --all-features --lib --bins --test tidy $(addprefix --test ,$(LAB_TESTS))
	$(if $(CLUSTER_TESTS),cargo test -p e2e --all-features $(addprefix --test ,$(CLUSTER_TESTS)))

bench: setup ## measure release builds, print tables; JSON in target/bench/ (ONLY=add,burst: some sections)
	$(release)
	cargo build --release -p e2e
	@OUTBOARD_BIN=$(CURDIR)/$(RELEASE) $(RELEASE)/outboard-lab bench $(if $(ONLY),--only $(ONLY)) $(BENCH_FLAGS)

lab: setup build ## bring up a lab with Outboard in it and leave it running (TOPOLOGY=dpu: hosts behind DPUs); then: source target/lab/env
	@$(LAB) up $(if $(TOPOLOGY),--topology $(TOPOLOGY))

lab-down: ## take down what `make lab` brought up
	@if [ -x $(LAB) ]; then $(LAB) down; else echo "no lab program: nothing was brought up from this checkout"; fi

fmt: ## format the sources
	cargo fmt --all

lint: ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

images: setup ## build the container images (release: cni, csi, engine, vhostuser-shim) into target/images/ as OCI archives
	$(release)
	@! grep -aqs -e FAILPOINTS -e OUTBOARD_KILL_AT $(addprefix $(RELEASE)/,$(PROGRAMS)) || { echo "images: a release build has failpoints in it" >&2; exit 1; }
	@OUTBOARD_BIN=$(RELEASE) OUTBOARD_TAG=$(VERSION) manifests/images/build.sh target/images cni csi engine vhostuser-shim

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r verb text; do printf '  make %-9s %s\n' "$$verb" "$$text"; done
