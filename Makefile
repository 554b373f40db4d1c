# `make train` and `make test` need Python 3.11-3.13 and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
# Two processes, a file in one of them.
IN_PARALLEL := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help train serve test test-slow test-backends test-ray test-endurance lint types wheel bench docs clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is %d.%d. Name another with: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[train,serve,grpc,page,experiments,test,docs,dev]'
	touch $@

train: $(VENV)/.ready  ## train the default CNN on Fashion-MNIST and export it (options: ARGS="--epochs 1")
	$(BIN)/python train.py $(ARGS)

serve: $(VENV)/.ready  ## the service, at http://localhost:8501 (options: ARGS="--slots 2")
	$(BIN)/python -m service $(ARGS)

test: $(VENV)/.ready  ## every test (options: ARGS="-k dropout")
	$(BIN)/python -m pytest $(IN_PARALLEL) $(ARGS)

test-slow: $(VENV)/.ready  ## the large models of keras.applications; every experiment in small
	$(BIN)/python -m pytest -m slow $(ARGS)

# Whatever needs neither tf.function nor GradientTape. JAX has float64 only when told.
BACKEND_TESTS := $(addprefix kerasnorm/,layers/test_bad_input layers/test_batch_norm \
	layers/test_dropout transforms/test_convert transforms/test_fold \
	transforms/test_monte_carlo transforms/test_recalibrate \
	monitor/test_shift_monitor test_surface) experiments/masks/test_masks
test-backends: $(VENV)/.ready  ## the tests of layers and transforms on JAX and PyTorch
	$(BIN)/pip install --quiet --editable '.[backends]'
	for backend in jax torch; do export KERAS_BACKEND=$$backend; \
		$(BIN)/python -m pytest tests/kerasnorm/backend/test_backends.py tests/docs/test_migrate.py docs/migrate.md $(ARGS) \
		&& JAX_ENABLE_X64=1 $(BIN)/python -m pytest $(IN_PARALLEL) $(BACKEND_TESTS:%=tests/%.py) $(ARGS) \
		|| exit; done

test-ray: $(VENV)/.ready  ## the tests on clusters of Ray
	$(BIN)/pip install --quiet --editable '.[ray]'
	$(BIN)/python -m pytest tests/training/test_ray_workers.py tests/service/jobs/test_ray_trainers.py \
		tests/service/test_ray_serve.py $(ARGS)

test-endurance: $(VENV)/.ready  ## several workers; jobs in a storm of SIGKILLs
	$(BIN)/python -m pytest -m endurance $(ARGS)

lint: $(VENV)/.ready  ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready  ## mypy
	$(BIN)/mypy

# tests/kerasnorm and the oracle need nothing of the repository.
wheel: $(VENV)/.ready  ## build the wheel; run the library's tests on it in an empty environment
	rm -rf dist build
	$(BIN)/python -m build --quiet --wheel
	elsewhere=$$(mktemp -d) && trap 'rm -rf "$$elsewhere"' EXIT \
	&& $(PYTHON) -m venv "$$elsewhere/venv" \
	&& "$$elsewhere/venv/bin/pip" install --quiet "$$(ls $$PWD/dist/*.whl)[test]" \
	&& mkdir "$$elsewhere/tests" && cp pyproject.toml "$$elsewhere" \
	&& cp -r tests/__init__.py tests/oracle.py tests/test_oracle.py tests/kerasnorm "$$elsewhere/tests" \
	&& cd "$$elsewhere" && venv/bin/python -m pytest $(IN_PARALLEL)

bench: $(VENV)/.ready  ## timings beside Keras and, where it is installed, PyTorch: build/benchmarks
	for what in layers models inference scaling; do \
		$(BIN)/python -m benchmarks $$what --output build/benchmarks $(ARGS) || exit; done

docs: $(VENV)/.ready  ## the site, which needs no network: build/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

clean:  ## what make has made; datasets, runs and saved models stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
