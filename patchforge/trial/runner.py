"""One release on one device: its trees, its environment, its sessions, and the evidence that they leave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import TypedDict

from patchforge import caches, documents, faults
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.manifest import TreePath
from patchforge.outputs import mark, marked, write_document
from patchforge.pipeline import PatchedRelease, write_whole
from patchforge.trial.model import Device, Ending, Execution, Judgement, Output, TrialSide, TrialVerdict, Workflow
from patchforge.trial.reports import evidence
from patchforge.trial.reports.evidence import Evidence, SessionResult
from patchforge.trial.server import devices
from patchforge.trial.server.comfyui import ComfyuiServer, flags, link_models
from patchforge.trial.server.environment import Environment
from patchforge.trial.server.supervisor import temporary_folder
from patchforge.trial.verdicts import checks, plan
from patchforge.trial.verdicts.plan import Session

Tell = Callable[[str], None]

_READING = Lock()  # trees of one clone are read by one thread at a time

CPU = Device("cpu")
_LOG_LINES = 30
#: What decides the reference's pictures.
_COMPUTED = ("workflows/comfyui/*.json", "workflows/weights.py", "server/pack/nodes.py")
JUDGED = (
    *_COMPUTED,
    "workflows/comfyui/index.toml",
    "server/pack/observer.py",
    "server/pack/device.py",
    "verdicts/*.py",
)


@dataclass(frozen=True)
class TrialSettings:
    """What the trials of one command share. Times are in seconds."""

    device: Device
    cache: Path  #: references are kept here
    weights: Path  #: the generated models and inputs
    workflows: Mapping[str, Workflow]
    prompt_timeout: float = 300.0
    start_timeout: float = 180.0
    again: bool = False  #: do not use what an earlier command found
    logs: Path | None = None  #: where the logs of servers with a failed test are kept


class Trial:
    """A patched release on a device, with upstream's tree beside it."""

    def __init__(self, patched: PatchedRelease, environment: Environment, settings: TrialSettings, tell: Tell) -> None:
        self.patched, self.environment, self.settings, self.tell = patched, environment, settings, tell

    def run(self, out: Path, sides: Sequence[TrialSide], names: Sequence[str] = ()) -> Evidence:
        """All sessions of the sides, or those named. Each is saved in ``out``; those finished there are kept."""
        earlier = self.earlier(out)
        keys = {
            (side, session.name): self.key(session, side)
            for side in TrialSide
            for session in plan.sessions(self.device, side)
        }
        kept = tuple(session for session in earlier.sessions if keys.get((session.side, session.name)) == session.key)
        collected = replace(earlier, sessions=kept)
        todo = [(side, session) for side in sides for session in plan.sessions(self.device, side, names)]
        with temporary_folder("patchforge-trial-") as scratch:
            trees = Trees(self.patched, self.settings.weights, scratch, self.tell)
            for side, session in todo:
                key = self.key(session, side)
                if collected.finished(side, session.name, key):
                    self.tell(f"{side} {session.name}: done before")
                    continue
                device = session.device(self.device)
                run = TrialRun(self, trees, session, side, device=device, reference=self.reference(trees))
                run.run()
                result, pictures = run.result(key)
                collected = collected.add(result)
                evidence.save(out, collected, pictures)
        return collected

    def earlier(self, out: Path) -> Evidence:
        """What ``out`` holds of this very release and device; none where all is to be done again."""
        collected = Evidence(str(self.patched.release.version), self.patched.release.commit, self.manifest, self.device)
        evidence.check(out)
        known = None if self.settings.again else evidence.load(out)
        return known if known is not None and known.binding == collected.binding else collected

    @property
    def device(self) -> Device:
        return self.settings.device

    @cached_property
    def manifest(self) -> str:
        """The digest of the manifest that ``patchforge apply`` writes for this release."""
        return evidence.digest(self.patched.files()["manifest.json"])

    def key(self, session: Session, side: TrialSide, parts: tuple[str, ...] = JUDGED) -> str:
        """What decides a session's results, as a digest; ``parts`` are files of this folder."""
        return evidence.session_key(
            commit=self.patched.release.commit,
            manifest=self.manifest if side is TrialSide.PATCHED else "",
            session=repr(session),
            device=repr(session.device(self.device)),
            packages=dict(self.environment.packages),
            trial=_own_digest(parts),
            emulator=devices.emulator_digest() if self.device.emulated else "",
        )

    def reference(self, trees: Trees) -> dict[str, Execution]:
        """Upstream's results on the CPU, kept in the cache; none where the device is the CPU itself."""
        if self.device.kind == CPU.kind:
            return {}
        folder = caches.within(self.settings.cache, "references")
        folder /= self.key(plan.REFERENCE, TrialSide.UPSTREAM, _COMPUTED)[:20]
        if (known := caches.read_tree(folder)) is None:
            run = TrialRun(self, trees, plan.REFERENCE, TrialSide.UPSTREAM, device=CPU, reference={})
            run.run()
            if not run.executions:
                failed = run.judgements[0]
                raise CheckFailed(
                    "upstream's own tree gives no results on the CPU to compare with",
                    found="\n".join([failed.reason, *failed.log]),
                    do="see that the release runs with --cpu here",
                )
            known = _packed(run.executions)
            caches.write_tree(folder, known)
        return _unpacked(known)


class TrialRun:
    """One session, from the server's start to its end; a server that a test has ended is started again."""

    def __init__(
        self,
        trial: Trial,
        trees: Trees,
        session: Session,
        side: TrialSide,
        *,
        device: Device,
        reference: Mapping[str, Execution],
    ) -> None:
        self.trial, self.session, self.side, self.device = trial, session, side, device
        self.trees, self.reference = trees, reference
        self.executions: dict[str, Execution] = {}
        self.judgements: list[Judgement] = []
        self.state: dict[str, object] = {}
        self.arguments: tuple[str, ...] = ()
        self.name = f"{trial.patched.release.version} {side} {session.name}"

    def run(self) -> None:
        """Goes through all tests; each has a judgement afterwards."""
        tree = self.trees[self.side]
        settings = self.trial.settings
        pending = checks.chosen(self.session.tests, settings.workflows)
        has = flags(tree)
        if lacking := [flag for flag in self.session.needs if _flag(flag) not in has]:
            self._give_up(pending, TrialVerdict.SKIPPED, f"the release has no {' and no '.join(map(_flag, lacking))}")
            return
        wanted = plan.flags(self.session, self.side, self.device)
        self.arguments = (*self.session.needs, *(flag for flag in wanted if _flag(flag) in has))
        while pending:
            try:
                with self._server(tree) as server:
                    self._tests(server, pending)
            except CheckFailed as error:  # the server did not start
                self._give_up(
                    pending, TrialVerdict.FAILED, error.problem, tuple(error.found.splitlines()[-_LOG_LINES:])
                )
                return

    def _server(self, tree: Path) -> ComfyuiServer:
        return ComfyuiServer(
            tree,
            self.trial.environment,
            arguments=self.arguments,
            variables=devices.variables(self.trial.device if self.device == CPU else self.device),
            log=self.trees.scratch / "server.log",
            timeout=self.trial.settings.start_timeout,
            remove=[self.trees.scratch],
        )

    def _tests(self, server: ComfyuiServer, pending: list[str]) -> None:
        """Takes tests off ``pending`` until none is left or the server is of no more use."""
        settings = self.trial.settings
        bench = checks.ServerBench(
            server, self.session, self.device, settings.workflows, self.reference, settings.prompt_timeout
        )
        try:
            self.state = server.client.state()
        except OSError as error:
            lines = "\n".join(server.log_lines()[-_LOG_LINES:])
            raise CheckFailed(f"the trial pack does not answer: {faults.reason(error)}", found=lines) from error
        while pending:
            judged = checks.run_test(bench, pending.pop(0))
            self._add(judged)
            self._keep_log(server, judged)
            self.executions |= bench.executions
            if not bench.usable():
                return

    def _add(self, judged: Judgement) -> None:
        self.judgements.append(judged)
        self.trial.tell(f"{self.name}: {judged.test} {judged.verdict}, {judged.seconds:.1f} s")

    def _give_up(self, pending: list[str], verdict: TrialVerdict, reason: str, log: tuple[str, ...] = ()) -> None:
        for name in pending:
            self._add(Judgement(name, verdict, reason, log=log))

    def _keep_log(self, server: ComfyuiServer, judged: Judgement) -> None:
        logs = self.trial.settings.logs
        if logs is not None and judged.verdict not in {TrialVerdict.PASSED, TrialVerdict.FRESH, TrialVerdict.SKIPPED}:
            text = "\n".join([*server.log_lines(), mark(), ""])
            try:
                write_document(logs / f"{self.name.replace(' ', '-')}-{judged.test}.log", marked(text))
            except PatchforgeError as error:  # no reason to end the run
                self.trial.tell(f"a log is not kept: {error.problem}")

    def result(self, key: str) -> tuple[SessionResult, dict[str, bytes]]:
        """What the evidence keeps of the session, and its pictures by name."""
        pictures: dict[str, bytes] = {}
        judged = tuple(self._pictured(judgement, pictures) for judgement in self.judgements)
        facts = {name: value for name, value in self.state.items() if name != "packages"}
        return SessionResult(
            name=self.session.name,
            side=self.side,
            key=key,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            device=self.device,
            arguments=self.arguments,
            facts=facts,
            versions=dict(self.trial.environment.packages),
            missing=self.trees.missing,
            judgements=judged,
        ), pictures

    def _pictured(self, judged: Judgement, pictures: dict[str, bytes]) -> Judgement:
        """The judgement with the names of its pictures: the result's first file, the reference's, the difference."""
        shown: dict[str, bytes] = {}
        for what, execution in (
            ("result", self.executions.get(judged.test)),
            ("reference", self.reference.get(judged.test)),
        ):
            if execution is not None and execution.outputs and judged.test in self.executions:
                shown[what] = execution.outputs[0].data
        if judged.difference is not None and judged.difference.largest and judged.difference.picture:
            shown["difference"] = judged.difference.picture
        made = self.executions[judged.test].outputs if judged.test in self.executions else ()
        digest = (
            evidence.digest(b"".join(bytes.fromhex(evidence.digest(output.data)) for output in made)) if made else ""
        )
        names = {
            evidence.picture_name(self.side, self.session.name, judged.test, what, data): data
            for what, data in shown.items()
        }
        pictures |= names
        return replace(judged, images=tuple(names), digest=digest)


class Trees:
    """The trees of a release in a scratch folder, written when they are first asked for."""

    def __init__(self, patched: PatchedRelease, weights: Path, scratch: Path, tell: Tell) -> None:
        self.patched, self.weights, self.scratch, self.tell = patched, weights, scratch, tell
        self.missing: tuple[str, ...] = ()  #: files that the clone has no content for

    def __getitem__(self, side: TrialSide) -> Path:
        folder = self.scratch / side.value
        with _READING:
            if not folder.is_dir():
                tree = self.patched.tree if side is TrialSide.PATCHED else self.patched.conversion.tree
                self.missing = tuple(file.path for file in write_whole(tree, folder))
                link_models(self.weights, folder)
                if self.missing:
                    absent = f"{len(self.missing)} files that the clone lacks are left out: {', '.join(self.missing)}"
                    self.tell(f"{self.patched.release.version} {side}: {absent}")
        return folder


def _flag(argument: str) -> str:
    return argument.partition("=")[0]


@cache
def _own_digest(patterns: tuple[str, ...]) -> str:
    """Of the files of this package that match a pattern, as they are when it is first asked for."""
    here = Path(__file__).parent
    files = sorted({path for pattern in patterns for path in here.rglob(pattern)})
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()


_INDEX = "index.json"


def _packed(executions: Mapping[str, Execution]) -> dict[str, bytes]:
    """Endings and outputs of executions as files."""
    files: dict[str, bytes] = {}
    index: dict[str, object] = {}
    for name, execution in executions.items():
        outputs = [(f"{name}/{number}", output) for number, output in enumerate(execution.outputs)]
        files |= {place: output.data for place, output in outputs}
        index[name] = {
            "ending": execution.ending.value,
            "outputs": [{"file": place, "node": output.node, "name": output.name} for place, output in outputs],
        }
    return {**files, _INDEX: json.dumps(index, indent=1, sort_keys=True).encode()}


class _KeptOutput(TypedDict):
    file: TreePath
    node: str
    name: str


class _Kept(TypedDict):
    ending: str
    outputs: list[_KeptOutput]


def _unpacked(files: Mapping[str, bytes]) -> dict[str, Execution]:
    index = documents.parse_json(files[_INDEX], dict[str, _Kept], _INDEX)
    return {
        name: Execution(
            name,
            Ending(requirement["ending"]),
            0.0,
            outputs=tuple(Output(out["node"], out["name"], files[out["file"]]) for out in requirement["outputs"]),
        )
        for name, requirement in index.items()
    }
