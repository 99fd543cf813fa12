"""Evidence for people to read: rows for the terminal, Markdown, and one HTML file without scripts."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchforge import bounded, templating
from patchforge.errors import PatchforgeError
from patchforge.escape import markdown as markdown_of
from patchforge.escape import seen, uncoloured
from patchforge.outputs import check_document, has_mark, is_marked, mark, marked, update_folder, write_document
from patchforge.trial.model import Judgement, TrialSide, TrialVerdict
from patchforge.trial.reports import summary
from patchforge.trial.reports.evidence import EVIDENCE, Evidence

if TYPE_CHECKING:
    import jinja2

EMULATED = "emulated XPU: evidence about code, not about hardware"
MARKDOWN, HTML = "report.md", "report.html"

_PICTURES = {"result": "result", "reference": "the CPU's", "difference": "difference, amplified"}

Picture = Callable[[str], bytes]  #: a picture by its name in the evidence

_BEFORE = re.compile(
    rb"# ComfyUI [^\n]*, tested\r?\n|\s*<!DOCTYPE html>\s+<html lang=\"en\">\s+<head>.{,400}<title>ComfyUI ", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One test of a release, patched beside upstream; None where it was not run."""

    release: str
    session: str
    test: str
    patched: Judgement | None
    upstream: Judgement | None

    @property
    def sides(self) -> list[tuple[str, Judgement]]:
        """The judgements that there are."""
        both = ((TrialSide.PATCHED, self.patched), (TrialSide.UPSTREAM, self.upstream))
        return [(side.value, judgement) for side, judgement in both if judgement]


def rows(evidence: Evidence) -> list[ReportRow]:
    """Every test of a release, in the order of the sessions."""
    by_test: dict[tuple[str, str], dict[TrialSide, Judgement]] = {}
    for session in evidence.sessions:
        for judgement in session.judgements:
            by_test.setdefault((session.name, judgement.test), {})[session.side] = judgement
    return [
        ReportRow(evidence.release, *place, sides.get(TrialSide.PATCHED), sides.get(TrialSide.UPSTREAM))
        for place, sides in by_test.items()
    ]


def only_patched(evidence: Evidence) -> list[ReportRow]:
    """Tests that the patched tree passes and that were run on upstream's tree and did not pass there."""
    return [row for row in rows(evidence) if _passed(row.patched) and _did_not_pass(row.upstream)]


def only_upstream(evidence: Evidence) -> list[ReportRow]:
    """The other way round: what the patches would have broken."""
    return [row for row in rows(evidence) if _passed(row.upstream) and _did_not_pass(row.patched)]


def table(evidences: Sequence[Evidence]) -> list[list[str]]:
    """For the terminal. One release: a line for each test. Several: a line for each release, with counts."""
    if len(evidences) == 1:
        lines = [
            ["session", "test", "patched", "upstream", "seconds", "why"],
            *(_line(row) for row in rows(evidences[0])),
        ]
        return lines if any(line[3] != "-" for line in lines[1:]) else [[*line[:3], *line[4:]] for line in lines]
    head = ["release", "patched", "upstream", "only patched passes", "only upstream passes"]
    return [head, *([evidence.release, *_counts(evidence)] for evidence in evidences)]


def markdown(evidences: Sequence[Evidence]) -> str:
    """For one release with links to its pictures, which lie beside it; for several the matrix."""
    environment = _environment(autoescape=False)
    return environment.get_template("report.md.j2").render(_context(evidences))


def html(evidences: Sequence[Evidence], picture: Picture | None = None) -> str:
    """One file. ``picture`` gives the bytes of a release's pictures, which are put into it; not used for several."""
    environment = _environment(autoescape=True)
    embedded = (lambda name: _data_uri(name, picture(name))) if picture and len(evidences) == 1 else None
    return environment.get_template("report.html.j2").render(_context(evidences), picture=embedded)


def write(folder: Path, evidences: Sequence[Evidence]) -> None:
    """Writes report.md and report.html. For one release the folder is that of its evidence, with its pictures."""
    if len(evidences) == 1:
        made = {MARKDOWN: markdown(evidences), HTML: html(evidences, lambda name: bounded.file(folder / name))}
        update_folder(folder, EVIDENCE, lambda files: {**files, **{name: text.encode() for name, text in made.items()}})
        return
    for name in (MARKDOWN, HTML):
        check_document(folder / name, _is_ours)
    for name, text in ((MARKDOWN, markdown(evidences)), (HTML, html(evidences))):
        write_document(folder / name, marked(f"{text.rstrip()}\n<!-- {mark()} -->\n"), _is_ours)


def _is_ours(data: bytes) -> bool:
    """Reports of earlier versions have no mark."""
    return is_marked(data) if has_mark(data) else bool(_BEFORE.match(data))


def limits(evidences: Sequence[Evidence]) -> list[str]:
    """What the runs do not prove."""
    device = evidences[0].device
    sessions = [session for evidence in evidences for session in evidence.sessions]
    said = [
        "Models are tiny, their weights random: nothing about picture quality, or about real models' speed and memory."
    ]
    if device.emulated:
        said.append(
            "Nothing ran on Intel hardware. The CPU's kernels computed everything: nothing about Intel's kernels, "
            "drivers, oneDNN, SYCL, Triton, asynchrony or speed. The device's memory is a model: it shows how code "
            "reacts, not what fits."
        )
        if any("coverage=refuse" not in session.device.options.split(";") for session in sessions):
            said.append("Operators that Intel hardware lacks were not refused (no coverage=refuse).")
    elif device.kind == "cpu":
        said.append("The CPU computed everything: nothing about any GPU.")
    else:
        said.append("It holds for this device, this driver and these versions.")
    if device.kind == "xpu" and not device.emulated:
        said.append("How far results may be from the reference was not tuned on Intel hardware.")
    judgements = [judgement for session in sessions for judgement in session.judgements]
    if alone := sum(
        judgement.verdict is TrialVerdict.FRESH and judgement.difference is None for judgement in judgements
    ):
        said.append(f"{alone} fresh result(s) were compared with nothing: that they are right is not shown.")
    if all(session.side is not TrialSide.UPSTREAM for session in sessions):
        said.append("Upstream's tree was not run: what the patches change is not shown.")
    return said


def clean(text: str) -> str:
    """A line of a log, without its colours and line end."""
    return seen(uncoloured(text).rstrip("\r\n")).replace("\n", "\\n")


def plain(text: str) -> str:
    """``clean``, with every run of blanks as one: text of several lines on one."""
    return " ".join(seen(uncoloured(text)).split())


def _passed(judgement: Judgement | None) -> bool:
    return judgement is not None and judgement.passed


def _did_not_pass(judgement: Judgement | None) -> bool:
    return judgement is not None and not judgement.passed and judgement.verdict is not TrialVerdict.SKIPPED


def _line(row: ReportRow) -> list[str]:
    verdicts = [judgement.verdict.value if judgement else "-" for judgement in (row.patched, row.upstream)]
    told = row.patched or row.upstream
    seconds = f"{told.seconds:.1f}" if told and told.seconds else ""
    return [plain(row.session), plain(row.test), *verdicts, seconds, _why(row)]


def _why(row: ReportRow) -> str:
    """The patched tree's reason, and upstream's where its verdict is another."""
    reasons = [(side, judgement) for side, judgement in row.sides]
    if len({judgement.verdict for _, judgement in reasons}) == 1:
        reasons = reasons[:1]
    told = [
        plain(judgement.reason) if side == "patched" else f"{side}: {plain(judgement.reason)}"
        for side, judgement in reasons
    ]
    return "; ".join([*told, *(["the same bytes as upstream"] if _same(row) else [])])


def _same(row: ReportRow) -> bool:
    """Whether both trees left the same bytes."""
    digests = {judgement.digest for _, judgement in row.sides}
    return len(row.sides) == len(TrialSide) and len(digests) == 1 and digests != {""}


def _by_session(evidence: Evidence) -> list[tuple[str, list[ReportRow]]]:
    grouped: dict[str, list[ReportRow]] = {}
    for row in rows(evidence):
        grouped.setdefault(row.session, []).append(row)
    return list(grouped.items())


def _counts(evidence: Evidence) -> list[str]:
    """Passes of each side, and of each side alone; a reference's sessions, which run on the CPU, are not counted."""
    tested = {session.name for session in evidence.sessions if session.device.kind == evidence.device.kind}
    lines = [row for row in rows(evidence) if row.session in tested]
    sides = [[row.patched for row in lines if row.patched], [row.upstream for row in lines if row.upstream]]
    return [*map(_passes, sides), str(len(only_patched(evidence))), str(len(only_upstream(evidence)))]


def _passes(judgements: Sequence[Judgement]) -> str:
    """How many passed of those that ran."""
    ran = [judgement for judgement in judgements if judgement.verdict is not TrialVerdict.SKIPPED]
    return f"{sum(judgement.passed for judgement in ran)} of {len(ran)}" if ran else "-"


def _context(evidences: Sequence[Evidence]) -> dict[str, Any]:
    devices = {str(evidence.device) for evidence in evidences}
    if len(devices) != 1:
        raise PatchforgeError(
            "a report is about one device",
            expected="evidence of one",
            found=", ".join(sorted(devices)),
            do="name the evidence of one",
        )
    lines = [row for evidence in evidences for row in rows(evidence)]
    better = [row for evidence in evidences for row in only_patched(evidence)]
    worse = [row for evidence in evidences for row in only_upstream(evidence)]
    return {
        "evidences": evidences,
        "headline": summary.headline(evidences),
        "how_well": summary.how_well(evidences, len(better), len(worse)),
        "surroundings": summary.surroundings(evidences),
        "failing": summary.failing(evidences),
        "upstream_ran": summary.both_ran(evidences),
        "explained": _explained(lines),
        "tally": _tally(lines),
        "device": evidences[0].device,
        "marked": EMULATED if evidences[0].device.emulated else "real hardware",
        "names": sorted({name for evidence in evidences for name in _device_names(evidence)}),
        "limits": limits(evidences),
        "skipped": _skipped(lines),
        "counts": [(evidence, *_counts(evidence)) for evidence in evidences],
        "groups": {evidence.release: _by_session(evidence) for evidence in evidences},
        "same": _same,
        "what": lambda name: _PICTURES.get(name.rpartition("-")[2].partition(".")[0], name),
        "rows": {evidence.release: rows(evidence) for evidence in evidences},
        "why": _why,
        "matrix": _matrix(lines, [evidence.release for evidence in evidences]),
        "only_patched": _alike(better, TrialSide.UPSTREAM),
        "only_upstream": _alike(worse, TrialSide.PATCHED),
        "facts": lambda session: list(_flat(session.facts)),
    }


def _explained(lines: Sequence[ReportRow]) -> list[tuple[TrialVerdict, str]]:
    """The verdicts that the report shows, with what they mean."""
    shown = {judgement.verdict for row in lines for _, judgement in row.sides}
    return [(verdict, text) for verdict, text in summary.EXPLAINED.items() if verdict in shown]


def _tally(lines: Sequence[ReportRow]) -> list[tuple[TrialVerdict, int]]:
    """How often the patched tree got each verdict; upstream's where no other ran."""
    patched = Counter(row.patched.verdict for row in lines if row.patched)
    counts = patched or Counter(row.upstream.verdict for row in lines if row.upstream)
    return [(verdict, counts[verdict]) for verdict in summary.EXPLAINED if counts[verdict]]


def _skipped(lines: Sequence[ReportRow]) -> dict[str, list[str]]:
    """Reason → what was skipped for it, most frequent first."""
    places: dict[str, dict[str, None]] = {}
    for row in lines:
        for _, judgement in row.sides:
            if judgement.verdict is TrialVerdict.SKIPPED:
                places.setdefault(judgement.reason, {})[f"{row.release} {row.session}/{row.test}"] = None
    counts = Counter({reason: len(names) for reason, names in places.items()})
    return {reason: list(places[reason]) for reason, _ in counts.most_common()}


def _matrix(lines: Sequence[ReportRow], releases: Sequence[str]) -> list[tuple[str, str, list[ReportRow | None]]]:
    """Session, test, and the row of each release."""
    by_test: dict[tuple[str, str], dict[str, ReportRow]] = {}
    for row in lines:
        by_test.setdefault((row.session, row.test), {})[row.release] = row
    return [(*place, [by_release.get(name) for name in releases]) for place, by_release in by_test.items()]


def _alike(lines: Sequence[ReportRow], failing: TrialSide) -> list[tuple[list[str], ReportRow, Judgement]]:
    """For each test and verdict of the ``failing`` side: its releases, and the row and judgement of the first."""
    grouped: dict[tuple[str, str, TrialVerdict], list[ReportRow]] = {}
    for row in lines:
        grouped.setdefault((row.session, row.test, dict(row.sides)[failing].verdict), []).append(row)
    return [([row.release for row in same], same[0], dict(same[0].sides)[failing]) for same in grouped.values()]


def _device_names(evidence: Evidence) -> Iterator[str]:
    for session in evidence.sessions:
        yield from (text for name, text in _flat(session.facts) if name.split(".")[-1] == "name")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """``devices.0.name`` and its text, for every value in facts."""
    inner: Mapping[Any, Any] | None = None
    if isinstance(value, Mapping):
        inner = value
    elif isinstance(value, list | tuple):
        inner = dict(enumerate(value))
    if inner is None:
        yield name, str(value)
    else:
        for key, each in inner.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key))


def _data_uri(name: str, data: bytes) -> str:
    """Of a picture, as CSP and the browser take it: only of the formats that a trial makes."""
    return f"data:image/{'webp' if name.endswith('.webp') else 'png'};base64,{base64.b64encode(data).decode()}"


def _environment(*, autoescape: bool) -> jinja2.Environment:
    environment = templating.environment("trial", autoescape=autoescape)
    environment.filters.update(plain=plain, clean=clean, cell=lambda text: markdown_of(plain(str(text))))
    return environment
