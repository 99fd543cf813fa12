"""From what is wanted and what is there to what must be done. Pure: nothing here reads or writes anything.

Every run plans from the state of the remote alone, so a run that was interrupted is finished by the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from patchforge.bot import bodies
from patchforge.bot.words import Action, Branch, Do, Issue, Problem, Pull, Wanted
from patchforge.project import Project
from patchforge.vocabulary import Version


@dataclass(frozen=True, slots=True)
class There:
    """What a run finds. ``pulls``: the open ones, and every one of the wanted version's branch."""

    on_base: frozenset[Version]
    branches: Mapping[str, Branch]
    pulls: Sequence[Pull]
    issues: Sequence[Issue] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a person may choose."""

    most_open: int = 3
    recreate: bool = False  #: propose again what a person closed


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order. ``number``: the open pull request of the wanted version, 0 when there is none yet."""

    actions: tuple[Action, ...]
    notes: tuple[str, ...] = ()  #: why something was not done
    number: int = 0


def prefix(project: Project) -> str:
    return f"patchforge/{project.name}-"


def branch_of(project: Project, version: Version) -> str:
    return f"{prefix(project)}{version}"


def make_plan(
    project: Project, there: There, wanted: Wanted | None, problems: Sequence[Problem], rules: Rules | None = None
) -> Plan:
    """``wanted``: the version to propose; None when there is none that converts."""
    notes: list[str] = []
    current = _current(there, wanted) if wanted else None
    actions = [*_propose(project, there, wanted, rules or Rules(), notes)] if wanted else []
    newest = wanted.version if wanted and (current or any(one.do is Do.OPEN for one in actions)) else None
    open_pulls = [one for one in there.pulls if one.state == "open" and one is not current]
    for pull in sorted(open_pulls, key=lambda one: one.number):
        actions += _finish(project, there, pull, newest)
    actions += _clear_branches(project, there, actions, newest)
    actions += _issues(project, there, wanted, problems)
    return Plan(tuple(actions), tuple(notes), current.number if current else 0)


def _current(there: There, wanted: Wanted) -> Pull | None:
    mine = [one for one in there.pulls if one.branch == wanted.branch and one.state == "open"]
    return max(mine, key=lambda one: one.number, default=None)


def _propose(project: Project, there: There, wanted: Wanted, rules: Rules, notes: list[str]) -> Iterator[Action]:
    """Brings one version's branch and pull request to what they should be."""
    branch, current = there.branches.get(wanted.branch), _current(there, wanted)
    if branch and branch.foreign:
        notes.append(f"{wanted.branch}: {branch.foreign} committed to it, so it is left alone")
        if current and current.marker.get("change") != wanted.change:
            text = bodies.topic(_HANDS_OFF.format(version=wanted.version), f"foreign {wanted.change[:16]}")
            yield Action(Do.COMMENT, "somebody else commits to this branch", number=current.number, text=text)
        return
    if current is None and (why := _not_now(project, there, wanted, rules)):
        notes.append(f"{wanted.version}: {why}")
        return
    if branch is None or branch.change != wanted.change:
        why = "a new version" if branch is None else "its content is not what the inputs give"
        tip = branch.tip if branch else ""
        yield Action(Do.PUSH, why, branch=wanted.branch, commit=wanted.commit, expected=tip)
    body = wanted.body
    if current is None:
        yield Action(Do.OPEN, "a new version", branch=wanted.branch, title=wanted.title, body=body, draft=wanted.draft)
    elif not bodies.is_same(wanted, current.marker):
        yield Action(Do.EDIT, "its text is out of date", number=current.number, body=body)


def _not_now(project: Project, there: There, wanted: Wanted, rules: Rules) -> str:
    """Why no pull request may be opened, or ""."""
    if not rules.recreate:
        for one in there.pulls:
            if one.branch == wanted.branch and _declined(one, wanted):
                return f"a person closed #{one.number}, and its patches have not changed since (--recreate proposes it)"
    ours = [one for one in there.pulls if one.state == "open" and version_of(project, one.branch)]
    staying = sum(not _is_superseded(project, there, one, wanted.version) for one in ours)
    if staying >= rules.most_open:
        return f"{staying} pull requests of the bot's stay open, and {rules.most_open} may (--most-open)"
    return ""


def _declined(pull: Pull, wanted: Wanted) -> bool:
    """Whether a person, not the bot, closed this very change."""
    by_person = pull.state == "closed" and not pull.merged and "closed" not in pull.marker
    return by_person and pull.marker.get("change", wanted.change) == wanted.change


def _is_superseded(project: Project, there: There, pull: Pull, by: Version) -> bool:
    branch, version = there.branches.get(pull.branch), version_of(project, pull.branch)
    return version is not None and version < by and not (branch and branch.foreign)


def _finish(project: Project, there: There, pull: Pull, newest: Version | None) -> Iterator[Action]:
    """Closes an open pull request that has had its time."""
    version, branch = version_of(project, pull.branch), there.branches.get(pull.branch)
    latest = max(there.on_base, default=None)
    if version is None:
        return
    if version in there.on_base:
        topic, text = "no difference", "The base branch has this version now."
    elif latest and version < latest:
        topic, text = f"superseded by the base branch, {latest}", f"Superseded: the base branch has {latest}."
    elif newest and version < newest:
        topic, text = f"superseded by {newest}", "Superseded by #{new}."
    elif newest and version == newest:
        topic, text = "duplicate", "The same as #{new}."
    else:
        return
    if branch and branch.foreign:
        said = bodies.topic(f"{text} Somebody else has committed to this branch, so it stays open.", topic)
        yield Action(Do.COMMENT, f"{topic}, with somebody else's commits", number=pull.number, text=said)
        return
    body = bodies.declare_closed(pull.body, pull.marker, topic)
    yield Action(Do.CLOSE, topic, branch=pull.branch, number=pull.number, body=body, text=bodies.topic(text, topic))


def _clear_branches(
    project: Project, there: There, actions: Sequence[Action], newest: Version | None
) -> Iterator[Action]:
    """Deletes branches of ours that no open pull request needs: merged, closed by us, or of versions left behind."""
    closing = {one.number for one in actions if one.do is Do.CLOSE}
    kept = {one.branch for one in there.pulls if one.state == "open" and one.number not in closing}
    kept |= {one.branch for one in actions if one.do in {Do.PUSH, Do.OPEN}}
    bound = max([*there.on_base, *([newest] if newest else [])], default=None)
    for branch in there.branches.values():
        version = version_of(project, branch.name)
        if version is None or bound is None or branch.foreign or branch.name in kept:
            continue
        if version < bound or version in there.on_base:
            yield Action(Do.DELETE, "nothing needs it any more", branch=branch.name, expected=branch.tip)


def _issues(project: Project, there: There, wanted: Wanted | None, problems: Sequence[Problem]) -> Iterator[Action]:
    """Files each problem once, and closes what is over."""
    for problem in problems:
        body = bodies.read_digest(problem.body)
        known = [one for one in there.issues if _about(one) == (problem.about, problem.version)]
        current = next((one for one in known if one.state == "open"), None)
        if current is None and not any(one.marker.get("body") == body for one in known):
            yield Action(Do.FILE, problem.about, title=problem.title, body=problem.body)
        elif current and current.marker.get("body") != body:
            yield Action(Do.EDIT_ISSUE, "it is different now", number=current.number, body=problem.body)
    latest = max(there.on_base, default=None)
    for issue in there.issues:
        about, name = _about(issue)
        if issue.state == "open" and about in {"drift", "proof"}:
            version = version_of(project, prefix(project) + name)
            if version and ((wanted and version == wanted.version) or (latest and version <= latest)):
                text = bodies.topic(f"{name} converts now, or the base branch is past it.", "solved")
                yield Action(Do.CLOSE_ISSUE, "solved", number=issue.number, text=text)
        elif issue.state == "open" and about == "moved" and about not in {one.about for one in problems}:
            text = bodies.topic("The tags are where they were.", "solved")
            yield Action(Do.CLOSE_ISSUE, "solved", number=issue.number, text=text)


def version_of(project: Project, branch: str) -> Version | None:
    """The version that a branch of the bot's is for; None for any other branch."""
    try:
        return Version.parse(branch.removeprefix(prefix(project))) if branch.startswith(prefix(project)) else None
    except ValueError:
        return None


def _about(issue: Issue) -> tuple[str, str]:
    return str(issue.marker.get("about", "")), str(issue.marker.get("version", ""))


_HANDS_OFF = (
    "Somebody else has committed to this branch, so I leave it alone. What I would push for {version} now is different "
    "from what I pushed then. To let me go on, delete the branch or take the other commits off it."
)
