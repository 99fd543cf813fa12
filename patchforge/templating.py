"""Jinja as every template of ours is rendered."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING

from patchforge import escape, resources

if TYPE_CHECKING:
    import jinja2
    from _typeshed import DataclassInstance


def report(kind: str, document: DataclassInstance) -> str:
    """What was found in a ``release`` or a ``pack``, as Markdown to read: its fields in the template of its kind."""
    named = {field.name: getattr(document, field.name) for field in fields(document)}
    return environment("reports").get_template(f"{kind}.md.j2").render(named)


@cache
def environment(folder: str = "", *, autoescape: bool = False) -> jinja2.Environment:
    """An environment for the templates in ``templates/<folder>``. A name that is not given is an error.

    The filters of ``patchforge.escape`` are known in all of them: what a stranger wrote passes one. There is one
    environment for each folder, so that a template is compiled once.
    """
    import jinja2  # noqa: PLC0415 - slow; only what renders needs it

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.path(f"templates/{folder}")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,  # noqa: S701 - on for HTML only
    )
    made.filters.update(escape.FILTERS)
    return made
