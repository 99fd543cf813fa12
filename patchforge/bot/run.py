"""What runs for releases and for node packs share: settings, what is there, and carrying a plan out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from patchforge import caches
from patchforge.bot.forge import Forge
from patchforge.bot.model import Action, GitHubWrite, Pull, Reported
from patchforge.bot.plan import PullPlan, RemoteState, Rules
from patchforge.bot.repository import Repository
from patchforge.errors import Exit, PatchforgeError, TryAgain
from patchforge.vocabulary import Version


@dataclass(frozen=True, slots=True)
class BotSettings:
    """What one run is told."""

    repository: str  #: OWNER/NAME on GitHub
    remote: str  #: address or path of the same repository, for git
    base: str = "main"
    upstream: str | None = None
    version: Version | None = None  #: this one only; else the newest that is new
    packs: tuple[str, ...] = ()  #: these only; else all
    dry_run: bool = False
    test: bool = False
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True)
class RunOutcome:
    """What a run found and did."""

    found: Mapping[str, Any]  #: as plain values
    passed: Sequence[tuple[str, str]]  #: what was not taken, and why
    plan: PullPlan
    problems: tuple[Reported, ...]
    done: bool
    requests: int
    writes: int
    again: bool = False  #: something did not answer

    @property
    def status(self) -> Exit:
        """DRIFTED or FAILED as long as something needs a person, although an issue says so."""
        about = {problem.about for problem in self.problems}
        if self.again:
            return Exit.AGAIN
        return Exit.DRIFTED if "drift" in about else Exit.FAILED if about else Exit.OK

    def as_data(self) -> dict[str, Any]:
        return {
            **self.found,
            "actions": [action.as_data() for action in self.plan.actions],
            "notes": list(self.plan.notes),
            "problems": [
                {"about": problem.about, "name": problem.name, "title": problem.title} for problem in self.problems
            ],
            "done": self.done,
            "requests": self.requests,
            "writes": self.writes,
        }


class BotRun:
    """One run. ``forge`` None, for a dry run without a network: then no pull request or issue is known."""

    def __init__(self, settings: BotSettings, repository: Repository, forge: Forge | None) -> None:
        self.settings, self.repository, self.forge = settings, repository, forge

    def open_pulls(self, prefix: str) -> list[Pull]:
        """The open pull requests from branches whose names begin with ``prefix``."""
        pulls = self.forge.open_pulls(self.settings.repository) if self.forge else []
        return [pull for pull in pulls if pull.branch.startswith(prefix)]

    def remote(self, project: str, prefix: str, pulls: Sequence[Pull], wanted: Sequence[str]) -> RemoteState:
        """What is there of a project. ``wanted``: branches; where none is open, closed pull requests matter too."""
        branches = self.repository.branches(prefix)
        if self.forge is None:
            return RemoteState(branches, pulls)
        name, known = self.settings.repository, {pull.number: pull for pull in pulls}
        for branch in set(wanted) - {pull.branch for pull in pulls}:
            known |= {pull.number: pull for pull in self.forge.pulls_of(name, branch)}
        issues = [issue for issue in self.forge.issues(name) if issue.marker.get("project") == project]
        return RemoteState(branches, list(known.values()), issues)

    @property
    def is_real(self) -> bool:
        return not self.settings.dry_run and self.forge is not None

    def carry_out(self, plan: PullPlan) -> None:
        """Does what is planned, in its order."""
        number = plan.number
        for action in plan.actions:
            if action.kind is GitHubWrite.OPEN:
                number = self._open(action)
            else:
                self._one(action, number)

    def outcome(
        self,
        discovered: Mapping[str, Any],
        passed: Sequence[tuple[str, str]],
        plan: PullPlan,
        problems: Sequence[Reported],
        *,
        again: bool = False,
    ) -> RunOutcome:
        requests, writes = (self.forge.requests, self.forge.writes) if self.forge else (0, 0)
        writes += self.repository.writes
        return RunOutcome(discovered, passed, plan, tuple(problems), self.is_real, requests, writes, again)

    def _writable(self) -> Forge:
        """The forge. PatchforgeError in a run that may write nothing."""
        if self.forge is None or not self.is_real:
            raise PatchforgeError(
                "a dry run writes nothing",
                expected="a run with a token and without --dry-run",
                do="leave --dry-run out, and give it a token",
            )
        return self.forge

    def _open(self, action: Action) -> int:
        name, base = self.settings.repository, self.settings.base
        opened = self._writable().open_pull(name, base, action.branch, action.title, action.body, draft=action.draft)
        return opened.number

    def _one(self, action: Action, new: int) -> None:
        forge, name = self._writable(), self.settings.repository
        text = action.text.replace("{new}", str(new))
        if text and (action.number or new):
            forge.comment(name, action.number or new, text)
        match action.kind:
            case GitHubWrite.PUSH:
                self.repository.push(action.branch, action.commit, action.expected)
            case GitHubWrite.DELETE:
                self.repository.delete(action.branch, action.expected)
            case GitHubWrite.EDIT:
                forge.edit_pull(name, action.number, body=action.body)
            case GitHubWrite.CLOSE:
                forge.edit_pull(name, action.number, state="closed", body=action.body)
            case GitHubWrite.FILE:
                forge.open_issue(name, action.title, action.body)
            case GitHubWrite.EDIT_ISSUE:
                forge.edit_issue(name, action.number, body=action.body)
            case GitHubWrite.CLOSE_ISSUE:
                forge.edit_issue(name, action.number, state="closed")
            case _:
                pass


@contextmanager
def alone(repository: str) -> Iterator[None]:
    """TryAgain while another run for the same repository goes on, on this machine."""
    name = hashlib.sha256(repository.encode()).hexdigest()[:12]
    with ExitStack() as stack:
        try:
            stack.enter_context(caches.locked(caches.home() / f"bot-{name}.lock", seconds=0))
        except TryAgain:
            raise TryAgain(f"another run for {repository} is still at work", do="wait until it ends") from None
        yield
