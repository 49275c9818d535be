"""Recipes: the papers' settings in numbers, and back from a bank's own file."""

from dataclasses import replace

import numpy as np
import pytest

from headwater.bank import SHIPPED, read_info
from headwater.errors import DataError, OptionError, UserError
from headwater.examples import Examples
from headwater.models import unet
from headwater.models.text import Prompts
from headwater.models.train import Recipe
from headwater.retraining.changes import RecipeChanges, changed
from headwater.retraining.queries import conditions_of
from headwater.retraining.recipe import Adapters, BankRecipe, DataSource, first, from_fields
from headwater.retraining.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_its_fields(name):
    found = recipe(name)
    assert isinstance(found, BankRecipe) and from_fields(found.fields()) == from_fields(
        from_fields(found.fields()).fields()
    )
    assert from_fields(found.fields()).fields() == found.fields()
    draws = found.outcome_draws
    assert len(draws.steps("any", 1000)) == draws.timesteps  # a recipe can be carried out


@pytest.mark.parametrize(
    ("name", "steps", "halves", "n"), [("cifar2", 8000, 4000, 5000), ("cifar10", 78200, 39200, 50000)]
)
def test_the_protocol_of_d_trak(name, steps, halves, n):
    """Appendix A.2: stratified halves, 64 × 3, raw weights, 1,000 + 1,000 queries, DDIM-50, 1,000 timesteps ×
    3 noises."""
    found = recipe(f"d-trak-{name}")
    assert found.training.total(n) == steps and found.subset_training.total(n // 2) == halves
    assert (found.scheme, found.part, found.subsets, found.seeds, found.generated) == (
        "stratified",
        0.5,
        64,
        3,
        1000,
    )
    assert (found.sampler, found.sample_steps, found.training.ema, found.training.flips) == (
        "ddim",
        50,
        None,
        True,
    )
    draws = found.outcome_draws
    assert (draws.timesteps, draws.noises, draws.strategy) == (1000, 3, "uniform")
    assert parameters(found) == pytest.approx(35.7e6, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "steps", "halves", "decay"),
    [("cifar2", 32000, 16000, "cosine"), ("cifar10", 160000, 80000, "none")],
)
def test_the_protocol_of_k_fac(name, steps, halves, decay):
    """Appendix G: unstratified halves, 100 × 5, averaged weights, DDPM-1000, 200 generated, 5,000 random (t,
    ε)."""
    found = recipe(f"k-fac-{name}")
    assert found.training.total(5000) == steps and found.subset_training.total(2500) == halves
    assert (found.scheme, found.subsets, found.seeds, found.generated, found.training.decay) == (
        "half",
        100,
        5,
        200,
        decay,
    )
    assert (found.sampler, found.sample_steps, found.training.ema, found.training.ema_power) == (
        "ddpm",
        1000,
        0.999,
        0.75,
    )
    assert (found.outcome_draws.timesteps, found.outcome_draws.strategy) == (5000, "random")
    assert parameters(found) == pytest.approx(38.3e6, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "n", "steps", "halves"), [("2", 5000, 7900, 4000), ("5", 12_500, 19_600, 9800)]
)
def test_the_protocol_of_d_trak_on_artbench(name, n, steps, halves):
    """Appendix A.1, A.2 and their code: LoRA of rank 128 of miniSD, 100 epochs of 64, DDIM-50 guided 7.5, 64
    × 3 halves."""
    found = recipe(f"d-trak-artbench{name}")
    assert (found.data.size(), found.held_out.size()) == (n, 1000) and found.data.name == f"artbench{name}"
    assert found.training.total(n) == steps and found.subset_training.total(n // 2) == halves
    how = found.training
    assert (how.epochs, how.batch, how.learning_rate, how.weight_decay, how.clip) == (
        100,
        64,
        3e-4,
        1e-6,
        1.0,
    )
    assert (how.warmup, how.decay, how.dropout, how.flips, how.ema) == (0.1, "cosine", 0.1, True, None)
    assert (
        found.adapters == Adapters(base="hf:lambdalabs/miniSD-diffusers", rank=128, guidance=7.5)
        and not found.model
    )
    assert (found.scheme, found.part, found.subsets, found.seeds, found.generated) == (
        "stratified",
        0.5,
        64,
        3,
        1000,
    )
    assert (found.sampler, found.sample_steps, found.guidance) == ("ddim", 50, 7.5)
    draws = found.outcome_draws
    assert (draws.timesteps, draws.noises, draws.strategy) == (1000, 3, "uniform")


@pytest.mark.parametrize("styles", [("ukiyo e", "post impressionism"), ("a", "b", "c", "d", "e")])
def test_generated_queries_are_of_one_style_after_the_other(styles, pictures, tiny):
    """500 of each of two styles, 200 of each of five."""
    training = pictures(20, prompts=tuple(f"a {styles[i % len(styles)]} painting" for i in range(20)))
    model = replace(tiny(), text=Prompts(lambda prompts: {}, "an encoder"))
    found = conditions_of(recipe("d-trak-artbench2"), model, training).prompts
    each = 1000 // len(styles)
    assert found == tuple(f"a {style} painting" for style in sorted(styles) for _ in range(each))


def test_adapters_of_rank_128_of_stable_diffusion_1_have_25_5_million_parameters():
    """Appendix A.1: "the rank set to 128, which consists of 25.5M parameters"."""
    import torch
    from diffusers import UNet2DConditionModel

    from headwater.models import lora

    with torch.device(
        "meta"
    ):  # diffusers' defaults are Stable Diffusion 1's, but for the text encoder's width
        network = UNet2DConditionModel(sample_size=32, cross_attention_dim=768)
        lora.add(network, recipe("d-trak-artbench2").adapters.rank, 0)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 25_509_888
    assert sum(p.numel() for p in network.parameters() if not p.requires_grad) == 859_520_964


def test_a_recipe_trains_a_network_or_adapters():
    for change in ({"model": {}}, {"adapters": Adapters(base="sd")}):
        with pytest.raises(OptionError, match="expected one of the two"):
            replace(recipe("digits"), **change)
    with pytest.raises(OptionError, match="rank is 0"):
        Adapters(base="sd", rank=0)
    with pytest.raises(OptionError, match="guidance is nan"):
        Adapters(base="sd", guidance=float("nan"))


def test_recipes_without_adapters_and_captions_are_written_as_they_were():
    assert recipe("digits").fields() == read_info(SHIPPED / "digits")["recipe"]
    assert list(recipe("digits").fields()) == list(read_info(SHIPPED / "digits")["recipe"])


def parameters(found):
    import torch
    from diffusers import UNet2DModel

    with torch.device("meta"):
        return sum(p.numel() for p in UNet2DModel(**found.model).parameters())


def test_the_small_ones_have_small_networks():
    assert sum(p.numel() for p in unet.new(recipe("cifar2-small").model, 0).module.parameters()) == 164_563
    assert recipe("digits").data.open().fingerprint == recipe("digits").data.open().fingerprint


def test_digits_mini_has_as_many_of_each_digit_models_to_learn_from_and_the_outcomes_of_table_4():
    found = recipe("digits-mini")
    data = found.data.open()
    assert np.bincount(data.labels).tolist() == [20] * 10
    assert set(data.hashes) <= set(recipe("digits").data.open().hashes) and found.data.size() == 200
    assert (found.subsets, found.seeds, found.learning, found.learning_seeds) == (64, 2, 256, 1)
    assert found.measurements == ("simple", "elbo", "square", "l1", "linf")


def test_the_first_images_are_as_many_of_each_class(pictures):
    examples = Examples(pictures(10).images, labels=np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2]))
    assert first(examples, 6).ids == ("0", "1", "6", "7", "8", "9")
    assert first(examples, 7).ids == ("0", "1", "2", "6", "7", "8", "9")
    assert first(pictures(10), 3).ids == ("0", "1", "2")
    with pytest.raises(DataError, match="There are 10 images; expected at least 11"):
        first(examples, 11)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scheme": "haf"}, "Did you mean 'half'"),
        ({"sampler": "dddim"}, "Did you mean"),
        ({"seeds": 0}, "seeds is 0"),
        ({"learning": -1}, "learning is -1"),
        ({"part": 1.0}, "part is 1.0"),
        ({"part": float("nan")}, "part is nan"),
        ({"subset_steps": 0}, "steps is 0"),
        ({"sample_steps": 0}, "sample_steps is 0"),
        ({"measurements": ("trajectory",)}, "no sampler's path"),
        ({"measurements": ("elbow",)}, "Did you mean 'elbo'"),
    ],
    ids=str,
)
def test_recipes_that_cannot_be_are_refused(change, words):
    with pytest.raises(OptionError, match=words):
        replace(recipe("digits"), **change)


def test_an_unknown_recipe_gets_the_right_one_offered():
    with pytest.raises(OptionError, match="Did you mean 'd-trak-cifar2'"):
        recipe("dtrak-cifar2")


def test_changes_of_a_recipe_reach_their_fields_and_the_rest_stays():
    digits = recipe("digits")
    assert changed(digits, RecipeChanges()) == digits
    other = changed(digits, RecipeChanges(data="cifar2", caption="a {label}", seeds=3, common=False, steps=7))
    assert other.data == DataSource(name="cifar2", caption="a {label}")
    assert other.held_out == replace(digits.held_out, caption="a {label}")
    assert (other.seeds, other.common, other.training) == (3, False, replace(digits.training, steps=7))
    assert changed(digits, RecipeChanges(measurements="simple, l1")).measurements == ("simple", "l1")
    longer = changed(digits, RecipeChanges(config="cifar"))
    assert longer.training == Recipe() and longer.model != digits.model
    adapted = changed(digits, RecipeChanges(base="hf:some/pipeline", rank=4))
    assert adapted.adapters == Adapters(base="hf:some/pipeline", rank=4) and adapted.model == {}
    assert changed(adapted, RecipeChanges(rank=8)).adapters.rank == 8
    with pytest.raises(OptionError, match="expected a base too"):
        changed(digits, RecipeChanges(rank=4))
    with pytest.raises(OptionError, match="expected a network or adapters"):
        changed(digits, RecipeChanges(config="cifar", base="hf:some/pipeline"))


def test_a_recipe_of_another_version_is_told():
    with pytest.raises(UserError, match="strange"):
        from_fields({**recipe("digits").fields(), "strange": 1})
