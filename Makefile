# make demo    sets everything up and plays the whole story on the bundled music
# make test    sets everything up and runs the tests
# make soak    runs long series of kills and faults, for an hour
# Without bytecode every process compiles torch again, for seconds.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup demo test soak check bench up

setup: .venv/ready

# The lock names every package and version, so pip need not resolve anything.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps --no-compile -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch .venv/ready

# Compiled once by both cores, not by every test process that comes to a package first.
.venv/compiled: .venv/ready
	-$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null
	$(BIN)/python -W ignore -m tests.support.compile_librosa
	touch .venv/compiled

demo: setup
	$(BIN)/spectrogram-one demo

test: setup .venv/compiled
	$(BIN)/pytest -n 4   # more processes than cores: many tests wait

soak: setup
	$(BIN)/pytest -m soak -n 2 --hypothesis-profile=soak

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m tests.benchmarks.preprocessing
	$(BIN)/python -m tests.benchmarks.scaling
	$(BIN)/python -m tests.benchmarks.loader
	$(BIN)/python -m tests.benchmarks.million_tracks
	$(BIN)/python -m tests.benchmarks.reading_order
	$(BIN)/python -m tests.benchmarks.two_processes
	$(BIN)/python -m tests.benchmarks.training
	$(BIN)/python -m tests.benchmarks.tagging
	$(BIN)/python -m tests.benchmarks.tag_writing
	$(BIN)/python -m tests.benchmarks.tagging_catalogue --files 3000
	$(BIN)/python -m tests.benchmarks.hostile
	$(BIN)/python -m tests.benchmarks.catalogue
	$(BIN)/python -m tests.benchmarks.capacity --batches 2000 --threads 8 --runs 10000

up: setup
	$(BIN)/spectrogram-one serve
