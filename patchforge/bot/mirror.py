"""Upstream as the bot sees it: its tags, its releases, its clone when that is needed, and what is new in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from patchforge import manifest
from patchforge.bot.discovery import Discovery, discover, list_tags
from patchforge.bot.forge import Forge
from patchforge.bot.model import Candidate, GitHubRelease
from patchforge.bot.token import Token, refuse_secrets
from patchforge.errors import Damaged, NotChecked
from patchforge.git.clone import CachedClone, is_url
from patchforge.paths import quoted
from patchforge.project import Project, release_index
from patchforge.sources import Upstream, open_upstream
from patchforge.vocabulary import Version


def found_as_data(discovery: Discovery) -> dict[str, Any]:
    return {
        "newest": str(discovery.newest or ""),
        "new": [
            {
                "version": str(candidate.version),
                "tag": candidate.tag,
                "commit": candidate.commit,
                "released": candidate.release is not None,
            }
            for candidate in discovery.new
        ],
        "passed": [{"tag": entry.tag, "why": entry.why, "moved": entry.moved} for entry in discovery.passed],
    }


class Mirror:
    """Upstream's tags, and its clone, which is made or fetched when something in it is needed."""

    def __init__(self, project: Project, where: str | None) -> None:
        self.project = project
        self.where = project.current_url(where or os.environ.get("PATCHFORGE_UPSTREAM") or project.url)
        refuse_secrets(self.where, Token())
        self._upstream: Upstream | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._upstream:
            self._upstream.close()

    @property
    def is_local(self) -> bool:
        return not is_url(self.where)

    @property
    def upstream(self) -> Upstream:
        if self._upstream is None:
            self._upstream = open_upstream(self.where, project=self.project, fetch=True)
        return self._upstream

    @property
    def clone(self) -> Path:
        """The clone's folder."""
        return Path(self.where).expanduser().resolve() if self.is_local else CachedClone.of(self.where).path

    def date(self, commit: str) -> datetime:
        """When a commit was made; Damaged when there is no such commit, or it does not say."""
        return self.upstream.date(commit)

    def passed_over(self, candidate: Candidate) -> str:
        """Why a tag is not taken after all, now that its commit is fetched; "" for one that is fine."""
        try:
            self.date(candidate.commit)
        except Damaged as error:
            return error.problem
        return ""


def find_new(
    project: Project, mirror: Mirror, forge: Forge | None, ours: Mapping[Version, str]
) -> tuple[Discovery, list[GitHubRelease]]:
    """What upstream has that is not in ``ours`` (version → commit), and the releases. ``forge`` None: no network."""
    wanted = forge and project.track.channel != "tags"
    releases = forge.releases(urlsplit(project.url).path.strip("/")) if forge and wanted else None
    known = {release.version: release.commit for release in release_index(project)}
    known |= {version: commit for version, commit in ours.items() if commit}  # plain files have none
    now = datetime.now(UTC)

    def age(commit: str) -> timedelta:
        return now - mirror.date(commit)

    tags, passed = list_tags(mirror.where)
    _require_known(project, tags, known, mirror)
    discovery = discover(project, tags, releases, known=known, ours=list(ours), age=age, now=now)
    return replace(discovery, passed=(*discovery.passed, *passed)), [
        release for release in releases or () if not release.odd
    ]


def _require_known(project: Project, tags: Mapping[str, str], known: Mapping[Version, str], mirror: Mirror) -> None:
    """NotChecked for an upstream with none of the releases that are known: what is new cannot be seen in it."""
    if not known or any(project.tag_of(version) in tags for version in known):
        return
    fetch = f"git -C {quoted(mirror.clone)} fetch --tags, or " if mirror.is_local else ""
    raise NotChecked(
        f"{mirror.where} has none of the {len(known)} releases that are known, so what is new cannot be told",
        expected=f"tags of {project.title}'s releases",
        found=f"{len(tags)} other tag(s)" if tags else "no tags",
        do=f"{fetch}name another upstream; {project.title} is at {project.url}",
    )


def generated_commits(folder: Path) -> dict[Version, str]:
    """Version → upstream's commit of every release generated in ``folder``."""
    manifests = (manifest.load(path.parent) for path in folder.glob(f"v*/{manifest.NAME}"))
    return {Version.parse(generated.release): generated.commit for generated in manifests}
