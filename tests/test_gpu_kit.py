"""The GPU kit runs on the processor at tiny size: every stage whole and finite, a killed bank goes on as if
it had not been."""

import json
import math
import os
import subprocess
import sys
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


def started(stage: str, out: Path, data: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words(stage, out, data, *more),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> None:
    text, _ = process.communicate()
    assert process.returncode == 0, text


def run(stage: str, out: Path, data: Path, *more: str) -> dict:
    finished(started(stage, out, data, *more))
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


@pytest.fixture(scope="module")
def folders(tmp_path_factory, data):
    """Of a bank that was built at once, and of one that was killed after its first group and went on."""
    uninterrupted, killed = (tmp_path_factory.mktemp(name) for name in ("uninterrupted", "killed"))
    builds = [started("bank", folder, data) for folder in (uninterrupted, killed)]
    next((line for line in builds[1].stdout or () if line.startswith("bank    group")), None)
    builds[1].kill()
    builds[1].communicate()
    finished(builds[0])
    run("bank", killed, data)
    return uninterrupted, killed


def test_a_killed_bank_goes_on_bit_for_bit(folders):
    for folder in folders:
        items = json.loads((folder / "bank.json").read_text())["items"]
        assert "bank" in items and all("error" not in row and finite(row) for row in items.values())
    one, other = (open_bank(folder / "bank") for folder in folders)
    assert one.done().all() and one.compared == 8
    for name in ("simple", "elbo", "per-timestep"):
        np.testing.assert_array_equal(one.outcomes(name), other.outcomes(name))


@pytest.mark.slow
def test_methods_are_scored_against_a_bank(folders, data):
    items = run("quality", folders[1], data, "--set", f"only={SCORED}")["items"]
    assert {"trak", "d-trak, avg", "ek-fac, nothing chosen"} <= {
        line["row"] for line in items["table"]["lines"]
    }
    assert all("error" not in row and finite(row) for row in items.values())
