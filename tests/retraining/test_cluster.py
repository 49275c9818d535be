"""A Ray cluster of three nodes, one of which is killed, makes the bank and features of one process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headwater.diffusion.draws import Draws
from headwater.disk.npz import write_examples
from headwater.models import loading
from headwater.models.train import Recipe
from headwater.retraining.recipe import BankRecipe, DataSource

SCRIPT = """
import json, os, sys
from pathlib import Path
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0")
import torch
torch.set_num_threads(1)
import numpy as np
from ray.cluster_utils import Cluster as Nodes
from headwater.disk.npz import read_examples
from headwater.disk.store import FeatureStore
from headwater.families.gradients import GradientFeatures
from headwater.models import loading
from headwater.retraining.build import build
from headwater.retraining.recipe import from_fields
from headwater.retraining.workplace import Workplace
from headwater.workers import Cluster, Here

root = Path(sys.argv[1])
recipe = from_fields(json.loads((root / "recipe.json").read_text()))
sides = read_examples(root / "train.npz"), read_examples(root / "val.npz")
list(build(root / "alone", recipe, *sides, Workplace(Here())))

size = {"num_cpus": 1, "object_store_memory": 80_000_000}
nodes = Nodes(initialize_head=True, head_node_args={**size, "include_dashboard": False})
extra = [nodes.add_node(**size), nodes.add_node(**size)]
nodes.wait_for_nodes()
crew = Cluster(nodes.address)
notes, killed = [], 0
for count, total in build(root / "together", recipe, *sides, Workplace(crew), warn=notes.append):
    if count == 3 and not killed:
        nodes.remove_node(extra[0], allow_graceful=False)
        killed += 1
fields = GradientFeatures(timesteps=2, k=64)
model, many = loading.load(root / "alone" / "model"), read_examples(root / "many.npz")
alone = fields.train(model, many, FeatureStore(root / "a"))
together = fields.train(model, many, FeatureStore(root / "b", crew=crew))
equal = bool(np.array_equal(alone, together))
print(json.dumps({"done": [count, total], "killed": killed, "notes": notes, "features": equal}))
import ray
ray.shutdown()
nodes.shutdown()
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_builds_the_bank_of_a_single_process(smallest, pictures, tmp_path):
    pytest.importorskip("ray")
    recipe = BankRecipe(
        data=DataSource(name="train.npz"),
        held_out=DataSource(name="val.npz"),
        model=smallest,
        training=Recipe(steps=40, batch=8, learning_rate=1e-2, checkpoints=1),
        subsets=5,
        seeds=2,
        generated=2,
        sample_steps=5,
        outcome_draws=Draws(20, "stratified", seed=77),
    )
    write_examples(tmp_path / "train.npz", pictures(12))
    write_examples(tmp_path / "val.npz", pictures(2, seed=1))
    write_examples(tmp_path / "many.npz", pictures(300, seed=2))
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.fields()))
    words = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    process = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert process.returncode == 0, process.stderr[-3000:]
    report = json.loads(process.stdout.splitlines()[-1])
    notes = ["The model of all 12 images comes first: 40 steps."]
    assert report == {"done": [12, 12], "killed": 1, "notes": notes, "features": True}
    assert files(tmp_path / "together") == files(tmp_path / "alone")
    assert np.isfinite(np.load(tmp_path / "together" / "outcomes.npy")).all()
    assert (
        loading.load(tmp_path / "together" / "model").fingerprint
        == loading.load(tmp_path / "alone" / "model").fingerprint
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
