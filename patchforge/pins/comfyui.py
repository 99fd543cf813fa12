"""Pins of ComfyUI's releases: commit, tag, hash and the Python requirements of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from patchforge.errors import PatchforgeError
from patchforge.git.clone import CachedClone, is_url
from patchforge.hashes.fetchfromgithub import HOST
from patchforge.pins import requirements
from patchforge.pins.claims import Claim
from patchforge.pins.pin_files import ReleasePin
from patchforge.pins.repositories import source_hash
from patchforge.project import Project
from patchforge.sources import open_upstream


def pin(project: Project, version: str, where: str, claims: Mapping[str, Claim]) -> ReleasePin:
    """The pin of a release. ``where``: path or address of a clone. PatchforgeError when nothing gives its hash."""
    owner, _, repo = project.url.removeprefix(f"{HOST}/").partition("/")
    with open_upstream(where, project=project) as upstream:
        release = upstream.resolve(version)
        text = upstream.tree(release).read("requirements.txt").decode()
    clone = CachedClone.of(project.current_url(where)).path if is_url(where) else Path(where).expanduser()
    pin = ReleasePin(
        owner=owner,
        repo=repo,
        rev=release.commit,
        tag=project.tag_of(release.version),
        requirements=tuple(requirements.of_file(text)),
        **source_hash(clone, release.commit, claims),
    )
    if pin.missing:
        raise _no_hash(version, pin.missing)
    return pin


def _no_hash(version: str, missing: Mapping[str, str]) -> PatchforgeError:
    return PatchforgeError(
        f"no hash of {version} is at hand",
        expected="a complete clone, or a published hash in upstream/comfyui.hashes.tsv",
        found="content is missing: " + ", ".join(f"{path} ({blob})" for path, blob in missing.items()),
        do="name a complete clone: patchforge pin comfyui --upstream CLONE",
    )
