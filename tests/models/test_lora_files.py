"""LoRA files of diffusers, PEFT and kohya's trainer: the model that their own libraries make of them, or a
refusal in one sentence."""

import json

import peft
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

import tiny_pipelines
from headwater.errors import ModelError
from headwater.models.loading import load
from headwater.models.lora_files import DIFFUSERS_FILE, METADATA, PEFT_FILE

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FURTHER = ("conv1", "time_emb_proj", "proj_in", "ff.net.0.proj", "linear_2")  # convolutions and linear layers


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny Stable Diffusion, as diffusers saves it."""
    root = tmp_path_factory.mktemp("base")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        tiny_pipelines.stable(root / "words").save_pretrained(root / "stable")
    return root / "stable"


@pytest.fixture
def unet(base):
    return network(base)


def network(base):
    return UNet2DConditionModel.from_pretrained(base / "unet", local_files_only=True).eval()


def output(module):
    draw = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 2, 8, 8, generator=draw), torch.randn(2, 8, 8, generator=draw)
    with torch.no_grad():
        return module(x, torch.tensor([100, 600]), text).sample


def opened(base, path, **options):
    return output(load(base, lora=path, **options).module)


def factors(unet, kinds=ATTENTION, ranks=(4,)):
    """Random (A, B) for each layer of these kinds; ranks in turn."""
    draw, pairs = torch.Generator().manual_seed(5), {}
    for place, name in enumerate(n for n, _ in unet.named_modules() if n.endswith(kinds)):
        weight, rank = unet.get_submodule(name).weight, ranks[place % len(ranks)]
        ones = (1,) * (weight.ndim - 2)
        pairs[name] = (
            torch.randn(rank, *weight.shape[1:], generator=draw) / 4,
            torch.randn(weight.shape[0], rank, *ones, generator=draw) / 4,
        )
    return pairs


def adapted(unet, pairs, scales):
    """The output of W + s·BA, the slow obvious way."""
    for name, (a, b) in pairs.items():
        weight = unet.get_submodule(name).weight
        weight.data += (scales[name] * b.flatten(1) @ a.flatten(1)).reshape(weight.shape)
    return output(unet)


def scale_one(pairs):
    return dict.fromkeys(pairs, 1.0)


def of_pipeline(base, path):
    """What diffusers itself makes of the file."""
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, local_files_only=True)
    pipeline.load_lora_weights(str(path))
    return output(pipeline.unet)


def written(tensors, path, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def diffusers_names(pairs, prefix="unet."):
    return {
        f"{prefix}{n}.lora_{s}.weight": w for n, ab in pairs.items() for s, w in zip("AB", ab, strict=True)
    }


def kohya_names(pairs, alphas):
    tensors = {}
    for name, (a, b) in pairs.items():
        key = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{key}.lora_down.weight": a, f"{key}.lora_up.weight": b}
        tensors |= {f"{key}.alpha": torch.tensor(alphas[name])} if name in alphas else {}
    return tensors


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


# files of diffusers


@pytest.mark.parametrize("prefix", ["unet.", ""], ids=["in a pipeline", "of the network alone"])
@pytest.mark.parametrize("side", ["lora", "processor"])
def test_names_of_diffusers_before_peft_are_read(base, unet, tmp_path, prefix, side):
    pairs = factors(unet, ranks=(4, 2))

    def name(layer, factor):
        place, _, kind = layer.removesuffix(".0").rpartition(".")
        if side == "processor":
            return f"{prefix}{place}.processor.{kind}_lora.{factor}.weight"
        return f"{prefix}{layer}.lora.{factor}.weight"

    tensors = {name(n, s): w for n, ab in pairs.items() for s, w in zip(("down", "up"), ab, strict=True)}
    written(tensors, tmp_path / DIFFUSERS_FILE)
    close(opened(base, tmp_path), adapted(unet, pairs, scale_one(pairs)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora_alpha": 8},
        {"rank_pattern": {"attn1.to_q": 2}, "alpha_pattern": {"attn2.to_v": 7}, "use_rslora": True},
    ],
    ids=["plain", "alpha", "patterns"],
)
def test_a_networks_own_adapters_are_those_that_diffusers_loads(base, unet, tmp_path, options):
    config = peft.LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False, **options)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        unet.add_adapter(config, "style")
    unet.save_lora_adapter(tmp_path, adapter_name="style")
    own = network(base)
    own.load_lora_adapter(str(tmp_path), prefix=None, weight_name=DIFFUSERS_FILE)
    close(opened(base, tmp_path), output(own))
    close(output(own), output(unet))


def test_without_a_word_on_alpha_every_layer_has_scale_one_whatever_its_rank(base, unet, tmp_path):
    pairs = factors(unet, ranks=(4, 2, 1))
    written(diffusers_names(pairs), tmp_path / DIFFUSERS_FILE)
    close(opened(base, tmp_path), of_pipeline(base, tmp_path))
    close(opened(base, tmp_path), adapted(unet, pairs, scale_one(pairs)))


def test_an_alpha_among_the_weights_is_the_layers_own(base, unet, tmp_path):
    pairs = factors(unet)
    alphas = {name: float(1 + i % 3) for i, name in enumerate(pairs)}
    numbers = {f"unet.{name}.alpha": torch.tensor(alpha) for name, alpha in alphas.items()}
    written(diffusers_names(pairs) | numbers, tmp_path / DIFFUSERS_FILE)
    close(opened(base, tmp_path), adapted(unet, pairs, {name: alpha / 4 for name, alpha in alphas.items()}))


def test_a_description_in_the_header_without_alpha_means_pefts_default(base, unet, tmp_path):
    pairs = factors(unet)
    metadata = {METADATA: json.dumps({"unet.r": 4, "unet.target_modules": list(ATTENTION)})}
    written(diffusers_names(pairs), tmp_path / DIFFUSERS_FILE, metadata)
    close(opened(base, tmp_path), of_pipeline(base, tmp_path))
    close(opened(base, tmp_path), adapted(unet, pairs, dict.fromkeys(pairs, 8 / 4)))


def test_adapters_of_stable_diffusion_3_are_read_with_and_without_its_name(tmp_path):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        pipeline = tiny_pipelines.sd3(tmp_path / "words")
        pipeline.save_pretrained(tmp_path / "sd3")
        config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["to_q"], init_lora_weights=False)
        pipeline.transformer.add_adapter(config)
    pipeline.transformer.save_lora_adapter(tmp_path / "own")
    layers = peft.get_peft_model_state_dict(pipeline.transformer)
    metadata = {"transformer_lora_adapter_metadata": {"r": 2, "lora_alpha": 6, "target_modules": ["to_q"]}}
    type(pipeline).save_lora_weights(tmp_path / "whole", transformer_lora_layers=layers, **metadata)
    x, t = torch.ones(1, 2, 8, 8), torch.tensor([300.0])
    text = {"encoder_hidden_states": torch.ones(1, 4, 16), "pooled_projections": torch.ones(1, 12)}
    with torch.no_grad():
        right = pipeline.transformer.eval()(x, timestep=t, **text).sample
        for folder in ("own", "whole"):
            module = load(tmp_path / "sd3", lora=tmp_path / folder).module
            close(module(x, timestep=t, **text).sample, right)


# files of kohya's trainer


def test_one_alpha_for_all_layers_is_as_in_diffusers(base, unet, tmp_path):
    pairs = factors(unet, (*ATTENTION, *FURTHER), ranks=(4,))
    tensors = kohya_names(pairs, dict.fromkeys(pairs, 2.0))
    file = written(tensors, tmp_path / "some style v2.safetensors")
    right = adapted(unet, pairs, dict.fromkeys(pairs, 0.5))
    close(of_pipeline(base, file), right)
    for path in (file, tmp_path):  # the file, or the folder that has only this one
        close(opened(base, path), right)


def test_alphas_by_layer_and_none_at_all(base, unet, tmp_path):
    pairs = factors(unet, (*ATTENTION, *FURTHER), ranks=(4, 2))
    alphas = {name: float(1 + i % 4) for i, name in enumerate(pairs) if i % 5}
    scales = {name: alphas.get(name, len(a)) / len(a) for name, (a, _) in pairs.items()}
    file = written(kohya_names(pairs, alphas), tmp_path / "style.safetensors")
    close(opened(base, file), adapted(unet, pairs, scales))


# folders of PEFT


def of_peft(base, folder, **options):
    """The output of a trained PEFT adapter, written to the folder."""
    draw = torch.Generator().manual_seed(3)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 4, "target_modules": ["to_q", "to_v"]} | options)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        model = peft.get_peft_model(network(base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=draw)
    model.save_pretrained(folder)
    return output(model)


@pytest.mark.parametrize(
    "start", ["olora", "OLoRA", "pissa", "gaussian", "eva", "orthogonal", "mica", True, False], ids=str
)
@pytest.mark.parametrize("alpha", [4, 6])
@pytest.mark.filterwarnings("ignore:.*EVA config", "ignore:.*eva initialization")
def test_every_start_gives_the_trained_model(base, unet, tmp_path, start, alpha):
    trained = of_peft(base, tmp_path, init_lora_weights=start, lora_alpha=alpha)
    close(output(peft.PeftModel.from_pretrained(network(base), tmp_path)), trained)
    close(opened(base, tmp_path), trained)


@pytest.mark.parametrize("start", ["olora", "pissa"])
def test_a_start_that_changes_the_base_leaves_other_models_alone(base, tmp_path, start):
    from headwater.models.loading import _adapted

    trained = of_peft(base, tmp_path, init_lora_weights=start)
    model = load(base)
    before = output(model.module)
    for _ in range(2):
        close(output(_adapted(model, tmp_path).module), trained)
    assert torch.equal(output(model.module), before)


@pytest.mark.parametrize("start", ["olora", "pissa"])
def test_a_start_is_taken_from_a_base_of_half_precision_too(base, tmp_path, start):
    trained = of_peft(base, tmp_path, init_lora_weights=start)
    model = load(base, lora=tmp_path, dtype="bfloat16")
    assert all(p.dtype == torch.float32 for p in model.parameters().values())
    torch.testing.assert_close(output(model.module.float()), trained, rtol=0, atol=0.05)


@pytest.mark.parametrize("start", ["pissa_niter_4", "corda", "loftq", "lora_ga", "of another year"])
def test_a_start_that_cannot_be_repeated_is_refused(base, tmp_path, start):
    of_peft(base, tmp_path)
    edited(tmp_path, init_lora_weights=start)
    with pytest.raises(ModelError, match=f"began as '{start}'"):
        load(base, lora=tmp_path)


def test_a_description_of_peft_without_alpha_means_its_default(base, tmp_path):
    of_peft(base, tmp_path)
    edited(tmp_path, without=("lora_alpha", "r"))
    edited(tmp_path, r=4)
    close(opened(base, tmp_path), output(peft.PeftModel.from_pretrained(network(base), tmp_path)))


@pytest.mark.parametrize(
    "option", [{"use_qalora": True}, {"layer_replication": [[0, 1]]}, {"bias": "all"}, {"something": "new"}]
)
def test_what_is_not_plain_lora_is_refused_by_name(base, tmp_path, option):
    of_peft(base, tmp_path)
    edited(tmp_path, **option)
    with pytest.raises(ModelError, match=f"has {next(iter(option))}; expected plain LoRA"):
        load(base, lora=tmp_path)


def edited(folder, without=(), **changes):
    path = folder / "adapter_config.json"
    config = {name: value for name, value in json.loads(path.read_text()).items() if name not in without}
    path.write_text(json.dumps(config | changes))


# all files


def test_the_fingerprint_sees_the_scale(base, unet, tmp_path):
    pairs, marks = factors(unet), {}
    for alpha in (2.0, 4.0, None):
        alphas = {} if alpha is None else dict.fromkeys(pairs, alpha)
        file = written(kohya_names(pairs, alphas), tmp_path / f"{alpha}.safetensors")
        marks[alpha] = load(base, lora=file).fingerprint
    assert marks[4.0] == marks[None] != marks[2.0]


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": 1.0}, "weights of text_encoder; expected"),
        ({"lora_unet_input_blocks_4_1_proj_in.alpha": 1.0}, "another model: .*lora_unet_input_blocks_4_1"),
        ({"lora_unet_mid_block_attentions_0_proj_out.alpha": 1.0}, "α of mid_block.attentions.0.proj_out"),
        ({"lora_unet_mid_block_attentions_0_proj_out.dora_scale": 1.0}, "holds .*dora_scale; expected"),
        ({"lora_unet_mid_block_attentions_0_proj_out.hada_w1_a": 1.0}, "holds .*hada_w1_a; expected"),
    ],
    ids=["text", "sdxl", "alpha", "dora", "loha"],
)
def test_what_else_kohyas_files_hold_is_refused_in_one_sentence(base, unet, tmp_path, further, message):
    tensors = kohya_names(factors(unet), {}) | {n: torch.tensor(v) for n, v in further.items()}
    with pytest.raises(ModelError, match=message) as raised:
        load(base, lora=written(tensors, tmp_path / "style.safetensors"))
    assert len(str(raised.value)) < 400


def test_half_of_a_pair_is_refused(base, unet, tmp_path):
    pairs = factors(unet)
    tensors = diffusers_names(pairs)
    del tensors[f"unet.{next(iter(pairs))}.lora_A.weight"]  # would be drawn at random
    with pytest.raises(ModelError, match="only one of the two factors"):
        load(base, lora=written(tensors, tmp_path / DIFFUSERS_FILE))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ([1], "adapter_config.json holds a list"),
        ("LORA", "adapter_config.json holds a str"),
        ({"peft_type": "LORA", "alpha_pattern": [1]}, r"The α of .* is \[1\]"),
    ],
    ids=str,
)
def test_a_description_of_another_form_is_refused(base, tmp_path, description, message):
    of_peft(base, tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match=message):
        load(base, lora=tmp_path)


def test_whole_numbers_are_no_factors(base, unet, tmp_path):
    tensors = {name: (10 * weight).to(torch.int8) for name, weight in diffusers_names(factors(unet)).items()}
    with pytest.raises(ModelError, match=r"factors in torch\.int8; expected floating numbers"):
        load(base, lora=written(tensors, tmp_path / DIFFUSERS_FILE).parent)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), None, "4"], ids=str)
def test_an_alpha_that_is_no_number_is_refused(base, tmp_path, alpha):
    of_peft(base, tmp_path)
    edited(tmp_path, lora_alpha=alpha)
    with pytest.raises(ModelError, match=r"α .* expected a finite number"):
        load(base, lora=tmp_path)


def test_a_damaged_header_is_reported(base, unet, tmp_path):
    file = written(diffusers_names(factors(unet)), tmp_path / DIFFUSERS_FILE, {METADATA: "{"})
    with pytest.raises(ModelError, match=f"{METADATA} in the header"):
        load(base, lora=file)


def test_factors_of_other_shapes_are_refused(base, unet, tmp_path):
    pairs = factors(unet)
    name = next(iter(pairs))
    pairs[name] = pairs[name][0], pairs[name][1][:, :2]
    with pytest.raises(ModelError, match="another model: its factors of"):
        load(base, lora=written(diffusers_names(pairs), tmp_path / DIFFUSERS_FILE))


def test_the_weights_of_a_peft_folder_by_name_are_the_folder(base, tmp_path):
    trained = of_peft(base, tmp_path, lora_alpha=7)
    assert load_file(tmp_path / PEFT_FILE)
    close(opened(base, tmp_path / PEFT_FILE), trained)
