"""Run the tests marked slow, which a push does not wait for, and write down what came of each.

Run: .venv/bin/python benchmarks/nightly.py. Writes benchmarks/results/nightly.json; exits with pytest's own
code."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from environment import environment

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "nightly.json"


def outcome(case: ElementTree.Element) -> str:
    """passed, failed, error or skipped."""
    return next((tag for tag in ("failure", "error", "skipped") if case.find(tag) is not None), "passed")


def main() -> None:
    """Run pytest, and keep the outcome and the seconds of every test."""
    started = datetime.now(UTC)
    with TemporaryDirectory() as folder:
        report = Path(folder) / "nightly.xml"
        code = subprocess.call(
            [sys.executable, "-m", "pytest", "-m", "slow", f"--junitxml={report}"], cwd=ROOT
        )
        cases = list(ElementTree.parse(report).iter("testcase"))
    tests = {
        f"{case.get('classname')}::{case.get('name')}": {
            "outcome": outcome(case),
            "seconds": round(float(case.get("time") or 0), 1),
        }
        for case in cases
    }
    record = {"started": started.isoformat(timespec="seconds"), "environment": environment(), "tests": tests}
    RESULT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(code)


if __name__ == "__main__":
    main()
