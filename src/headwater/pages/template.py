"""The one jinja environment of pages and charts: everything is escaped, and an undefined name is an error."""

import re
from typing import Any

import jinja2
from markupsafe import Markup, escape

from headwater.words import duration, number, percent


def render(template: str, **values: Any) -> str:
    """A page from its template."""
    return ENVIRONMENT.get_template(template).render(values).lstrip()


def svg(chart: str, **values: Any) -> Markup:
    """A chart as inline SVG, from its template in `templates/charts`."""
    return Markup(ENVIRONMENT.get_template(f"charts/{chart}.svg").render(values).strip())


def prose(text: object) -> Markup:
    """Text in which `backticks` become code, and x_t or Σ_{i∈A} get their subscripts."""

    def marked(match: re.Match[str]) -> str:
        return f"<code>{match[1]}</code>" if match[1] else f"<sub>{match[2] or match[3]}</sub>"

    return Markup(re.sub(r"`([^`]+)`|_(?:\{([^}]+)\}|(\w)(?!\w))", marked, str(escape(str(text)))))


def ending(text: str, length: int) -> str:
    """The end of a text that is too long: of a file's path, the name counts."""
    return text if len(text) <= length else "…" + text[1 - length :]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headwater.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"prose": prose, "ending": ending, "duration": duration, "count": "{:,}".format}
    environment.filters |= {"number": number, "percent": percent}
    return environment


ENVIRONMENT = _environment()
