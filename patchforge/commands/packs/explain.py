"""``patchforge packs explain``: what a rule for custom-node packs is for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from patchforge.commands.common import show_json, table
from patchforge.commands.pages import joined, shown, unknown, why
from patchforge.errors import Exit
from patchforge.nodes.report import in_order
from patchforge.nodes.rules import rules
from patchforge.nodes.words import Rule


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 2 for a rule that is not there."""
    if options.markdown:
        print(rule_reference(rules()), end="")
        return Exit.OK
    known = sorted(rules(), key=lambda one: in_order(one.id))
    chosen = [one for one in known if options.name and one.id.lower() == options.name.lower()]
    if options.name and not chosen:
        raise unknown("rule", options.name, [one.id for one in known], "patchforge packs explain lists all")
    if options.json:
        show_json([{"id": one.id, "title": one.title, "why": why(one)} for one in chosen or known])
    elif chosen:
        print("\n".join(rule_page(chosen[0])))
    else:
        table([(one.id, one.title) for one in known])
    return Exit.OK


def rule_page(one: Rule) -> Iterator[str]:
    """One rule as Markdown, a line at a time."""
    yield f"## {one.id}: {one.title}\n"
    yield why(one) + "\n"
    for example in one.examples:
        asked = "".join(f", with `{flag}`" for flag in example.options.flags)
        kept = "for a person" if example.person else "left"
        yield from shown(f"{example.name}{asked}", example.before, example.after, kept)


def rule_reference(known: Sequence[Rule]) -> str:
    """docs/nodes-rules.md."""
    lines = [
        "# Rules for custom-node packs",
        "",
        "Generated from the rules themselves by `patchforge packs explain --markdown`; do not edit. The examples are",
        "what their tests run: each is converted, proved, converted again, and must come out as shown, without the",
        "[short functions](nodes.md#what-an-edit-looks-like) that a converted file gets.",
        "",
    ]
    return joined(lines, map(rule_page, sorted(known, key=lambda one: in_order(one.id))))
