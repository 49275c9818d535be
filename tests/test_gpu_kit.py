"""The GPU kit runs on the processor at tiny size: every stage whole and finite, a killed bank goes on as if
it had not been."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from headwater import seeds
from headwater.bank import open_bank
from headwater.disk.npz import write_examples
from headwater.examples import Examples

KIT = Path(__file__).parent.parent / "benchmarks" / "gpu" / "run.py"
SCORED = "random+pixel+trak+d-trak+k-fac+ek-fac+das+tracin+gas"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for number, (name, count) in enumerate((("train", 40), ("val", 6))):
        images = seeds.generator(number, "test", "gpu kit").integers(0, 256, (count, 32, 32, 3), np.uint8)
        write_examples(folder / f"{name}.npz", Examples(images, labels=np.arange(count) % 2))
    return folder


def words(stage: str, out: Path, data: Path, *more: str) -> list[str]:
    tiny = ("--device", "cpu", "--size", "tiny", "--data", str(data))
    return [sys.executable, str(KIT), stage, "--out", str(out), *tiny, *more]


def run(stage: str, out: Path, data: Path, *more: str) -> dict:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words(stage, out, data, *more), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / f"{stage}.json").read_text())


def finite(value) -> bool:
    if isinstance(value, dict):
        return all(finite(part) for part in value.values())
    if isinstance(value, list):
        return all(finite(part) for part in value)
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "count"), [("check", 20), ("speed", 12)])
def test_a_stage_measures_everything_and_finds_finite_numbers(stage, count, tmp_path, data):
    items = run(stage, tmp_path, data)["items"]
    assert len(items) >= count
    assert all("error" not in row and "skipped" not in row for row in items.values())
    assert all(
        finite({name: of for name, of in row.items() if name != "card_idle_share"}) for row in items.values()
    )


@pytest.mark.slow
def test_a_killed_bank_goes_on_bit_for_bit_and_methods_are_scored_against_it(tmp_path, data):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run("bank", whole, data)
    process = subprocess.Popen(
        words("bank", killed, data), env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
    )
    report, deadline = killed / "bank.json", time.monotonic() + 100
    while time.monotonic() < deadline and not (report.exists() and '"group' in report.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run("bank", killed, data)
    one, other = (open_bank(folder / "bank") for folder in (whole, killed))
    assert one.done().all()
    assert one.compared == 8
    for name in ("simple", "elbo", "per-timestep"):
        np.testing.assert_array_equal(one.outcomes(name), other.outcomes(name))
    items = run("quality", killed, data, "--set", f"only={SCORED}")["items"]
    assert {"trak", "d-trak, avg", "ek-fac, nothing chosen"} <= {
        line["row"] for line in items["table"]["lines"]
    }
    assert all("error" not in row and finite(row) for row in items.values())
