# Every target installs what it needs. Python 3.11-3.13 and make must be there.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
NUMBER := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())')
# The library alone, as a user has it: the built wheel, and its tests.
ALONE  := build/library-$(NUMBER)
# The same for each combination of versions, which is a group of pyproject.toml.
VERSIONS := keras-3.8-tensorflow-2.18 keras-3.12-tensorflow-2.20 newest-tensorflow jax-alone torch-alone
APART  := build/versions-$(NUMBER)
# Two processes; the tests of a file run in one of them, the files in their order.
PYTEST := python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# pytest ends with 5 where ARGS selects none of a part's tests.
NONE_IS_FINE := $(if $(ARGS),|| [ $$? -eq 5 ])

.DEFAULT_GOAL := help
.PHONY: help train serve test wheel test-versions test-slow test-backends test-ray
.PHONY: test-kerashub test-exports test-endurance mutants lint types bench docs release-check clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

define make_environment
@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is %d.%d. Name another with: make PYTHON=python3.12 ..." % v)'
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet 'pip>=25.1'  # the first that knows --group
endef

$(BIN)/python:
	$(call make_environment,$(VENV))

# .venv/.train is there when the dependency group `train` of pyproject.toml is installed.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo 'Installing what "$*" needs into $(VENV); a minute, and more for what must be downloaded.'
	$(BIN)/python -m pip install --editable . --group $*
	@touch $@

train: $(VENV)/.train  ## train the default CNN on Fashion-MNIST and export it (options: ARGS="--epochs 1")
	$(BIN)/python train.py $(ARGS)

serve: $(VENV)/.serve  ## the service, at http://localhost:8501 (options: ARGS="--slots 2")
	$(BIN)/python -m service $(ARGS)

# The library's tests run on the wheel, the others here; with ARGS all run here.
test: $(VENV)/.test $(if $(ARGS),,wheel)  ## every test (options: ARGS="-k dropout")
	$(BIN)/$(PYTEST) $(or $(ARGS),--ignore tests/kerasnorm --ignore tests/test_oracle.py)

$(ALONE)/bin/python:
	$(call make_environment,$(ALONE))

$(ALONE)/.ready: pyproject.toml | $(ALONE)/bin/python
	@echo 'Installing what the tests of the library need into $(ALONE); a minute.'
	$(ALONE)/bin/python -m pip install --quiet --group library-tests
	@touch $@

build/wheel/.built: $(VENV)/.release pyproject.toml README.md LICENSE $(shell find kerasnorm -name '*.py')
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel > build/wheel.log || { cat build/wheel.log; exit 1; }
	@touch $@

# Install the wheel for a backend and run the library's tests: environment, backend, options.
define test_wheel
rm -rf $(1)/alone && mkdir -p $(1)/alone/tests
$(1)/bin/python -m pip uninstall --quiet --yes kerasnorm
$(1)/bin/python -m pip install --quiet "$$(ls build/wheel/*.whl)[$(2)]"
cp pyproject.toml $(1)/alone
cp -r tests/__init__.py tests/oracle.py tests/test_oracle.py tests/kerasnorm $(1)/alone/tests
cd $(1)/alone && KERAS_BACKEND=$(2) ../bin/$(PYTEST) tests/test_oracle.py tests/kerasnorm $(3) $(ARGS)
endef

wheel: build/wheel/.built $(ALONE)/.ready  ## the library's tests, on the built wheel in an environment of its own
	$(call test_wheel,$(ALONE),tensorflow)

test-versions: $(VERSIONS:%=versions/%)  ## the same with other versions and with one backend alone: docs/versions.md

.PRECIOUS: $(APART)/%/.ready
$(APART)/%/.ready: pyproject.toml
	@test ! -e $(APART)/$* || rm -r $(APART)/$*
	$(call make_environment,$(APART)/$*)
	@echo 'Installing "$*" into $(APART)/$*; some minutes.'
	$(APART)/$*/bin/python -m pip install --quiet --group $*
	@touch $@

# TensorFlow's environments run all of the tests, the others those of every backend.
versions/%: build/wheel/.built $(APART)/%/.ready
	@$(APART)/$*/bin/python -m pip list 2> /dev/null | grep -E '^(keras|tensorflow|jax|torch|numpy) '
	$(call test_wheel,$(APART)/$*,$(filter tensorflow jax torch,$(subst -, ,$*)),$(if $(findstring tensorflow,$*),,-m 'any_backend and not slow'))

test-slow: $(VENV)/.test  ## the large models of keras.applications; every experiment in small
	$(BIN)/$(PYTEST) -m slow $(ARGS)

# versions/jax-alone runs the library's tests on JAX too: LIBRARY_ON=torch leaves them to it.
LIBRARY_ON ?= jax torch
test-backends: $(VENV)/.test $(VENV)/.backends  ## layers, transforms and benchmarks on JAX and PyTorch
	for backend in jax torch; do KERAS_BACKEND=$$backend $(BIN)/python -m pytest \
		tests/docs/test_migrate.py docs/migrate.md docs/pytorch.md tests/benchmarks/test_backends.py $(ARGS) $(NONE_IS_FINE) || exit; done
	for backend in $(LIBRARY_ON); do KERAS_BACKEND=$$backend $(BIN)/$(PYTEST) \
		-m any_backend tests/kerasnorm $(ARGS) $(NONE_IS_FINE) || exit; done

test-kerashub: $(VENV)/.test $(VENV)/.kerashub  ## the models of KerasHub
	$(BIN)/$(PYTEST) -m slow tests/kerasnorm/transforms/test_kerashub.py $(ARGS)

test-exports: $(VENV)/.test $(VENV)/.exports  ## exported files, by ONNX Runtime, OpenVINO and LiteRT
	$(BIN)/$(PYTEST) -m 'slow or not slow' tests/kerasnorm/transforms/test_exports.py tests/training/test_formats.py $(ARGS)

test-ray: $(VENV)/.test $(VENV)/.ray  ## the tests on clusters of Ray
	$(BIN)/python -m pytest tests/training/test_ray_workers.py tests/service/jobs/test_ray_trainers.py \
		tests/service/test_ray_serve.py $(ARGS)

test-endurance: $(VENV)/.test  ## several workers; jobs in a storm of SIGKILLs
	$(BIN)/python -m pytest -m endurance $(ARGS)

# An hour and more; stopped and called again, it goes on.
mutants: $(VENV)/.test $(VENV)/.mutants  ## put small faults into the code: which of them does no test see?
	test -e build/mutants/sample.json || $(BIN)/python -m tests.mutants sample build/mutants
	$(BIN)/python -m tests.mutants map build/mutants tests/kerasnorm tests/training tests/service/jobs
	$(BIN)/python -m tests.mutants run build/mutants
	$(BIN)/python -m tests.mutants table build/mutants

lint: $(VENV)/.lint  ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy
	$(BIN)/mypy

bench: $(VENV)/.experiments  ## timings beside Keras and, where it is installed, PyTorch: build/benchmarks
	for what in layers models inference scaling; do \
		$(BIN)/python -m benchmarks $$what --output build/benchmarks $(ARGS) || exit; done

docs: $(VENV)/.train $(VENV)/.docs  ## the site, which needs no network: build/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

# The sdist brings the library's tests. Without its kerasnorm/ they test the installed one.
release-check: $(VENV)/.release  ## build sdist and wheel, check both, install each alone and test it
	rm -rf dist build/release && mkdir -p build/release/sdist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	tar -xzf dist/*.tar.gz --strip-components 1 -C build/release/sdist
	rm -r build/release/sdist/kerasnorm
	$(call check_release,whl,tests/kerasnorm/test_surface.py)
	$(call check_release,gz,tests)

define check_release
$(call make_environment,build/release/$(1))
build/release/$(1)/bin/python -m pip install --quiet "$$(ls dist/*.$(1))[tensorflow]" --group library-tests
cd build/release/sdist && ../$(1)/bin/$(PYTEST) $(2)
endef

clean:  ## what make has made; datasets, runs and saved models stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
