"""``patchforge track``: what is new upstream, and why everything else is passed over."""

from __future__ import annotations

import argparse
import os
from datetime import UTC

from patchforge.bot.discovery import Discovery
from patchforge.bot.forge import API, Forge
from patchforge.bot.mirror import Mirror, find_new, found_as_data, generated_commits
from patchforge.bot.preparation import list_in_index
from patchforge.bot.token import find_token
from patchforge.commands.common import generated_folder, in_repository, show_json, table
from patchforge.commands.packs import track as packs
from patchforge.errors import Exit
from patchforge.project import Project, load_project


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when a person must look, such as at a moved tag; 75 when something did not answer."""
    if options.nodes:
        return packs.run(options)
    project = load_project()
    if options.index:
        in_repository(*[f"upstream/{project.index.name}"] * 2)
    discovery, asked = survey(project, options, index=options.index)
    if options.json:
        show_json("track", {**found_as_data(discovery), "asked_github": asked})
    else:
        newest = (
            f"{discovery.newest} is the newest that is generated"
            if discovery.newest
            else "nothing is generated here yet"
        )
        print(f"{project.title}: {newest}")
        rows = [("new", release.tag, release.commit[:12]) for release in discovery.new]
        rows += [("passed", tag.tag, tag.why) for tag in discovery.passed]
        if rows:
            table(rows)
        if not asked:
            print("A clone on this machine was read, so GitHub's releases were not asked for.")
    return Exit.FAILED if any(tag.moved for tag in discovery.passed) else Exit.OK


def survey(project: Project, options: argparse.Namespace, *, index: bool = False) -> tuple[Discovery, bool]:
    """What upstream has that is not generated here, and whether GitHub was asked: not for a clone on this machine.

    With ``index``, the newest of it is added to the release index.
    """
    with Mirror(project, options.upstream) as mirror:
        token = find_token(options.token_file)
        forge = None if mirror.is_local else Forge(token, api=os.environ.get("GITHUB_API_URL") or API)
        discovery, _ = find_new(project, mirror, forge, generated_commits(generated_folder(options.generated)))
        new = [release for release in discovery.new if not mirror.passed_over(release)]
        if index and new:
            list_in_index(project.index, new[-1], mirror.date(new[-1].commit).astimezone(UTC).date().isoformat())
    return discovery, forge is not None
