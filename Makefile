# Two commands do all the set-up on a fresh machine with Python 3.11 or later:
#   make demo   install, and run a first sweep
#   make test   install, and pass the tests
# Three more for those who change the code: `make test-quick` while writing, `make test-long` before a release, `make docs` for the site of the docs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Wheels of PyTorch without CUDA, for machines without a GPU.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST := $(BIN)/python -m pytest
CPUS = $(shell $(BIN)/python -c 'import os; print(min(4, len(os.sched_getaffinity(0))))')
BY_FILE := --dist loadfile --no-loadscope-reorder
# One process more than there are CPUs, because tests wait for other processes. Quick ones do not, and each process has its imports to do.
SIDE_BY_SIDE = -n $(shell expr $(CPUS) + 1) $(BY_FILE)
# Without bytecode files every test process would compile kd_ray and its tests anew.
unexport PYTHONDONTWRITEBYTECODE
# Where the tests are that a command runs: to import the others takes longer than these tests. `tests/test_commands.py` holds that none is missed.
ALONE := tests/benchmarks tests/contract tests/deployment
QUICK := tests/unit tests/test_imports.py

.PHONY: demo test test-quick test-long check docs install install-dev clean

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kd_ray needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python make/torch_without_cuda.py $(TORCH_INDEX)
	@echo "installing kd_ray and the packages that it needs into $(VENV)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: install
	@echo "a first sweep: 16 small networks on drawn images, three minutes on 2 CPU cores"
	$(BIN)/kd-ray launch sweeps/trifeature-quick.yaml
	$(BIN)/kd-ray query "SELECT role, temperature, count(*) AS n, avg(accuracy) AS accuracy, avg(worst_class_accuracy) AS worst_class \
	FROM trials GROUP BY ALL ORDER BY role, temperature"
	$(BIN)/kd-ray report trifeature-quick
	@echo "open the page that the last line names, or run $(BIN)/kd-ray serve and open http://127.0.0.1:8080/"
	@echo "what it all means: docs/tutorial.md"

test: check
	$(PYTEST) $(SIDE_BY_SIDE) -m 'not alone and not long'
	$(PYTEST) -m 'alone and not long' $(ALONE)

test-quick: install-dev
	$(PYTEST) -n $(CPUS) $(BY_FILE) -m 'not ray and not alone and not slow and not long' $(QUICK)

test-long: install-dev
	$(PYTEST) $(SIDE_BY_SIDE) -m 'long and not alone'
	$(PYTEST) -m 'long and alone' $(ALONE)

docs: install-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the site of the docs: build/docs/index.html"

check: install-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info
