"""``patchforge matrix``: the work of a scheduled run as a matrix of jobs for GitHub Actions."""

from __future__ import annotations

import argparse
import json

from patchforge.commands.track import survey
from patchforge.errors import Exit
from patchforge.project import load_project
from patchforge.vocabulary import Version


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 75 when GitHub or the network did not answer. With --json one line, ``{"include": […]}``.

    One job for the newest version, or with --all one for each. Without a new version there is one job with an empty
    version: it closes and clears away what is no longer needed.
    """
    project = load_project()
    if options.release:
        versions = [str(Version.parse(options.release))]
    else:
        new = [str(one.version) for one in survey(project, options)[0].new]
        versions = new if options.all else new[-1:]
    jobs = [{"project": project.name, "version": version} for version in versions or [""]]
    if options.json:
        print(json.dumps({"include": jobs}))
    else:
        for job in jobs:
            print(f"{job['project']} {job['version'] or '(nothing new)'}")
    return Exit.OK
