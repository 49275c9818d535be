"""The pictures that picture methods compare: pixels, or the latents that examples carry."""

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.encoding import posteriors
from headwater.disk.store import FeatureStore
from headwater.errors import DataError
from headwater.examples import Examples
from headwater.patches.views import Views


def views(
    model: Denoiser | None, examples: Examples, space: str, store: FeatureStore, *, mirrored: bool = False
) -> Views:
    """The examples' pixels, or the latents that they carry; if `mirrored`, also the latents of the mirror
    images."""
    if space == "pixels":
        return Views(examples.images)
    values = examples.in_space(space)
    if not mirrored:
        return Views(values)
    if model is None:
        raise DataError(
            "Latents of mirror images need the model's auto-encoder. Give a model, or leave flips out."
        )
    return Views(values, posteriors(model, examples, store, mirrored=True)[:, 0])
