"""``patchforge test``: run patched releases for real and say what that shows."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from patchforge import caches, interpreters, outputs, pipeline, processes
from patchforge.commands.apply import release_from_files
from patchforge.commands.common import chosen_versions, inputs, make_engine, show_json, table
from patchforge.errors import Exit, NotChecked, PatchforgeError
from patchforge.escape import line as line_of
from patchforge.faults import told
from patchforge.nodes.pack_cache import cached
from patchforge.pipeline import PatchedRelease
from patchforge.sources import open_upstream
from patchforge.trial import packs, runner
from patchforge.trial.comparison import against_upstream
from patchforge.trial.comparison.report import as_json
from patchforge.trial.comparison.report import report as comparison_report
from patchforge.trial.model import Device, Judgement, TrialSide, TrialVerdict
from patchforge.trial.pack_runner import PackTrial
from patchforge.trial.packs import TrialPack
from patchforge.trial.reports import evidence, pack_page, report, summary
from patchforge.trial.reports.evidence import Evidence
from patchforge.trial.server import devices
from patchforge.trial.server.environment import Environment, existing, prepare
from patchforge.trial.server.supervisor import temporary_folder
from patchforge.trial.verdicts import plan
from patchforge.trial.workflows import weights
from patchforge.trial.workflows.library import load
from patchforge.vocabulary import Release, Tree

_PREPARING = 3600.0  #: seconds that pip may take
STARTING = 300.0
NOTICE = "note: this runs the code of the release, of node packs and of what they require, as you, with your files"
_MEASURED = ("cuda", "xpu")

Found = tuple[Evidence, bool]  #: and whether patched and upstream's tree are the same, where that was measured


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when every test of the patched trees passed or was skipped with a reason, else 1.

    With packs 0 when something passed, and no pack lost by its conversion what it passed as it comes.
    """
    _check(options)
    processes.need_posix("patchforge test")
    known = {session.name for session in plan.SESSIONS}
    if unknown := [name for name in options.session if name not in known]:
        raise PatchforgeError(
            f"no session is called {unknown[0]!r}", expected=", ".join(sorted(known)), do="name one of these"
        )
    interpreters.need(options.python, torch=True)
    device = devices.choose(options.device, Path(options.python))
    print(NOTICE, file=sys.stderr, flush=True)
    if options.session and not any(plan.sessions(device, side, options.session) for side in TrialSide):
        raise PatchforgeError(
            f"no session of these is for {device}",
            expected=", ".join(session.name for session in plan.sessions(device, TrialSide.PATCHED)),
            found=", ".join(options.session),
            do="name another, or run it on --device emulated",
        )
    _check_outputs(options)
    with ExitStack() as stack:
        engine = make_engine(options)
        patched = [pipeline.convert(engine, *release) for release in _releases(options, stack)]
        chosen = packs.read(map(Path, options.packs), cached(), options.skip_requirement)
        results = _all(options, device, patched, chosen, stack)
    if chosen:
        return _report_packs(options, device, [result for result, _ in results])
    _report(options, device, results)
    return Exit.OK if all(passed(result) and same for result, same in results) else Exit.FAILED


def _check(options: argparse.Namespace) -> None:
    """PatchforgeError for options that do not go together."""
    others = {"--session": options.session, "--against-upstream": options.against_upstream}
    packs_only = {"--without": options.skip_requirement, "--page": options.page}
    for name, value in (others if options.packs else packs_only).items():
        if value:
            raise PatchforgeError(
                f"{name} does not go {'with' if options.packs else 'without'} --nodes",
                expected=f"--nodes {'alone' if options.packs else 'as well'}",
                do=f"leave {name} out",
            )


def _read(options: argparse.Namespace) -> list[Path]:
    return inputs(options.source, options.upstream, options.generated, *options.packs)


def _check_outputs(options: argparse.Namespace) -> None:
    """PatchforgeError before the work, rather than after it, for places that cannot be written."""
    outputs.place_of(Path(options.out), _read(options))
    if options.page:
        pack_page.check(Path(options.page), _read(options))


def _releases(options: argparse.Namespace, stack: ExitStack) -> list[tuple[Release, Tree]]:
    if options.source:
        if len(options.release) > 1:
            raise PatchforgeError(
                "--from is one release",
                expected="at most one VERSION",
                found=str(options.release),
                do="name one, or leave --from out",
            )
        return [release_from_files(Path(options.source), *options.release or [None])]
    upstream = stack.enter_context(open_upstream(options.upstream))
    releases = [upstream.resolve(name) for name in chosen_versions(options)]
    return [(release, upstream.tree(release)) for release in releases]


def passed(result: Evidence) -> bool:
    """Whether no test of the patched tree went wrong, and some passed."""
    verdicts = _patched(result)
    return any(each.passed for each in verdicts) and all(
        each.passed or each.verdict is TrialVerdict.SKIPPED for each in verdicts
    )


def _patched(result: Evidence) -> list[Judgement]:
    return [each for session in result.sessions if session.side is TrialSide.PATCHED for each in session.judgements]


def _all(
    options: argparse.Namespace,
    device: Device,
    releases: Sequence[PatchedRelease],
    chosen: Sequence[TrialPack],
    stack: ExitStack,
) -> list[Found]:
    """The evidence of every release, ``--jobs`` at a time; an interrupt closes ``stack`` and ends all at once."""
    alone = not device.emulated  # a real device serves one release at a time
    jobs = 1 if alone else min(options.jobs or os.cpu_count() or 1, len(releases))
    if jobs == 1:
        return [_one(options, device, release, chosen) for release in releases]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(lambda release: _one(options, device, release, chosen), releases))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other threads are to end, too
            said = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else told(error)
            print(f"patchforge: {said}; finished sessions are kept", file=sys.stderr, flush=True)
            status = Exit.INTERRUPTED if isinstance(error, KeyboardInterrupt | SystemExit) else told(error).status
            with suppress(Exception):
                stack.close()
            os._exit(status)  # the supervisors end servers and remove what is temporary


def _one(options: argparse.Namespace, device: Device, patched: PatchedRelease, chosen: Sequence[TrialPack]) -> Found:
    release = str(patched.release.version)
    tell = _teller(release)
    environment = environment_of(options, device, patched, tell, chosen)
    folder = _folder(options, device, release)
    settings = runner.TrialSettings(
        device,
        caches.folder("trial"),
        generated_models(environment, tell),
        load(),
        prompt_timeout=options.timeout,
        start_timeout=STARTING,
        again=options.rerun,
        logs=folder.with_name(f"{folder.name}-logs"),
    )
    if chosen:
        return PackTrial(patched, environment, settings, tell, chosen).run_packs(folder), True
    sides = (TrialSide.PATCHED, TrialSide.UPSTREAM) if options.against_upstream else (TrialSide.PATCHED,)
    result = runner.Trial(patched, environment, settings, tell).run(folder, sides, options.session)
    measured = options.against_upstream and options.pairs and device.kind in _MEASURED and not device.emulated
    return result, not measured or _same(options, device, patched, environment, folder=folder, tell=tell)


def _same(
    options: argparse.Namespace,
    device: Device,
    patched: PatchedRelease,
    environment: Environment,
    *,
    folder: Path,
    tell: Callable[[str], None],
) -> bool:
    """Whether both trees give the same bits in the same time and memory; the figures lie beside the evidence."""
    with temporary_folder("patchforge-against-") as scratch:
        trees = {TrialSide.UPSTREAM: scratch / "upstream", TrialSide.PATCHED: scratch / "patched"}
        pipeline.write_whole(patched.conversion.tree, trees[TrialSide.UPSTREAM])
        pipeline.write_whole(patched.tree, trees[TrialSide.PATCHED])
        measured = against_upstream.measure(
            trees, ("sdxl", "dit"), python=str(environment.python), device=device.kind, runs=options.pairs, tell=tell
        )
    document = [as_json(figures) for figures in measured]
    made = {
        "against-upstream.json": (json.dumps(document, indent=1, sort_keys=True) + "\n").encode(),
        "against-upstream.md": "\n".join(map(comparison_report, measured)).encode(),
    }
    outputs.update_folder(folder, evidence.EVIDENCE, lambda files: {**files, **made})
    for figures in measured:
        tell(f"{figures.case}: " + ("the same as upstream" if figures.same else "; ".join(figures.problems)))
    return all(figures.same for figures in measured)


def environment_of(
    options: argparse.Namespace,
    device: Device,
    patched: PatchedRelease,
    tell: Callable[[str], None],
    chosen: Sequence[TrialPack] = (),
) -> Environment:
    if options.no_venv:
        return existing(Path(options.python))
    wanted = [line.encode() for pack in chosen for line in pack.requirements]
    return prepare(
        b"\n".join([patched.tree.read("requirements.txt"), *wanted]),
        Path(options.python),
        caches.folder("trial"),
        tell=tell,
        timeout=_PREPARING,
        lean=options.skip_frontend,
        torch_companions=bool(device.emulated),
        building=options.allow_building,
    )


def generated_models(environment: Environment, tell: Callable[[str], None], names: Sequence[str] = ()) -> Path:
    """The generated models and inputs, or those named, made once by an interpreter that has torch."""
    folder = models_folder()
    tell("the generated models")
    command = [str(environment.python), weights.__file__, str(folder), *names]
    with caches.locked(folder.with_suffix(".lock"), waiting="waiting for another run that makes the models"):
        made = processes.run(
            command,
            env=processes.environment(allow=processes.HARDWARE),
            capture_output=True,
            text=True,
            timeout=_PREPARING,
        )
    if made.returncode != 0:
        raise NotChecked(
            "the models for the test cannot be made",
            found=made.stderr.strip()[-2000:] or f"what makes them {processes.how_ended(made.returncode)}",
            do="give it more memory"
            if made.returncode == -signal.SIGKILL
            else "look at what it says; --python names another interpreter",
        )
    return folder


def models_folder() -> Path:
    """Where generated models and inputs are kept."""
    return caches.folder("trial", f"weights-{weights.FORMAT}")


def _folder(options: argparse.Namespace, device: Device, release: str) -> Path:
    return Path(options.out) / f"{release}-{device}{'-nodes' if options.packs else ''}".replace(":", "-")


def _teller(release: str) -> Callable[[str], None]:
    def tell(line: str) -> None:
        print(f"{release}: {line}", file=sys.stderr, flush=True)

    return tell


def _report(options: argparse.Namespace, device: Device, results: Sequence[Found]) -> None:
    evidences = [result for result, _ in results]
    for result in evidences:
        report.write(_folder(options, device, result.release), [result])
    if len(evidences) > 1:
        report.write(Path(options.out), evidences)
    if options.json:
        show_json("test", [json.loads(evidence.dump(result)) for result in evidences])
        return
    table(report.table(evidences))
    for line in report.limits(evidences):
        print(f"note: {line}")
    print(line_of(" ".join(summary.headline(evidences))))
    folder = Path(options.out) if len(evidences) > 1 else _folder(options, device, evidences[0].release)
    print(f"written: {folder}/report.html")


def _report_packs(options: argparse.Namespace, device: Device, evidences: Sequence[Evidence]) -> int:
    for result in evidences:
        report.write(_folder(options, device, result.release), [result])
    if options.page:
        pack_page.write(Path(options.page), evidences, _read(options))
    if options.json:
        show_json("test", [json.loads(evidence.dump(result)) for result in evidences])
    else:
        table(pack_page.table(evidences))
        for line in report.limits(evidences):
            print(f"note: {line}")
    good = any(each.passed for result in evidences for each in _patched(result))
    return int(Exit.OK if good and not any(state.worse for state in pack_page.tried(evidences)) else Exit.FAILED)
