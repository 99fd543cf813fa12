"""A run for releases: look, convert the newest, plan, do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from patchforge import bounded, manifest
from patchforge.bench import costs
from patchforge.bot import bodies, preparation
from patchforge.bot.discovery import Discovery, list_tags
from patchforge.bot.forge import Forge
from patchforge.bot.mirror import Mirror, find_new, found_as_data, generated_commits
from patchforge.bot.model import Action, Candidate, GitHubRelease, GitHubWrite, PassedOver, Proposal, Pull, Reported
from patchforge.bot.plan import PullPlan, branch_of, plan_release, prefix
from patchforge.bot.preparation import BotStep, StepResult
from patchforge.bot.repository import Repository
from patchforge.bot.run import BotRun, BotSettings, RunOutcome
from patchforge.door.roles import load_table, undecided
from patchforge.door.routes import of_comfyui, or_nothing_read
from patchforge.engine.cache import rule_set_digest
from patchforge.engine.convert import Engine
from patchforge.errors import CheckFailed, Drifted, PatchforgeError, TryAgain
from patchforge.manifest import Manifest
from patchforge.outputs import write_document
from patchforge.pins import pin_files
from patchforge.pipeline import PatchedRelease
from patchforge.project import Project, load_project
from patchforge.sources import MissingBlobError, Upstream
from patchforge.trial.reports import evidence
from patchforge.vocabulary import Release, Version

_ATTEMPTS = 3  #: versions to try, newest first, when one does not convert


class ReleaseRun(BotRun):
    """One run. Offline (``forge`` None) no release of GitHub's is known either."""

    def __init__(self, settings: BotSettings, repository: Repository, forge: Forge | None, engine: Engine) -> None:
        super().__init__(settings, repository, forge)
        self.engine = engine
        self.project = load_project(folder=repository.folder / "upstream")
        self.generated = repository.folder / "generated" / self.project.name
        self.ours = generated_commits(self.generated)
        self.tested: Action | None = None
        self.passed: list[PassedOver] = []  #: candidates that were passed over once they were fetched

    def run(self) -> RunOutcome:
        with Mirror(self.project, self.settings.upstream) as mirror:
            discovery, releases = find_new(self.project, mirror, self.forge, self.ours)
            pulls = self.open_pulls(prefix(self.project))
            wanted, problems = self._first_that_converts(mirror, discovery, releases, pulls)
            if moved := [entry for entry in discovery.passed if entry.moved]:
                problems.append(self._moved(moved))
            branches = [wanted.branch] if wanted else []
            remote = self.remote(self.project.name, prefix(self.project), pulls, branches)
            plan = plan_release(self.project, remote, frozenset(self.ours), wanted, problems, rules=self.settings.rules)
            if self.tested:
                plan = PullPlan((*plan.actions, self.tested), plan.notes, plan.number)
            if self.is_real:
                self._check_tag(mirror, plan, discovery, wanted)
                self.carry_out(plan)
        discovery = replace(discovery, passed=(*discovery.passed, *self.passed))
        passed = [(entry.tag, entry.why) for entry in discovery.passed]
        return self.outcome(found_as_data(discovery), passed, plan, problems)

    def _first_that_converts(
        self, mirror: Mirror, discovery: Discovery, releases: Sequence[GitHubRelease], pulls: Sequence[Pull]
    ) -> tuple[Proposal | None, list[Reported]]:
        """The newest version that converts, and what is wrong with those before it."""
        problems: list[Reported] = []
        for candidate in self._candidates(discovery, mirror):
            try:
                return self._want(mirror, candidate, releases, pulls), problems
            except (Drifted, CheckFailed) as error:
                problems.append(self._problem(candidate, error, mirror))
                self.repository.reset()
        return None, problems

    def _candidates(self, discovery: Discovery, mirror: Mirror) -> Iterator[Candidate]:
        named = self.settings.version
        wanted = (
            discovery.new[::-1]
            if named is None
            else [candidate for candidate in discovery.new if candidate.version == named]
        )
        given = 0
        for candidate in wanted:
            if given == _ATTEMPTS:
                return
            if why := mirror.passed_over(candidate):
                self.passed.append(PassedOver(candidate.tag, why))
            else:
                given += 1
                yield candidate
        if named is not None and not given:
            raise self._not_proposed(discovery, named)

    def _not_proposed(self, discovery: Discovery, named: Version) -> PatchforgeError:
        passed = (*self.passed, *discovery.passed)
        why = next(
            (entry.why for entry in passed if entry.tag == self.project.tag_of(named)), "upstream has no such tag"
        )
        if discovery.newest and named <= discovery.newest:
            why = f"not newer than {discovery.newest}, which the base branch has"
        return PatchforgeError(f"{named} cannot be proposed", found=why, do="patchforge track shows what is new")

    def _want(
        self, mirror: Mirror, candidate: Candidate, releases: Sequence[GitHubRelease], pulls: Sequence[Pull]
    ) -> Proposal:
        """Runs all steps in our repository's folder and commits what they made."""
        folder, project = self.repository.folder, self.project
        patched = preparation.convert(self.engine, mirror.upstream, project, candidate, folder)
        results = [self._step(step, candidate, mirror) for step in (preparation.HASHES, preparation.NIX)]
        results.append(self._count(candidate, mirror, patched))
        commit = self._commit(candidate, mirror.date(candidate.commit))
        change = self.repository.change(commit)
        branch = branch_of(project, candidate.version)
        current = next((pull for pull in pulls if pull.branch == branch), None)
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
            costs=self._costs(patched, before),
            routes=undecided(or_nothing_read(of_comfyui, patched.conversion.tree), load_table().comfyui),
            notes=_between(project, releases, max(self.ours, default=None), candidate.version),
            steps=results,
        )
        rose = before is not None and len(patched.conversion.unclaimed) > before.sites.unclaimed
        said = {"project": project.name, "name": str(candidate.version), "commit": candidate.commit}
        offer = bodies.offer(candidate.commit, patched.patch_files())
        marked = bodies.marked(body, **said, change=change, offer=offer, tested=results[-1].outcome)
        draft = rose or any(result.outcome in {"failed", "failing"} for result in results)
        title = f"{project.title} {candidate.version}"
        return Proposal(str(candidate.version), branch, commit, change, offer, title, marked, draft)

    def _step(self, step: BotStep, candidate: Candidate, mirror: Mirror) -> StepResult:
        folder = self.repository.folder
        return preparation.run_step(
            step,
            folder,
            self.repository.hidden,
            clone=mirror.clone,
            version=candidate.version,
            out=folder.parent / "out",
        )

    def _count(self, candidate: Candidate, mirror: Mirror, patched: PatchedRelease) -> StepResult:
        """Exact costs of these very patches: those that the branch has, else those that are counted now."""
        folder, name = self.repository.folder, preparation.COUNT.name
        file = costs.place(folder / "generated" / self.project.name, str(candidate.version))
        data = self.repository.file(branch_of(self.project, candidate.version), str(file.relative_to(folder)))
        if (known := costs.parse(data)) and known.manifest == _digest(patched):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_document(file, data, costs.is_ours)
            return StepResult(name, "ok")
        if not preparation.is_there(preparation.COUNT, folder):
            return StepResult(name, "not there")
        if not self.settings.test or self.settings.dry_run:
            return StepResult(name, "off")
        self._step(preparation.COUNT, candidate, mirror)
        recorded = self._step(preparation.RECORD, candidate, mirror).outcome == "ok"
        return StepResult(name, "ok" if recorded else "lost")

    def _test(self, candidate: Candidate, mirror: Mirror, change: str, current: Pull | None) -> StepResult:
        """Runs the tests, unless the open pull request says what they gave for this very change."""
        known = current.marker if current and current.marker.get("change") == change else {}
        if current and self.forge and known.get("tested") in {"told", "failing"}:
            topic = {"topic": bodies.tests_topic(change)}
            if not self.settings.test or self.forge.has_comment(self.settings.repository, current.number, topic):
                return StepResult(preparation.TEST.name, known["tested"])
        if not self.settings.test or self.settings.dry_run:
            return StepResult(preparation.TEST.name, "off")
        result = self._step(preparation.TEST, candidate, mirror)
        if result.outcome == "not there":
            return result
        self.tested = Action(GitHubWrite.COMMENT, "what the tests saw", text=bodies.tests_comment(result, change))
        return StepResult(result.name, "told" if result.outcome == "ok" else "failing")

    def _commit(self, candidate: Candidate, made: datetime) -> str:
        """Two commits: the index, which people edit too, and what is only ever generated."""
        name, version, index = self.project.name, candidate.version, self.project.index
        index_path = f"upstream/{index.name}"
        preparation.list_in_index(index, candidate, made.astimezone(UTC).date().isoformat())
        machine = (
            f"generated/{name}/{version}/",
            f"generated/costs/{name}/{version}.json",
            "generated/nix/",
            "upstream/pins/",
            "flake.nix",
        )
        self.repository.only([index_path, *machine])
        date = made.isoformat()
        self.repository.commit([index_path], f"Index {self.project.title} {version}\n", date)
        rules = rule_set_digest()[:16]
        why = f"Made by patchforge alone: upstream commit {candidate.commit},\nrule set {rules}."
        return self.repository.commit(machine, f"Generate {self.project.title} {version}\n\n{why}\n", date)

    def _before(self) -> Manifest | None:
        if not self.ours:
            return None
        return manifest.load(self.generated / str(max(self.ours)))

    def _costs(self, patched: PatchedRelease, before: Manifest | None) -> bodies.Costs | None:
        kept = costs.load(self.generated, str(patched.release.version))
        if kept is None:
            return None
        earlier = costs.load(self.generated, before.release) if before else None
        beside = evidence.digest(manifest.FORMAT.dump(before)) if before else ""
        return bodies.Costs(kept, earlier, earlier is not None and earlier.manifest != beside)

    def _patches(self, before: Manifest | None) -> dict[str, bytes]:
        folder = self.generated / before.release if before else None
        return {path.name: bounded.file(path) for path in folder.glob("*.patch")} if folder else {}

    def _hashes(self, before: Manifest | None, candidate: Candidate) -> tuple[str, str]:
        """Nix's hash of upstream's source, of the version before and of this one; "" where none is pinned."""
        pins = pin_files.load("comfyui", self.repository.folder / "upstream" / "pins")
        old, new = (pins.get(name) for name in (before.release if before else "", str(candidate.version)))
        return old.hash if old else "", new.hash if new else ""

    def _problem(self, candidate: Candidate, error: PatchforgeError, mirror: Mirror) -> Reported:
        about, what = ("drift", "a transform drifted") if isinstance(error, Drifted) else ("proof", "a check failed")
        text = str(error).replace(mirror.where, self.project.url)
        body = bodies.problem_body(self.project, about, text, candidate)
        version = str(candidate.version)
        marked = bodies.marked(body, about=about, name=version, project=self.project.name)
        return Reported(about, version, f"{self.project.title} {version}: {what}", marked)

    def _moved(self, moved: Sequence[PassedOver]) -> Reported:
        text = "\n".join(f"{entry.tag}: {entry.why}" for entry in moved)
        body = bodies.problem_body(self.project, "moved", text)
        marked = bodies.marked(body, about="moved", name="tags", project=self.project.name)
        return Reported("moved", "tags", f"{self.project.title}: a tag was moved", marked)

    def _check_tag(self, mirror: Mirror, plan: PullPlan, discovery: Discovery, wanted: Proposal | None) -> None:
        """Once more before something is pushed: the tag may have been moved while we worked."""
        if wanted is None or not any(action.kind is GitHubWrite.PUSH for action in plan.actions):
            return
        candidate = discovery.candidate(Version.parse(wanted.name))
        if candidate and list_tags(mirror.where)[0].get(candidate.tag) != candidate.commit:
            raise TryAgain(f"{candidate.tag} was moved while this ran", expected=candidate.commit, do="run this again")


def _digest(patched: PatchedRelease) -> str:
    """Of its manifest, by which costs say what they are of."""
    return evidence.digest(patched.files()[manifest.NAME])


def _requirements(upstream: Upstream, before: Manifest | None, patched: PatchedRelease) -> list[tuple[str, str, str]]:
    if before is None or not before.commit:  # made of plain files
        return []
    old = Release(Version.parse(before.release), before.commit, indexed=False)
    texts = []
    for tree in (upstream.tree(old), patched.conversion.tree):
        try:
            texts.append(tree.read("requirements.txt").decode("utf-8", "replace"))
        except (KeyError, MissingBlobError):
            return []
    return bodies.requirement_changes(*texts)


def _between(
    project: Project, releases: Sequence[GitHubRelease], after: Version | None, until: Version
) -> list[GitHubRelease]:
    """The releases after one version up to another, oldest first."""
    versions = [
        (version, release) for release in releases if (version := project.version_of(release.tag)) and version <= until
    ]
    return [
        release for version, release in sorted(versions, key=lambda pair: pair[0]) if after is None or version > after
    ]
