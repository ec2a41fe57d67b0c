# homing: `make demo` to see it, `make test` to try it. What a machine lacks is installed by `make deps`.

SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help deps build demo test soak lint bench check image compose

help:
	@echo 'make demo    two sites, their apps and clone members in one process, with curl lines to try'
	@echo 'make test    all tests'
	@echo 'make soak    $(SOAK_RELOADS) reloads and $(SOAK_UPGRADES) upgrades under load, and bodies of a gibibyte (SOAK_RELOADS=…)'
	@echo 'make build   target/release/homing'
	@echo 'make lint    formatting, clippy, documentation'
	@echo 'make check   homing check of CONFIG=$(CONFIG)'
	@echo 'make bench   side by side with the proxies that are installed'
	@echo 'make image   the container image $(IMAGE)'
	@echo 'make compose two sites in containers, with Prometheus and Grafana'
	@echo 'make deps    what building needs (the others do it by themselves)'

deps:
	@.ci/deps

build: deps
	cargo build --release --locked

demo: build
	target/release/homing demo

test: deps
	cargo test --locked

# At length and in full size what `make test` does a few times and smaller.
SOAK_RELOADS ?= 1000
SOAK_UPGRADES ?= 100
soak: deps
	HOMING_SOAK_RELOADS=$(SOAK_RELOADS) cargo test --locked --test it reload_storm -- --nocapture
	HOMING_SOAK_UPGRADES=$(SOAK_UPGRADES) cargo test --locked --test it upgrades_under_load -- --nocapture
	HOMING_BODY_MIB=1024 cargo test --locked --test it large_bodies

lint: deps
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

CONFIG ?= conf/homing.yaml
check: build
	target/release/homing check --config $(CONFIG)

bench: build
	python3 benches/compare.py
	python3 benches/hop.py
	@if [ -n "$$(command -v gdnsd)" -a -n "$$(command -v knotd)" -a -n "$$(command -v dnsperf)" ]; then python3 benches/dns.py; else echo 'DNS left out: it takes gdnsd, knot and dnsperf'; fi

# With whichever of the tools is there.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
IMAGE ?= homing:$(VERSION)
CONTAINERS ?= $(firstword $(foreach tool,docker podman,$(if $(shell command -v $(tool)),$(tool))))
image:
	@if [ -z '$(CONTAINERS)' ]; then echo 'image: please install docker or podman' >&2; exit 1; fi
	$(CONTAINERS) build $(if $(filter podman,$(CONTAINERS)),--format docker) --file docker/Dockerfile --tag $(IMAGE) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) .

compose: image
	HOMING_IMAGE=$(IMAGE) $(CONTAINERS) compose --file docker/compose.yaml up
