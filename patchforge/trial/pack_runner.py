"""Node packs in one release: as they come and converted, beside upstream's tree with the pack on the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from patchforge import bounded, caches, processes
from patchforge.outputs import LIST
from patchforge.pipeline import PatchedRelease
from patchforge.trial.model import AS_IT_COMES, Execution, TrialSide
from patchforge.trial.packs import TrialPack
from patchforge.trial.reports import evidence
from patchforge.trial.reports.evidence import Evidence, SessionResult
from patchforge.trial.runner import CPU, JUDGED, Tell, Trees, Trial, TrialRun, TrialSettings
from patchforge.trial.server import devices
from patchforge.trial.server.environment import Environment
from patchforge.trial.server.supervisor import temporary_folder
from patchforge.trial.verdicts.plan import EXACT, STEADY, Session
from patchforge.trial.workflows import pack_weights

REFERENCE = "reference"
_LARGEST = 1 << 30  #: bytes of a file that is read
_OWN = (*JUDGED, "pack_runner.py", "packs.py", "workflows/pack_weights.py", "workflows/packs/*/*")
_MAKING = 600.0  #: seconds that the models of a pack may take


class PackTrial(Trial):
    """A patched release with node packs, one at a time."""

    def __init__(
        self,
        patched: PatchedRelease,
        environment: Environment,
        settings: TrialSettings,
        tell: Tell,
        packs: Sequence[TrialPack],
    ) -> None:
        known = {name: workflow for pack in packs for name, workflow in pack.workflows.items()}
        super().__init__(patched, environment, replace(settings, workflows=known), tell)
        self.packs = packs

    def run_packs(self, out: Path) -> Evidence:
        """All packs. Each is saved in ``out`` when it is done; those done there under the same conditions are kept."""
        collected = self.earlier(out)
        with temporary_folder("patchforge-trial-") as scratch:
            trees = Trees(self.patched, self.settings.weights, scratch, self.tell)
            for pack in self.packs:
                key = self.pack_key(pack)
                if all(collected.finished(side, session.name, key) for side, session, _ in sessions(pack)):
                    self.tell(f"{pack.name}: done before")
                    continue
                pictures: dict[str, bytes] = {}
                for result, made in self._sessions(pack, trees, key):
                    collected = collected.add(result)
                    pictures |= made
                evidence.save(out, collected, pictures)
        return collected

    def _sessions(self, pack: TrialPack, trees: Trees, key: str) -> Iterator[tuple[SessionResult, dict[str, bytes]]]:
        reference: dict[str, Execution] = {}
        for side, session, state in sessions(pack):
            on_cpu = session.name.endswith(REFERENCE)
            with self._with_pack(pack, state, trees, side):
                run = TrialRun(self, trees, session, side, device=CPU if on_cpu else self.device, reference=reference)
                run.run()
            if on_cpu:
                reference = run.executions
            result, pictures = run.result(key)
            yield replace(result, facts={**result.facts, "pack": {**pack.facts, "state": state}}), pictures

    @contextmanager
    def _with_pack(self, pack: TrialPack, state: str, trees: Trees, side: TrialSide) -> Iterator[None]:
        tree = trees[side]
        try:
            target = pack.put_into(tree, state)
            models = self._models(pack, tree, target)
            own = models / pack_weights.COMFYUI
            if models.is_dir():
                ignored = shutil.ignore_patterns(LIST, pack_weights.COMFYUI)
                shutil.copytree(models, target, dirs_exist_ok=True, ignore=ignored)
            if own.is_dir():
                shutil.copytree(own, tree, dirs_exist_ok=True)
            yield
        finally:
            pack.take_from(tree)

    def _models(self, pack: TrialPack, tree: Path, there: Path) -> Path:
        """The folder of the pack's models, ComfyUI's own beside them; it does not exist where there are none."""
        own = sorted(
            {name for workflow in pack.workflows.values() for name in workflow.weights if name in pack_weights.MODELS}
        )
        program = Path(pack_weights.__file__)
        beside = program.with_name("weights.py")
        parts = [
            pack.digest,
            *(evidence.digest(one.read_bytes()) for one in (program, beside)),
            self.environment.packages.get("torch", ""),
            *own,
        ]
        folder = caches.within(self.settings.cache, "pack-models") / evidence.digest(repr(parts).encode())[:20]
        if own and caches.read_tree(folder) is None:
            with temporary_folder("patchforge-models-") as scratch:
                made = processes.run(
                    [self.environment.python, program, there, scratch, *own],
                    cwd=tree,
                    env=devices.variables(self.device),
                    capture_output=True,
                    text=True,
                    timeout=_MAKING,
                )
                if made.returncode == 0:
                    caches.write_tree(folder, {name: bounded.file(scratch / name, _LARGEST) for name in own})
                else:
                    said = [line for line in made.stderr.splitlines() if line.strip()]
                    self.tell(f"{pack.name}: its models cannot be made: {said[-1] if said else made.returncode}")
        return folder

    def pack_key(self, pack: TrialPack) -> str:
        """What decides the results of a pack, as a digest. Other rules that make the same patch change nothing."""
        ran = [(side.value, repr(session)) for side, session, _ in sessions(pack)]
        release = self.key(sessions(pack)[0][1], TrialSide.PATCHED, _OWN)
        return evidence.session_key(release=release, sessions=ran, files=pack.digest, patch=pack.patch_digest)


def sessions(pack: TrialPack) -> list[tuple[TrialSide, Session, str]]:
    """Upstream's tree on the CPU with the pack as it comes, then the patched one: the pack as it comes, converted."""
    tests = ("loads", *pack.workflows)
    flags = (*EXACT, *STEADY)

    def session(name: str, title: str, needs: tuple[str, ...] = ()) -> Session:
        return Session(f"{pack.name}-{name}", title, tests, flags, needs, pack=pack.folder.name)

    reference = session(REFERENCE, f"{pack.name} on the CPU", ("--cpu",))
    patched = [
        (TrialSide.PATCHED, session(state.replace(" ", "-"), f"{pack.name} {state}"), state) for state in pack.states
    ]
    return [(TrialSide.UPSTREAM, reference, AS_IT_COMES), *patched]
