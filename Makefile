# Everything that this project does is a target here; CI runs the same ones.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build ui demo check test tests soak mutants check-lints check-ui model plc deps deps-build deps-test fmt lint proto unit e2e kills bench screens clean

UI := web-proxy/ui
VENV := target/venv
BUF := $(UI)/node_modules/@bufbuild/buf-linux-x64/bin/buf
CARGO_FLAGS := --locked
MODEL_ARGS := --quick
KILLS := 1000
SEED :=
SEEDS := 2000
FIRST := 0

help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: deps-build ui ## Runs server, agent with a simulated farm, and web proxy; prints the URL; Ctrl-C stops all
	cargo build $(CARGO_FLAGS) --workspace --bins
	@exec $${CARGO_TARGET_DIR:-target}/debug/pasamanos-demo

build: deps-build ui ## Builds everything that the tests need
	cargo build $(CARGO_FLAGS) --workspace --all-targets

test: deps build check-lints check-ui model plc tests ## Installs what is missing and runs every test

check: deps-build ui fmt lint proto check-ui ## The fast checks: format, lints, contract, client, unit tests
	SIMULATION_SEEDS=50 cargo test $(CARGO_FLAGS) --workspace --lib --bins

check-lints: fmt lint proto

fmt: ## Formatting
	cargo fmt --all --check

lint: ## Clippy, warnings are errors
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

proto: $(UI)/node_modules/.installed ## The contract: style, format, and nothing broken against the baseline
	cd proto && ../$(BUF) lint
	cd proto && ../$(BUF) format --diff --exit-code
	cd proto && ../$(BUF) breaking --against baseline.binpb

check-ui: ui ## The browser client's types and tests
	cd $(UI) && npm run --silent check && npm run --silent test

model: ## The dose handshake, every interleaving within bounds (MODEL_ARGS= for the full ones)
	python3 tests/model/handshake.py $(MODEL_ARGS)

plc: deps-test ## The test PLC's own tests
	cd tests/plc && ../../$(VENV)/bin/python -m unittest -q

# One call, so that dependencies are built with one set of features.
tests:
	cargo test $(CARGO_FLAGS) --workspace --no-fail-fast

unit: ## Unit, property and conformance tests of each crate
	cargo test $(CARGO_FLAGS) --workspace --exclude pasamanos-tests

e2e: ## The promises, through the real binaries, a real PLC server, Redis and a browser
	cargo test $(CARGO_FLAGS) -p pasamanos-tests

kills: deps-build ## Kills agent and server at random, KILLS times (SEED= repeats a run)
	cargo build $(CARGO_FLAGS) --workspace --bins
	$${CARGO_TARGET_DIR:-target}/debug/pasamanos-kills --kills $(KILLS) $(if $(SEED),--seed $(SEED))

soak: ## Both sides under everything that breaks, from many seeds: SEEDS=2000 FIRST=0
	SIMULATION_SEEDS=$(SEEDS) SIMULATION_FIRST=$(FIRST) cargo test $(CARGO_FLAGS) --workspace --lib simulation:: -- --nocapture

mutants: deps build ## Plants bugs, one at a time, and shows which test notices each (BUG=name for one)
	target/debug/pasamanos-mutants --bug "$(BUG)"

bench: deps-build ui ## Round trip, throughput and memory, from release builds
	cargo build $(CARGO_FLAGS) --workspace --bins --release
	target/release/pasamanos-bench

screens: deps build ## Pictures of the page, in target/screens
	cargo test $(CARGO_FLAGS) -p pasamanos-tests --test browser

ui: $(UI)/dist/index.html ## Builds the browser client

UI_SOURCES := $(shell find $(UI)/src $(UI)/public $(UI)/scripts $(UI)/index.html $(UI)/vite.config.ts $(UI)/package.json proto/pasamanos -type f -not -path '*/src/gen/*' 2>/dev/null)

$(UI)/dist/index.html: $(UI)/node_modules/.installed $(UI_SOURCES)
	cd $(UI) && npm run --silent build
	@touch $@

$(UI)/node_modules/.installed: $(UI)/package-lock.json
	cd $(UI) && npm ci
	@touch $@

deps: deps-build deps-test ## Installs what building and testing need

deps-build:
	@scripts/require.sh cargo node npm python3 cc

deps-test: $(VENV)/.installed
	@scripts/install.sh redis-server chromium

$(VENV)/.installed: tests/plc/requirements.txt tests/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/plc/requirements.txt -r tests/requirements.txt
	@touch $@

clean: ## Removes everything that was built
	cargo clean
	rm -rf $(UI)/dist $(UI)/node_modules $(UI)/src/gen
