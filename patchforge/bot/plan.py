"""From what is wanted and what is there to what must be done. Pure: nothing here reads or writes anything.

Every run plans from the state of the remote alone, so a run that was interrupted is finished by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from patchforge.bot import bodies
from patchforge.bot.model import Action, Branch, GitHubWrite, Issue, Proposal, Pull, Reported
from patchforge.project import Project, parsed_version
from patchforge.vocabulary import Version

PACKS = "patchforge/nodes-"  #: how the branches of node packs begin


@dataclass(frozen=True, slots=True)
class RemoteState:
    """What GitHub has of one project. ``pulls``: the open ones, and all of a wanted branch where none is open."""

    branches: Mapping[str, Branch]
    pulls: Sequence[Pull]
    issues: Sequence[Issue] = ()

    @property
    def open_pulls(self) -> list[Pull]:
        return sorted((pull for pull in self.pulls if pull.state == "open"), key=lambda pull: pull.number)

    def current(self, branch: str) -> Pull | None:
        """The newest open pull request of a branch."""
        return next((pull for pull in self.open_pulls[::-1] if pull.branch == branch), None)

    def is_foreign(self, branch: str) -> bool:
        """Whether somebody else has committed to a branch."""
        return branch in self.branches and bool(self.branches[branch].foreign)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a person may choose."""

    most_open: int = 3
    recreate: bool = False  #: propose again what a person closed


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What to do, in this order."""

    actions: tuple[Action, ...]
    notes: tuple[str, ...] = ()  #: why something was not done
    number: int = 0  #: the open pull request of the wanted version, 0 when there is none yet


def prefix(project: Project) -> str:
    return f"patchforge/{project.name}-"


def branch_of(project: Project, version: Version) -> str:
    return f"{prefix(project)}{version}"


def version_of(project: Project, branch: str) -> Version | None:
    """The version that a branch of the bot's is for; None for any other branch."""
    return parsed_version(branch.removeprefix(prefix(project))) if branch.startswith(prefix(project)) else None


def plan_release(
    project: Project,
    remote: RemoteState,
    on_base: frozenset[Version],
    wanted: Proposal | None,
    problems: Sequence[Reported],
    *,
    rules: Rules,
) -> PullPlan:
    """``wanted``: the version to propose; None when there is none that converts. ``on_base``: those there already."""
    version = version_of(project, wanted.branch) if wanted else None
    pulls = [(pull, its) for pull in remote.open_pulls if (its := version_of(project, pull.branch))]
    notes: list[str] = []
    actions: list[Action] = []
    current = remote.current(wanted.branch) if wanted else None
    if wanted and version:
        newer = [pull for pull, its in pulls if its > version]
        staying = sum(its >= version or remote.is_foreign(pull.branch) for pull, its in pulls)
        if newer and not current and not rules.recreate:
            notes.append(f"{wanted.name}: #{newer[-1].number} proposes a newer version (--recreate proposes both)")
        else:
            actions += _propose(remote, wanted, rules, staying, notes)
    newest = version if current or any(action.kind is GitHubWrite.OPEN for action in actions) else None
    for pull, its in pulls:
        if pull is not current:
            actions += _outlived(remote, pull, its, on_base, newest)
    bound = max([*on_base, *([newest] if newest else [])], default=None)

    def is_over(branch: str) -> bool:
        its = version_of(project, branch)
        return bool(its and bound and (its < bound or its in on_base))

    actions += _clear_branches(remote, actions, is_over)
    actions += _file(remote, problems)
    actions += _solved(remote, on_base, version, problems)
    return PullPlan(tuple(actions), tuple(notes), current.number if current else 0)


def plan_packs(
    remote: RemoteState, wanted: Sequence[Proposal], over: Mapping[str, str], problems: Sequence[Reported], rules: Rules
) -> PullPlan:
    """``over``: why nothing is to be proposed of a pack, by its name. What is of packs in neither stays as it is."""
    notes: list[str] = []
    actions: list[Action] = []
    staying = {pull.branch for pull in remote.open_pulls if _pack(pull.branch) not in over}
    for proposal in wanted:
        proposed = list(_propose(remote, proposal, rules, len(staying), notes))
        staying |= {each.branch for each in proposed if each.kind is GitHubWrite.OPEN}
        actions += proposed
    for pull in remote.open_pulls:
        current = remote.current(pull.branch)
        if why := over.get(_pack(pull.branch)):
            actions += _close(remote, pull, "no difference", f"Nothing is left to propose: {why}.")
        elif current and current is not pull:
            actions += _close(remote, pull, "duplicate", f"The same as #{current.number}.")
    actions += _clear_branches(remote, actions, lambda branch: _pack(branch) in over)
    actions += _file(remote, problems)
    settled = {*over, *(pack.name for pack in wanted), *(problem.name for problem in problems)}
    told = {(problem.about, problem.name) for problem in problems}
    for issue in remote.issues:
        if issue.state == "open" and _about(issue)[1] in settled and _about(issue) not in told:
            actions.append(_solve(issue, "This is no longer so."))
    return PullPlan(tuple(actions), tuple(notes))


def _pack(branch: str) -> str:
    return branch.removeprefix(PACKS)


def _propose(remote: RemoteState, wanted: Proposal, rules: Rules, staying: int, notes: list[str]) -> Iterator[Action]:
    """Brings one branch and its pull request to what they should be. ``staying``: pull requests that stay open."""
    branch, current = remote.branches.get(wanted.branch), remote.current(wanted.branch)
    if branch and branch.foreign:
        notes.append(f"{wanted.branch}: {branch.foreign} committed to it, so it is left alone")
        if current and current.marker.get("offer") != wanted.offer:
            text = bodies.topic(_HANDS_OFF.format(name=wanted.name), f"foreign {wanted.offer}")
            yield Action(GitHubWrite.COMMENT, "somebody else commits to this branch", number=current.number, text=text)
        return
    if current is None and (why := _not_now(remote, wanted, rules, staying)):
        notes.append(f"{wanted.name}: {why}")
        return
    if branch is None or branch.change != wanted.change:
        why = "it is new" if branch is None else "its content is not what the inputs give"
        tip = branch.tip if branch else ""
        yield Action(GitHubWrite.PUSH, why, branch=wanted.branch, commit=wanted.commit, expected=tip)
    body = wanted.body
    if current is None:
        yield Action(
            GitHubWrite.OPEN, "it is new", branch=wanted.branch, title=wanted.title, body=body, draft=wanted.draft
        )
    elif current.marker.get("body") != bodies.digest(body):
        yield Action(GitHubWrite.EDIT, "its text is out of date", number=current.number, body=body)


def _not_now(remote: RemoteState, wanted: Proposal, rules: Rules, staying: int) -> str:
    """Why no pull request may be opened, or ""."""
    declined = [pull for pull in remote.pulls if pull.branch == wanted.branch and _is_declined(pull, wanted)]
    if declined and not rules.recreate:
        return f"a person closed #{declined[0].number}, and it has not changed since (--recreate proposes it again)"
    if staying >= rules.most_open:
        return f"{staying} pull requests of the bot's stay open, and {rules.most_open} may (--max-open)"
    return ""


def _is_declined(pull: Pull, wanted: Proposal) -> bool:
    """Whether a person, not the bot, closed this very offer."""
    by_person = pull.state == "closed" and not pull.merged and "closed" not in pull.marker
    return by_person and pull.marker.get("offer", wanted.offer) == wanted.offer


def _outlived(
    remote: RemoteState, pull: Pull, version: Version, on_base: frozenset[Version], newest: Version | None
) -> Iterator[Action]:
    """Closes an open pull request that has had its time."""
    latest = max(on_base, default=None)
    if version in on_base:
        yield from _close(remote, pull, "no difference", "The base branch has this version now.")
    elif latest and version < latest:
        topic, text = f"superseded by the base branch, {latest}", f"Superseded: the base branch has {latest}."
        yield from _close(remote, pull, topic, text)
    elif newest and version < newest:
        yield from _close(remote, pull, f"superseded by {newest}", "Superseded by #{new}.")
    elif newest and version == newest:
        yield from _close(remote, pull, "duplicate", "The same as #{new}.")


def _close(remote: RemoteState, pull: Pull, topic: str, text: str) -> Iterator[Action]:
    """Closes a pull request and says why; one with somebody else's commits is told, and stays."""
    if remote.is_foreign(pull.branch):
        said = bodies.topic(f"{text} Somebody else has committed to this branch, so it stays open.", topic)
        yield Action(GitHubWrite.COMMENT, f"{topic}, with somebody else's commits", number=pull.number, text=said)
        return
    body = bodies.declare_closed(pull.body, pull.marker, topic)
    yield Action(
        GitHubWrite.CLOSE, topic, branch=pull.branch, number=pull.number, body=body, text=bodies.topic(text, topic)
    )


def _clear_branches(remote: RemoteState, actions: Sequence[Action], is_over: Callable[[str], bool]) -> Iterator[Action]:
    """Deletes branches whose time is over and that no open pull request needs: merged, or closed by us."""
    closing = {action.number for action in actions if action.kind is GitHubWrite.CLOSE}
    kept = {pull.branch for pull in remote.open_pulls if pull.number not in closing}
    kept |= {action.branch for action in actions if action.kind in {GitHubWrite.PUSH, GitHubWrite.OPEN}}
    for branch in remote.branches.values():
        if is_over(branch.name) and not branch.foreign and branch.name not in kept:
            yield Action(GitHubWrite.DELETE, "nothing needs it any more", branch=branch.name, expected=branch.tip)


def _file(remote: RemoteState, problems: Sequence[Reported]) -> Iterator[Action]:
    """Files each problem once; edits its issue when it is different now."""
    for problem in problems:
        body = bodies.digest(problem.body)
        known = [issue for issue in remote.issues if _about(issue) == (problem.about, problem.name)]
        current = next((issue for issue in known if issue.state == "open"), None)
        if current is None and not any(issue.marker.get("body") == body for issue in known):
            yield Action(GitHubWrite.FILE, problem.about, title=problem.title, body=problem.body)
        elif current and current.marker.get("body") != body:
            yield Action(GitHubWrite.EDIT_ISSUE, "it is different now", number=current.number, body=problem.body)


def _solved(
    remote: RemoteState, on_base: frozenset[Version], wanted: Version | None, problems: Sequence[Reported]
) -> Iterator[Action]:
    """Closes the issues of versions that convert now or that the base branch is past, and of tags that are back."""
    latest = max(on_base, default=None)
    for issue in remote.issues:
        about, name = _about(issue)
        if issue.state != "open":
            continue
        if about == "moved" and about not in {problem.about for problem in problems}:
            yield _solve(issue, "The tags are where they were.")
        elif about in {"drift", "proof"}:
            version = parsed_version(name)
            if version and (version == wanted or (latest and version <= latest)):
                yield _solve(issue, f"{name} converts now, or the base branch is past it.")


def _solve(issue: Issue, text: str) -> Action:
    return Action(GitHubWrite.CLOSE_ISSUE, "solved", number=issue.number, text=bodies.topic(text, "solved"))


def _about(issue: Issue) -> tuple[str, str]:
    return str(issue.marker.get("about", "")), str(issue.marker.get("name", ""))


_HANDS_OFF = (
    "Somebody else has committed to this branch, so I leave it alone. What I would push for {name} now is different "
    "from what I pushed then. To let me go on, delete the branch or take the other commits off it."
)
