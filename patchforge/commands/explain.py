"""``patchforge explain``: what a transform is for."""

from __future__ import annotations

import argparse
import difflib
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from patchforge.commands.common import show_json, table
from patchforge.errors import Exit, PatchforgeError
from patchforge.nodes.report import in_order
from patchforge.nodes.rules import rules
from patchforge.nodes.words import Rule
from patchforge.transform import Example, Span, Transform
from patchforge.vocabulary import Outcome


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 2 for a transform or a rule that is not there."""
    if options.nodes:
        return _rules(options)
    from patchforge.transforms.comfyui import transforms  # noqa: PLC0415 - libcst is slow to import

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
            raise _unknown("transform", options.transform, [one.id for one in known], "patchforge explain lists all")
    if options.json:
        show_json([_facts(one) for one in chosen])
    else:
        print("\n".join(page(chosen[0])))
    return Exit.OK


def _rules(options: argparse.Namespace) -> int:
    """The rules of custom-node packs, in the same ways."""
    if options.markdown:
        print(rule_reference(rules()), end="")
        return Exit.OK
    known = sorted(rules(), key=lambda one: in_order(one.id))
    chosen = [one for one in known if options.transform and one.id.lower() == options.transform.lower()]
    if options.transform and not chosen:
        raise _unknown("rule", options.transform, [one.id for one in known], "patchforge explain --nodes lists all")
    if options.json:
        show_json([{"id": one.id, "title": one.title, "why": _why(one)} for one in chosen or known])
    elif chosen:
        print("\n".join(rule_page(chosen[0])))
    else:
        table([(one.id, one.title) for one in known])
    return Exit.OK


def _unknown(kind: str, name: str, known: Sequence[str], do: str) -> PatchforgeError:
    close = difflib.get_close_matches(name, known, cutoff=0.3)
    found = ", ".join(close) or "nothing like it"
    return PatchforgeError(f"no {kind} {name}", expected=f"an id such as {known[0]}", found=found, do=do)


def _facts(one: Transform) -> dict[str, object]:
    return {
        "id": one.id,
        "title": one.title,
        "why": _why(one),
        "patch": one.purpose.value,
        "issues": one.issues,
        "files": one.files,
        "absent": [str(span) for span in one.absent],
        "upstream": [str(span) for span in one.upstream],
        "retires": one.retires,
        "opt_in": one.opt_in,
        "hooks": one.hooks,
    }


def _why(one: Transform | Rule) -> str:
    return textwrap.dedent("    " + (one.__doc__ or "")).strip()


def page(one: Transform) -> Iterator[str]:
    """One transform as Markdown, a line at a time."""
    yield f"## {one.id}: {one.title}\n"
    yield _why(one) + "\n"
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
    yield from _shown(example.name, example.before, example.after, kept)


def _shown(name: str, before: str, after: str | None, kept: str) -> Iterator[str]:
    """A miniature as a code block: what changes, or the whole with the reason why nothing does."""
    lines = textwrap.dedent(before).splitlines()
    if after is None:
        yield f"{name} ({kept}):\n\n```python"
        yield from lines
    else:
        yield f"{name}:\n\n```diff"
        yield from list(difflib.unified_diff(lines, textwrap.dedent(after).splitlines(), lineterm="", n=99))[3:]
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
    return _joined(lines, map(page, transforms))


def rule_page(one: Rule) -> Iterator[str]:
    """One rule as Markdown, a line at a time."""
    yield f"## {one.id}: {one.title}\n"
    yield _why(one) + "\n"
    for example in one.examples:
        asked = "".join(f", with `{flag}`" for flag in example.options.flags)
        kept = "for a person" if example.person else "left"
        yield from _shown(f"{example.name}{asked}", example.before, example.after, kept)


def rule_reference(known: Sequence[Rule]) -> str:
    """docs/nodes-rules.md."""
    lines = [
        "# Rules for custom-node packs",
        "",
        "Generated from the rules themselves by `patchforge explain --nodes --markdown`; do not edit. The examples are",
        "what their tests run: each is converted, proved, converted again, and must come out as shown, without the",
        "[short functions](nodes.md#what-an-edit-looks-like) that a converted file gets.",
        "",
    ]
    return _joined(lines, map(rule_page, sorted(known, key=lambda one: in_order(one.id))))


def _joined(head: Sequence[str], pages: Iterable[Iterable[str]]) -> str:
    return "\n".join(itertools.chain(head, *pages)).rstrip() + "\n"
