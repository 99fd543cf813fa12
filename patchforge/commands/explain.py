"""``patchforge explain``: what a transform is for."""

from __future__ import annotations

import argparse
import difflib
import textwrap
from collections.abc import Iterator, Sequence

from patchforge.commands.common import show_json, table
from patchforge.errors import Exit, PatchforgeError
from patchforge.transform import Example, Span, Transform
from patchforge.vocabulary import Outcome


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 2 for a transform that is not there."""
    from transforms.comfyui import transforms  # noqa: PLC0415 - libcst is slow to import

    known = transforms()
    if options.markdown:
        print(reference(known), end="")
        return Exit.OK
    if options.transform is None:
        chosen = list(known)
        if not options.json:
            table([(one.id, one.purpose.value, one.opt_in and f"opt-in: {one.opt_in}", one.title) for one in known])
            return Exit.OK
    else:
        chosen = [one for one in known if one.id.lower() == options.transform.lower()]
        if not chosen:
            close = difflib.get_close_matches(options.transform, [one.id for one in known], cutoff=0.3)
            raise PatchforgeError(
                f"no transform {options.transform}",
                expected="an id such as T01",
                found=", ".join(close) or "nothing like it",
                do="patchforge explain lists all",
            )
    if options.json:
        show_json([_facts(one) for one in chosen])
    else:
        print("\n".join(page(chosen[0])))
    return Exit.OK


def _facts(one: Transform) -> dict[str, object]:
    return {
        "id": one.id,
        "title": one.title,
        "why": textwrap.dedent(one.__doc__ or "").strip(),
        "patch": one.purpose.value,
        "issues": one.issues,
        "files": one.files,
        "absent": [str(span) for span in one.absent],
        "upstream": [str(span) for span in one.upstream],
        "retires": one.retires,
        "opt_in": one.opt_in,
        "hooks": one.hooks,
    }


def page(one: Transform) -> Iterator[str]:
    """One transform as Markdown, a line at a time."""
    yield f"## {one.id}: {one.title}\n"
    yield textwrap.dedent("    " + (one.__doc__ or "")).strip() + "\n"
    yield f"- Patch: `{one.purpose.value}`. Files: {', '.join(f'`{path}`' for path in one.files)}."
    if one.opt_in:
        yield f"- Opt-in: `{one.opt_in}`; off by default (see runtime.md)."
    yield f"- Applies to every release{_except(one)}."
    yield f"- Can go when {one.retires}."
    if one.issues:
        yield f"- Reported in {', '.join(one.issues)}."
    yield ""
    for example in one.examples:
        yield from _example(example)


def _except(one: Transform) -> str:
    parts = [(span, "nothing to apply to") for span in one.absent] + [
        (span, "upstream does it") for span in one.upstream
    ]
    return "".join(f", except {_span(span)} ({why})" for span, why in parts)


def _span(span: Span) -> str:
    if not span.first:
        return f"up to {span.last}"
    return f"{span.first} to {span.last}" if span.last else f"from {span.first} on"


def _example(example: Example) -> Iterator[str]:
    before = textwrap.dedent(example.before).splitlines()
    if example.after is None:
        meaning = {
            Outcome.UPSTREAM: "upstream already",
            Outcome.ABSENT: "absent",
            Outcome.DRIFTED: "drifted, a person must look",
        }
        yield f"{example.name} ({meaning[example.outcome]}):\n\n```python"
        yield from before
    else:
        yield f"{example.name}:\n\n```diff"
        yield from list(difflib.unified_diff(before, textwrap.dedent(example.after).splitlines(), lineterm="", n=99))[
            3:
        ]
    yield "```\n"


def reference(transforms: Sequence[Transform]) -> str:
    """docs/transforms.md."""
    lines = [
        "# Transforms",
        "",
        "Generated from the transforms themselves by `patchforge explain --markdown`; do not edit. The examples are",
        "what their tests run: each is converted, converted again, and must come out as shown.",
        "",
    ]
    for one in transforms:
        lines += page(one)
    return "\n".join(lines).rstrip() + "\n"
