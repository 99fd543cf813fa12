"""Evidence of node packs as a page: pack by release, and why. Written between marks into a page that has other text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchforge import bounded, faults, templating
from patchforge.errors import PatchforgeError
from patchforge.outputs import place_of, write_document
from patchforge.trial.model import AS_IT_COMES, CONVERTED, JsonObject, Judgement, TrialSide, TrialVerdict
from patchforge.trial.reports.evidence import Evidence, SessionResult

_BEGIN = b"<!-- begin: "
LOADS = "loads"  #: the test that a pack's nodes are there


@dataclass(frozen=True, slots=True)
class Tried:
    """One test of a pack in one release; None where it was not run."""

    pack: str
    test: str
    release: str
    reference: Judgement | None = None
    as_it_comes: Judgement | None = None
    converted: Judgement | None = None

    @property
    def cell(self) -> str:
        """The verdict as it comes → converted; one where both are the same or nothing is converted."""
        both = [self._short(judgement) for judgement in (self.as_it_comes, self.converted) if judgement is not None]
        return " → ".join(dict.fromkeys(both)) or "-"

    @property
    def reasons(self) -> list[tuple[str, str, str]]:
        """Where, verdict and reason, of each run; of the CPU's only what did not pass."""
        judged = [("CPU", self.reference), (AS_IT_COMES, self.as_it_comes), (CONVERTED, self.converted)]
        return [
            (where, judgement.verdict.value, self._why(judgement))
            for where, judgement in judged
            if judgement is not None
            and not (judgement.passed and (judgement is self.reference or judgement.test == LOADS))
        ]

    def _short(self, judgement: Judgement) -> str:
        """The verdict; how many nodes there are of a pack that loads; whether the CPU does no better."""
        if judgement.passed:
            return judgement.reason if judgement.test == LOADS else judgement.verdict.value
        too = self.reference is not None and self.reference.verdict is judgement.verdict
        return (
            f"{judgement.verdict.value} (CPU too)"
            if too and judgement.verdict is TrialVerdict.FAILED
            else judgement.verdict.value
        )

    def _why(self, judgement: Judgement) -> str:
        """The reason; of the converted pack also whether it left the same bytes as before."""
        before = self.as_it_comes
        same = (
            judgement is self.converted
            and before is not None
            and judgement.digest
            and judgement.digest == before.digest
        )
        return f"{judgement.reason}; the same bytes as it comes" if same else judgement.reason

    @property
    def worse(self) -> bool:
        """Whether the conversion broke it."""
        before, after = self.as_it_comes, self.converted
        return bool(before and after and before.passed and not after.passed)


def tried(evidences: Sequence[Evidence]) -> list[Tried]:
    """Every test of every pack in every release, packs in the order of the first evidence."""
    by_test: dict[tuple[str, str, str], dict[str, Judgement]] = {}
    for evidence in evidences:
        for session, pack in _sessions(evidence):
            state = "reference" if session.side is TrialSide.UPSTREAM else pack["state"]
            for judgement in session.judgements:
                by_test.setdefault((pack["name"], judgement.test, evidence.release), {})[state] = judgement
    return [
        Tried(*place, states.get("reference"), states.get(AS_IT_COMES), states.get(CONVERTED))
        for place, states in by_test.items()
    ]


def markdown(evidences: Sequence[Evidence]) -> str:
    """The tables. PatchforgeError for evidence of several devices, or of other files or patches of one pack."""
    devices = sorted({str(evidence.device) for evidence in evidences})
    if len(devices) != 1:
        raise PatchforgeError(
            "a page is about one device",
            expected="evidence of one",
            found=", ".join(devices),
            do="name the evidence of one",
        )
    lines = tried(evidences)
    rows = _rows(lines, evidences)
    environment = templating.environment("trial")
    return environment.get_template("packs.md.j2").render(
        device=evidences[0].device,
        evidences=evidences,
        versions=_versions(evidences),
        packs=_packs(evidences),
        loads=[row for row in rows if row[1] == LOADS],
        workflows=[row for row in rows if row[1] != LOADS],
        reasons=_reasons(lines),
    )


def write(page: Path, evidences: Sequence[Evidence], inputs: Iterable[Path] = ()) -> None:
    """Puts the tables between the marks of their device, or behind the page's end; all other text stays.

    PatchforgeError for a page that has no marks of any device: it is another page.
    """
    device = str(evidences[0].device)
    begin, end = f"<!-- begin: {device} -->", f"<!-- end: {device} -->"
    text = _text(page)
    block = f"{begin}\n\n{markdown(evidences).strip()}\n\n{end}"
    if text.count(begin) != text.count(end) or text.count(begin) > 1:
        raise PatchforgeError(
            f"{page} cannot be written", expected=f"{begin} and {end}, each once", do="correct the page"
        )
    if begin in text:
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: block, text, flags=re.DOTALL)
    else:
        text = f"{text.rstrip()}\n\n{block}\n".lstrip()
    write_document(page, text.encode(), lambda data: _BEGIN in data, inputs=inputs)


def check(page: Path, inputs: Iterable[Path] = ()) -> None:
    """PatchforgeError where ``write`` would refuse the page that is there."""
    place_of(page, inputs)
    _text(page)


def _text(page: Path) -> str:
    """What the page holds; "" where there is none."""
    try:
        text = bounded.file(page).decode() if page.is_file() else ""
    except UnicodeDecodeError as error:
        raise PatchforgeError(
            f"{page} is not a page", expected="Markdown", found=faults.reason(error), do="name another"
        ) from None
    if text.strip() and _BEGIN.decode() not in text:
        raise PatchforgeError(
            f"{page} is not a page for the tables",
            expected=f"{_BEGIN.decode()} DEVICE --> and <!-- end: DEVICE -->",
            found="no marks",
            do="put the marks where the tables are to be, or name another page",
        )
    return text


def table(evidences: Sequence[Evidence]) -> list[list[str]]:
    """For the terminal: pack, test, and a column for each release."""
    head = ["pack", "test", *(evidence.release for evidence in evidences)]
    return [head, *([pack, test, *cells] for pack, test, cells in _rows(tried(evidences), evidences))]


def _sessions(evidence: Evidence) -> Iterator[tuple[SessionResult, JsonObject]]:
    return ((session, session.facts["pack"]) for session in evidence.sessions if "pack" in session.facts)


def _packs(evidences: Sequence[Evidence]) -> list[JsonObject]:
    """The facts of each pack, whose files and patch must be the same in all releases."""
    packs: dict[str, JsonObject] = {}
    for evidence in evidences:
        for _, facts in _sessions(evidence):
            known = packs.setdefault(facts["name"], facts)
            if any(known[name] != facts[name] for name in ("files", "patch")):
                raise PatchforgeError(
                    f"the evidence is of different states of {facts['name']}",
                    expected="the same files and the same patch in every release",
                    do="run the test again with all releases",
                )
    return list(packs.values())


def _versions(evidences: Sequence[Evidence]) -> list[str]:
    """Of Python and torch, as the servers tell them, and the days of the runs."""
    facts = [session for evidence in evidences for session, _ in _sessions(evidence)]
    named = [
        (name, str(session.facts[name])) for session in facts for name in ("python", "torch") if session.facts.get(name)
    ]
    days = sorted({session.date[:10] for session in facts})
    return [
        *(f"{name} {version}" for name, version in dict.fromkeys(named)),
        " to ".join(dict.fromkeys((days[0], days[-1]))),
    ]


def _rows(lines: Sequence[Tried], evidences: Sequence[Evidence]) -> list[tuple[str, str, list[str]]]:
    """Pack, test, and a cell for each release."""
    cells = {(line.pack, line.test, line.release): line.cell for line in lines}
    places = dict.fromkeys((pack, test) for pack, test, _ in cells)
    return [(*place, [cells.get((*place, evidence.release), "-") for evidence in evidences]) for place in places]


def _reasons(lines: Sequence[Tried]) -> list[tuple[str, str, str, list[str], str, str]]:
    """Pack, test, where, releases, verdict, reason: each reason once, with the releases that it holds for."""
    places = list(dict.fromkeys((line.pack, line.test) for line in lines))
    grouped: dict[tuple[str, ...], list[str]] = {}
    for line in sorted(lines, key=lambda line: places.index((line.pack, line.test))):
        for where, verdict, reason in line.reasons:
            grouped.setdefault((line.pack, line.test, where, verdict, reason), []).append(line.release)
    return [
        (pack, test, where, releases, verdict, why) for (pack, test, where, verdict, why), releases in grouped.items()
    ]
