# `make demo` and `make test` are all that a newcomer needs; each installs first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check bench bench-receiver bench-loading bench-freshness bench-install soak whole-soak crash-test crash-test-load constraints clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("customerio-pipeline needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@# uv installs in seconds what takes pip minutes, but does not read pip's configuration.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]' \
		|| $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/customerio-pipeline up --demo

test: check
	$(BIN)/pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

bench: bench-install
	$(BIN)/python -m benchmarks

bench-receiver: bench-install
	$(BIN)/python -m benchmarks --only receiver --only receiver-sealing --only receiver-peers

bench-loading: bench-install
	$(BIN)/python -m benchmarks --only load --only compare --only growth

bench-freshness: bench-install
	$(BIN)/python -m benchmarks --only freshness

bench-install: .venv/bench-installed

.venv/bench-installed: .venv/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,bench]' \
		|| $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

soak: install
	$(BIN)/python -m benchmarks.soak

whole-soak: install
	$(BIN)/python -m campaigns.whole_soak

crash-test: install
	$(BIN)/python -m campaigns.receiver_crash

crash-test-load: install
	$(BIN)/python -m campaigns.load_crash

constraints: install
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
		--no-header --no-annotate --no-emit-index-url pyproject.toml --output-file constraints.txt

clean:
	rm -rf .venv var
