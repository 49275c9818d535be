"""Examples: images with their ids, labels, groups and prompts; numpy only."""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from headwater.errors import DataError, NonFiniteError, Warn, to_warnings
from headwater.words import composed

SPACES = ("pixels", "latents")  # in which two images can be compared
GREY, COLOUR = 1, 3  # channels
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", re.ASCII)


@dataclass(frozen=True, eq=False)
class Text:
    """Encoded prompts: row `which[i]` of every table is example i's, tables are named as arguments."""

    which: Int64[np.ndarray, " n"]
    tables: Mapping[str, Float32[np.ndarray, "..."]]

    def take(self, index: Int64[np.ndarray, " b"]) -> "Text":
        """The text of the examples at `index`."""
        return replace(self, which=self.which[index])


@dataclass(frozen=True, eq=False)
class Examples:
    """Images in input order, with optional ids, labels, groups and prompts (one each per image).

    `split` marks queries as `val` or `gen`. `trajectory` holds the states x_t of a sampler's path, `[n, s, z,
    y, x]` in model units, for the timesteps in `trajectory_timesteps` `[s]` (-1 = the finished picture).
    `latents` and `text` are the encoded images and prompts, for a model with those encoders.
    """

    images: UInt8[np.ndarray, "n h w c"]
    ids: tuple[str, ...] = ()
    labels: Int64[np.ndarray, " n"] | None = None
    groups: tuple[str, ...] | None = None
    prompts: tuple[str, ...] | None = None
    split: tuple[str, ...] | None = None
    trajectory: Float32[np.ndarray, "n s z y x"] | None = None
    trajectory_timesteps: Int64[np.ndarray, " s"] | None = None
    latents: Float32[np.ndarray, "n z y x"] | None = None
    text: Text | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise DataError(
                f"Images are {self.images.dtype} {list(self.images.shape)}; expected uint8 [n, height, "
                "width, channels]."
            )
        if len(self.images) == 0:
            raise DataError("There are no images; expected at least one.")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(str(i) for i in range(len(self))))
        for name in ("ids", "labels", "groups", "prompts", "split", "trajectory", "latents"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self):
                raise DataError(f"There are {len(column)} {name} for {len(self)} images; expected one each.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width), as models count them."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of `inputs`."""
        if self.latents is None:
            return self.shape
        _, channels, height, width = self.latents.shape
        return channels, height, width

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """A content hash per image; equal pixels have equal hashes, so equal images share their draws."""
        form = str(self.images.shape[1:]).encode()
        return tuple(
            hashlib.blake2b(form + image.tobytes(), digest_size=12).hexdigest()
            for image in np.ascontiguousarray(self.images)
        )

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """A hash per image of pixels, label, and the prompt if encoded: the key of stored features."""
        keys = self.hashes
        if self.labels is not None:
            keys = tuple(f"{pixels}-{label}" for pixels, label in zip(keys, self.labels, strict=True))
        if self.text is not None:
            words = (
                hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest() for prompt in self.prompts or ()
            )
            keys = tuple(f"{key}-{word}" for key, word in zip(keys, words, strict=True))
        return keys

    @cached_property
    def path_keys(self) -> tuple[str, ...]:
        """`keys`, with a hash of each image's trajectory if it has one."""
        if self.trajectory is None or self.trajectory_timesteps is None:
            return self.keys
        times = self.trajectory_timesteps.tobytes()
        paths = (
            hashlib.blake2b(times + path.tobytes(), digest_size=12).hexdigest() for path in self.trajectory
        )
        return tuple(f"{key}-{path}" for key, path in zip(self.keys, paths, strict=True))

    @property
    def fingerprint(self) -> str:
        """A hash of the whole sequence, in order."""
        return hashlib.blake2b(" ".join(self.keys).encode(), digest_size=16).hexdigest()

    def pixels(self) -> Float32[np.ndarray, "n c h w"]:
        """Images in model units: channels first, [-1, 1]."""
        return self.images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0

    def inputs(self) -> Float32[np.ndarray, "n z y x"]:
        """A model's inputs: the latents if there are any, else the pixels."""
        return self.pixels() if self.latents is None else self.latents

    def in_space(self, space: str) -> Float32[np.ndarray, "n z y x"]:
        """`pixels`, or the `latents` of the model's auto-encoder; a DataError if there are none."""
        if space == "pixels":
            return self.pixels()
        if self.latents is None:
            raise DataError(
                "There are no latents to compare: they need a model with an auto-encoder. Give one, or use "
                "space=pixels."
            )
        return self.latents

    def take(self, rows: np.ndarray | Sequence[int]) -> "Examples":
        """The examples at `rows`, in that order; a boolean mask works too."""
        index = np.arange(len(self))[np.asarray(rows)]
        pick: dict[str, Any] = {"images": self.images[index]}
        for name in ("labels", "trajectory", "latents"):
            column = getattr(self, name)
            pick[name] = None if column is None else column[index]
        pick["text"] = None if self.text is None else self.text.take(index)
        for name in ("ids", "groups", "prompts", "split"):
            column = getattr(self, name)
            pick[name] = None if column is None else tuple(column[i] for i in index)
        return replace(self, **pick)


def labelled_like(queries: Examples, train: Examples, warn: Warn = to_warnings) -> Examples:
    """The queries, each labelled as the training images of its group.

    Every folder numbers its own classes: `dog` is 1 beside `cat` and 0 alone. A group without training images
    gets −1, which a class-conditional model refuses. Queries without groups are unchanged, as are all where
    images of one group differ in label, on either side. `warn` hears of labels that were not just the places
    of the sorted groups and change.
    """
    numbers, before = label_of_group(train), label_of_group(queries)
    if numbers is None or queries.groups is None or (before is None and queries.labels is not None):
        return queries
    labels = np.array([numbers.get(composed(group), -1) for group in queries.groups], np.int64)
    if queries.labels is not None and (labels != queries.labels).any():
        row = int(np.argmax(labels != queries.labels))
        if (queries.labels != places(queries.groups)).any():
            warn(
                f"The queries are labelled as the training images of their groups: those of "
                f"'{queries.groups[row]}' {labels[row]}, and not {queries.labels[row]}."
            )
    return replace(queries, labels=labels)


def label_of_group(examples: Examples) -> dict[str, int] | None:
    """The label of each group; None without groups or labels, or where a group has several labels."""
    if examples.groups is None or examples.labels is None:
        return None
    labels: dict[str, set[int]] = defaultdict(set)
    for group, label in zip(examples.groups, examples.labels.tolist(), strict=True):
        labels[composed(group)].add(label)
    if any(len(numbers) > 1 for numbers in labels.values()):
        return None
    return {group: numbers.pop() for group, numbers in labels.items()}


def places(groups: Sequence[str]) -> Int64[np.ndarray, " n"]:
    """Labels of groups: their places among the sorted names, −1 for an image without one ("")."""
    place = {group: label for label, group in enumerate(sorted({*groups} - {""}))} | {"": -1}
    return np.array([place[group] for group in groups], np.int64)


def are_numbers(values: Sequence[object]) -> bool:
    """Whether a column holds numbers, perhaps written as words, and blanks; one number at least."""
    cells = [value for value in values if not _is_blank(value)]
    return bool(cells) and all(_is_number(value) for value in cells)


def labels_of(values: Sequence[object], name: str) -> Int64[np.ndarray, " n"]:
    """Labels from whole numbers, also as words or floats (7, "7", 7.0); −1 for a blank (None, "", NaN).

    Raises a DataError, which calls the column `name`, for any other value, for one below −1, and for one that
    int64 does not hold.
    """
    labels = [-1 if _is_blank(value) else _whole(value) for value in values]
    for value, label in zip(values, labels, strict=True):
        if label is None or not -1 <= label < 2**63:
            raise DataError(
                f"{name} holds {value!s:.40}; expected whole numbers from 0 to 2⁶³ − 1 (−1: no label) "
                "or words."
            )
    return np.array(labels, np.int64)


def _is_blank(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _is_number(value: object) -> bool:
    return bool(NUMBER.fullmatch(value)) if isinstance(value, str) else isinstance(value, int | float)


def _whole(value: object) -> int | None:
    """The whole number that a cell holds; None for another value."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+", value, re.ASCII):
        return int(value) if len(value) < 40 else 2**63
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        return None
    number = float(value) if isinstance(value, str | float) else math.nan
    return int(number) if number.is_integer() else None


def with_distinct_ids(examples: Examples, name: str) -> Examples:
    """The examples; a DataError, which calls them `name`, if two of them have one id."""
    identity, count = Counter(examples.ids).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"{name} has {count} images with the id '{identity}'; expected an id of its own for each."
        )
    return examples


def with_channels(examples: Examples, channels: int) -> Examples:
    """Grey images as RGB for 3 channels, as trainers show them; RGB images that are grey as grey for 1.

    Images of other channels, or of real colour, are unchanged.
    """
    images = examples.images
    if images.shape[3] == GREY and channels == COLOUR:
        return replace(examples, images=np.repeat(images, COLOUR, axis=3))
    if images.shape[3] == COLOUR and channels == GREY and (images == images[..., :1]).all():
        return replace(examples, images=np.ascontiguousarray(images[..., :1]))
    return examples


def alike(train: Examples, queries: Examples) -> tuple[Examples, Examples]:
    """Both with equally many channels, where that loses nothing: grey beside colour becomes RGB."""
    queries = with_channels(queries, train.shape[0])
    return with_channels(train, queries.shape[0]), queries


def to_uint8(pixels: Float32[np.ndarray, "n c h w"]) -> UInt8[np.ndarray, "n h w c"]:
    """8-bit pictures from model units, clipped to [-1, 1] and rounded. Raises NonFiniteError for NaN."""
    if np.isnan(pixels).any():
        row = int(np.argmax(np.isnan(pixels).any(axis=(1, 2, 3))))
        raise NonFiniteError(
            f"Picture {row} holds NaN: sampling diverged. Use float32, or check the model's weights."
        )
    levels = np.rint((np.clip(pixels, -1.0, 1.0) + 1.0) * 127.5)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))
