"""Render HTML pages from the templates in `templates/`.

All values from data, names or recipes are escaped; a missing field is an error.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from headrace.serving.digests import file_sha256

FOLDER = Path(__file__).with_name("templates")
BASE = "page.html"


def render(
    template: str, filters: dict[str, Callable[..., str]] | None = None, **values: object
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(template).render(**values)


def excerpt(text: str, max_chars: int) -> str:
    """Return a text on one line, of at most `max_chars` characters."""
    line = " ".join(text[: 10 * max_chars].split())
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"


def data_uri(svg: bytes) -> str:
    """Return a picture as an address that holds it, because a page loads nothing."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def digests(template: str) -> dict[str, str]:
    """Return the digests of the template files that a page is made from."""
    return {name: file_sha256(FOLDER / name) for name in (BASE, template)}
