# SPDX-License-Identifier: Apache-2.0
# Two commands: `make run` sets up and runs the sample extension in a real machine, `make test` sets up and tests.

SHELL := /bin/bash
PYTHON ?= $(shell command -v /usr/bin/python3 || command -v python3)
VENV := .venv
VMROLE := $(VENV)/bin/vmrole
# Tests at once. More than a few gain nothing: their machines share the processors.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))

# What a run needs, and what the tests need beyond it (Debian 12 names).
PACKAGES := python3-venv python3-dev gcc libc6-dev pkg-config libvirt-dev libvirt-daemon-driver-qemu libvirt-daemon-system \
	qemu-system-x86 qemu-utils mmdebstrap uidmap zstd e2fsprogs openssh-client ca-certificates
TEST_PACKAGES := chromium openssh-server openssh-sftp-server xorriso libvirt-daemon libvirt-clients util-linux iproute2 \
	debvm binutils gcc-mingw-w64-x86-64 wixl ovmf fdisk mtools systemd

.PHONY: help setup run test quick soak check coverage format bench lock wheel release clean
help:
	@echo "make run    set up, and run the sample extension in a throwaway VM"
	@echo "make test   set up, and run everything that tests (docs/testing.md)"
	@echo "make quick  the tests that need no machine"
	@echo "make setup  their common first half; leaves the command at $(VMROLE)"
	@echo "make soak   repeat what is rare: SOAK='--count 1000 --seed 7 -k killed'"
	@echo "make check  ruff, clang-format and mypy only"
	@echo "make format ruff and clang-format change what they can"
	@echo "make coverage  what of harness/ the tests without machines execute"
	@echo "make bench  measure, and write build/bench.json"
	@echo "make wheel, make release VERSION=1.2.3, make lock  see CONTRIBUTING.md"

setup: $(VENV)/.installed
	@$(VMROLE) images build debian-12

run: setup
	$(VMROLE) run scenarios/samples/hello-linux.resextpkg -p Greeting=Hello

test: test-setup
	@$(VENV)/bin/python -m tests test --workers $(WORKERS) $(PYTEST_ARGUMENTS)

# Wine's programs run in the image's own files, without a machine.
quick: test-packages $(VENV)/.tests-installed
	@$(VMROLE) images build windows-stand-in
	@$(VENV)/bin/python -m tests quick --workers $(WORKERS) $(PYTEST_ARGUMENTS)

soak: test-setup
	$(VENV)/bin/pytest tests/soak $(SOAK)

# Without what is built, and without git: an unpacked release is checked as well.
C_FILES := find images tests -name '*.[ch]'

check: $(VENV)/.tests-installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(C_FILES) | xargs $(VENV)/bin/clang-format --dry-run --Werror
	$(VENV)/bin/mypy

bench: test-setup
	$(VENV)/bin/python -m tests.bench

.PHONY: packages test-packages test-setup
packages:
	@images/install-packages $(PACKAGES)

test-packages:
	@images/install-packages $(PACKAGES) $(TEST_PACKAGES)

test-setup: test-packages
	@$(MAKE) --no-print-directory setup $(VENV)/.tests-installed
	@$(VMROLE) images build windows-stand-in
	@$(VENV)/bin/python -m tests.powershell

# What is installed is locked, with hashes: requirements/run.txt for a run, the others for tests and releases. A package
# that is built here takes its build tools from the lock as well.
PIP := $(VENV)/bin/pip --quiet --disable-pip-version-check install --no-build-isolation
LOCKED := --require-hashes --requirement requirements

$(VENV)/.installed: pyproject.toml requirements/build.txt requirements/run.txt | packages
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the harness into $(VENV)"
	@$(PIP) $(LOCKED)/build.txt
	@$(PIP) $(LOCKED)/run.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.tests-installed: requirements/test.txt $(VENV)/.installed
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) $(LOCKED)/test.txt
	@touch $@

# The newest releases that pyproject.toml allows, for each Python and platform. Look at what changes before you commit it.
lock: $(VENV)/.tests-installed
	@$(VENV)/bin/python -m tests.release lock

coverage: test-packages $(VENV)/.tests-installed
	@$(VENV)/bin/python -m tests quick --workers $(WORKERS) --cov=harness --cov-report=term:skip-covered \
		--cov-report=html:build/coverage $(PYTEST_ARGUMENTS)

format: $(VENV)/.tests-installed
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
	$(C_FILES) | xargs $(VENV)/bin/clang-format -i

wheel: $(VENV)/.tests-installed
	@$(VENV)/bin/python -m tests.release build

release: test-setup
	@$(VENV)/bin/python -m tests.release make $(VERSION)

clean:
	rm -rf $(VENV) build dist vmrole-runs
