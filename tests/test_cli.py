"""The command line: what it writes, and what bad input gets. One paragraph, exit code 2, no traceback,
nothing half-written."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import headwater
from headwater import seeds
from headwater.attribution.open import Models, Sources, open_experiment
from headwater.bank import open_bank
from headwater.disk.npz import write_examples
from headwater.errors import DataError
from headwater.examples import Examples, with_channels
from headwater.models import loading, unet

SMALL = {"block_out_channels": (8, 16), "norm_num_groups": 4}
FAST = ("--set", "timesteps=2", "--set", "k=32")


@pytest.fixture
def refused(command):
    """Runs a command that must be refused; returns its message."""

    def run(*words: object) -> str:
        code, out, err = command(*words)
        assert code == 2, err
        assert out == ""
        assert "Traceback" not in err
        message = err[err.index("headwater: ") :]
        assert len(message) < 600
        return message

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A small model, twelve training images and four queries."""
    folder = tmp_path_factory.mktemp("files")
    unet.save_pipeline(unet.new(unet.configuration("digits", **SMALL), seed=0), folder / "model")
    unet.save_pipeline(
        unet.new(unet.configuration("digits", **SMALL, num_class_embeds=3), seed=0), folder / "conditional"
    )
    random = np.random.Generator(np.random.Philox(1))
    np.savez(
        folder / "train.npz",
        images=random.integers(0, 256, (12, 8, 8), dtype=np.uint8),
        labels=np.arange(12) % 3,
    )
    np.savez(folder / "query.npz", images=random.integers(0, 256, (4, 8, 8), dtype=np.uint8))
    np.savez(folder / "large.npz", images=random.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8))
    return folder


@pytest.fixture
def attribute(files):
    """The words of a good `attribute` command; keywords replace or add options."""

    def words(**changes: object) -> list[object]:
        options = {
            "model": files / "model",
            "train": files / "train.npz",
            "query": files / "query.npz",
            "method": "d-trak",
            "out": "run",
        } | changes
        named = [
            word for name, value in options.items() if value is not None for word in (f"--{name}", value)
        ]
        return ["attribute", *named, *(FAST if options["method"] not in ("random", "pixel") else ())]

    return words


def test_attribute_writes_the_run_folder_of_the_contract(command, attribute, tmp_path):
    code, out, _ = command(*attribute())
    assert (code, out.strip()) == (0, "run")
    scores = np.load(tmp_path / "run" / "scores.npy")
    assert scores.dtype == np.float32
    assert scores.shape == (4, 12)
    assert np.load(tmp_path / "run" / "self.npy").shape == (12,)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["fields"]["k"] == 32
    assert {"versions", "seconds", "models", "seed"} <= info.keys()
    assert "<html" in (tmp_path / "run" / "report.html").read_text()


def test_the_same_settings_resume_and_others_need_force(command, refused, attribute, tmp_path):
    command(*attribute())
    first = (tmp_path / "run" / "scores.npy").stat().st_mtime_ns
    (tmp_path / "run" / "notes.txt").write_text("mine")
    code, _, err = command(*attribute())
    assert code == 0
    assert "already holds this run" in err
    assert (tmp_path / "run" / "scores.npy").stat().st_mtime_ns == first
    assert "--force" in refused(*attribute(seed=5))
    assert command(*attribute(seed=5), "--force")[0] == 0
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_the_seed_option_is_the_seed_field(command, attribute, tmp_path):
    command(*attribute(seed=3, out="a"))
    command(*attribute(out="b"), "--set", "seed=3")
    np.testing.assert_array_equal(
        np.load(tmp_path / "a" / "scores.npy"), np.load(tmp_path / "b" / "scores.npy")
    )


def test_features_kept_as_float16_take_half_the_space_and_record_their_error(
    command, attribute, refused, tmp_path
):
    command(*attribute(out="a"))
    before = {path: path.stat().st_size for path in (tmp_path / "store").rglob("rows-*.npy")}
    command(*attribute(out="b"), "--store-dtype", "float16")
    after = [path for path in (tmp_path / "store").rglob("rows-*.npy") if path not in before]
    header = 128
    assert sorted(2 * (p.stat().st_size - header) for p in after) == sorted(
        size - header for size in before.values()
    )
    assert all(
        0 < json.loads(path.with_suffix(".json").read_text())["relative_error"] < 2**-11 for path in after
    )
    exact, near = (np.load(tmp_path / run / "scores.npy") for run in "ab")
    assert 0 < np.abs(near - exact).max() < 0.01 * np.abs(exact).max()
    assert "float32" in refused(*attribute(out="c"), "--store-dtype", "float61")


def test_several_models_are_the_mean_of_their_scores(command, attribute, files, tmp_path):
    other = tmp_path / "other"
    unet.save_pipeline(unet.new(unet.configuration("digits", **SMALL), seed=9), other)
    command(*attribute(out="one"))
    command(*attribute(out="two", model=other, seed=1))  # member s of an ensemble has seed + s
    command(*attribute(out="both"), "--model", other)
    one, two, both = (np.load(tmp_path / name / "scores.npy") for name in ("one", "two", "both"))
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)


def test_methods_without_a_model_need_none(command, attribute):
    assert command(*attribute(method="pixel", model=None))[0] == 0
    assert command(*attribute(method="random", model=None, out="r"))[0] == 0


@pytest.mark.parametrize("method", ["trak", "gradient", "gradient-cos"])
def test_every_gradient_method_runs(command, attribute, method):
    assert command(*attribute(method=method))[0] == 0


@pytest.mark.parametrize("measurement", ["elbo", "avg", "l1", "l2", "linf", "eta:0.3", "loss"])
def test_every_measurement_runs(command, attribute, measurement):
    assert command(*attribute(), "--set", f"measurement={measurement}")[0] == 0


def test_a_sampled_path_can_be_attributed(command, attribute, files, tmp_path):
    code, out, _ = command(
        "sample",
        files / "model",
        "--count",
        3,
        "--seed",
        0,
        "--out",
        "q.npz",
        "--sampler",
        "ddpm",
        "--trajectory",
    )
    assert (code, out.strip()) == (0, "q.npz")
    assert command(*attribute(query="q.npz"), "--set", "measurement=trajectory")[0] == 0
    with np.load(tmp_path / "q.npz") as file:
        assert file["images"].dtype == np.uint8
        assert file["trajectory"].shape == (3, 1001, 1, 8, 8)


def test_train_sample_attribute_from_a_folder_of_images(command, tmp_path):
    from PIL import Image

    for i in range(6):
        (tmp_path / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(
            tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        )
    assert (
        command("train", "--data", "images", "--out", "m", "--steps", 4, "--batch", 3, "--conditional")[0]
        == 0
    )
    assert len(list((tmp_path / "m" / "checkpoints").glob("step-*"))) == 4
    assert command("sample", "m", "--count", 2, "--steps", 3, "--out", "q.npz")[0] == 0
    code, _, err = command(
        "attribute",
        "--model",
        "m",
        "--train",
        "images",
        "--query",
        "q.npz",
        "--method",
        "trak",
        "--out",
        "r",
        *FAST,
    )
    assert code == 0, err


@pytest.fixture
def classes(tmp_path):
    """Two folders of pictures, `train` with the classes a and b, `query` with b alone."""
    from PIL import Image

    for i, file in enumerate(("train/a/0.png", "train/b/1.png", "query/b/2.png")):
        (tmp_path / file).parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 60 * i, np.uint8)).save(tmp_path / file)


def test_a_caption_makes_the_prompts_of_both_sides_with_the_labels_of_the_training_set(classes, tmp_path):
    sides = str(tmp_path / "train"), str(tmp_path / "query")
    sources = Sources(*sides, caption="{group} is {label}")
    found = open_experiment("pixel", {}, sources, Models([]))
    assert found.train.prompts == ("a is 0", "b is 1") and found.queries.prompts == ("b is 1",)


def test_train_and_attribute_take_a_caption(command, classes):
    words = "--caption", "a {group}"
    code, _, err = command("train", "--data", "train", "--out", "m", "--steps", 4, "--batch", 2, *words)
    assert code == 0, err
    code, _, err = command(
        "attribute", "--train", "train", "--query", "query", "--method", "pixel", "--out", "run", *words
    )
    assert code == 0, err
    assert "a b" in command("credit", "run", "--by", "prompt")[1]


def test_credit_by_label_of_a_fresh_run(command, attribute, refused):
    command(*attribute())
    code, out, _ = command("credit", "run", "--queries", 1)
    assert code == 0
    assert "run by label" in out and "all, 4 queries" in out and "over images" in out
    assert "have no prompts; they have label" in refused("credit", "run", "--by", "prompt")


# ---- bad input
# ----------------------------------------------------------------------------------------------------


def test_a_missing_model_folder(refused, attribute):
    assert "nowhere" in refused(*attribute(model="nowhere"))


def test_a_missing_or_empty_folder_of_images(refused, attribute, tmp_path):
    assert "nothing-here" in refused(*attribute(train="nothing-here"))
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(*attribute(train="empty"))


def test_a_file_that_is_no_image(refused, attribute, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.png").write_text("not a cat")
    assert "cat.png" in refused(*attribute(train="images"))


def test_a_caption_that_no_image_can_fill(refused, attribute, tmp_path):
    assert "Did you mean 'group'?" in refused(*attribute(caption="a {grup}"))
    assert "the images have no groups; they have {label} {id}" in refused(*attribute(caption="a {group}"))
    assert "a bank has its own" in refused(
        *attribute(train=None, query=None, bank="digits", caption="a {label}")
    )
    sweep = "tune", "--method", "random", "--bank", "digits", "--field", "seed", "--values", "1,2"
    assert "a bank has its own" in refused(*sweep, "--caption", "a {label}")
    assert "cannot be read" in refused("train", "--data", "digits", "--out", "m", "--caption", "a {label")
    for word in ("--ema", "--dropout"):
        assert f"{word[2:]} is 1.5; expected" in refused("train", "--data", "digits", "--out", "m", word, 1.5)
    assert "learning_rate is nan" in refused(
        "train", "--data", "digits", "--out", "m", "--learning-rate", "nan"
    )
    assert not (tmp_path / "run").exists() and not (tmp_path / "m").exists()


def test_a_folder_whose_captions_are_no_json(refused, attribute, classes, tmp_path):
    (tmp_path / "train" / "metadata.jsonl").write_text("a red car")
    message = refused(*attribute(train="train"))
    assert "train/metadata.jsonl, line 1, is not JSON" in message and '"file_name"' in message


def test_images_of_another_size_or_channel_count_than_the_models(refused, attribute, files):
    message = refused(*attribute(query=files / "large.npz"))
    assert "16×16" in message
    assert "8×8" in message


def damaged(files: Path, tmp_path: Path, change) -> Path:
    model = tmp_path / "damaged"
    unet.save_pipeline(loading.load(files / "model"), model)
    change(model / "unet" / "diffusion_pytorch_model.safetensors")
    return model


def test_a_truncated_weight_file(refused, attribute, files, tmp_path):
    model = damaged(files, tmp_path, lambda path: path.write_bytes(path.read_bytes()[:5000]))
    assert "damaged" in refused(*attribute(model=model))


def test_a_poisoned_weight_file_is_never_unpickled(refused, attribute, files, tmp_path):
    def poison(path: Path) -> None:
        path.unlink()
        path.with_name("diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch poisoned'\ntR.")

    assert "pickle" in refused(*attribute(model=damaged(files, tmp_path, poison)))
    assert not (tmp_path / "poisoned").exists()


def test_nan_in_the_weights_is_named(refused, attribute, files, tmp_path):
    def spoil(path: Path) -> None:
        weights = load_file(path)
        weights["conv_in.bias"][0] = float("nan")
        save_file(weights, path)

    assert "conv_in.bias" in refused(*attribute(model=damaged(files, tmp_path, spoil)))


def test_a_class_conditional_model_without_labels(refused, attribute, files):
    assert "labels" in refused(*attribute(model=files / "conditional"))


@pytest.mark.parametrize(
    ("change", "guess"),
    [
        ({"method": "dtrak"}, "d-trak"),
        ({"set": "measurement=sqare"}, "square"),
        ({"set": "timestep=10"}, "timesteps"),
        ({"set": "projector=sprase"}, "sparse"),
        ({"set": "strategy=unifrom"}, "uniform"),
    ],
)
def test_a_misspelt_name_gets_the_right_one_offered(refused, attribute, change, guess):
    assert f"Did you mean '{guess}'?" in refused(*attribute(**change))


@pytest.mark.parametrize(
    "setting",
    [
        "timesteps=0",
        "timesteps=2000",
        "k=-1",
        "k=wide",
        "damping=-1",
        "damping=big",
        "noises=0",
        "measurement=eta:2",
        "k",
    ],
)
def test_a_value_out_of_range_is_refused_with_what_was_expected(refused, attribute, setting):
    message = refused(*attribute(), "--set", setting)
    assert "expected" in message or "has only" in message


def test_both_kinds_of_damping(refused, attribute):
    assert "absolute_damping" in refused(*attribute(), "--set", "damping=0.1", "--set", "absolute_damping=5")


def test_a_bank_of_another_training_set(refused, attribute):
    assert "bank" in refused(*attribute(bank="digits"))


def test_a_bank_that_is_not_there(refused, attribute):
    assert "no bank" in refused(*attribute(bank="nowhere"))


def test_an_absent_device(refused, attribute):
    assert "--device cpu" in refused(*attribute(device="cuda:7"))


def test_a_missing_model_for_a_method_that_needs_one(refused, attribute):
    assert "--model" in refused(*attribute(model=None))


def test_a_full_disk_leaves_nothing_half_written_and_the_command_resumes(
    command, refused, attribute, tmp_path
):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        message = refused(*attribute())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "run the same command again" in message
    assert not list(tmp_path.rglob("*.npy"))
    assert not list(tmp_path.rglob("*.part"))
    assert command(*attribute())[0] == 0


def test_ctrl_c_stops_with_a_word_and_the_command_goes_on_where_it_stopped(files, tmp_path):
    words = [
        sys.executable,
        "-c",
        "from headwater.cli.commands import main; main()",
        "train",
        "--data",
        "digits",
        "--out",
        str(tmp_path / "m"),
    ]
    words += ["--steps", "4000", "--batch", "2", "--checkpoints", "4000"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "m" / "training-state.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "goes on where it stopped" in err
    assert "Traceback" not in err
    assert (tmp_path / "m" / "training-state.safetensors").exists()


@pytest.mark.parametrize("words", [["--help"], ["attribute", "--help"], ["bank", "build", "--help"]])
def test_help_starts_in_under_a_second_of_work(words):
    """Processor time, so that a busy machine does not fail it; torch would take several seconds."""
    code = "import sys, time; from headwater.cli.commands import app\ntry: app()\nexcept SystemExit: pass\n"
    code += "print(time.process_time(), 'torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    seconds, torch = done.stderr.split()[-2:]
    assert float(seconds) < 1.0
    assert torch == "False"


def test_opening_a_reports_data_imports_no_torch():
    modules = "headwater.pages.page, headwater.evaluate.ground_truth, headwater.bank"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_python_example_of_the_readme_is_true(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWATER_STORE", str(tmp_path))
    import headwater

    bank = open_bank("digits")
    model = headwater.load(bank.folder / "model")
    scores = headwater.attribute(
        model,
        bank.train.take(range(20)),
        bank.queries.take(range(2)),
        method=headwater.DTRAK(timesteps=2, k=16),
    )
    rows, values = scores.top(5)
    assert rows.shape == values.shape == (2, 5)
    assert (np.diff(values) <= 0).all()


def test_methods_tells_what_each_costs(capsys):
    from headwater.cost.methods import as_text, passes_in_words
    from headwater.methods import METHODS

    text = as_text()
    for name in METHODS:
        assert f"\n{name}\n" in f"\n{text}" and passes_in_words(name)
    assert "10 gradients a training image, 50 a query, 50 forward passes a query" in text


def test_runs_that_learned_from_a_number_of_subsets_are_compared_on_the_others(tmp_path, monkeypatch):
    import numpy as np

    from headwater.attribution.experiment import Experiment, run
    from headwater.bank import open_bank
    from headwater.disk.store import FeatureStore
    from headwater.evaluate.ground_truth import of_run

    bank = open_bank("digits")
    settings = {"subsets": list(range(30))}
    run(
        Experiment("empirical-if", settings, bank.train, bank.queries, (), bank),
        tmp_path / "run",
        FeatureStore(tmp_path / "store"),
    )
    figures = of_run(tmp_path / "run", bank)
    assert figures.subsets == 34
    assert np.load(tmp_path / "run" / "scores.npy").shape == (200, 1000)


def test_maps_are_left_out_when_they_are_not_wanted_and_made_later_when_they_are(tmp_path):
    from headwater.attribution.experiment import Experiment, run
    from headwater.data import open_examples
    from headwater.disk.store import FeatureStore

    digits = open_examples("digits")
    what = Experiment("nda", {"timesteps": 1}, digits.take(range(40)), digits.take([50]))
    out, store = tmp_path / "run", FeatureStore(tmp_path / "store")
    assert run(what, out, store, maps=False) and not (out / "regions.npz").exists()
    assert not run(what, out, store, maps=False)
    assert run(what, out, store) and (out / "regions.npz").exists()
    assert not run(what, out, store) and not run(what, out, store, maps=False)


def test_another_bank_of_the_same_name_is_another_bank(tmp_path):
    import shutil

    import numpy as np

    from headwater.bank import open_bank

    states = []
    for where in ("a", "b"):
        folder = tmp_path / where / "digits"
        shutil.copytree(open_bank("digits").folder, folder)
        if where == "b":
            outcomes = np.load(folder / "outcomes.npy")
            np.save(folder / "outcomes.npy", outcomes[::-1])
            (folder / "outcomes" / "checks.npy").unlink()
        states.append(open_bank(folder).state)
    assert states[0] != states[1]


def test_what_is_not_an_error_is_printed_and_kept_in_the_run(command, tmp_path):
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    write_examples(tmp_path / "x.npz", Examples(pictures, prompts=("a b", "c d")))
    folder_of(tmp_path / "f", {"1.png": "RGB", "2.png": "RGB"}, side=4)
    (tmp_path / "f" / "film.mov").write_text("x")
    (tmp_path / "f" / "1.txt").write_text("one")
    (tmp_path / "f" / "2.txt").write_text("two")
    words = "attribute", "--train", "f", "--query", "x.npz", "--method", "pixel", "--out", "run"
    code, _, err = command(*words, "--caption", "an {id}")
    notes = [
        "In f, passed over 1 file (.mov).",
        "The training images have prompts of their own, such as 'one': the caption changes none of them.",
        "The queries have prompts of their own, such as 'a b': the caption changes none of them.",
    ]
    assert code == 0 and [line for line in err.splitlines() if "Note" in line] == [
        f"Note: {note}" for note in notes
    ]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["notes"] == notes


@pytest.mark.parametrize(
    "words",
    [
        ("attribute", "--method", "d-trak", "--out", "r", "--set", "k=1", "--set", "k=2"),
        ("attribute", "--method", "d-trak", "--out", "r", "--set", "k=1", "--set", " k =1"),
        ("tune", "--method", "d-trak", "--bank", "digits", *("--field", "k", "--values", "1,2") * 2),
    ],
)
def test_a_field_that_is_given_twice_is_refused(refused, words):
    assert "gives k twice" in refused(*words)


def test_two_queries_of_one_id_are_refused(refused, attribute, tmp_path):
    np.savez(tmp_path / "twins.npz", images=np.zeros((2, 8, 8), np.uint8), ids=np.array(["a", "a"]))
    assert "twins.npz has 2 images with the id 'a'" in refused(*attribute(query="twins.npz"))


def folder_of(folder: Path, modes: dict[str, str], side: int = 8) -> Path:
    """Random pictures in a folder, by their names and modes."""
    from PIL import Image

    for name, mode in modes.items():
        values = seeds.generator(0, name).integers(0, 256, (side, side, 3)).astype(np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).convert(mode).save(folder / name)
    return folder


@pytest.fixture
def colour(tmp_path):
    """A model of colour pictures of 8×8."""
    config = unet.configuration("digits", **SMALL, in_channels=3, out_channels=3)
    unet.save_pipeline(unet.new(config, seed=0), tmp_path / "colour")
    return tmp_path / "colour"


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_pictures_score_as_their_rgb_copies_with_a_model_of_colour(colour, tmp_path, mode):
    from PIL import Image

    grey = folder_of(tmp_path / "grey", {f"{i}.png": mode for i in range(3)})
    query = folder_of(tmp_path / "query", {"q.png": "L"})
    for side in (grey, query):
        for path in side.glob("*.png"):
            (tmp_path / "rgb" / side.name).mkdir(parents=True, exist_ok=True)
            Image.open(path).convert("RGB").save(tmp_path / "rgb" / side.name / path.name)
    scores = [
        headwater.attribute(
            str(colour),
            str(where / "grey"),
            str(where / "query"),
            method=headwater.DTRAK(timesteps=2, k=32),
            store=headwater.FeatureStore(tmp_path / "store"),
        ).values
        for where in (tmp_path, tmp_path / "rgb")
    ]
    assert np.array_equal(*scores)


@pytest.mark.parametrize("method", ["pixel", "nda", "random"])
@pytest.mark.parametrize(("train", "query"), [("RGB", "L"), ("L", "RGB")])
def test_grey_beside_colour_without_a_model_is_shown_as_rgb(command, tmp_path, method, train, query):
    folder_of(tmp_path / "train", {f"{i}.png": train for i in range(3)})
    folder_of(tmp_path / "query", {"q.png": query})
    fields = ("--set", "timesteps=[100]", "--set", "patches=[3]") if method == "nda" else ()
    words = "--train", "train", "--query", "query", "--method", method, "--out", "run"
    code, _, err = command("attribute", *words, *fields)
    assert code == 0, err


def test_colour_with_a_grey_model_is_refused_and_rgb_that_is_grey_is_not(
    command, attribute, refused, tmp_path
):
    folder_of(tmp_path / "photos", {"0.png": "RGB"})
    message = refused(*attribute(train="photos"))
    assert "8×8 with 3 channels; the model takes 8×8 with 1" in message and "convert them to grey" in message
    grey = np.repeat(seeds.generator(0, "grey").integers(0, 256, (3, 8, 8, 1)).astype(np.uint8), 3, axis=3)
    np.savez(tmp_path / "rgb.npz", images=grey)
    np.savez(tmp_path / "grey.npz", images=grey[..., 0])
    scores = []
    for name in ("rgb", "grey"):
        code, _, err = command(*attribute(train=f"{name}.npz", out=name))
        assert code == 0, err
        scores.append(np.load(tmp_path / name / "scores.npy"))
    assert np.array_equal(*scores)


def test_rgb_copies_of_a_banks_grey_images_are_its_images(files):
    bank = open_bank("digits")
    bank.check_made_from(with_channels(bank.train, 3))
    with pytest.raises(DataError, match="other training images"):
        bank.check_made_from(with_channels(bank.train.take(range(999)), 3))


def test_numbers_of_class_folders_beside_a_conditional_model_are_said_to_be_a_guess(files, tmp_path):
    folder_of(tmp_path / "train", {"dog/1.png": "L", "cat/2.png": "L"})
    folder_of(tmp_path / "query", {"dog/3.png": "L"})
    notes: list[str] = []
    sources = Sources(str(tmp_path / "train"), str(tmp_path / "query"))
    experiment = open_experiment(
        "d-trak", {}, sources, Models([str(files / "conditional")]), warn=notes.append
    )
    assert experiment.queries.labels.tolist() == [1] and list(experiment.notes) == notes
    assert "2 classes of the training images are numbered" in notes[-1] and "(0 cat, 1 dog)" in notes[-1]
    assert "the model has 3" in notes[-1]
    open_experiment("d-trak", {}, sources, Models([str(files / "model")]), warn=pytest.fail)


def test_labels_of_a_table_are_the_models_own_numbers_and_need_no_note(files, tmp_path):
    folder_of(tmp_path / "train", {"dog/1.png": "L", "cat/2.png": "L"})
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\ndog/1.png,2\ncat/2.png,0\n")
    sources, models = Sources(*[str(tmp_path / "train")] * 2), Models([str(files / "conditional")])
    experiment = open_experiment("d-trak", {}, sources, models, warn=pytest.fail)
    assert experiment.train.labels.tolist() == experiment.queries.labels.tolist() == [0, 2]


@pytest.fixture
def nobody(monkeypatch):
    """A user without a home folder: a number that no list of users has, as in many containers."""
    import pwd

    def no_entry(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "HEADWATER_STORE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)


def test_a_user_without_a_home_is_told_to_name_a_store(command, refused, attribute, nobody, monkeypatch):
    monkeypatch.delenv("HEADWATER_STORE", raising=False)
    message = refused(*attribute())
    assert "no home folder" in message and "--store FOLDER" in message and "HEADWATER_STORE" in message
    code, _, err = command(*attribute(store="features"))
    assert code == 0, err


def test_a_path_in_the_home_of_nobody_is_refused(refused, attribute, nobody):
    message = refused(*attribute(model="~/model", store="features"))
    assert "'~/model' begins in a home folder, and there is none" in message


def test_the_hubs_cache_is_never_a_folder_called_tilde(monkeypatch):
    from headwater.disk.files import check_hub_cache
    from headwater.errors import StorageError

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(StorageError, match=r"this user has no home folder .* HF_HOME"):
        check_hub_cache()


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can become another user")
def test_patches_are_compared_for_a_user_without_a_home():
    code = (
        "import os; from headwater.patches.compiled.displaced import met; print(met((3, 1, 2, 0, 1, 1), 0))"
    )
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    process = subprocess.run(
        ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", sys.executable, "-c", code],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert process.stdout == "(0, 3)\n", process.stderr[-500:]
