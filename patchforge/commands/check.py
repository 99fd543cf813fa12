"""``patchforge check``: CI's dry run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchforge import atomic, bounded, manifest, patches, pipeline, progress
from patchforge.commands.common import (
    again,
    chosen_versions,
    coloured,
    generated_folder,
    generated_versions,
    make_engine,
    show_json,
    verdict,
)
from patchforge.engine.convert import Engine
from patchforge.errors import Exit, NotChecked, PatchforgeError, worst
from patchforge.outputs import listed
from patchforge.sources import Upstream, open_upstream
from patchforge.vocabulary import Version


def run(options: argparse.Namespace) -> int:
    """Exit status 0, 3 when a transform drifted, 1 when something differs, 69 and others where that was not seen."""
    engine = make_engine(options)
    folder = generated_folder(options.generated)
    with open_upstream(options.upstream) as upstream:
        names = chosen_versions(options)
        results: list[dict[str, Any]] = []
        for name in progress.each(names, "checking", len(names)):
            results.append(_one(engine, upstream, folder, name))
            if not options.json:
                _show(results[-1])
    if options.json:
        show_json("check", results)
    elif lacking := patches.lacking():
        print(f"note: {lacking} did not read the patches, as it is not installed; patchforge's own reader did")
    return int(worst(result["status"] for result in results))


def _show(result: Mapping[str, Any]) -> None:
    print(f"{result['release']}: {coloured(result['verdict'], result['verdict'])}", flush=True)
    for problem in result["problems"]:
        print(f"  {problem}")


def _one(engine: Engine, upstream: Upstream, folder: Path, name: str) -> dict[str, Any]:
    release = upstream.resolve(name)
    problems: list[str] = []
    status = Exit.OK
    try:
        patched = pipeline.convert(engine, release, upstream.tree(release))
        pipeline.check(patched)
        problems = _more_unclaimed(folder, release.version, patched)
        problems += _differences(folder / str(release.version), listed(patched.files()))
        status = Exit.FAILED if problems else Exit.OK
    except NotChecked as error:
        problems.append(str(error))
        status = Exit.FAILED if len(problems) > 1 else error.status
    except PatchforgeError as error:
        problems, status = [str(error)], error.status
    return {
        "release": str(release.version),
        "verdict": verdict(status),
        "problems": problems,
        "status": int(status),
    }


def _differences(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """How a committed folder differs from what the inputs give; NotChecked where there is none."""
    if not folder.is_dir():
        raise NotChecked(
            "the release converts, and nothing generated is there to compare with it",
            expected=f"the folder {folder}",
            do=again(folder),
        )
    content = atomic.content(folder)
    present = {name: bounded.file(folder / name) if status else None for name, status in content.items()}
    problems = [f"{folder / name} is missing" for name in sorted(expected.keys() - present.keys())]
    problems += [f"{folder / name} is not generated" for name in sorted(present.keys() - expected.keys())]
    problems += [
        f"{folder / name} is out of date"
        for name in sorted(expected)
        if name in present and present[name] != expected[name]
    ]
    return [*problems, f"to do: {again(folder)}"] if problems else []


def _more_unclaimed(folder: Path, version: Version, patched: pipeline.PatchedRelease) -> list[str]:
    """Unclaimed sites may not rise from the release generated before this one."""
    earlier = [name for name in generated_versions(folder) if Version.parse(name) < version]
    known = manifest.load(folder / earlier[-1]).sites.unclaimed if earlier else 0
    sites = patched.conversion.unclaimed
    if len(sites) <= known:
        return []
    places = ", ".join(f"{site.path}:{site.line} {site.text}" for site in sites[:8])
    advice = "claim them or decide in upstream/comfyui.sites.toml"
    return [f"{len(sites)} unclaimed device sites, {known} before: {places}; {advice}"]
