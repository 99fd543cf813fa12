"""One run of the bot: look, convert, plan, do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from patchforge.bot import bodies, steps
from patchforge.bot.discovery import Found, list_tags
from patchforge.bot.forge import Forge
from patchforge.bot.mirror import Mirror, found_as_data, generated_commits, look
from patchforge.bot.plan import Plan, Rules, There, branch_of, make_plan, prefix
from patchforge.bot.repository import Repository
from patchforge.bot.steps import Result, Step
from patchforge.bot.words import Action, Candidate, Do, Issue, Passed, Problem, Published, Pull, Wanted
from patchforge.engine.convert import Engine
from patchforge.errors import CheckFailed, Drifted, Exit, PatchforgeError, TryAgain
from patchforge.pipeline import Patched
from patchforge.project import Project, load_project
from patchforge.sources import MissingBlobError, Upstream
from patchforge.sources.clone import cache_folder
from patchforge.vocabulary import Release, Version

_ATTEMPTS = 3  #: versions to try, newest first, when one does not convert


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run is told."""

    repository: str  #: OWNER/NAME on GitHub
    remote: str  #: address or path of the same repository, for git
    base: str = "main"
    upstream: str | None = None
    version: Version | None = None  #: this one only; else the newest that is new
    dry_run: bool = False
    test: bool = False
    steps: Sequence[Step] = steps.STEPS
    step_timeout: float = 3600.0  #: seconds
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True)
class Outcome:
    """What a run found and did."""

    found: Found
    plan: Plan
    problems: tuple[Problem, ...]
    done: bool
    requests: int
    writes: int

    @property
    def status(self) -> Exit:
        """DRIFTED or FAILED as long as something needs a person, although an issue says so."""
        about = {one.about for one in self.problems}
        return Exit.DRIFTED if "drift" in about else Exit.FAILED if about else Exit.OK

    def as_data(self) -> dict[str, Any]:
        return {
            **found_as_data(self.found),
            "actions": [one.as_data() for one in self.plan.actions],
            "notes": list(self.plan.notes),
            "problems": [{"about": one.about, "version": one.version, "title": one.title} for one in self.problems],
            "done": self.done,
            "requests": self.requests,
            "writes": self.writes,
        }


class Bot:
    """One run. ``forge`` None, for a dry run without a network: then no pull request or issue is known."""

    def __init__(self, settings: Settings, repository: Repository, forge: Forge | None, engine: Engine) -> None:
        self.settings, self.repository, self.forge, self.engine = settings, repository, forge, engine
        self.project = load_project(folder=repository.folder / "upstream")
        self.generated = repository.folder / "generated" / self.project.name
        self.ours = generated_commits(self.generated)
        self.tested: Action | None = None

    def run(self) -> Outcome:
        with Mirror(self.project, self.settings.upstream) as mirror:
            found, releases = look(self.project, mirror, self.forge, self.ours)
            pulls = self.forge.open_pulls(self.settings.repository) if self.forge else []
            wanted, problems = self._first_that_converts(mirror, found, releases, pulls)
            if moved := [one for one in found.passed if one.moved]:
                problems.append(self._moved(moved))
            plan = make_plan(self.project, self._there(pulls, wanted), wanted, problems, self.settings.rules)
            if self.tested:
                plan = Plan((*plan.actions, self.tested), plan.notes, plan.number)
            done = not self.settings.dry_run and self.forge is not None
            if done:
                self._check_tag(mirror, plan, found, wanted)
                self._do(plan)
        requests, writes = (self.forge.requests, self.forge.writes) if self.forge else (0, 0)
        return Outcome(found, plan, tuple(problems), done, requests, writes + self.repository.writes)

    def _first_that_converts(
        self, mirror: Mirror, found: Found, releases: Sequence[Published], pulls: Sequence[Pull]
    ) -> tuple[Wanted | None, list[Problem]]:
        """The newest version that converts, and what is wrong with those before it."""
        problems: list[Problem] = []
        for candidate in self._candidates(found):
            try:
                return self._want(mirror, candidate, releases, pulls), problems
            except (Drifted, CheckFailed) as error:
                problems.append(self._problem(candidate, error, mirror))
                self.repository.reset()
        return None, problems

    def _candidates(self, found: Found) -> list[Candidate]:
        named = self.settings.version
        if named is None:
            return list(found.new[::-1][:_ATTEMPTS])
        if one := found.candidate(named):
            return [one]
        why = next(
            (one.why for one in found.passed if one.tag == self.project.tag_of(named)), "upstream has no such tag"
        )
        if found.newest and named <= found.newest:
            why = f"not newer than {found.newest}, which the base branch has"
        raise PatchforgeError(f"{named} cannot be proposed", found=why, do="patchforge track shows what is new")

    def _want(
        self, mirror: Mirror, candidate: Candidate, releases: Sequence[Published], pulls: Sequence[Pull]
    ) -> Wanted:
        """Runs all steps in our repository's folder and commits what they made."""
        folder, project = self.repository.folder, self.project
        patched = steps.convert(self.engine, mirror.upstream, project, candidate, folder)
        results = [self._step(one, candidate, mirror) for one in self.settings.steps]
        commit = self._commit(candidate, patched, mirror.date(candidate.commit))
        change = self.repository.change(commit)
        branch = branch_of(project, candidate.version)
        current = next((one for one in pulls if one.branch == branch), None)
        results.append(self._test(candidate, mirror, change, current))
        before = self._before()
        body = bodies.pull_body(
            project,
            candidate,
            patched.manifest(patched.patch_files()),
            before,
            patches=patched.patch_files(),
            patches_before=self._patches(before),
            hashes=self._hashes(before, candidate),
            requirements=_requirements(mirror.upstream, before, patched),
            notes=_between(project, releases, max(self.ours, default=None), candidate.version),
            steps=results,
        )
        rose = before is not None and len(patched.conversion.unclaimed) > before["sites"]["unclaimed"]
        said = {"project": project.name, "version": str(candidate.version), "commit": candidate.commit}
        marked = bodies.marked(body, **said, change=change, tested=results[-1].outcome)
        draft = rose or any(one.outcome in {"failed", "failing"} for one in results)
        title = f"{project.title} {candidate.version}"
        return Wanted(candidate.version, branch, commit, change, title, marked, draft)

    def _step(self, step: Step, candidate: Candidate, mirror: Mirror) -> Result:
        place = self.repository.folder.parent / "out"
        limit = self.settings.step_timeout
        return steps.run_step(
            step, self.repository.folder, clone=mirror.clone, version=candidate.version, out=place, timeout=limit
        )

    def _test(self, candidate: Candidate, mirror: Mirror, change: str, current: Pull | None) -> Result:
        """Runs the tests, unless the open pull request says what they gave for this very change."""
        known = current.marker if current and current.marker.get("change") == change else {}
        if current and self.forge and known.get("tested") in {"told", "failing"}:
            topic = {"topic": bodies.tests_topic(change)}
            if not self.settings.test or self.forge.has_comment(self.settings.repository, current.number, topic):
                return Result(steps.TEST.name, known["tested"])
        if not self.settings.test or self.settings.dry_run:
            return Result(steps.TEST.name, "off")
        result = self._step(steps.TEST, candidate, mirror)
        if result.outcome == "not there":
            return result
        self.tested = Action(Do.COMMENT, "what the tests saw", text=bodies.tests_comment(result, change))
        return Result(result.name, "told" if result.outcome == "ok" else "failing")

    def _commit(self, candidate: Candidate, patched: Patched, made: datetime) -> str:
        """Two commits: the index, which people edit too, and what is only ever generated."""
        name, version, index = self.project.name, candidate.version, self.project.index
        index_path = f"upstream/{index.name}"
        steps.list_in_index(index, candidate, made.astimezone(UTC).date().isoformat())
        machine = (f"generated/{name}/{version}/", "generated/nix/", "upstream/pins/", "flake.nix")
        self.repository.only([index_path, *machine])
        date = made.isoformat()
        self.repository.commit([index_path], f"Index {self.project.title} {version}\n", date)
        rules = patched.manifest(patched.patch_files())["rules"][:16]
        why = f"Made by patchforge alone: upstream commit {candidate.commit},\nrule set {rules}."
        return self.repository.commit(machine, f"Generate {self.project.title} {version}\n\n{why}\n", date)

    def _before(self) -> dict[str, Any] | None:
        if not self.ours:
            return None
        path = self.generated / str(max(self.ours)) / "manifest.json"
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def _patches(self, before: Mapping[str, Any] | None) -> dict[str, bytes]:
        folder = self.generated / before["release"] if before else None
        return {path.name: path.read_bytes() for path in folder.glob("*.patch")} if folder else {}

    def _hashes(self, before: Mapping[str, Any] | None, candidate: Candidate) -> tuple[str, str]:
        """Nix's hash of upstream's source, of the version before and of this one; "" where none is pinned."""
        path = self.repository.folder / "upstream" / "pins" / f"{self.project.name}.json"
        pins = json.loads(path.read_bytes()) if path.is_file() else {}
        old = pins.get(before["release"], {}) if before else {}
        return old.get("hash", ""), pins.get(str(candidate.version), {}).get("hash", "")

    def _problem(self, candidate: Candidate, error: PatchforgeError, mirror: Mirror) -> Problem:
        about, what = ("drift", "a transform drifted") if isinstance(error, Drifted) else ("proof", "a check failed")
        text = str(error).replace(mirror.where, self.project.url)
        body = bodies.problem_body(self.project, about, text, candidate)
        version = str(candidate.version)
        marked = bodies.marked(body, about=about, version=version, project=self.project.name)
        return Problem(about, version, f"{self.project.title} {version}: {what}", marked)

    def _moved(self, moved: Sequence[Passed]) -> Problem:
        text = "\n".join(f"{one.tag}: {one.why}" for one in moved)
        body = bodies.problem_body(self.project, "moved", text)
        marked = bodies.marked(body, about="moved", version="tags", project=self.project.name)
        return Problem("moved", "tags", f"{self.project.title}: a tag was moved", marked)

    def _there(self, pulls: Sequence[Pull], wanted: Wanted | None) -> There:
        known, issues = {one.number: one for one in pulls}, list[Issue]()
        if self.forge:
            issues = self.forge.issues(self.settings.repository)
            if wanted:
                known |= {one.number: one for one in self.forge.pulls_of(self.settings.repository, wanted.branch)}
        branches = self.repository.branches(prefix(self.project))
        return There(frozenset(self.ours), branches, list(known.values()), issues)

    def _check_tag(self, mirror: Mirror, plan: Plan, found: Found, wanted: Wanted | None) -> None:
        """Once more before something is pushed: the tag may have been moved while we worked."""
        if wanted is None or not any(one.do is Do.PUSH for one in plan.actions):
            return
        candidate = found.candidate(wanted.version)
        if candidate and list_tags(mirror.where).get(candidate.tag) != candidate.commit:
            raise TryAgain(f"{candidate.tag} was moved while this ran", expected=candidate.commit, do="run this again")

    def _do(self, plan: Plan) -> None:
        number = plan.number
        for action in plan.actions:
            if action.do is Do.OPEN:
                number = self._open(action)
            else:
                self._one(action, number)

    def _open(self, action: Action) -> int:
        assert self.forge  # noqa: S101 - a run without it does nothing
        name, base = self.settings.repository, self.settings.base
        opened = self.forge.open_pull(name, base, action.branch, action.title, action.body, draft=action.draft)
        return opened.number

    def _one(self, action: Action, new: int) -> None:
        assert self.forge  # noqa: S101
        forge, name = self.forge, self.settings.repository
        text = action.text.replace("{new}", str(new))
        if text and (action.number or new):
            forge.comment(name, action.number or new, text)
        match action.do:
            case Do.PUSH:
                self.repository.push(action.branch, action.commit, action.expected)
            case Do.DELETE:
                self.repository.delete(action.branch, action.expected)
            case Do.EDIT:
                forge.edit_pull(name, action.number, body=action.body)
            case Do.CLOSE:
                forge.edit_pull(name, action.number, state="closed", body=action.body)
            case Do.FILE:
                forge.open_issue(name, action.title, action.body)
            case Do.EDIT_ISSUE:
                forge.edit_issue(name, action.number, body=action.body)
            case Do.CLOSE_ISSUE:
                forge.edit_issue(name, action.number, state="closed")
            case _:
                pass


@contextmanager
def alone(repository: str) -> Iterator[None]:
    """TryAgain while another run for the same repository goes on, on this machine."""
    import filelock  # noqa: PLC0415 - keeps start-up light

    name = hashlib.sha256(repository.encode()).hexdigest()[:12]
    path = cache_folder().parent / f"bot-{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(filelock.FileLock(path).acquire(timeout=0))
        except filelock.Timeout:
            raise TryAgain(f"another run for {repository} goes on", do="wait for its end") from None
        yield


def _requirements(upstream: Upstream, before: Mapping[str, Any] | None, patched: Patched) -> list[tuple[str, str, str]]:
    if before is None:
        return []
    old = Release(Version.parse(before["release"]), before["commit"], indexed=False)
    texts = []
    for tree in (upstream.tree(old), patched.conversion.tree):
        try:
            texts.append(tree.read("requirements.txt").decode("utf-8", "replace"))
        except (KeyError, MissingBlobError):
            return []
    return bodies.requirement_changes(*texts)


def _between(project: Project, releases: Sequence[Published], after: Version | None, until: Version) -> list[Published]:
    """The releases after one version up to another, oldest first."""
    found = [(version, one) for one in releases if (version := project.version_of(one.tag)) and version <= until]
    return [one for version, one in sorted(found, key=lambda pair: pair[0]) if after is None or version > after]
