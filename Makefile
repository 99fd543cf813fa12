# `make help` lists the targets.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := .patchforge-demo
MINIATURE := tests/miniatures/v0.33.0

# Extra index that has a CPU build of torch; by default pip chooses. TORCH=no does without torch.
TORCH_INDEX ?=
TORCH ?= yes
# Releases of every era, for `make trials`.
RELEASES ?= v0.3.10 v0.3.19 v0.3.27 v0.3.47 v0.3.60 v0.3.77 v0.8.0 v0.14.0 v0.18.1 v0.21.0 v0.25.0 v0.30.0 v0.32.0 v0.33.0
# Interpreter with another torch, for `make othertorch`.
OTHER ?=
# Where `make ipex` puts torch 2.8.0 and IPEX 2.8.0 (7 GB).
IPEX ?= .ipex
# Processes that run tests: one for each core, of which each takes a gigabyte at times.
WORKERS ?= $(shell n=$$(nproc 2> /dev/null || sysctl -n hw.ncpu 2> /dev/null || echo 2); echo $$((n < 8 ? n : 8)))
# More arguments for pytest (make test ARGS="-k packaging") or for the benchmark.
ARGS ?=

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What is locked is taken as the wheels that the lock has hashes of, and nothing is built.
LOCKED := $(PIP) --require-hashes --only-binary :all:

# The hundreds of Pythons that the tests start would compile the same modules, each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format bench trials othertorch ipex docs generated lock clean tools torch

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BIN)/.installed  ## convert a miniature release, show what became of it, start the patched tree's --help-gpu
	@rm -rf $(DEMO)
	@echo 'A miniature of ComfyUI, a few lines of each file, is converted:'; echo
	@$(BIN)/patchforge apply --verbose --from $(MINIATURE) --out $(DEMO)/patches
	@echo; echo 'The same, written as a whole tree:'; echo
	@$(BIN)/patchforge apply --from $(MINIATURE) --to $(DEMO)/tree
	@echo; cd $(DEMO)/tree && if $(CURDIR)/$(BIN)/python -c 'import torch' 2> /dev/null; then \
		echo 'That tree, asked for the GPUs here (python main.py --help-gpu):'; echo; $(CURDIR)/$(BIN)/python main.py --help-gpu; \
	else echo 'Its --help-gpu would list the GPUs here; that needs torch, which ComfyUI brings and the demo does not.'; fi
	@echo; echo 'The demo is done, and all went well. The patches and REPORT.md are in $(DEMO)/patches, the tree is in $(DEMO)/tree.'

test: $(BIN)/.installed torch  ## run all tests; set up what they need first
	@echo 'running the tests, $(WORKERS) at a time; the first dots come when all are collected, after some 15 seconds'; \
	without=; note='NOTE: torch is not installed: the tests that need it were SKIPPED, tests/runtime as a whole'; \
	$(BIN)/python -c 'import torch' 2> /dev/null || without=--ignore=tests/runtime; \
	test -z "$$without" || echo "$$note"; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $$without $(ARGS); status=$$?; \
	test -z "$$without" || echo "$$note"; exit $$status

lint: $(BIN)/.installed  ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(BIN)/.installed  ## let ruff mend and format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BIN)/.installed  ## measure against LibCST's command line and ast-grep; PATCHFORGE_UPSTREAM names a clone
	$(LOCKED) -r requirements-speed.lock
	$(BIN)/python benchmarks/run.py $(ARGS)

trials: $(BIN)/.installed torch  ## run releases of every era on the emulated XPU; PATCHFORGE_UPSTREAM names a clone
	$(BIN)/python -m patchforge test $(RELEASES) --device emulated --skip-frontend --against-upstream $(ARGS)

othertorch: $(BIN)/.installed  ## the emulated XPU's tests with the torch of OTHER=PYTHON; may fail
	$(BIN)/python -m emulator.second_torch "$(OTHER)"

ipex: $(BIN)/.installed  ## run the hooks with the real IPEX 2.8.0 on the CPU (7 GB); PATCHFORGE_UPSTREAM names a clone
	test -x $(IPEX)/bin/python || "$(PYTHON)" -m venv $(IPEX)
	$(IPEX)/bin/python -m pip install --quiet torch==2.8.0 intel-extension-for-pytorch==2.8.0 numpy psutil einops tqdm pillow scipy \
		safetensors pyyaml torchsde
	PATCHFORGE_IPEX_PYTHON=$(abspath $(IPEX))/bin/python $(BIN)/python -m pytest -m ipex $(ARGS)

docs: $(BIN)/.installed  ## write docs/transforms.md, docs/nodes-rules.md, docs/costs.md, docs/json-schema.json, tables of docs/monitoring.md, the index of docs/command-line.md, and with Nix docs/nix-options.md and generated/systemd
	$(BIN)/python -c 'import sys; from patchforge import schemas; sys.stdout.buffer.write(schemas.everything())' > docs/json-schema.json.new
	mv docs/json-schema.json.new docs/json-schema.json
	$(BIN)/python -m patchforge.operate.generate
	$(BIN)/python -m patchforge.index
	$(BIN)/patchforge explain --markdown > docs/transforms.md.new
	mv docs/transforms.md.new docs/transforms.md
	$(BIN)/patchforge bench costs --markdown > docs/costs.md.new
	mv docs/costs.md.new docs/costs.md
	$(BIN)/patchforge packs explain --markdown > docs/nodes-rules.md.new
	mv docs/nodes-rules.md.new docs/nodes-rules.md
	if command -v nix-instantiate > /dev/null; then \
		$(BIN)/patchforge nix --options tests/nix/mock/lib > docs/nix-options.md.new && \
		mv docs/nix-options.md.new docs/nix-options.md && \
		$(BIN)/patchforge nix --units tests/nix/mock/lib; fi

generated: $(BIN)/.installed  ## write generated/ again, from upstream
	set -e; for folder in generated/comfyui/v*/; do $(BIN)/patchforge apply "$$(basename "$$folder")"; done
	$(BIN)/patchforge nix

lock: $(BIN)/.installed  ## write the hashes of what the locks pin into them, from pip's index
	$(BIN)/python .ci/hash-locks

clean:  ## remove what make and the tools made
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# git and GNU patch check every patch; python3-venv is a package of its own on Debian.
tools:
	@missing=; \
	for tool in git patch; do command -v $$tool > /dev/null || missing="$$missing $$tool"; done; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null || missing="$$missing python3 python3-venv"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends $$missing; \
	else \
		echo "make: these programs are missing:$$missing" >&2; \
		echo "      as root on Debian: apt-get install$$missing" >&2; exit 1; \
	fi

$(BIN)/.installed: requirements.lock pyproject.toml | tools
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"make: Python 3.11 or later is needed, this is {sys.version.split()[0]}")'
	@echo 'making $(VENV) and installing requirements.lock into it, a minute'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(LOCKED) -r requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

torch: $(BIN)/.installed
ifeq ($(TORCH),no)
	@echo 'NOTE: TORCH=no: the tests that need torch will be SKIPPED'
else
	@test $(BIN)/.torch -nt requirements-torch.lock && test $(BIN)/.torch -nt requirements-torch-needs.lock && \
	test $(BIN)/.torch -nt requirements-benchmark.lock && exit 0; \
	echo 'installing torch (on Linux a CUDA build takes several GB; TORCH_INDEX=ADDRESS names an index with CPU builds, TORCH=no skips it)'; \
	if $(LOCKED) -r requirements-torch-needs.lock -r requirements-benchmark.lock && \
	$(PIP) --only-binary :all: $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") -r requirements-torch.lock; then touch $(BIN)/.torch; \
	else echo 'NOTE: torch could not be installed: the tests that need it will be SKIPPED' >&2; fi
endif
