"""Prompts from a template such as "a {group} painting", for images without prompts."""

from dataclasses import replace
from string import Formatter

import numpy as np

from headwater.errors import DataError, OptionError, Warn, to_warnings, unknown
from headwater.examples import Examples

PLACEHOLDERS = {"group": "groups", "label": "labels", "id": "ids"}
KNOWN = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)


def captioned(examples: Examples, template: str, kind: str = "images", warn: Warn = to_warnings) -> Examples:
    """The examples, with the template as their prompts, filled in with each one's {group}, {label} and {id}.

    Examples that have prompts keep them, and `warn` hears of it, where they are called `kind`. Groups are
    inserted unchanged, `ukiyo_e` too; `{{` is a brace. Raises OptionError for an unreadable template or a
    column that the examples lack, DataError for an image without a group or label (−1).
    """
    names = names_in(template)
    if examples.prompts is not None:
        warn(
            f"The {kind} have prompts of their own, such as '{examples.prompts[0]}': the caption changes "
            "none of them."
        )
        return examples
    for name in names:
        _check(examples, name, template)
    columns = {name: getattr(examples, PLACEHOLDERS[name]) for name in names}
    prompts = (
        template.format(**{name: column[row] for name, column in columns.items()})
        for row in range(len(examples))
    )
    return replace(examples, prompts=tuple(prompts))


def names_in(template: str) -> tuple[str, ...]:
    """The names in the template, each one of PLACEHOLDERS."""
    try:
        fields = [
            (name, spec, conversion)
            for _, name, spec, conversion in Formatter().parse(template)
            if name is not None
        ]
    except ValueError as error:
        raise OptionError(
            f"The caption '{template}' cannot be read ({error}). Expected text with {KNOWN} in it; write "
            f"{{{{ and }}}} for braces."
        ) from error
    for name, spec, conversion in fields:
        if name not in PLACEHOLDERS:
            raise OptionError(f"In the caption '{template}': {unknown('name', name, PLACEHOLDERS)}")
        if spec or conversion:
            raise OptionError(
                f"The caption '{template}' formats {{{name}}}; expected the bare name, one of {KNOWN}."
            )
    return tuple(dict.fromkeys(name for name, _, _ in fields))


def _check(examples: Examples, name: str, template: str) -> None:
    """Raise unless every image has the column that `name` stands for."""
    column = getattr(examples, PLACEHOLDERS[name])
    if column is None:
        present = " ".join(
            f"{{{word}}}" for word, field in PLACEHOLDERS.items() if getattr(examples, field) is not None
        )
        raise OptionError(
            f"The caption '{template}' asks for {{{name}}}, but the images have no {PLACEHOLDERS[name]}; "
            f"they have {present}. Use these, or give the images {PLACEHOLDERS[name]}."
        )
    blank = (
        np.flatnonzero(column < 0)
        if name == "label"
        else [row for row, word in enumerate(column) if not word]
    )
    if len(blank):
        raise DataError(
            f"The caption '{template}' asks for {{{name}}}, which {len(blank):,} of the {len(examples):,} "
            f"images lack, the first with id '{examples.ids[blank[0]]}'; expected one each. Give them one, "
            f"leave them out, or use another of {KNOWN}."
        )
