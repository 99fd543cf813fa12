"""Looks at upstream, at its address or in a clone: is it whole, the right one, as the release index says.

Only reads. No object is fetched, and neither a clone nor the cache is changed. A clone is read through a git folder of
our own, so none of its settings and hooks is obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from patchforge.doctor.facts import FactState, Finding
from patchforge.errors import NotChecked, PatchforgeError
from patchforge.git.borrowed import NOT_AN_ID, Borrowed, OddRef, source_of
from patchforge.git.clone import CachedClone, is_url
from patchforge.git.command import git
from patchforge.paths import quoted
from patchforge.project import Project, release_index
from patchforge.sources.git import GitObjects

_TAG = re.compile(r"^([0-9a-f]{40,64})[\t ]refs/tags/(.+?)(\^\{\})?$", re.MULTILINE)
_ADDRESS = re.compile(r"remote\.(.+)\.url", re.DOTALL)
_DAMAGE = re.compile(r"^(?:error:|fatal:|missing (?:commit|tree|tag)).*", re.MULTILINE)
_REDIRECTED = re.compile(r"^warning: redirecting to (\S+)", re.MULTILINE)
#: GitHub asks for a name where there is no such repository.
_GONE = re.compile(
    r"not found|not appear to be a git repository|does not exist|error: 40[134]|could not read username", re.IGNORECASE
)
_SECONDS = 600
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Remote:
    """What the other side answers. ``error``: why it does not. Tags lead to commits."""

    address: str  #: without a password
    former: bool = False  #: a former address of the project was named
    tags: Mapping[str, str] = field(default_factory=dict)
    redirected: str = ""  #: where the host sends git instead
    error: str = ""


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone on this machine. ``error``: why it cannot be read at all."""

    path: str
    cached: bool  #: patchforge's own, in the cache
    error: str = ""
    shallow: bool = False
    partial: bool = False  #: made with a filter
    former: tuple[str, ...] = ()  #: remotes with a former address of the project
    tags: Mapping[str, str] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()  #: indexed releases whose commit is not there, oldest first
    missing: int = 0  #: files and folders of the other releases that are not there
    damage: tuple[str, ...] = ()  #: what git fsck finds
    odd: tuple[OddRef, ...] = ()  #: refs that are passed over, and why


def examine(where: str, project: Project) -> tuple[Remote | None, Clone | None]:
    """A clone on this machine; or an address, and the clone of it in the cache if there is one."""
    if not is_url(where):
        return None, _clone(Path(where).expanduser(), project, cached=False)
    cached = CachedClone.of(project.current_url(where))
    return _remote(where, cached, project), _clone(cached.path, project, cached=True) if cached.path.is_dir() else None


def _remote(where: str, cached: CachedClone, project: Project) -> Remote:
    try:
        with source_of(cached.url) as source:
            done = git("ls-remote", "--tags", "--", source, timeout=_SECONDS)
    except NotChecked:
        raise
    except PatchforgeError as error:
        return Remote(cached.origin, _is_former(where, project), error=f"{error.problem}: {error.found}")
    told = done.stderr.replace(cached.url, cached.origin)
    redirected = _REDIRECTED.search(told)
    lines = [line for line in told.split("\n") if line.startswith(("fatal:", "error:"))] or told.split("\n")
    return Remote(
        address=cached.origin,
        former=_is_former(where, project),
        tags=_tags(done.stdout),
        redirected=redirected[1].rstrip("/") if redirected else "",
        error=" ".join(lines) or f"status {done.returncode}" if done.returncode else "",
    )


def _clone(path: Path, project: Project, *, cached: bool) -> Clone:
    try:
        with Borrowed(path) as borrowed, GitObjects(path) as objects:
            return _examined(Clone(str(path), cached), borrowed, objects, project)
    except NotChecked:
        raise
    except PatchforgeError as error:
        return Clone(str(path), cached, error=_short(path, error))


def _examined(clone: Clone, borrowed: Borrowed, objects: GitObjects, project: Project) -> Clone:
    def local(*arguments: str, given: str = "") -> tuple[str, str]:
        done = git(*arguments, given=given, repository=borrowed.folder, timeout=_SECONDS)
        return done.stdout, done.stderr

    place = borrowed.place
    commits = {str(release.version): release.commit for release in release_index(project)}
    there = {name: bool(objects.commit(commit)) for name, commit in commits.items()}
    trees = "".join(f"{commit}^{{tree}}\n" for name, commit in commits.items() if there[name])
    listed = local("rev-list", "--objects", "--missing=print", "--stdin", given=trees)[0] if trees else ""
    tags = objects.commits(objects.tags())
    lost = tuple(OddRef(f"refs/tags/{tag}", "does not lead to a commit") for tag, commit in tags.items() if not commit)
    remotes = [(match[1], value) for key, value in place.settings if (match := _ADDRESS.fullmatch(key))]
    checked = local("fsck", "--no-dangling", "--no-progress")
    damaged = [f"error: {ref.name}: {ref.why}" for ref in place.refs[1] if ref.why == NOT_AN_ID]
    return replace(
        clone,
        shallow=bool(place.shallow),
        partial=bool(place.values(r"remote\..*\.(promisor|partialclonefilter)|extensions\.partialclone")),
        former=tuple(name for name, url in remotes if _is_former(url, project)),
        tags={tag: commit for tag, commit in tags.items() if commit},
        lacking=tuple(name for name in commits if not there[name]),
        missing=len(re.findall(r"^\?", listed, re.MULTILINE)),
        damage=(*_DAMAGE.findall("\n".join(checked)), *damaged),
        odd=(*(ref for ref in place.refs[1] if ref.why != NOT_AN_ID), *lost),
    )


def _short(path: Path, error: PatchforgeError) -> str:
    return ": ".join(text for text in (error.problem.removeprefix(f"{path} "), error.found) if text)


def _tags(listed: str) -> dict[str, str]:
    """An annotated tag's own line comes before that of its commit, which is marked."""
    return {tag: commit for commit, tag, _ in _TAG.findall(listed)}


def _is_former(url: str, project: Project) -> bool:
    known_as_former = project.current_url(url) == project.url
    return known_as_former and replace(project, former_urls=()).current_url(url) != project.url


def findings(project: Project, remote: Remote | None, clone: Clone | None) -> Iterator[Finding]:
    """What is wrong with either, and what to do."""
    if remote:
        yield from _about_remote(project, remote, clone)
    if clone:
        yield from _about_clone(project, clone)


def _about_remote(project: Project, remote: Remote, clone: Clone | None) -> Iterator[Finding]:
    file = f"upstream/{project.name}.toml"
    rename = f"put the new address into url in {file}, and the old one into former_urls"
    if remote.error:
        kept = f"; the clone in {clone.path} stays as it is and can be named instead" if clone else ""
        gone = _GONE.search(remote.error)
        do = f"find out whether it was renamed; if so, {rename}" if gone else "check the network and run this again"
        state = FactState.WRONG if gone else FactState.UNKNOWN
        yield Finding("upstream", state, f"{remote.address} does not answer: {remote.error}{kept}", do)
        return
    if remote.former:
        text = f"a former address of {remote.address}, which was asked instead"
        yield Finding("upstream", FactState.WARNING, text, f"name {remote.address}")
    if remote.redirected:
        yield Finding(
            "upstream", FactState.WARNING, f"{remote.address} was renamed: it leads to {remote.redirected}", rename
        )
    yield from _about_tags(project, remote.tags, remote.address)
    if not clone:
        yield Finding("clone", FactState.NOT_APPLICABLE, f"there is none of {remote.address} in the cache yet")


def _about_tags(project: Project, tags: Mapping[str, str], where: str) -> Iterator[Finding]:
    known = {project.tag_of(release.version): release.commit for release in release_index(project)}
    moved = [tag for tag, commit in known.items() if tags.get(tag, commit) != commit]
    if moved:
        shown = "; ".join(f"{tag} was {known[tag]} and is {tags[tag]}" for tag in moved[:_SHOWN])
        more = f", and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
        do = f"ask upstream why; nothing is taken from these tags while {project.index.name} says otherwise"
        yield Finding("tags", FactState.WRONG, f"{where}: moved: {shown}{more}", do)
    elif known and not known.keys() & tags.keys():
        text = f"{where} has none of the {len(known)} releases in {project.index.name}"
        yield Finding("tags", FactState.WRONG, text, f"is it another repository? {project.title} is at {project.url}")
    else:
        text = f"{where} has {len(known.keys() & tags.keys())} of {len(known)} releases, where they were"
        yield Finding("tags", FactState.OK, text)


def _about_clone(project: Project, clone: Clone) -> Iterator[Finding]:
    again = f"git clone --mirror {project.url} to a new folder, and name that"
    if clone.cached:
        again = f"move {clone.path} away; the next command that needs it clones again"
    if clone.error:
        yield Finding("clone", FactState.WRONG, f"{clone.path} cannot be read: {clone.error}", again)
        return
    if clone.damage:
        more = f" ({len(clone.damage)} complaints)" if len(clone.damage) > 1 else ""
        yield Finding("clone", FactState.WRONG, f"{clone.path} is damaged: {clone.damage[0]}{more}", again)
    if clone.odd:
        named = "; ".join(f"{ref.name}: {ref.why}" for ref in clone.odd[:_SHOWN])
        more = f", and {len(clone.odd) - _SHOWN} more" if len(clone.odd) > _SHOWN else ""
        yield Finding(
            "refs", FactState.WARNING, f"{clone.path}: passed over: {named}{more}", "git pack-refs, or clone again"
        )
    if clone.shallow:
        state = FactState.WRONG if clone.lacking else FactState.WARNING
        text = f"{clone.path} is shallow; it lacks {_named(clone.lacking) or 'no release, but history'}"
        yield Finding("clone", state, text, f"git -C {quoted(clone.path)} fetch --unshallow --tags")
    elif clone.lacking:
        text = f"{clone.path} lacks {_named(clone.lacking)}"
        yield Finding("clone", FactState.WARNING, text, f"git -C {quoted(clone.path)} fetch --tags")
    if clone.partial or clone.missing:
        state = FactState.WARNING if clone.partial and not clone.missing else FactState.WRONG
        text = f"{clone.path} is partial; {clone.missing} of the releases' files and folders are not there"
        yield Finding("clone", state, text, f"nothing is fetched while reading, so: {again}")
    for name in clone.former:
        do = f"git -C {quoted(clone.path)} remote set-url {quoted(name)} {quoted(project.url)}"
        yield Finding("clone", FactState.WARNING, f"{clone.path}: remote {name} has a former address", do)
    if not (clone.damage or clone.shallow or clone.lacking or clone.partial or clone.missing):
        yield Finding("clone", FactState.OK, f"{clone.path} is whole")
    if clone.tags or clone.lacking:
        yield from _about_tags(project, clone.tags, clone.path)
    else:
        text = f"{clone.path} has no tags, so new releases cannot be seen in it"
        yield Finding("tags", FactState.WARNING, text, f"git -C {quoted(clone.path)} fetch --tags")


def _named(releases: tuple[str, ...]) -> str:
    shown = ", ".join(releases[-_SHOWN:])
    return f"{len(releases)} releases: … {shown}" if len(releases) > _SHOWN else shown
