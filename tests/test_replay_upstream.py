"""All real releases. Needs a clone: PATCHFORGE_UPSTREAM names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge import caches, pipeline
from patchforge.engine.convert import Conversion, Engine
from patchforge.rules import transforms
from patchforge.sources import Upstream, folder, open_upstream
from tests.support import engine_of

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.xdist_group("upstream"),
    pytest.mark.skipif(
        not os.environ.get("PATCHFORGE_UPSTREAM"), reason="PATCHFORGE_UPSTREAM names no clone of ComfyUI"
    ),
]

HANDFUL = ("v0.0.1", "v0.1.2", "v0.3.47", "v0.12.0", "v0.21.0", "v0.32.0", "v0.33.0")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with open_upstream() as opened:
        yield opened


@pytest.fixture(scope="module")
def engine() -> Engine:
    kept: Path = caches.folder("results")
    return engine_of(transforms(), jobs=os.cpu_count() or 1, cache=kept)


@pytest.fixture(scope="module")
def conversions(upstream: Upstream, engine: Engine) -> list[Conversion]:
    """Every indexed release, converted."""
    releases = [release for release in upstream.releases() if release.indexed]
    engine.prepare(upstream.tree(release) for release in releases)
    return [engine.convert(release, upstream.tree(release)) for release in releases]


def test_all_indexed_releases_are_there(conversions: list[Conversion]) -> None:
    assert len(conversions) >= 149


def test_a_whole_folder_has_all_that_releases_have_among_a_users_files(upstream: Upstream) -> None:
    tops = tuple(f"{top}/" for top in folder._NEVER_AT_TOP)
    there = {
        path for release in upstream.releases() for path in upstream.tree(release).entries() if path.startswith(tops)
    }
    assert len(there) > 30
    assert [path for path in there if not folder._OWN_THERE.fullmatch(path)] == []


def test_nothing_drifts(conversions: list[Conversion]) -> None:
    assert [pipeline.describe_drift(report) for conversion in conversions for report in conversion.drifted] == []


def test_every_outcome_is_the_expected_one(conversions: list[Conversion]) -> None:
    wrong = [
        f"{conversion.release.version} {report.transform}: {report.outcome} where {report.expected} was expected"
        for conversion in conversions
        for report in conversion.reports
        if report.surprising
    ]
    assert wrong == []


def test_no_device_site_is_undecided(conversions: list[Conversion]) -> None:
    assert [
        f"{conversion.release.version} {site.path}:{site.line} {site.text}"
        for conversion in conversions
        for site in conversion.unclaimed
    ] == []


@pytest.mark.parametrize("name", HANDFUL)
def test_a_release_passes_every_check(upstream: Upstream, engine: Engine, name: str) -> None:
    release = upstream.resolve(name)
    patched = pipeline.convert(engine, release, upstream.tree(release))
    pipeline.check(patched)
    assert patched.changes
