"""A bank of adapters by the command line alone: built, asked, grown, planned."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_pipelines
from headwater.bank import open_bank
from headwater.cli.commands import main
from headwater.retraining.counterfactual import RANDOM
from headwater.retraining.recipe import Adapters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    """A folder with a tiny Stable Diffusion and two styles' pictures without prompts."""
    root = tmp_path_factory.mktemp("commands")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        tiny_pipelines.stable(root / "words").save_pretrained(root / "stable")
    for name, n, seed in (("train", 8, 0), ("val", 2, 1), ("more", 1, 2)):
        images = pictures(n, seed=seed, side=16, channels=3).images
        np.savez(root / f"{name}.npz", images=images, groups=np.array([f"style {i % 2}" for i in range(n)]))
    return root


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Runs `headwater` there, in this process: what it prints, and what it is refused with."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADWATER_STORE", str(folder / "store"))

    def run(*words, code=0):
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["headwater", *map(str, words)])
        try:
            main()
            ended = 0
        except SystemExit as end:
            ended = end.code or 0
        output = capsys.readouterr()
        assert ended == code, output.err
        return output.out if code == 0 else output.err

    return run


DATA = (
    "--recipe",
    "digits-mini",
    "--data",
    "train.npz",
    "--held-out",
    "val.npz",
    "--base",
    "stable",
    "--rank",
    "2",
)
SMALL = (
    "--steps",
    "2",
    "--subsets",
    "3",
    "--seeds",
    "1",
    "--learning",
    "1",
    "--generated",
    "3",
    "--measurements",
    "simple",
)
BUILD = ("bank", "build", "bank", *DATA, *SMALL, "--caption", "a {group} p", "--workers", "1")
FAST = ("--set", "timesteps=2")


@pytest.fixture
def bank(command):
    """The bank, built where it is not yet."""
    command(*BUILD)
    return open_bank("bank")


def test_a_bank_is_built_and_remembers_all_of_it(command, bank, folder):
    recipe = bank.info["recipe"]
    assert recipe["adapters"] == {
        "base": str(folder / "stable"),
        "rank": 2,
        "guidance": Adapters(base="").guidance,
    }
    assert (
        recipe["model"] == {}
        and recipe["training"]["learning_rate"] == 3e-4
        and recipe["training"]["steps"] == 2
    )
    assert recipe["data"]["caption"] == recipe["held_out"]["caption"] == "a {group} p"
    assert bank.queries.prompts == ("a style 0 p", "a style 1 p", "a style 0 p", "a style 0 p", "a style 1 p")
    command("bank", "build", "bank")
    assert open_bank("bank").info == bank.info and "3 of 3 trained" in command("bank", "status", "bank")
    assert "--base" in command("bank", "build", "new", "--rank", "2", code=2)
    assert (
        "conditioned on prompts" in command("bank", "build", "new", *DATA, code=2)
        and not Path("new").exists()
    )


def test_attribution_on_it_gets_a_figure_of_lds(command, bank):
    command("attribute", "--bank", "bank", "--method", "d-trak", *FAST, "--out", "run")
    truth = json.loads(Path("run/run.json").read_text())["ground_truth"]
    figures = json.loads(command("lds", "run", "bank", "--json"))
    assert len(truth["per_query"]) == len(bank.queries) and np.isfinite(truth["per_query"]).all()
    assert all(-1 <= figures["splits"][split]["lds"] <= 1 for split in ("val", "gen"))
    command("attribute", "--bank", "bank", "--method", "random", "--out", "chance")
    assert "random" in command("lds", "run", "chance", "bank")
    command("tune", "--bank", "bank", "--method", "trak", *FAST, "--field", "damping", "--values", "0.1,1")
    command("report", "run", "chance")
    alone = (
        "--model",
        "bank/model",
        "--train",
        "bank/train.npz",
        "--query",
        "bank/queries.npz",
        "--method",
        "d-trak",
    )
    command("attribute", *alone, *FAST, "--out", "alone")
    np.testing.assert_array_equal(np.load("alone/scores.npy"), np.load("run/scores.npy"))
    assert not [
        note for note in json.loads(Path("alone/run.json").read_text())["notes"] if "schedule" in note
    ]


def test_methods_that_take_checkpoints_paths_or_retrained_models(command, bank):
    for method, fields in (("tracin", ("checkpoints=2",)), ("journey-trak", ()), ("k-fac", ())):
        words = [word for field in fields for word in ("--set", field)]
        command("attribute", "--bank", "bank", "--method", method, *FAST, *words, "--out", method)
        assert np.isfinite(np.load(f"{method}/scores.npy")).all()
    assert len(json.loads(Path("tracin/run.json").read_text())["settings"]["checkpoints"][0]) == 2
    command(
        "attribute", "--bank", "bank", "--method", "d-trak", *FAST, "--ensemble", "1", "--out", "ensemble"
    )
    command("attribute", "--bank", "bank", "--method", "d-trak", *FAST, "--out", "one")
    assert not np.array_equal(np.load("ensemble/scores.npy"), np.load("one/scores.npy"))


def test_pictures_are_made_again_without_their_sources(command, bank):
    command("attribute", "--bank", "bank", "--method", "pixel", "--out", "pixel")
    words = (
        "pixel",
        "--bank",
        "bank",
        "--out",
        "removal",
        "--queries",
        "2",
        "--remove",
        "2",
        "--workers",
        "1",
    )
    command("counterfactual", *words)
    record = json.loads(Path("removal/counterfactual.json").read_text())
    assert record["sampler"] == "ddim, 50 steps, guidance 7.5"
    (name,) = record["methods"].keys() - {RANDOM}
    assert min(record["methods"][name]["removed"]["2"]["l2"]["each"]) > 0
    places = [bank.queries.ids.index(name) for name in record["queries"]]
    assert np.array_equal(np.load("removal/pictures.npz")["before"], bank.queries.images[places])


def test_queries_are_added_with_prompts_of_the_same_caption(command, bank):
    command("bank", "build", "bank", "--add-queries", "more.npz", "--workers", "1")
    assert open_bank("bank").queries.prompts[-1] == "a style 0 p" and open_bank("bank").done().all()


def test_such_a_bank_is_planned(command, bank):
    cost = json.loads(command("plan", "bank", "--json"))
    counts = cost["counts"]
    assert (
        counts["sampling"] == 3 * 50 * 2 and counts["steps"] == 2 * counts["trainings"]
    )  # with guidance twice the passes
    assert counts["parameters"] == sum(p.size for p in _adapters("bank/model")) and counts["trainings"] == 5
    assert min(cost["seconds_a_picture"].values()) > 0


def _adapters(folder):
    from safetensors.numpy import load_file

    return load_file(Path(folder) / "pytorch_lora_weights.safetensors").values()
