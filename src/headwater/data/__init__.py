"""Image sources, one a file, and `open_examples`, which opens the source that a word names."""

import re
from pathlib import Path

from headwater.data.template import captioned, names_in
from headwater.errors import DataError, OptionError, Warn, to_warnings, unknown
from headwater.examples import Examples, with_distinct_ids

ARTBENCH = ("artbench2", "artbench5", "artbench10", "artbench2-32", "artbench5-32", "artbench10-32")
LARGEST = 16_384  # pixels a side, for `resize`
BUILT_IN = ("digits", "cifar10", "cifar2", "celeba", *ARTBENCH)


def open_examples(
    source: str | Path,
    *,
    resize: int | None = None,
    caption: str | None = None,
    kind: str = "images",
    warn: Warn = to_warnings,
) -> Examples:
    """The images that `source` names.

    One of BUILT_IN, also with a split (`digits:val`); `hf:name` or `hf:name:split`, a data set of the hub; an
    `.npz` file; a folder of images. A built-in name wins over a folder of the same name: write `./digits` for
    the folder. `resize` scales the shorter side to this many pixels (bicubic, antialiased) and keeps the
    central square; for `celeba` it is the side of the paper's crop. `caption`, such as "a {group} painting",
    makes the prompts of a source that has none (`headwater.data.template`). `warn` hears of what is not an
    error, such as files that were passed over; `kind` is what it calls the images. Raises DataError for a
    source that cannot be used.
    """
    if resize is not None and not 1 <= resize <= LARGEST:
        raise OptionError(f"resize is {resize}; expected a number of pixels from 1 to {LARGEST:,}.")
    if caption is not None:
        names_in(caption)
    examples = with_distinct_ids(_resized(_opened(str(source), resize, warn), source, resize), str(source))
    return examples if caption is None else captioned(examples, caption, kind, warn)


def _resized(examples: Examples, source: str | Path, resize: int | None) -> Examples:
    """The examples at `resize` × `resize` pixels; unchanged for None."""
    if resize is None or examples.images.shape[1:3] == (resize, resize):
        return examples
    if examples.trajectory is not None:
        raise DataError(
            f"{source} holds sampler trajectories, which cannot be resized with the images. Leave resize out."
        )
    from dataclasses import replace

    from headwater.data.decode import resized

    return replace(examples, images=resized(examples.images, resize))


def _opened(source: str, resize: int | None, warn: Warn) -> Examples:
    """The source's images. A source whose images may differ in size, or are large, resizes while it reads."""
    name, _, split = source.partition(":")
    if name in BUILT_IN:
        return _built_in(name, split or "train", resize)
    if name == "hf":
        from headwater.data.hub import from_hub

        name, _, split = split.partition(":")
        if not name:
            raise DataError(
                f"'{source}' names no data set; expected hf:NAME or hf:NAME:SPLIT, such as "
                "hf:uoft-cs/cifar10:train."
            )
        return from_hub(name, split or "train", resize=resize, warn=warn)
    path = _existing(source)
    if path.is_dir():
        from headwater.data.folder import folder

        return folder(path, resize=resize, warn=warn)
    from headwater.disk.npz import read_examples

    return read_examples(path)


def _built_in(name: str, split: str, resize: int | None) -> Examples:
    if name == "digits":
        from headwater.data.digits import digits

        return digits(split)
    if name == "celeba":
        from headwater.data.celeba import celeba

        return celeba(split, resize=resize)
    if name in ARTBENCH:
        from headwater.data.artbench import artbench

        return artbench(name, split, resize=resize)
    from headwater.data.cifar import cifar2, cifar10

    return cifar2(split) if name == "cifar2" else cifar10(split)


def _existing(source: str) -> Path:
    try:
        path = Path(source).expanduser()
        if source and path.exists():
            return path
    except (
        OSError,
        RuntimeError,
    ):  # a name that is too long, a folder that may not be searched, a home folder of no user
        pass
    raise _no_such_source(source)


def _no_such_source(source: str) -> DataError:
    """The error for a source that neither exists nor is built in."""
    if re.search(r"[/\\]|^[.~]|\.\w+$", source):
        hub = (
            f" A data set of the hub is written hf:{source}."
            if re.fullmatch(r"[\w-]+/[\w.-]+", source)
            else ""
        )
        return DataError(
            f"There is no file or folder {source}; expected a folder of images or an .npz file.{hub}"
        )
    return DataError(
        f"{unknown('built-in source', source.partition(':')[0], BUILT_IN)} Nor is there a file or folder of "
        "that name. A data set of the hub is written hf:NAME."
    )
