"""``patchforge explain``: what a transform is for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from patchforge.commands.common import show_json, table
from patchforge.commands.packs import explain as packs
from patchforge.commands.pages import joined, shown, unknown, why
from patchforge.errors import Exit
from patchforge.transform import Example, Span, Transform
from patchforge.vocabulary import Outcome


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 2 for a transform that is not there."""
    if options.nodes:
        return packs.run(options)
    from patchforge.transforms.comfyui import transforms  # noqa: PLC0415 - libcst is slow to import

    known = transforms()
    if options.markdown:
        print(reference(known), end="")
        return Exit.OK
    if options.name is None:
        chosen = list(known)
        if not options.json:
            table([(one.id, one.purpose.value, one.opt_in and f"opt-in: {one.opt_in}", one.title) for one in known])
            return Exit.OK
    else:
        chosen = [one for one in known if one.id.lower() == options.name.lower()]
        if not chosen:
            raise unknown("transform", options.name, [one.id for one in known], "patchforge explain lists all")
    if options.json:
        show_json([_facts(one) for one in chosen])
    else:
        print("\n".join(page(chosen[0])))
    return Exit.OK


def _facts(one: Transform) -> dict[str, object]:
    return {
        "id": one.id,
        "title": one.title,
        "why": why(one),
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
    yield why(one) + "\n"
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
    meaning = {
        Outcome.UPSTREAM: "upstream already",
        Outcome.ABSENT: "absent",
        Outcome.DRIFTED: "drifted, a person must look",
    }
    kept = "" if example.after is not None else meaning[example.outcome]
    yield from shown(example.name, example.before, example.after, kept)


def reference(transforms: Sequence[Transform]) -> str:
    """docs/transforms.md."""
    lines = [
        "# Transforms",
        "",
        "Generated from the transforms themselves by `patchforge explain --markdown`; do not edit. The examples are",
        "what their tests run: each is converted, converted again, and must come out as shown.",
        "",
    ]
    return joined(lines, map(page, transforms))
