"""The pictures that picture methods compare: pixels, or the latents that examples carry."""

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.encoding import posteriors
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, OptionError
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


def query_views(
    model: Denoiser | None, queries: Examples, space: str, store: FeatureStore, train: Views
) -> Views:
    """The queries' pixels or latents, which must have the size of the training images'."""
    pictures = views(model, queries, space, store)
    if pictures.shape != train.shape:
        (c, h, w), (tc, th, tw) = pictures.shape, train.shape
        raise DataError(
            f"Queries are {h}×{w} with {c} channels, training images {th}×{tw} with {tc}; expected the same."
        )
    return pictures


def count_of(timesteps: int | tuple[int, ...]) -> int:
    """The number of timesteps that a field names or lists; none is an OptionError."""
    count = timesteps if isinstance(timesteps, int) else len(timesteps)
    if count < 1:
        raise OptionError(f"timesteps is {timesteps}; expected a count of 1 or more, or a list of steps.")
    return count
