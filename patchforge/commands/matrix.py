"""``patchforge matrix``: the work of a scheduled run as a matrix of jobs for GitHub Actions."""

from __future__ import annotations

import argparse
import json

from patchforge import resources
from patchforge.bot.follow import FollowState, follow
from patchforge.commands.common import version_named
from patchforge.commands.track import survey
from patchforge.errors import Exit
from patchforge.project import load_project


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 75 when GitHub or the network did not answer. With --json one line, ``{"include": [...]}``.

    A job has a project, a name and the arguments of ``patchforge``. Releases: one job for the newest version, or
    with --all one for each, the newest first. Node packs: one for each that has moved on, and one for all others.
    Without anything new, the one job of either closes and clears away what is no longer needed.
    """
    jobs = _releases(options) if options.release else [*_releases(options), *_packs()]
    if options.json:
        print(json.dumps({"include": jobs}))
    else:
        for job in jobs:
            print(f"{job['project']} {job['name']}")
    return Exit.OK


def _releases(options: argparse.Namespace) -> list[dict[str, str]]:
    project = load_project()
    if options.release:
        versions = [str(version_named(options.release))]
    else:
        new = [str(release.version) for release in survey(project, options)[0].new[::-1]]
        versions = new if options.all else new[:1]
    jobs = [{"project": project.name, "name": version, "arguments": f"bot {version}"} for version in versions]
    return jobs or [{"project": project.name, "name": "upkeep", "arguments": "bot"}]


def _packs() -> list[dict[str, str]]:
    packs = list(follow(resources.path("upstream")))
    new = [pack.name for pack in packs if pack.state is FollowState.NEW]
    jobs = [{"project": "nodes", "name": name, "arguments": f"packs bot {name}"} for name in new]
    others = " ".join(pack.name for pack in packs if pack.name not in new) if new else ""
    if packs and (others or not new):
        jobs.append({"project": "nodes", "name": "upkeep", "arguments": f"packs bot {others}".strip()})
    return jobs
