#!/bin/sh
# With another Python and without torch: the rooms that look at results, and the nouns, by their own tests.
# Usage: sh tests/without_torch.sh python3.13
set -eu
cd "$(dirname "$0")/.."
python=$1
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m venv "$place"
"$place/bin/pip" install --quiet --constraint constraints.txt numpy scipy scikit-learn pillow jinja2 jaxtyping beartype rich \
    typer pyld pytest
PYTHONPATH=src "$place/bin/python" -m pytest -m "not slow" -p no:cacheprovider tests/pages tests/credit tests/evaluate tests/disk \
    tests/test_scores.py tests/test_examples.py tests/test_seeds.py
