"""The recipes that have a name: the banks that ship, and those of the papers."""

from dataclasses import replace

from headwater.errors import unknown
from headwater.models import unet
from headwater.models.train import DIGITS, LORA, Recipe
from headwater.retraining.recipe import OUTCOMES, Adapters, BankRecipe, DataSource


def digits_recipe() -> BankRecipe:
    """The bank that ships: 1,000 digits, 64 halves × 2 seeds."""
    return BankRecipe(
        data=DataSource(name="digits"),
        held_out=DataSource(name="digits:val"),
        model=unet.configuration("digits"),
        training=DIGITS,
    )


def cifar2_small_recipe() -> BankRecipe:
    """1,000 automobiles and horses at 16×16, a UNet of 0.16 M parameters: two cores, an afternoon."""
    return BankRecipe(
        data=DataSource(name="cifar2", resize=16, count=1000),
        held_out=DataSource(name="cifar2:val", resize=16, count=100),
        model=unet.configuration("digits", sample_size=16, in_channels=3, out_channels=3),
        training=Recipe(steps=800, batch=64, learning_rate=4e-3, dropout=0.0, flips=False),
        scheme="stratified",
        seeds=1,
        outcome_draws=replace(OUTCOMES, timesteps=50),
    )


def cifar2_32_recipe() -> BankRecipe:
    """1,000 automobiles and horses at 32×32, a UNet of 0.44 M parameters, halves at half the steps: one core,
    five minutes a half."""
    down = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D")
    return BankRecipe(
        data=DataSource(name="cifar2", count=1000),
        held_out=DataSource(name="cifar2:val", count=100),
        model=unet.configuration(
            "cifar",
            block_out_channels=(16, 32, 48),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=down,
            up_block_types=tuple(block.replace("Down", "Up") for block in reversed(down)),
        ),
        training=Recipe(
            steps=1600, batch=64, learning_rate=2e-3, dropout=0.0, flips=False, ema=0.995, ema_power=None
        ),
        subset_steps=800,
        scheme="stratified",
        seeds=1,
        outcome_draws=replace(OUTCOMES, noises=1),
    )


def digits_mini_recipe() -> BankRecipe:
    """200 digits, 64 halves × 2 seeds and 256 subsets to learn from, five outcomes: one core, an hour."""
    return BankRecipe(
        data=DataSource(name="digits", count=200),
        held_out=DataSource(name="digits:val"),
        model=unet.configuration("digits"),
        training=replace(DIGITS, steps=300, batch=32),
        learning=256,
        measurements=("simple", "elbo", "square", "l1", "linf"),
        outcome_draws=replace(OUTCOMES, timesteps=50, noises=1),
    )


def digits_mini_attention_recipe() -> BankRecipe:
    """The halves of digits-mini for a second network, with attention at both resolutions."""
    blocks = {
        "down_block_types": ("AttnDownBlock2D",) * 2,
        "up_block_types": ("AttnUpBlock2D",) * 2,
        "attention_head_dim": 8,
    }
    mini = digits_mini_recipe()
    return replace(
        mini, model=unet.configuration("digits", **blocks), seeds=1, learning=0, measurements=("simple",)
    )


def d_trak_recipe(data: DataSource, held_out: DataSource, config: str) -> BankRecipe:
    """Stratified halves, 64 × 3 seeds, raw weights, 200 epochs, DDIM-50, 1,000 t × 3 noises.

    1,000 held-out and 1,000 generated queries in 8 bits. The network is the paper's; the authors' code adds
    time scale and shift (`…-scale-shift`). Halves train half the steps.
    """
    return BankRecipe(
        data=data,
        held_out=held_out,
        model=unet.configuration(config),
        training=Recipe(),
        scheme="stratified",
        seeds=3,
        generated=1000,
        outcome_draws=replace(OUTCOMES, timesteps=1000, strategy="uniform", noises=3),
    )


def d_trak_lora_recipe(name: str) -> BankRecipe:
    """The protocol of `d_trak_recipe` with adapters of rank 128 of Stable Diffusion at 256×256, guidance 7.5.

    Queries come style by style. 100 epochs of batch 64: of ArtBench-2 7,900 steps, of its halves 4,000; of
    ArtBench-5 19,600 and 9,800.
    """
    return BankRecipe(
        data=DataSource(name=name),
        held_out=DataSource(name=f"{name}:val"),
        adapters=Adapters(base="hf:lambdalabs/miniSD-diffusers"),
        training=LORA,
        scheme="stratified",
        seeds=3,
        generated=1000,
        outcome_draws=replace(OUTCOMES, timesteps=1000, strategy="uniform", noises=3),
    )


def k_fac_recipe(data: DataSource, held_out: DataSource, steps: int, decay: str) -> BankRecipe:
    """Unstratified halves, 100 × 5 seeds, averaged weights, DDPM-1000, 200 generated queries, 5,000 (t, ε).

    Halves train half the steps. Weight decay is AdamW's 0.01, which their code uses; their configurations say
    1e-6.
    """
    return BankRecipe(
        data=data,
        held_out=held_out,
        model=unet.configuration("cifar-scale-shift"),
        training=Recipe(steps=steps, weight_decay=0.01, decay=decay, ema=0.999, ema_power=0.75),
        subset_steps=steps // 2,
        subsets=100,
        seeds=5,
        generated=200,
        sampler="ddpm",
        sample_steps=1000,
        outcome_draws=replace(OUTCOMES, timesteps=5000, strategy="random", noises=1),
    )


CIFAR2, CIFAR10, CELEBA = DataSource(name="cifar2"), DataSource(name="cifar10"), DataSource(name="celeba")
CIFAR2_VAL, CIFAR10_VAL, CELEBA_VAL = (
    DataSource(name="cifar2:val"),
    DataSource(name="cifar10:val"),
    DataSource(name="celeba:val"),
)

RECIPES = {
    "digits": digits_recipe,
    "digits-mini": digits_mini_recipe,
    "digits-mini-attention": digits_mini_attention_recipe,
    "cifar2-small": cifar2_small_recipe,
    "cifar2-32": cifar2_32_recipe,
    "d-trak-cifar2": lambda: d_trak_recipe(CIFAR2, CIFAR2_VAL, "cifar"),
    "d-trak-cifar10": lambda: d_trak_recipe(CIFAR10, CIFAR10_VAL, "cifar"),
    "d-trak-celeba": lambda: d_trak_recipe(CELEBA, CELEBA_VAL, "celeba"),
    "d-trak-artbench2": lambda: d_trak_lora_recipe("artbench2"),
    "d-trak-artbench5": lambda: d_trak_lora_recipe("artbench5"),
    "k-fac-cifar2": lambda: k_fac_recipe(CIFAR2, CIFAR2_VAL, 32_000, "cosine"),
    "k-fac-cifar10": lambda: k_fac_recipe(CIFAR10, CIFAR10_VAL, 160_000, "none"),
}


def recipe(name: str) -> BankRecipe:
    """The recipe called `name`."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()
