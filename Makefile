# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2  # processes of the tests, each with one thread; those that start Ray run one after another in one of them
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadscope --no-loadscope-reorder
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The build of torch: cpu (without CUDA, 5 GB smaller), or cuda or default, which is what pip takes by itself. By default cpu where
# there is no NVIDIA driver; on macOS pip's own has no CUDA anyway.
TORCH ?= $(if $(or $(filter Darwin,$(shell uname -s)),$(wildcard /dev/nvidia0),$(shell command -v nvidia-smi)),default,cpu)
UV = $(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-config --no-deps --constraint constraints.txt --torch-backend cpu

GPU_PACKAGES := gsplat pydantic pydantic-core annotated-types typing-inspection plyfile webdataset braceexpand jaxtyping

.PHONY: help setup cpu-torch demo notebook test test-all kills lint docs bench bench-compare bench-mask bench-pairs bench-training
.PHONY: gsplat-build study study-fits study-restorers study-rounds gpu-check gpu-run gpu-report gpu-wheels clean

help:
	@echo "make setup      .venv with everything; TORCH=cpu or cuda chooses the build of torch (now: $(TORCH))"
	@echo "make demo       set up, then the whole loop on the shipped sample; ends with a table and a report"
	@echo "make notebook   run docs/notebooks/ on the shipped sample; minutes; runs/notebook/ has the notebook with its pictures"
	@echo "make test       set up, then the default tests in two processes, JOBS=4 in four (no GPU, no network)"
	@echo "make test-all   the slow tests too"
	@echo "make kills      50 processes of commands killed at random; test-all kills two"
	@echo "make lint       ruff, mypy, import-linter, codespell, and the documentation built with warnings as errors"
	@echo "make docs       the documentation as a site, in site/"
	@echo "make bench      kernels, step and fit, timed; the table is also saved in runs/bench/"
	@echo "make bench-compare OLD=FILE NEW=FILE   two such tables, row by row"
	@echo "make bench-pairs PAIRS=folder   what Ray, 100,000 scenes and reading cost beside the fits"
	@echo "make bench-mask   precision and recall of artifact masks"
	@echo "make study CAPTURES='folder folder'   docs/results.md: the loop and plain fits over captures and seeds; hours"
	@echo "make study-fits CAPTURES='folder folder'   settings of the sparse fit"
	@echo "make study-restorers PAIRS=folder RESTORERS='folder folder'   gains and calibration on pairs of unseen groups"
	@echo "make study-rounds CAPTURES='folder folder'   the same of the loop's rounds"
	@echo "make bench-training PAIRS=folder   steps, the loader, and one process beside two"
	@echo "make gpu-run    checks and measures on a borrowed GPU in ten minutes, into OUT=runs/gpu; gpu-report: as tables"
	@echo "make gpu-wheels the packages to carry to a bare image, FOR=312 (its Python)"
	@echo "make gsplat-build  gsplat compiled for sm_90 where there is nvcc, without a GPU: ten minutes of one core"
	@echo "make gpu-check  the gpu tests with any interpreter that has torch, numpy and gsplat: PYTHON=python3"

setup: $(STAMP)
	@test -z "$(filter setup,$(MAKECMDGOALS))" || echo "Installed. Next: source $(BIN)/activate, then splatfix doctor"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "splatfix needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@case "$(TORCH)" in cpu | cuda | default) ;; *) echo "TORCH=$(TORCH): wanted cpu, cuda or default"; exit 2 ;; esac
	@test "$(TORCH)" != cpu || $(MAKE) --no-print-directory cpu-torch
	@echo "Installing into $(VENV) (about 8 GB, with torch for CPUs 3 GB; some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all,docs,dev]"
	@touch $(STAMP)

# uv knows PyPI's and PyTorch's indexes. The first call only asks, so that an index out of reach costs seconds
cpu-torch:
	@echo "No NVIDIA driver, or TORCH=cpu: installing torch for CPUs ..."
	@{ $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv \
		&& UV_HTTP_TIMEOUT=10 UV_HTTP_CONNECT_TIMEOUT=10 UV_HTTP_RETRIES=0 $(UV) --dry-run torch torchvision && $(UV) torch torchvision; } 2>$(VENV)/cpu_torch.log \
		|| echo "No torch for CPUs ($(VENV)/cpu_torch.log says why): taking pip's build, with CUDA where it has it"

demo: setup
	@$(BIN)/splatfix demo --out runs/demo

# The kernel runs in the folder of the notebook, and writes its files there.
notebook: setup
	@rm -rf runs/notebook && mkdir -p runs/notebook
	@$(BIN)/jupytext --quiet --to ipynb --output runs/notebook/repair_a_splat.ipynb docs/notebooks/repair_a_splat.py
	@SPLATFIX_NOTEBOOK_OUT=. $(BIN)/jupyter execute --inplace runs/notebook/repair_a_splat.ipynb
	@echo "open runs/notebook/repair_a_splat.ipynb"

test: setup
	$(PYTEST)

test-all: setup
	$(PYTEST) -m "not gpu"

kills: setup
	SPLATFIX_KILLS=50 $(BIN)/python -m pytest -s -m slow tests/kills

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(MKDOCS)

docs: setup
	$(MKDOCS)
	@echo "open site/index.html"

bench: setup
	$(BIN)/python -m tests.benchmarks.bench_rendering --json runs/bench/$$(git describe --always --dirty).json

# Two reports of make bench: make bench-compare OLD=runs/bench/1.json NEW=runs/bench/2.json
bench-compare: setup
	$(BIN)/python -m tests.benchmarks.bench_rendering --compare $(OLD) $(NEW)

bench-pairs: setup
	$(BIN)/python -m tests.benchmarks.bench_pairs ray
	$(BIN)/python -m tests.benchmarks.bench_pairs scale
	$(BIN)/python -m tests.benchmarks.bench_pairs read $(PAIRS)

bench-mask: setup
	$(BIN)/python -m tests.benchmarks.bench_artifact_mask

study: setup
	$(BIN)/python -m tests.benchmarks.results $(CAPTURES)

study-fits: setup
	$(BIN)/python -m tests.benchmarks.study $(CAPTURES)

# All of gsplat for sm_90, without a GPU: ten minutes of one core
gsplat-build: setup
	SPLATFIX_BUILD_GSPLAT=1 $(BIN)/python -m pytest -m slow tests/gpu/test_compiler.py

study-restorers: setup
	$(BIN)/python -m tests.benchmarks.restorers $(PAIRS) $(RESTORERS)

study-rounds: setup
	$(BIN)/python -m tests.benchmarks.study --rounds $(CAPTURES)

bench-training: setup
	$(BIN)/python -m tests.benchmarks.bench_training step
	$(BIN)/python -m tests.benchmarks.bench_training loader $(PAIRS)
	$(BIN)/python -m tests.benchmarks.bench_training processes $(PAIRS)

# Installs nothing: runs with whatever interpreter is named.
gpu-check:
	$(PYTHON) -m tests.gpu.run

# Installs nothing, as above. OUT: folder for the results; SECONDS_MAX: longest time of all sections.
OUT ?= runs/gpu
SECONDS_MAX ?= 540
gpu-run:
	$(PYTHON) -m tests.gpu.run --out $(OUT) --seconds $(SECONDS_MAX)

gpu-report:
	@$(PYTHON) -m tests.gpu.report $(OUT)

# Packages that a bare image with torch lacks, for the Python of that image: make gpu-wheels FOR=312
FOR ?= 312
gpu-wheels: setup
	rm -rf gpu_wheels
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --python-version $(FOR) --implementation cp \
		--platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --constraint constraints.txt --dest gpu_wheels $(GPU_PACKAGES)
	@du -sh gpu_wheels

clean:
	rm -rf $(VENV) runs build dist site *.egg-info
