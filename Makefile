# Two commands do everything: `make run` starts a gateway on an embedded store, `make test` runs all tests.
# Each sets up what it needs. PYTHON, VENV, DATA and JOBS may be overridden: make run DATA=/srv/untrusted-s3

PYTHON ?= python3
VENV ?= .venv
DATA ?= data
# Interop tests mostly wait for their peers; so many run at a time.
JOBS ?= 4
BIN := $(VENV)/bin
# Compiled modules are kept: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: run test lint types unit interop large ceph bench hostile images claims garbage-mutants proto constraints clean

run: $(VENV)/.run
	@exec $(BIN)/untrusted-s3 serve --welcome --data $(DATA)

# mypy has one core's work, and unit tests wait now and then.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint types unit
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target interop ceph

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m "not interop and not ceph" --numprocesses 3 --dist worksteal --durations=25

# Each process collects what is named here: all tests would take it half a minute.
INTEROP := tests/interop tests/identity/test_files.py
# Real Syncthing programs are fetched into a cache; UNTRUSTED_S3_REQUIRE_PEERS=1 makes their absence a failure.
interop: $(VENV)/.dev
	-$(BIN)/python -m tests.peers.debian
	$(BIN)/python -m pytest -q -m "interop and not ceph" $(INTEROP) --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations=40

# The largest sizes of trees and files, for which CI has no time.
large: $(VENV)/.dev
	LARGE_FOLDER_FILES=10000 LARGE_FILE_MIB=1024 LARGE_UPLOAD_MIB=2048 \
		$(BIN)/python -m pytest -q tests/interop/test_large_folders.py tests/interop/test_large_files.py --durations=10

# The core set on a second S3 server, which the script named by UNTRUSTED_S3_RGW starts; only one runs on a machine.
ceph: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m ceph --durations=5

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(BENCH)

# A real Syncthing beside hostile devices: time, memory and loop lag (docs/testing.md).
hostile: $(VENV)/.dev
	$(BIN)/python -m tests.hostile $(HOSTILE)

# Conflicting changes with real Syncthings: connected directly, with a native untrusted device, and with a gateway
# (docs/claims.md).
claims: $(VENV)/.dev
	$(BIN)/python -m tests.interop.claims_table $(CLAIMS)

# Which weakened rules of garbage collection its schedules find (docs/testing.md).
garbage-mutants: $(VENV)/.dev
	$(BIN)/python -m tests.garbage.mutants $(MUTANTS)

# Images of a running embedded store, put back (docs/testing.md).
images: $(VENV)/.dev
	$(BIN)/python -m tests.interop.store_images $(IMAGES)

# The generated modules are committed: an installation needs no protocol compiler.
proto: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. untrusted_s3/bep/bep.proto untrusted_s3/index/segment.proto

# Pins every requirement with its hashes.
COMPILE := -m piptools compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --all-build-deps pyproject.toml
constraints: $(VENV)/.dev
	$(PIP) pip-tools
	$(BIN)/python $(COMPILE) --upgrade --extra embedded --output-file constraints.txt
	$(BIN)/python $(COMPILE) --extra embedded --extra vectors --extra dev --constraint constraints.txt --output-file constraints-dev.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "untrusted_s3 needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

# Every requirement is pinned and its hash checked; the project itself comes from this folder.
$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --require-hashes --requirement constraints.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# Packages that come as source only are built with the setuptools that is pinned.
$(VENV)/.dev: $(VENV)/.run constraints-dev.txt
	$(PIP) --require-hashes --no-build-isolation --requirement constraints-dev.txt
	@touch $@
