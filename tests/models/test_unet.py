"""UNets on disk: the paper's sizes, exact round trips in diffusers' own format, and every damage told
plainly."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, EDMEulerScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from headwater.diffusion.schedule import linear
from headwater.errors import ModelError, NonFiniteError, OptionError
from headwater.models import loading, unet
from headwater.models.folders import fingerprint

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("digits", 163_985),
        ("cifar", 35_746_307),  # "35.7M parameters", D-TRAK paper, section 4.2
        ("cifar-scale-shift", 38_307_203),  # what its code trains
        ("celeba", 113_673_219),
        ("celeba-scale-shift", 118_795_011),  # "118.8M parameters", same section
    ],
)
def test_the_named_networks_have_the_papers_number_of_parameters(name, count):
    with torch.device("meta"):
        module = UNet2DModel(**unet.configuration(name))
    assert sum(p.numel() for p in module.parameters()) == count


def test_an_unknown_configuration_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match="'cifar'"):
        unet.configuration("cfar")


# fresh networks


def weights(model):
    return model.module.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_initial_weights_are_a_function_of_the_seed(config):
    first, before = unet.new(config, 0), torch.get_rng_state()
    again, another = unet.new(config, 0), unet.new(config, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(weights(first), weights(again)) and first.fingerprint == again.fingerprint
    assert not same(weights(first), weights(another)) and first.fingerprint != another.fingerprint


def test_the_fingerprint_sees_every_weight_the_schedule_and_the_prediction(config):
    model = unet.new(config, 0)
    prints = {model.fingerprint, unet.of_module(model.module, linear(T=500)).fingerprint}
    prints.add(unet.of_module(model.module, linear(prediction="sample")).fingerprint)
    with torch.no_grad():
        model.module.conv_out.bias[0] += 1e-6
    prints.add(unet.of_module(model.module, linear()).fingerprint)
    assert len(prints) == 4


WEIGHTS_OF_ALL_KINDS = {
    "a number": (torch.tensor(1.0), torch.tensor(2.0)),
    "a truth": (torch.tensor([True]), torch.tensor([False])),
    "a count": (torch.tensor(3), torch.tensor(4)),
    "half": (torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
    "an eighth": (torch.ones(2).to(torch.float8_e4m3fn), torch.zeros(2).to(torch.float8_e4m3fn)),
    "turned": (torch.arange(6.0).reshape(2, 3).t(), torch.arange(6.0).reshape(3, 2)),
}


@pytest.mark.parametrize("kind", WEIGHTS_OF_ALL_KINDS)
def test_the_fingerprint_sees_weights_of_any_shape_and_dtype(kind):
    def mark(weight):
        module = torch.nn.Module()
        module.register_buffer("weight", weight)
        module.register_buffer("empty", torch.empty(3, 0))
        return fingerprint(module)

    one, other = WEIGHTS_OF_ALL_KINDS[kind]
    assert mark(one) == mark(one.clone()) != mark(other)


def test_a_number_that_is_nan_is_named():
    module = torch.nn.Module()
    module.register_buffer("gate", torch.tensor(float("nan")))
    with pytest.raises(NonFiniteError, match="'gate'"):
        fingerprint(module)


def test_a_model_is_in_eval_mode_and_knows_its_shape(config):
    model = unet.new(config | {"sample_size": (8, 16), "num_class_embeds": 5, "dropout": 0.5}, 0)
    assert not model.module.training and model.shape == (1, 8, 16) and model.classes == 5
    assert model.device == torch.device("cpu") and model.dtype == torch.float32


# round trips


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_saved_and_loaded_is_the_same_model_bit_for_bit(tiny, tmp_path, prediction):
    model = tiny(torch.float32, classes=3, prediction=prediction)
    unet.save_pipeline(model, tmp_path / "model")
    loaded = loading.load(tmp_path / "model")
    assert same(weights(loaded), weights(model))
    assert (loaded.shape, loaded.classes, loaded.schedule.prediction) == (model.shape, 3, prediction)
    assert np.array_equal(loaded.schedule.alpha_bar, model.schedule.alpha_bar)
    assert loaded.fingerprint == model.fingerprint
    x, t, labels = torch.zeros(2, 1, 8, 8), torch.tensor([3, 999]), {"class_labels": torch.tensor([0, 2])}
    with torch.no_grad():
        assert torch.equal(loaded.predict(x, t, labels), model.predict(x, t, labels))


@pytest.mark.parametrize(
    "schedule", [linear(T=20, start=0.01, end=0.3), linear(prediction="v_prediction")], ids=["short", "v"]
)
def test_diffusers_own_pipeline_loads_a_saved_model(tiny, tmp_path, schedule):
    model = unet.of_module(tiny(torch.float32).module, schedule)
    unet.save_pipeline(model, tmp_path / "model")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model", local_files_only=True)
    assert same(pipeline.unet.state_dict(), weights(model))
    assert np.allclose(pipeline.scheduler.alphas_cumprod, schedule.alpha_bar, rtol=3e-5)
    assert pipeline.scheduler.config.num_train_timesteps == schedule.T
    assert pipeline.scheduler.config.prediction_type == schedule.prediction
    x, t = torch.ones(1, 1, 8, 8), torch.tensor([7])
    with torch.no_grad():
        output = pipeline.unet(
            x, t
        ).sample  # of the same weights at another place in memory, which decides the last bits
        torch.testing.assert_close(output, model.predict(x, t), rtol=0, atol=1e-5)


SCHEDULERS = [
    DDPMScheduler(),
    DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction"
    ),
    DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=100, prediction_type="sample"),
    DDIMScheduler(beta_schedule="linear", rescale_betas_zero_snr=True, prediction_type="v_prediction"),
]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=["linear", "scaled", "cosine", "zero-snr"])
def test_the_schedule_of_a_diffusers_folder_is_kept(tiny, smallest, tmp_path, scheduler):
    unet.save_pipeline(tiny(torch.float32, **smallest), tmp_path)
    scheduler.save_pretrained(tmp_path / "scheduler")
    schedule = loading.load(tmp_path).schedule
    np.testing.assert_allclose(schedule.alpha_bar, scheduler.alphas_cumprod, rtol=3e-5, atol=1e-12)
    assert (
        schedule.prediction == scheduler.config.prediction_type
        and loading.schedule_folder(tmp_path) == tmp_path / "scheduler"
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=["linear", "scaled", "cosine", "zero-snr"])
def test_a_schedule_of_any_kind_survives_saving_bit_for_bit(tiny, smallest, tmp_path, scheduler):
    unet.save_pipeline(tiny(torch.float32, **smallest), tmp_path / "a")
    scheduler.save_pretrained(tmp_path / "a" / "scheduler")
    once = loading.load(tmp_path / "a")
    unet.save_pipeline(once, tmp_path / "b")
    twice = loading.load(tmp_path / "b")
    assert np.array_equal(twice.schedule.alpha_bar, once.schedule.alpha_bar)
    assert twice.fingerprint == once.fingerprint  # else every stored feature would be computed again


def test_a_bare_unet_has_the_linear_schedule(tiny, tmp_path):
    model = tiny(torch.float32)
    model.module.save_pretrained(tmp_path)
    loaded = loading.load(tmp_path)
    assert same(weights(loaded), weights(model)) and loading.schedule_folder(tmp_path) is None
    assert np.array_equal(loaded.schedule.alpha_bar, linear().alpha_bar)


def rewritten(folder, change):
    """The folder with its state dict passed through `change`."""
    path = folder / "unet" / WEIGHTS
    save_file(
        {name: weight.contiguous() for name, weight in change(load_file(path)).items()},
        path,
        {"format": "pt"},
    )
    return folder


@pytest.fixture
def saved(tiny, smallest, tmp_path):
    """A small model in a folder of diffusers' format."""
    unet.save_pipeline(tiny(torch.float32, **smallest), tmp_path / "model")
    return tmp_path / "model"


def test_attention_weights_under_the_names_of_diffusers_0_16_load(tiny, tmp_path):
    unet.save_pipeline(tiny(torch.float32), saved := tmp_path / "model")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(state):
        out = {}
        for name, weight in state.items():
            for new, before in old.items():
                name = name.replace(f".{new}.", f".{before}.")
            out[name] = weight
        return out

    expected = loading.load(saved)
    names = list(load_file(rewritten(saved, renamed) / "unet" / WEIGHTS))
    assert any("attentions.0.query.weight" in n for n in names) and not any("to_q" in n for n in names)
    assert same(weights(loading.load(saved)), weights(expected))


def test_weights_in_half_precision_are_computed_with_in_float32(saved):
    expected = {name: weight.half().float() for name, weight in weights(loading.load(saved)).items()}
    loaded = loading.load(rewritten(saved, lambda state: {n: w.half() for n, w in state.items()}))
    assert loaded.dtype == torch.float32 and same(weights(loaded), expected)


def test_loading_leaves_the_global_generator_alone(saved):
    before = torch.get_rng_state()
    loading.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_save_that_fails_leaves_no_folder_under_its_name(tiny, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(DDPMScheduler, "save_pretrained", fails)
    with pytest.raises(KeyboardInterrupt):
        unet.save_pipeline(tiny(torch.float32), tmp_path / "checkpoints" / "step-10")
    assert not list(
        (tmp_path / "checkpoints").glob("step-*")
    )  # what half of a save leaves is not taken for a checkpoint


@pytest.mark.parametrize("failing", ["unet", "scheduler", "model_index.json"])
def test_a_save_killed_while_its_parts_are_moved_is_no_model_or_the_whole_one(
    tiny, smallest, tmp_path, monkeypatch, failing
):
    """A network without its schedule would be taken for one with DDPM's: the weights come last."""
    model, move = tiny(torch.float32, prediction="v_prediction", **smallest), type(tmp_path).replace

    def fails(self, target):
        if target == tmp_path / "model" / failing:
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", fails)
    with pytest.raises(KeyboardInterrupt):
        unet.save_pipeline(model, tmp_path / "model")
    try:
        assert loading.load(tmp_path / "model").fingerprint == model.fingerprint
    except ModelError as error:
        assert "model" in str(error)


def test_saving_into_a_folder_replaces_the_model_and_leaves_the_rest(tiny, smallest, tmp_path):
    unet.save_pipeline(tiny(torch.float32, **smallest), tmp_path / "model")
    unet.save_pipeline(tiny(torch.float32, seed=1, **smallest), tmp_path / "model" / "checkpoints" / "step-1")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    second = tiny(torch.float32, seed=2, **smallest)
    unet.save_pipeline(second, tmp_path / "model")
    assert loading.load(tmp_path / "model").fingerprint == second.fingerprint
    assert loading.load(tmp_path / "model" / "checkpoints" / "step-1").fingerprint != second.fingerprint
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"checkpoints", "model_index.json", "notes.txt", "scheduler", "unet"}


# damage


def edited(path, **changes):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (config | changes).items() if v != "gone"}))


@pytest.mark.parametrize("length", [0, 4, 100, 5000, -1])
def test_weights_cut_short_are_reported_with_their_path(saved, length):
    path = saved / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=rf"{WEIGHTS} is damaged or incomplete.*again"):
        loading.load(saved)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_refused_unread(saved, name):
    (saved / "unet" / WEIGHTS).unlink()
    (saved / "unet" / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(ModelError, match=r"pickled.*run code.*safetensors"):
        loading.load(saved)


def test_a_pickle_under_the_name_of_safetensors_is_refused(saved):
    torch.save({}, saved / "unet" / WEIGHTS)
    with pytest.raises(ModelError, match="damaged"):
        loading.load(saved)


def test_missing_weights_are_reported(saved):
    (saved / "unet" / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=rf"no {WEIGHTS} in .*unet"):
        loading.load(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(saved, value):
    def broken(state):
        state["mid_block.resnets.0.conv1.weight"][0, 0, 1, 1] = value
        return state

    with pytest.raises(NonFiniteError, match=r"'mid_block.resnets.0.conv1.weight'"):
        loading.load(rewritten(saved, broken))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: {n: w for n, w in state.items() if n != "conv_in.bias"}, "conv_in.bias"),
        (lambda state: state | {"extra.weight": torch.zeros(1)}, "extra.weight"),
        (lambda state: state | {"conv_in.bias": torch.zeros(3)}, "conv_in.bias"),
    ],
    ids=["missing", "unexpected", "another shape"],
)
def test_weights_that_do_not_fit_the_configuration_are_named(saved, change, said):
    with pytest.raises(ModelError, match=rf"do not fit.*{said}"):
        loading.load(rewritten(saved, change))


def test_another_kind_of_model_is_named(saved):
    edited(saved / "unet" / "config.json", _class_name="VQModel")
    with pytest.raises(ModelError, match="VQModel; expected one of UNet2DModel"):
        loading.load(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"block_out_channels": [8, 16, 32]},
        {"down_block_types": ["None", "None"]},
        {"norm_num_groups": 5},
        {"sample_size": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_configuration_of_no_network_is_refused(saved, changes):
    edited(saved / "unet" / "config.json", **changes)
    with pytest.raises(ModelError, match=r"unet|model"):
        loading.load(saved)


def test_a_network_that_also_predicts_variances_is_refused(smallest, tmp_path):
    UNet2DModel(**smallest | {"out_channels": 2}).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"2 channels.*1"):
        loading.load(tmp_path)


@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_damaged_or_missing_configuration_is_reported_with_its_path(saved, file):
    path = saved / file
    path.write_text('{"half": ')
    with pytest.raises(ModelError, match=rf"{path.name} is not valid JSON"):
        loading.load(saved)
    path.unlink()
    with pytest.raises(ModelError, match=rf"no {path.name}"):
        loading.load(saved)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(ModelError, match=r"no model folder .*nowhere.*diffusers"):
        loading.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="no model folder"):
        loading.load(tmp_path / "file")


def test_a_scheduler_with_another_prediction_type_is_refused(saved):
    edited(saved / "scheduler" / "scheduler_config.json", prediction_type="flow_prediction")
    with pytest.raises(ModelError, match="'flow_prediction'; expected one of epsilon"):
        loading.load(saved)


def test_an_unknown_beta_schedule_is_refused(saved):
    edited(saved / "scheduler" / "scheduler_config.json", beta_schedule="magic", trained_betas="gone")
    with pytest.raises(ModelError, match="magic"):
        loading.load(saved)


def test_a_scheduler_without_betas_is_not_taken_for_ddpm(saved):
    EDMEulerScheduler().save_pretrained(saved / "scheduler")
    with pytest.raises(ModelError, match="EDMEulerScheduler"):
        loading.load(saved)


def test_checkpoints_within_a_model_are_its_own_and_those_beside_it_only_if_the_last_has_its_weights(
    tmp_path, config
):
    one, two, three = (unet.new(config, seed) for seed in (1, 2, 3))
    unet.save_pipeline(two, tmp_path / "model")
    for step, model in ((5, one), (10, two)):
        unet.save_pipeline(model, tmp_path / "checkpoints" / f"step-{step}")
    loaded = loading.load(tmp_path / "model", checkpoints=4)
    assert [checkpoint.fingerprint for checkpoint in loaded.checkpoints] == [one.fingerprint, two.fingerprint]
    assert [
        checkpoint.fingerprint for checkpoint in loading.load(tmp_path / "model", checkpoints=1).checkpoints
    ] == [two.fingerprint]
    unet.save_pipeline(three, tmp_path / "three")
    assert loading.load(tmp_path / "three", checkpoints=4).checkpoints == ()
    for step, model in ((5, one), (10, two)):
        unet.save_pipeline(model, tmp_path / "three" / "checkpoints" / f"step-{step}")
    # as of averaged weights, which no checkpoint has
    inside = loading.load(tmp_path / "three", checkpoints=4)
    assert [checkpoint.fingerprint for checkpoint in inside.checkpoints] == [
        one.fingerprint,
        three.fingerprint,
    ]
    assert loading.load(tmp_path / "model").checkpoints == ()
