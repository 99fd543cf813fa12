"""``patchforge explain`` and ``patchforge packs explain``: what a rule is for."""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from patchforge import templating
from patchforge.commands.common import show_json, table
from patchforge.errors import Exit, PatchforgeError, worst
from patchforge.pattern import PackExample, Pattern
from patchforge.rules import Discovered, Rule, all_patterns, all_transforms, named
from patchforge.transform import Example, Transform

_TRANSFORMS = """\
# Transforms

Generated from the transforms themselves by `patchforge explain --markdown`; do not edit. The examples are
what their tests run: each is converted, converted again, and must come out as shown.

"""
_PATTERNS = """\
# Rules for custom-node packs

Generated from the rules themselves by `patchforge packs explain --markdown`; do not edit. The examples are
what their tests run: each is converted, proved, converted again, and must come out as shown, without the
[short functions](nodes.md#what-an-edit-looks-like) that a converted file gets.

"""


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 2 for a rule that is not there; 65 where one cannot be loaded that is, or may be, asked for."""
    own: Discovered[Any] = all_patterns() if options.nodes else all_transforms()
    if options.markdown:
        print(reference(own.whole()), end="")
        return Exit.OK
    if options.name:
        return _explain(_chosen(options.name, own), as_json=options.json)
    if options.json:
        show_json("explain", [_facts(rule) for rule in own.whole()])
        return Exit.OK
    table([_row(rule) for rule in sorted(own.rules, key=lambda rule: rule.id)])
    for fault in own.faults:
        print(f"patchforge: {fault}", file=sys.stderr)
    return worst(fault.status for fault in own.faults)


def _explain(rule: Rule, *, as_json: bool) -> int:
    if as_json:
        show_json("explain", [_facts(rule)])
    else:
        print(page(rule), end="")
    return Exit.OK


def _chosen(name: str, own: Discovered[Any]) -> Rule:
    rules: tuple[Rule, ...] = own.rules
    if rule := named(name, rules):
        return rule
    both = (all_transforms(), all_patterns())
    every: list[Rule] = [rule for kind in both for rule in kind.rules]
    if rule := named(name, every):
        return rule
    for fault in (fault for kind in both for fault in kind.faults):
        raise fault  # it may be the one that is asked for
    near = difflib.get_close_matches(name, [rule.id for rule in (*rules, *every)], cutoff=0.3)
    raise PatchforgeError(
        f"there is no rule {name}",
        expected=f"a name such as {rules[0].id}",
        found=", ".join(dict.fromkeys(near)) or "nothing like it",
        do="patchforge explain and patchforge packs explain list all",
    )


def _row(rule: Rule) -> tuple[str, ...]:
    if isinstance(rule, Transform):
        return rule.id, rule.purpose.value, rule.opt_in and f"opt-in: {rule.opt_in}", rule.title
    return rule.id, rule.title


def _facts(rule: Rule) -> dict[str, object]:
    facts: dict[str, object] = {"id": rule.id, "title": rule.title, "why": _why(rule), "aliases": rule.aliases}
    if not isinstance(rule, Transform):
        return facts
    spans = {name: [str(span) for span in getattr(rule, name)] for name in ("absent", "upstream")}
    as_they_are = ("issues", "files", "retires", "opt_in", "hooks")
    return {**facts, "patch": rule.purpose.value, **spans, **{name: getattr(rule, name) for name in as_they_are}}


def reference(rules: Sequence[Rule]) -> str:
    """docs/transforms.md or docs/nodes-rules.md."""
    head = _PATTERNS if isinstance(rules[0], Pattern) else _TRANSFORMS
    return head + "\n\n".join(page(rule).rstrip() for rule in sorted(rules, key=lambda rule: rule.id)) + "\n"


def page(rule: Rule) -> str:
    """One rule as Markdown."""
    kind = "pattern" if isinstance(rule, Pattern) else "transform"
    template = templating.environment("explain").get_template(f"{kind}.md.j2")
    examples: Sequence[Example | PackExample] = getattr(rule, "examples", ())
    text = template.render(rule=rule, why=_why(rule), examples=list(map(_shown, examples)))
    return text.rstrip() + "\n"


def _shown(example: Example | PackExample) -> dict[str, Any]:
    """A miniature: what changes, or the whole where nothing does."""
    flags = example.options.flags if isinstance(example, PackExample) else ()
    asked = "".join(f", with `{flag}`" for flag in flags)
    return {"example": example, "asked": asked, "changed": example.after is not None, "lines": list(_lines(example))}


def _lines(example: Example | PackExample) -> Iterator[str]:
    lines = textwrap.dedent(example.before).splitlines()
    if example.after is None:
        yield from lines
    else:
        yield from list(difflib.unified_diff(lines, textwrap.dedent(example.after).splitlines(), lineterm="", n=99))[3:]


def _why(rule: Rule) -> str:
    """The docstring of a rule, from its source, since python -OO keeps none."""
    parsed = ast.parse(textwrap.dedent(inspect.getsource(type(rule)))).body[0]
    return (ast.get_docstring(parsed) or "") if isinstance(parsed, ast.ClassDef) else ""
