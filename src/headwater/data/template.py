"""Prompts made from a template such as "a {group} painting", for images that have none of their own."""

from dataclasses import replace
from string import Formatter

import numpy as np

from headwater.errors import DataError, OptionError, unknown
from headwater.examples import Examples

NAMES = {"group": "groups", "label": "labels", "id": "ids"}
KNOWN = " ".join(f"{{{name}}}" for name in NAMES)


def captioned(examples: Examples, template: str) -> Examples:
    """The examples with a prompt each: the template with their group, label and id in place of {group}, {label} and {id}.

    Examples that have prompts keep them. Names stand as they are, `ukiyo_e` too; `{{` is a brace. A template that cannot be read,
    or a column that the examples lack, is an OptionError; an image without a group or label (−1) a DataError.
    """
    names = names_in(template)
    if examples.prompts is not None:
        return examples
    for name in names:
        _check(examples, name, template)
    columns = {name: getattr(examples, NAMES[name]) for name in names}
    made = (template.format(**{name: column[row] for name, column in columns.items()}) for row in range(len(examples)))
    return replace(examples, prompts=tuple(made))


def names_in(template: str) -> tuple[str, ...]:
    """The names that the template asks for, each one of NAMES."""
    try:
        fields = [(name, spec, how) for _, name, spec, how in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise OptionError(
            f"The caption '{template}' cannot be read ({error}). Expected text with {KNOWN} in it; write {{{{ and }}}} for braces."
        ) from error
    for name, spec, how in fields:
        if name not in NAMES:
            raise OptionError(f"In the caption '{template}': {unknown('name', name, NAMES)}")
        if spec or how:
            raise OptionError(f"The caption '{template}' says how to write {{{name}}}; expected the bare name, one of {KNOWN}.")
    return tuple(dict.fromkeys(name for name, _, _ in fields))


def _check(examples: Examples, name: str, template: str) -> None:
    """Raise unless every image has the column that `name` stands for."""
    column = getattr(examples, NAMES[name])
    if column is None:
        there = " ".join(f"{{{each}}}" for each, field in NAMES.items() if getattr(examples, field) is not None)
        raise OptionError(
            f"The caption '{template}' asks for {{{name}}}, but the images have no {NAMES[name]}; they have {there}. Use these, or "
            f"give the images {NAMES[name]}."
        )
    blank = np.flatnonzero(column < 0) if name == "label" else [row for row, word in enumerate(column) if not word]
    if len(blank):
        raise DataError(
            f"The caption '{template}' asks for {{{name}}}, which {len(blank):,} of the {len(examples):,} images lack, the first "
            f"with id '{examples.ids[blank[0]]}'; expected one each. Give them one, leave them out, or use another of {KNOWN}."
        )
