"""``patchforge test``: run patched releases for real and say what that shows."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from patchforge import pipeline
from patchforge.commands.common import chosen_versions, make_engine, show_json, table
from patchforge.errors import CheckFailed, Exit, PatchforgeError
from patchforge.pipeline import Patched
from patchforge.sources import open_upstream
from patchforge.sources.clone import cache_folder
from patchforge.trial import devices, evidence, plan, report, runner
from patchforge.trial.environment import Environment, existing, prepare
from patchforge.trial.evidence import Evidence
from patchforge.trial.words import Device, Side, Verdict
from patchforge.trial.workflows import load

_PREPARING = 3600.0  #: seconds that pip may take
_STARTING = 300.0
_WEIGHTS = Path(runner.__file__).with_name("weights.py")


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when every test of the patched trees passed or was skipped with a reason, else 1."""
    known = {session.name for session in plan.SESSIONS}
    if unknown := [name for name in options.session if name not in known]:
        raise PatchforgeError(f"no session is called {unknown[0]!r}", expected=", ".join(sorted(known)))
    device = devices.choose(options.device, Path(options.python))
    with open_upstream(options.upstream) as upstream:
        engine = make_engine(options)
        releases = [upstream.resolve(name) for name in chosen_versions(options)]
        patched = [pipeline.convert(engine, release, upstream.tree(release)) for release in releases]
        found = _all(options, device, patched)
    _report(options, device, found)
    return Exit.OK if all(map(passed, found)) else Exit.FAILED


def passed(one: Evidence) -> bool:
    """Whether no test of the patched tree went wrong, and some passed."""
    verdicts = [each for session in one.sessions if session.side is Side.PATCHED for each in session.judgements]
    return any(each.passed for each in verdicts) and all(
        each.passed or each.verdict is Verdict.SKIPPED for each in verdicts
    )


def _all(options: argparse.Namespace, device: Device, releases: Sequence[Patched]) -> list[Evidence]:
    """The evidence of every release, ``--jobs`` at a time; an interrupt ends all of them at once."""
    alone = not device.emulated  # a real device serves one release at a time
    jobs = 1 if alone else min(options.jobs or os.cpu_count() or 1, len(releases))
    if jobs == 1:
        return [_one(options, device, one) for one in releases]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(lambda one: _one(options, device, one), releases))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other threads are to end, too
            print(f"patchforge: {error or 'interrupted'}; finished sessions are kept", file=sys.stderr, flush=True)
            status = error.status if isinstance(error, PatchforgeError) else Exit.INTERRUPTED
            os._exit(status)  # the guards end servers and remove what is temporary


def _one(options: argparse.Namespace, device: Device, patched: Patched) -> Evidence:
    release = str(patched.release.version)
    tell = _teller(release)
    environment = _environment(options, device, patched, tell)
    folder = _folder(options, device, release)
    settings = runner.Settings(
        device,
        cache_folder() / "trial",
        _weights(environment, tell),
        load(),
        prompt_timeout=options.timeout,
        start_timeout=_STARTING,
        again=options.again,
        logs=folder.with_name(f"{folder.name}-logs"),
    )
    sides = (Side.PATCHED, Side.UPSTREAM) if options.against_upstream else (Side.PATCHED,)
    return runner.Trial(patched, environment, settings, tell).run(folder, sides, options.session)


def _environment(
    options: argparse.Namespace, device: Device, patched: Patched, tell: Callable[[str], None]
) -> Environment:
    if options.as_it_is:
        return existing(Path(options.python))
    return prepare(
        patched.tree.read("requirements.txt"),
        Path(options.python),
        cache_folder() / "trial",
        tell=tell,
        timeout=_PREPARING,
        lean=options.lean,
        torch_companions=bool(device.emulated),
    )


def _weights(environment: Environment, tell: Callable[[str], None]) -> Path:
    """The generated models, made once by an interpreter that has torch."""
    folder = cache_folder() / "trial" / "weights"
    tell("the generated models")
    made = subprocess.run(
        [environment.python, _WEIGHTS, folder], check=False, capture_output=True, text=True, timeout=_PREPARING
    )
    if made.returncode != 0:
        raise CheckFailed("the models for the test cannot be made", found=made.stderr.strip()[-2000:])
    return folder


def _folder(options: argparse.Namespace, device: Device, release: str) -> Path:
    return Path(options.out) / f"{release}-{device}".replace(":", "-")


def _teller(release: str) -> Callable[[str], None]:
    def tell(line: str) -> None:
        print(f"{release}: {line}", file=sys.stderr, flush=True)

    return tell


def _report(options: argparse.Namespace, device: Device, found: Sequence[Evidence]) -> None:
    for one in found:
        report.write(_folder(options, device, one.release), [one])
    if len(found) > 1:
        report.write(Path(options.out), found)
    if options.json:
        show_json([json.loads(evidence.dump(one)) for one in found])
        return
    table(report.table(found))
    for line in report.limits(found):
        print(f"note: {line}")
    print(f"written: {Path(options.out) if len(found) > 1 else _folder(options, device, found[0].release)}/report.html")
