# Two commands do all the set-up: `make demo` and `make test`. Everything stays inside this folder (.venv).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_SECONDS ?= 60
# Test processes at once: tests mostly wait, so four suit two cores.
JOBS ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint audit check-types soak lab gpu bench proto docs constraints image image-twice test-image e2e e2e-needs clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make the virtual environment

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV), once; this takes half a minute."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## run devd for DEMO_SECONDS (60) against a stub kubelet, with this machine's devices
	@$(BIN)/devd demo --seconds $(DEMO_SECONDS)

test: lint  ## lint, then every test
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

lint: $(STAMP)  ## ruff, mypy --strict, import-linter, code that runs texts, the dependencies' pins; asks nobody outside
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m deploy.audit.code
	$(BIN)/python -m deploy.audit

audit: $(STAMP)  ## the dependencies again, and pip-audit's word on them where it is installed and reaches its database
	$(BIN)/python -m deploy.audit --online

soak: $(STAMP)  ## random faults for SOAK_MINUTES (3), then all has to be as it was
	$(BIN)/python -m tests.soak

lab: $(STAMP)  ## drivers against a real kernel's devices in a QEMU guest (root and Debian the first time)
	$(BIN)/python -m tests.lab

gpu: $(STAMP)  ## what the driver nvidia finds and asks on this machine's GPUs; without one, on a stand-in
	$(BIN)/python -m tests.gpu

bench: $(STAMP)  ## measure; prints a table and writes benchmarks/results/
	$(BIN)/python -m benchmarks

proto: $(STAMP)  ## regenerate proto/gen from the .proto files
	$(BIN)/python proto/generate.py

docs: $(STAMP)  ## regenerate the pages that are drawn from the code
	$(BIN)/python -m devd.daemon.config.reference > docs/configuration.md
	$(BIN)/python -m devd.daemon.lifecycle_page > docs/lifecycle.md
	$(BIN)/python -m devd.daemon.metrics.reference > docs/metrics.md
	$(BIN)/python -m devd.workers.drivers.pages docs/drivers

constraints: $(STAMP)  ## write down the versions that are installed now, and with uv their hashes for the image
	{ echo '# The versions the tests run with. Written by "make constraints"; pip reads it with -c.'; \
	  $(BIN)/pip freeze --exclude-editable; } > constraints.txt
	@if command -v uv >/dev/null; then deploy/image/lock.sh; \
	  else echo "NOT REFRESHED: deploy/image/*.lock, for want of uv (pip install uv)"; fi

image:  ## build the image (root, Debian) into build/, unattended
	deploy/image/build.sh

image-twice:  ## build the image twice and compare: the same commit has to give the same digest
	deploy/image/build.sh build/once.tar
	deploy/image/build.sh build/again.tar
	@once=$$(tar -xOf build/once.tar index.json); again=$$(tar -xOf build/again.tar index.json); \
	  rm -f build/once.tar build/again.tar; \
	  [ "$$once" = "$$again" ] || { echo "$$once"; echo "$$again"; exit 1; }; echo "twice the same: $$once"

test-image: $(STAMP)  ## start the image that "make image" built on a read-only root, against the stub kubelet; under podman too
	DEVD_IMAGE_ARCHIVE=$$(ls -t build/devd-*.tar | head -n 1) $(BIN)/pytest \
	  tests/deploy/test_image.py tests/deploy/test_image_engine.py tests/deploy/test_cdi_runtime.py

e2e: e2e-needs $(STAMP)  ## test against a cluster: needs KUBECONFIG, and DEVD_IMAGE, an image its nodes can have
	@[ -n "$$KUBECTL" ] || deploy/tools/get.sh || command -v kubectl >/dev/null || \
	  { echo "make e2e needs kubectl: deploy/tools/get.sh could not fetch one; name yours in KUBECTL"; exit 1; }
	$(BIN)/pytest tests/e2e -v -p no:cacheprovider

e2e-needs:
	@[ -n "$$KUBECONFIG" ] && [ -n "$$DEVD_IMAGE" ] || { echo "make e2e needs KUBECONFIG, the cluster's, and" \
	  "DEVD_IMAGE, an image its nodes have or can pull (make image builds one)"; exit 1; }

clean:  ## remove what was made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
