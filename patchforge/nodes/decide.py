"""What becomes of each site of a file: decided by its place, by a rule, or by the test that it stands behind."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from patchforge.effort import spend
from patchforge.nodes import exempt
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import Operands, decisions, guarded, operands, presence, question
from patchforge.nodes.cuts import cut_names, given_to, kept_as
from patchforge.nodes.libraries import foreign
from patchforge.nodes.openings import leads_to_kernels, opened
from patchforge.nodes.shapes import below, test_around
from patchforge.pattern import Kind, PackFacts, Site, Verdict, left, person
from patchforge.rules import patterns
from patchforge.vocabulary import Decision


def decide(code: Code, around: PackFacts) -> dict[Site, Verdict]:
    """A verdict on every site: by its place, by a rule, by the test it stands behind, else for a person."""
    verdicts: dict[Site, Verdict] = {}
    for site in around.sites:
        if verdict := exempt.by_place(site, code) or foreign(site, code, around.foreign):
            verdicts[site] = verdict
    for site in around.sites:
        if site not in verdicts and leads_to_kernels(site, code, around.elsewhere):
            verdicts[site] = _led(site)
    kept = {site for site, verdict in verdicts.items() if not verdict.runs_on_xpu}
    for rule in patterns():
        for site in around.sites:
            if site not in verdicts and (verdict := rule.verdict(site, code, around)):
                if verdict.decision is Decision.CONVERTED and not kept.isdisjoint(verdict.sites):
                    continue  # half a choice is none
                verdict = replace(verdict, rule=rule.id)
                verdicts.update({claimed: verdict for claimed in verdict.sites if claimed not in verdicts})
    verdicts |= _cut(verdicts, code, around)
    open_ = [site for site in around.sites if site not in verdicts]
    for site in sorted(open_, key=lambda site: _turn(site, code)):
        _on_test(site, code, around, verdicts, ())
    verdicts = _agreed(verdicts | _cut(verdicts, code, around))
    staying = [
        stay
        for gate, verdict in verdicts.items()
        if verdict.decision is not Decision.CONVERTED
        for stay in _staying(gate, verdict, code)
    ]
    return {site: _behind(site, verdicts[site], staying, code) for site in around.sites}


def _led(site: Site) -> Verdict:
    if site.kind is Kind.AVAILABLE:
        return person([site], "an arm for XPUs, without the flags that lead to CUDA's kernels or libraries")
    return left([site], "its answer leads to CUDA's kernels or libraries")


_MOST_WAITING = 16


def _on_test(
    site: Site, code: Code, around: PackFacts, verdicts: dict[Site, Verdict], waiting: tuple[Site, ...]
) -> None:
    """Decides about a site, and before that about what its verdict needs to know. ``waiting``: whose turn it was."""
    if site in verdicts or site in waiting:
        return
    if len(waiting) < _MOST_WAITING:
        for needed in _needed(site, code, around):
            _on_test(needed, code, around, verdicts, (*waiting, site))
    for rule in patterns():
        if verdict := rule.verdict_on_test(site, code, around, verdicts):
            verdict = replace(verdict, rule=rule.id)
            verdicts |= dict.fromkeys((site, *verdict.sites), verdict)
            return
    verdicts[site] = person([site], "say what this means on an XPU")


def _needed(site: Site, code: Code, around: PackFacts) -> Iterator[Site]:
    """What a call of ``torch.cuda`` opens; for a question inside of an expression, the calls that it guards."""
    if (trail := opened(site, code, around.elsewhere)) is not None:
        yield from trail.inside(around.sites)
    elif (asked := question(site, code)) is not None:
        test, both = test_around(asked, code), operands(asked, code)
        gate = test[0] if test else both.node if both else None
        if isinstance(gate, ast.expr):
            yield from (place for place in below(gate, around.sites, code) if place.kind is Kind.API)


def _cut(verdicts: dict[Site, Verdict], code: Code, around: PackFacts) -> dict[Site, Verdict]:
    """A device that the pack cuts by the length of CUDA's name is for a person, with all that is converted with it."""
    lines = cut_names(code)
    if not lines and not around.cuts:
        return {}
    found: dict[int, str] = {}
    for site, verdict in verdicts.items():
        if verdict.decision is Decision.CONVERTED and site.kind is Kind.LITERAL and verdict.splices:
            for name in sorted(kept_as(site.node, code) & lines.keys()):
                found[id(verdict)] = f"line {lines[name]} counts on the length of CUDA's name in {name}"
            called, given = given_to(site.node, code)
            if not given.isdisjoint(around.cuts.get(called, ())):
                found[id(verdict)] = f"{called} counts on the length of CUDA's name"
    return {
        site: for_person(verdict, site, found[id(verdict)])
        for site, verdict in verdicts.items()
        if id(verdict) in found
    }


def _agreed(verdicts: dict[Site, Verdict]) -> dict[Site, Verdict]:
    """A choice that is only half converted is for a person: what it leads to must be ready for an XPU too."""
    while broken := {
        site: for_person(verdict, site, f"{verdict.otherwise} (line {apart.line})")
        for site, verdict in verdicts.items()
        if verdict.decision is Decision.CONVERTED
        and (apart := next((needed for needed in verdict.together if not _ready(needed, verdicts)), None)) is not None
    }:
        verdicts = verdicts | broken
    return verdicts


def _ready(site: Site, verdicts: Mapping[Site, Verdict]) -> bool:
    return site not in verdicts or verdicts[site].runs_on_xpu


def _turn(site: Site, code: Code) -> tuple[int, int, int, bool]:
    """Innermost tests first, of neighbours the last, and in one test the device before its availability.

    So what stands behind a test has its verdict, also where that follows a way out. Answers with a name come last.
    """
    asked = question(site, code)
    test = test_around(asked, code) if asked is not None else None
    opens = asked is None and site.kind is Kind.API  # what its statement holds, and what follows that
    gate = test[0] if test else code.statement(site.node) if opens else site.node
    depth = sum(1 for _ in code.above(gate))
    kind = 1 if test or opens else 0 if asked is None else 2
    return kind, -depth, -code.span(gate)[0], site.kind in (Kind.AVAILABLE, Kind.OWN_QUESTION)


@dataclass(frozen=True, slots=True)
class _Stay:
    """A test for CUDA that stays, and what runs only where it holds: ranges of numbers (see ``Code``)."""

    gate: Site
    left: bool
    test: tuple[int, int]
    guarded: tuple[int, int]


def _staying(gate: Site, verdict: Verdict, code: Code) -> Iterator[_Stay]:
    asked = question(gate, code) or presence(gate, code)
    if asked is None:
        return
    left_there = verdict.decision is Decision.LEFT
    if (both := operands(asked, code)) is not None:
        inside = code.span(both.body[0])[0], code.span(both.body[-1])[1]
        yield _Stay(gate, left_there, code.span(both.node), inside)
    for branch, positive in decisions(asked, code) if test_around(asked, code) else ():
        if not isinstance(branch, Operands) and (parts := guarded(branch, code, positive=positive)):
            inside = code.span(parts[0])[0], code.span(parts[-1])[1]  # neighbours in one block
            yield _Stay(gate, left_there, code.span(branch), inside)


def _behind(site: Site, verdict: Verdict, staying: Sequence[_Stay], code: Code) -> Verdict:
    """What stands behind a test for CUDA that stays, stays with it; also behind one that leaves the block."""
    if verdict.decision is Decision.LEFT or len(verdict.sites) > 1:
        return verdict
    spend(1 + len(staying) // 4)
    at = code.span(site.node)[0]
    for stay in staying:
        if stay.gate is site or not stay.guarded[0] <= at <= stay.guarded[1]:
            continue
        reason = f"in an arm for CUDA that stays as it is (line {stay.gate.line})"
        if stay.left:
            return replace(left([site], reason), rule=verdict.rule)
        if stay.test[0] <= at <= stay.test[1] and verdict.decision is Decision.CONVERTED:
            return for_person(verdict, site, reason)
    return verdict


def for_person(verdict: Verdict, site: Site, reason: str) -> Verdict:
    """What takes the place of a verdict that does not hold for a site."""
    return replace(person([site], reason), rule=verdict.rule)
