"""What the two ``explain`` commands share."""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from patchforge.errors import PatchforgeError


def unknown(kind: str, name: str, known: Sequence[str], do: str) -> PatchforgeError:
    """The error for a name that is not among those that are ``known``, with those that are like it."""
    close = difflib.get_close_matches(name, known, cutoff=0.3)
    found = ", ".join(close) or "nothing like it"
    return PatchforgeError(f"there is no {kind} {name}", expected=f"an id such as {known[0]}", found=found, do=do)


def why(one: object) -> str:
    """The docstring of a transform or a rule, from its source, since python -OO keeps none."""
    parsed = ast.parse(textwrap.dedent(inspect.getsource(type(one)))).body[0]
    return (ast.get_docstring(parsed) or "") if isinstance(parsed, ast.ClassDef) else ""


def shown(name: str, before: str, after: str | None, kept: str) -> Iterator[str]:
    """A miniature as a code block: what changes, or the whole with the reason why nothing does."""
    lines = textwrap.dedent(before).splitlines()
    if after is None:
        yield f"{name} ({kept}):\n\n```python"
        yield from lines
    else:
        yield f"{name}:\n\n```diff"
        yield from list(difflib.unified_diff(lines, textwrap.dedent(after).splitlines(), lineterm="", n=99))[3:]
    yield "```\n"


def joined(head: Sequence[str], pages: Iterable[Iterable[str]]) -> str:
    """A page of pages, each given line by line."""
    return "\n".join(itertools.chain(head, *pages)).rstrip() + "\n"
