"""Reports say first what they are evidence of, count from the evidence alone, and show any text as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchforge.errors import PatchforgeError
from patchforge.escape import markdown
from patchforge.trial.model import Device, ImageDifference, Judgement, NodeStep, TrialSide, TrialVerdict
from patchforge.trial.reports import report, summary
from patchforge.trial.reports.evidence import Evidence, SessionResult, picture_name, save
from tests.support import ROOT
from tests.trial.examples import CPU, EMULATED, PICTURE, REAL, evidence, judgement, session

HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> \"q\" 's' | pipe `code` "
    "**bold** [a](http://b) &amp; {{ 7*7 }}"
)
CONTROL = "a\x1b[31mred\x1b[0m\rb\nc\u2028d\x00e\u202ef"


def of(name: str, patched: TrialVerdict | None, upstream: TrialVerdict | None, release: str = "v0.32.0") -> Evidence:
    sides = [(TrialSide.PATCHED, patched), (TrialSide.UPSTREAM, upstream)]
    return evidence(*(session(side, judgement(name, verdict)) for side, verdict in sides if verdict), release=release)


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("release", ["v0.32.0", "v0.33.0"])
@pytest.mark.parametrize("render", [report.markdown, lambda evidences: Page(report.html(evidences)).text])
def test_the_first_lines_say_what_it_is_evidence_of(render: object, release: str) -> None:
    skipped = judgement("controlnet", TrialVerdict.SKIPPED, "the release has no node ControlNetLoader")
    evidences = [evidence(session(TrialSide.PATCHED, skipped))]
    if release != "v0.32.0":
        evidences.append(evidence(session(TrialSide.PATCHED, judgement()), release=release))
    head = render(evidences).split("What only the patched tree passes")[0]  # type: ignore[operator]
    for text in (
        "emulated XPU: evidence about code, not about hardware",
        "emulated:b580",
        "Arc(TM) B580",
        "1, because the release has no node ControlNetLoader: v0.32.0 workflows/controlnet",
        "Nothing ran on Intel hardware.",
        "Upstream's tree was not run",
    ):
        assert text in head


@pytest.mark.parametrize(
    ("device", "said", "not_said"),
    [
        (EMULATED, "Nothing ran on Intel hardware", "not tuned"),
        (REAL, "not tuned on Intel hardware", "Nothing ran"),
        (Device("cuda"), "this driver", "Intel"),
        (CPU, "nothing about any GPU", "driver"),
    ],
)
def test_what_is_not_shown_depends_on_the_device(device: Device, said: str, not_said: str) -> None:
    limits = " ".join(report.limits([evidence(session(TrialSide.UPSTREAM, device=device), device=device)]))
    assert said in limits
    assert not_said not in limits


def test_what_is_not_shown_depends_on_what_was_run() -> None:
    compared = judgement("a", difference=ImageDifference(0, 0))
    assert "compared with nothing" not in " ".join(report.limits([evidence(session(TrialSide.PATCHED, compared))]))
    limits = " ".join(report.limits([evidence(session(TrialSide.PATCHED, compared, judgement("b"), judgement("c")))]))
    assert "2 fresh result(s) were compared with nothing" in limits
    assert "no coverage=refuse" in limits
    strict = Device("xpu", "b580", "rng=cpu;coverage=refuse")
    assert "coverage" not in " ".join(report.limits([evidence(session(TrialSide.UPSTREAM, device=strict))]))


PASSED = {TrialVerdict.PASSED, TrialVerdict.FRESH}


@given(st.sampled_from([None, *TrialVerdict]), st.sampled_from([None, *TrialVerdict]))
@settings(deadline=None)
def test_only_patched_passes_what_upstream_ran_and_did_not_pass(
    patched: TrialVerdict | None, upstream: TrialVerdict | None
) -> None:
    effect = of("free-memory", patched, upstream)
    worse = set(TrialVerdict) - PASSED - {TrialVerdict.SKIPPED}
    assert bool(report.only_patched(effect)) == (patched in PASSED and upstream in worse)
    assert bool(report.only_upstream(effect)) == (upstream in PASSED and patched in worse)


def section(text: str, title: str) -> str:
    return text.partition(f"{title}\n")[2].partition("## ")[0]


def test_both_lists_are_in_the_report_and_empty_ones_say_so() -> None:
    better, worse = (
        of("oom", TrialVerdict.PASSED, TrialVerdict.FAILED),
        of("api", TrialVerdict.CACHED, TrialVerdict.PASSED, "v0.33.0"),
    )
    text = report.markdown([better, worse])
    assert "v0.32.0 workflows/oom: upstream is failed, why" in section(text, "What only the patched tree passes")
    assert "v0.33.0 workflows/api: patched is cached, why" in section(text, "What only upstream's tree passes")
    both = report.markdown([better, of("oom", TrialVerdict.PASSED, TrialVerdict.FAILED, "v0.33.0")])
    assert "v0.32.0, v0.33.0 workflows/oom: upstream is failed, why (the first)" in section(
        both, "What only the patched tree passes"
    )
    equal = report.markdown([of("api", TrialVerdict.PASSED, TrialVerdict.PASSED)])
    assert section(equal, "What only the patched tree passes").strip() == "Nothing."
    assert section(equal, "What only upstream's tree passes").strip() == "Nothing."


def test_the_terminal_shows_a_test_per_line_with_both_sides() -> None:
    told = judgement("t", TrialVerdict.CPU_FALLBACK, CONTROL)
    both = evidence(session(TrialSide.PATCHED, told), session(TrialSide.UPSTREAM, judgement("t"), judgement("u")))
    assert report.table([both]) == [
        ["session", "test", "patched", "upstream", "seconds", "why"],
        ["workflows", "t", "cpu_fallback", "fresh", "1.5", "ared\\x0db c\\u2028d\\x00e\\u202ef; upstream: why"],
        ["workflows", "u", "-", "fresh", "1.5", "upstream: why"],
    ]


def test_the_terminal_counts_when_there_are_several_releases() -> None:
    skipped = judgement("c", TrialVerdict.SKIPPED)
    older = evidence(
        session(TrialSide.PATCHED, judgement("a"), judgement("b"), skipped),
        session(TrialSide.UPSTREAM, judgement("a"), judgement("b", TrialVerdict.FAILED), skipped),
    )
    newer = evidence(session(TrialSide.PATCHED, judgement("a", TrialVerdict.FAILED)), release="v0.33.0")
    assert report.table([older, newer])[1:] == [
        ["v0.32.0", "2 of 2", "1 of 2", "1", "0"],
        ["v0.33.0", "0 of 1", "-", "0", "0"],
    ]


def test_the_reference_is_no_test_of_upstream() -> None:
    reference = session(TrialSide.UPSTREAM, judgement("a"), name="reference", device=CPU)
    alone = evidence(session(TrialSide.PATCHED, judgement("a")), reference)
    assert report.table([alone, alone])[1] == ["v0.32.0", "1 of 1", "-", "0", "0"]


def test_several_releases_make_a_matrix() -> None:
    text = report.markdown(
        [
            of("a", TrialVerdict.FRESH, TrialVerdict.FAILED),
            of("a", TrialVerdict.CAPACITY, None, "v0.33.0"),
            of("b", None, TrialVerdict.FRESH, "v1.0.0"),
        ]
    )
    assert "| session | test | v0.32.0 | v0.33.0 | v1.0.0 |\n|---|---|---|---|---|\n" in text
    assert "| workflows | a | fresh / failed | capacity / - | |\n" in text
    assert "| workflows | b | | | - / fresh |\n" in text


def test_a_report_is_about_one_device() -> None:
    with pytest.raises(PatchforgeError, match="one device"):
        report.markdown([evidence(), evidence(device=REAL)])


def hostile(text: str) -> Evidence:
    """The text wherever the tested program or a workflow could put one."""
    steps = (NodeStep(text, text, False, 3, 1),)
    judged = Judgement(text, TrialVerdict.FAILED, text, 1, steps, log=(text, "```", f"</pre>{text}"))
    result = session(
        TrialSide.PATCHED, judged, name=text, arguments=(text,), facts={text: {"name": text}}, versions={text: text}
    )
    skipped = session(TrialSide.UPSTREAM, judgement(text, TrialVerdict.SKIPPED, text), name=text)
    return evidence(result, skipped, release=text)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("text", [HOSTILE, CONTROL])
def test_html_shows_hostile_text_as_text(text: str, several: bool) -> None:
    evidences = [hostile(text), evidence(release="v0.33.0")][: 2 if several else 1]
    page = Page(report.html(evidences))
    usual = Page(report.html([hostile("harmless"), evidence(release="v0.33.0")][: 2 if several else 1]))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in usual.tags]
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    if text is HOSTILE:
        assert text in page.text


def test_html_fetches_nothing() -> None:
    text = report.html([of("a", TrialVerdict.FRESH, TrialVerdict.FAILED)])
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|url\(|@import|<link|<script", text)
    assert "prefers-color-scheme: dark" in text


def test_markdown_tables_keep_their_columns_whatever_the_text() -> None:
    for text in (HOSTILE, CONTROL):
        lines = report.markdown([hostile(text)]).splitlines()
        tables = [line for line in lines if line.startswith("|")]
        bars = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
        assert set(bars[:-6]) == {3}
        assert bars[-6:] == [7, 7, 7, 6, 6, 6]


@given(st.text(max_size=40))
@settings(deadline=None)
def test_markdown_has_no_markup_of_the_text(text: str) -> None:
    cell = markdown(text)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*\[\]<>|~]", cell)
    assert "\n" not in cell


def test_markdown_logs_are_code_that_nothing_ends() -> None:
    lines = report.markdown([hostile(HOSTILE)]).splitlines()
    assert "    ```" in lines
    assert f"    </pre>{HOSTILE}" in lines
    assert all(line.startswith("    ") for line in lines if "<script>" in line.replace("\\<", ""))


def with_picture(folder: Path) -> Evidence:
    name = picture_name(TrialSide.PATCHED, "workflows", "txt2img", "result", PICTURE)
    pictured = evidence(session(TrialSide.PATCHED, judgement(images=(name,), difference=ImageDifference(0, 0))))
    save(folder, pictured, {name: PICTURE})
    return pictured


def test_written_reports_have_the_pictures(tmp_path: Path) -> None:
    pictured = with_picture(tmp_path)
    report.write(tmp_path, [pictured])
    images = [
        attributes for tag, attributes in Page((tmp_path / "report.html").read_text("utf-8")).tags if tag == "img"
    ]
    assert [str(image["src"])[:22] for image in images] == ["data:image/png;base64,"]
    assert "](images/patched/workflows/txt2img-result.png)" in (tmp_path / "report.md").read_text("utf-8")


def test_the_report_of_several_releases_points_to_the_pictures(tmp_path: Path) -> None:
    pictured = with_picture(tmp_path / "one")
    report.write(tmp_path, [pictured, evidence(release="v0.33.0")])
    assert "<img" not in (tmp_path / "report.html").read_text("utf-8")
    assert "](images" not in (tmp_path / "report.md").read_text("utf-8")


def test_the_same_bytes_as_upstream_are_told() -> None:
    def told(ours: str, theirs: str) -> str:
        sides = [
            session(side, replace(judgement(), digest=digest))
            for side, digest in ((TrialSide.PATCHED, ours), (TrialSide.UPSTREAM, theirs))
        ]
        return report.markdown([evidence(*sides)])

    assert "the same bytes as upstream" in told("a", "a")
    assert "the same bytes as upstream" not in told("a", "b")
    assert "the same bytes as upstream" not in told("", "")


def first(*sessions: SessionResult, device: Device = EMULATED) -> str:
    return " ".join(summary.headline([evidence(*sessions, device=device)]))


STEPS = (NodeStep("3", "KSampler", cached=False, operations=100, seconds=0.1),)


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ((TrialVerdict.FRESH, TrialVerdict.PASSED), "runs ComfyUI v0.32.0: all 2 tests pass."),
        ((TrialVerdict.FRESH, TrialVerdict.FAILED), "runs ComfyUI v0.32.0 in part: 1 of 2 tests pass. Failed: t1."),
        (
            (TrialVerdict.CPU_FALLBACK, TrialVerdict.PASSED),
            "does not run ComfyUI v0.32.0: 1 of 2 tests pass. Failed: t0.",
        ),
        ((TrialVerdict.FRESH, TrialVerdict.SKIPPED), "runs ComfyUI v0.32.0: 1 of 1 tests pass."),
        ((TrialVerdict.SKIPPED,), "Nothing was run of ComfyUI v0.32.0 on an emulated Intel Arc B580 Graphics."),
    ],
)
def test_the_first_line_says_whether_it_works(verdicts: Sequence[TrialVerdict], said: str) -> None:
    ran = session(
        TrialSide.PATCHED, *(judgement(f"t{number}", verdict, steps=STEPS) for number, verdict in enumerate(verdicts))
    )
    assert first(ran).removeprefix("An emulated Intel Arc B580 Graphics ") == said
    for text in (Page(report.html([evidence(ran)])).text.partition("h4 {")[2], report.markdown([evidence(ran)])):
        shown = " ".join(text.split())
        assert said.partition(" Failed")[0] in shown[: shown.index("emulated XPU")]


def test_a_real_device_is_named_as_it_names_itself() -> None:
    ran = session(TrialSide.PATCHED, judgement(), device=REAL)
    assert first(ran, device=REAL).startswith("Intel Arc B580 Graphics runs ComfyUI v0.32.0")
    nameless = session(TrialSide.PATCHED, judgement(), device=REAL, facts={})
    assert first(nameless, device=REAL).startswith("Xpu runs")


def test_many_failures_are_counted() -> None:
    ran = session(TrialSide.PATCHED, *(judgement(f"t{number}", TrialVerdict.FAILED) for number in range(8)))
    assert first(ran).endswith("Failed: t0, t1, t2, t3, t4, t5, and 2 more.")


def test_what_it_was_seen_on_is_of_the_patched_tree() -> None:
    ours = session(
        TrialSide.PATCHED, judgement(), facts={"python": "3.12.1", "devices": [{"driver": "1.6", "total": 6 << 30}]}
    )
    theirs = session(TrialSide.UPSTREAM, judgement(), facts={"devices": [{"driver": "another"}]})
    seen = dict(summary.surroundings([evidence(ours, theirs)]))
    assert (seen["driver"], seen["memory"], seen["torch"], seen["Python"]) == ("1.6", "6.0 GiB", "2.13.0", "3.12.1")
    assert seen["device"] == "emulated:b580"
    assert dict(summary.surroundings([evidence(ours, device=Device("xpu"))]))["device"] == "xpu (real)"


def test_results_are_counted_against_the_cpu_and_upstream() -> None:
    equal, other = (judgement(name, difference=ImageDifference(level, 0)) for name, level in (("a", 0), ("b", 3)))
    alone = [evidence(session(TrialSide.PATCHED, equal, other))]
    assert summary.how_well(alone, 0, 0) == ["Of 2 results that were compared with the CPU's, 1 are equal."]
    both = [
        evidence(session(TrialSide.PATCHED, equal), session(TrialSide.UPSTREAM, judgement("a", TrialVerdict.FAILED)))
    ]
    assert summary.how_well(both, 1, 0)[-1] == "Tests that pass only with the patches: 1; only without them: 0."


@pytest.mark.parametrize("render", [report.markdown, report.html])
def test_upstream_has_a_column_only_where_it_ran(render: Callable[[Sequence[Evidence]], str]) -> None:
    reference = session(TrialSide.UPSTREAM, judgement("a"), name="reference", device=CPU)
    alone = render([evidence(session(TrialSide.PATCHED, judgement("a")), reference)])
    beside = render([of("a", TrialVerdict.FRESH, TrialVerdict.FAILED)])
    for words in ("upstream passes", "What only upstream"):
        assert words not in alone
        assert words in beside
    assert report.table([evidence(session(TrialSide.PATCHED, judgement("a")))])[0] == [
        *("session", "test", "patched", "seconds", "why")
    ]


def test_verdicts_are_explained_where_they_are_shown_and_in_the_docs() -> None:
    page = Page(report.html([of("a", TrialVerdict.FRESH, TrialVerdict.CAPACITY)])).text
    docs = (ROOT / "docs/trials.md").read_text("utf-8")
    for verdict, text in summary.EXPLAINED.items():
        assert (text in page) == (verdict in (TrialVerdict.FRESH, TrialVerdict.CAPACITY))
        assert f"| `{verdict}` | {text} |" in docs


def test_pictures_are_shown_without_unfolding(tmp_path: Path) -> None:
    report.write(tmp_path, [with_picture(tmp_path)])
    text = (tmp_path / "report.html").read_text("utf-8")
    before = text.partition("<img ")[0]
    assert before.count("<details") == before.count("</details")
