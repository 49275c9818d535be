"""A build killed -9 at twenty random moments loses one job at most, and ends bit for bit undisturbed.

The process that is killed is forked from one that has imported torch and done nothing with it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 20

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
from headwater import seeds
from headwater.disk.npz import read_examples
from headwater.retraining import build
from headwater.retraining.recipe import from_fields
from headwater.retraining.workplace import Workplace
from headwater.workers import Here

root, kills = Path(sys.argv[1]), int(sys.argv[2])
recipe = from_fields(json.loads((root / "recipe.json").read_text()))
sides = read_examples(root / "train.npz"), read_examples(root / "val.npz")
measure = build.outcome

def counted(inputs, job):
    with (root / "begun.txt").open("a") as file:
        file.write(f"{job}\\n")
    return measure(inputs, job)

def child(folder):
    pid = os.fork()
    if pid:
        return pid
    workplace = Workplace(Here(), models=root / "models" / folder)
    for _ in build.build(root / folder, recipe, *sides, workplace):
        pass
    os._exit(0)

began = time.monotonic()
assert os.waitpid(child("whole"), 0)[1] == 0
took = time.monotonic() - began
build.outcome = counted
moments = seeds.generator(0, "kills").uniform(0, 0.1 * took, size=kills)
killed = 0
for moment in moments:
    pid = child("killed")
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
assert os.waitpid(child("killed"), 0)[1] == 0
print(json.dumps({"killed": killed, "begun": len((root / "begun.txt").read_text().splitlines())}))
"""


@pytest.mark.slow
def test_a_build_killed_at_twenty_random_moments_ends_as_an_undisturbed_one(smallest, pictures, tmp_path):
    from headwater.diffusion.draws import Draws
    from headwater.disk.npz import write_examples
    from headwater.models.train import Recipe
    from headwater.retraining.recipe import BankRecipe, DataSource

    training = Recipe(steps=20, batch=8, learning_rate=1e-2, checkpoints=2)
    recipe = BankRecipe(
        data=DataSource(name="train.npz"),
        held_out=DataSource(name="val.npz"),
        model=smallest,
        training=training,
        subsets=9,
        seeds=2,
        learning=2,
        generated=2,
        sample_steps=10,
        outcome_draws=Draws(20, "stratified", 2, seed=77),
    )
    jobs = 10 * 2 + 2
    write_examples(tmp_path / "train.npz", pictures(12))
    write_examples(tmp_path / "val.npz", pictures(2, seed=1))
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.fields()))
    words = [sys.executable, "-c", SCRIPT, str(tmp_path), str(KILLS)]
    process = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert process.returncode == 0, process.stderr
    counts = json.loads(process.stdout.splitlines()[-1])
    assert counts["killed"] > KILLS // 2
    assert jobs <= counts["begun"] <= jobs + counts["killed"]  # each kill costs one job at most
    assert files(tmp_path / "whole") == files(tmp_path / "killed")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
