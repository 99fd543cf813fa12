"""``patchforge bench run``: measures a release on a device, and writes what it costs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from patchforge import interpreters, pipeline, processes, progress
from patchforge.arguments.bench import SIZES
from patchforge.bench import own_model, places, real_size, statistics, suites, torch_cases, workflows
from patchforge.bench.compare import check_device, compare
from patchforge.bench.machine import available, machine
from patchforge.bench.model import (
    CPU,
    CUDA,
    DEVICES,
    FILE,
    FORMAT,
    NOT_MEASURED,
    PATCHED,
    TORCH,
    UPSTREAM,
    Benchmark,
    Case,
    read,
    shown,
    total,
)
from patchforge.bench.own_model import OwnModel
from patchforge.bench.suites import WorkflowCase
from patchforge.commands import test as trials
from patchforge.commands.apply import release_from_files
from patchforge.commands.bench.compare import report
from patchforge.commands.common import (
    generated_folder,
    generated_versions,
    inputs,
    make_engine,
    show_json,
    table,
    version_named,
)
from patchforge.errors import Exit, PatchforgeError
from patchforge.paths import quoted
from patchforge.pipeline import PatchedRelease
from patchforge.project import load_project, release_index
from patchforge.sources import open_upstream
from patchforge.sources.upstream import LATEST
from patchforge.trial.model import Device, TrialSide, TrialVerdict
from patchforge.trial.reports import evidence
from patchforge.trial.runner import Trees
from patchforge.trial.server import devices
from patchforge.trial.server.environment import Environment, existing
from patchforge.trial.server.supervisor import temporary_folder
from patchforge.trial.workflows.library import load
from patchforge.vocabulary import Release, Tree, Version

Tell = Callable[[str], None]
_PAIRS, _QUICK_PAIRS = 16, 3
REAL = SIZES[1]
_PICTURES = ("skimage", "flip_evaluator")  #: what tells how near pictures are


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when everything that was run was fresh, 1 when something was not."""
    wanted = _suites(options)
    chosen = suites.of_server(wanted, load(), quick=options.quick, names=options.workflow)
    _variants(options)
    of_torch = suites.of_torch(wanted, quick=options.quick)
    processes.need_posix("patchforge bench run")
    options.model = _model(options)
    if options.model:
        chosen, of_torch = own_model.with_model(chosen, options.model), []
    if options.size == REAL:
        chosen, of_torch = _of_real_size(options, chosen), []
    options.pairs = _pairs(options)
    if chosen:
        print(trials.NOTICE, file=sys.stderr, flush=True)
    progress.step("looking for the device")
    interpreters.need(options.python, torch=True)
    device = devices.choose(options.device, Path(options.python))
    _check_packages(["scipy"] if options.pairs else [], _PICTURES if chosen and device.kind != CPU else [])
    if options.level and device.kind != "xpu":
        raise PatchforgeError(f"levels are for Intel GPUs, and this is {device}", do="leave --level out")
    earlier = _baseline(options, device)
    with ExitStack() as stack:
        source = release_of(options, stack) if chosen else None
        version = source[0].version if source else _version(options)
        out = Path(options.out) / f"{version}-{device}".replace(":", "-")
        before = inputs(options.source, options.upstream, options.generated)
        places.check(out, before)
        if source:
            progress.step(f"converting {version}")
        patched = pipeline.convert(make_engine(options), *source) if source else None
        benchmark = _measured(options, device, version, patched, chosen=chosen, of_torch=of_torch)
    places.write(out, benchmark, before)
    if options.json:
        show_json("bench", FORMAT.data(benchmark))
    else:
        table(list(_rows(benchmark)))
        print(f"written: {out / FILE}")
        print(f"to look at it: patchforge bench report {quoted(out)}")
    compared = compare(earlier, benchmark) if earlier else None
    if compared and not options.json:
        report(compared)
    ran = [case for case in benchmark.cases if case.verdict is not TrialVerdict.SKIPPED]
    fresh = bool(ran) and all(case.verdict is TrialVerdict.FRESH for case in ran)
    return Exit.OK if fresh and (compared is None or compared.same) else Exit.FAILED


def _baseline(options: argparse.Namespace, device: Device) -> Benchmark | None:
    """The earlier benchmark that is the baseline, if one is; what cannot be one is told before the work."""
    if options.baseline in (None, UPSTREAM):
        return None
    if options.baseline in DEVICES:
        if options.baseline == device.kind:
            raise PatchforgeError(f"{device} is not a baseline for itself", do="leave --baseline out, or name upstream")
        devices.choose(options.baseline, Path(options.python))
        return None
    if not Path(options.baseline).exists():
        raise PatchforgeError(
            f"there is no baseline {options.baseline!r}",
            expected=f"{UPSTREAM}, {', '.join(DEVICES)}, or an earlier benchmark",
            found="no such file",
            do=f"name one of these, or {FILE} of an earlier run",
        )
    earlier = read(Path(options.baseline))
    check_device(earlier.device, device)
    return earlier


def _model(options: argparse.Namespace) -> OwnModel | None:
    """The user's checkpoint, where it fits into the memory of this machine."""
    if options.model is None:
        if options.pixels is not None:
            raise PatchforgeError("--pixels is for a model of one's own", do="name the checkpoint: --model FILE")
        return None
    model = own_model.read(Path(options.model), options.pixels or own_model.PIXELS)
    own_model.check_memory(model, _servers(options), available())
    return model


def _of_real_size(options: argparse.Namespace, chosen: Sequence[WorkflowCase]) -> list[WorkflowCase]:
    """The cases with models of real size, where memory and disk of this machine suffice."""
    if options.model:
        raise PatchforgeError(
            "--size is about generated models, and --model names one of your own", do="leave one of them out"
        )
    cases = real_size.with_real(chosen)
    real_size.check_memory(cases, _servers(options), available())
    real_size.check_disk(cases, trials.models_folder())
    return cases


def _pairs(options: argparse.Namespace) -> int:
    """As many as are asked for; else enough for sides that take turns or, of one alone, as many as an alarm needs."""
    if options.pairs is not None:
        return int(options.pairs)
    return _QUICK_PAIRS if options.quick else _PAIRS if _servers(options) > 1 else statistics.LEAST


def _servers(options: argparse.Namespace) -> int:
    """How many run at once."""
    return len(_variants(options)) + (options.baseline in {UPSTREAM, *DEVICES})


def _check_packages(*needed: Sequence[str]) -> None:
    """Before the work, rather than after it: what is not there is told as any package that is not."""
    for name in chain(*needed):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _suites(options: argparse.Namespace) -> list[str]:
    """Those named, with commas or without; all where none is. PatchforgeError for one that there is not."""
    named = [name for text in options.suite for name in text.split(",") if name]
    if unknown := [name for name in named if name not in suites.SUITES]:
        raise PatchforgeError(
            f"no suite is called {unknown[0]!r}", expected=", ".join(suites.SUITES), do="name one of these"
        )
    return named or (["workflows"] if options.workflow else list(suites.SUITES))


def _variants(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Precision and level of each patched side: float32 at the default level first, which is exact, and those named."""
    precisions = _named(options.precision, "precision", tuple(workflows.PRECISIONS))
    levels = _named(options.level, "level", workflows.LEVELS)
    made = [(precision, level) for precision in [workflows.FP32, *precisions] for level in ["", *levels]]
    return list(dict.fromkeys(made))


def _named(given: Sequence[str], what: str, known: Sequence[str]) -> list[str]:
    named = [name for text in given for name in text.split(",") if name]
    if unknown := [name for name in named if name not in known]:
        raise PatchforgeError(f"no {what} is called {unknown[0]!r}", expected=", ".join(known), do="name one of these")
    return named


def release_of(options: argparse.Namespace, stack: ExitStack) -> tuple[Release, Tree]:
    """The release that is named, by its version or as a folder; the newest that was generated where none is."""
    if options.source or (options.release and Path(options.release).is_dir()):
        named = options.release if options.source else None
        return release_from_files(Path(options.source or options.release), named)
    known = generated_versions(generated_folder(options.generated))
    wanted = known[-1] if options.release in (None, LATEST) and known else options.release or LATEST
    upstream = stack.enter_context(open_upstream(options.upstream))
    release = upstream.resolve(wanted)
    return release, upstream.tree(release)


def _version(options: argparse.Namespace) -> Version:
    """What the benchmark is called by where nothing of the release is run: as ``release_of``, and asks no clone."""
    if options.source or (options.release and Path(options.release).is_dir()):
        return release_of(options, ExitStack())[0].version
    if options.release not in {None, LATEST}:
        return version_named(options.release)
    known = [version_named(name) for name in generated_versions(generated_folder(options.generated))]
    return known[-1] if known else max(release.version for release in release_index(load_project()))


def _measured(
    options: argparse.Namespace,
    device: Device,
    version: Version,
    patched: PatchedRelease | None,
    *,
    chosen: Sequence[WorkflowCase],
    of_torch: Sequence[tuple[str, str]],
) -> Benchmark:
    tell = _teller(str(version))
    if patched:
        progress.step("preparing what the release requires")
        environment = trials.environment_of(options, device, patched, tell)
    else:
        environment = existing(Path(options.python))
    named = sorted({name for case in chosen for name in (*case.workflow.weights, *case.workflow.inputs)})
    weights = trials.generated_models(environment, tell, named) if named else Path("nowhere")
    with temporary_folder("patchforge-bench-") as scratch:
        if options.model:
            weights = own_model.beside(weights, options.model, scratch / "weights")
        cases, state, flags = list[Case](), dict[str, Any](), tuple[str, ...]()
        if of_torch:
            alone = _torch_sides(options, device, environment, scratch)
            cases += torch_cases.measure(alone, of_torch, options.pairs, progress.step)
            state = dict(alone[-1].about)
        if patched:
            sides = _sides(options, device, Trees(patched, weights, scratch, tell), environment, scratch)
            cases += workflows.measure(sides, chosen, options.pairs, progress.step)
            measured = next(side for side in sides if side.name == PATCHED)
            state, flags = dict(measured.state) or state, measured.arguments
        progress.step("")
    return Benchmark(
        release=str(version),
        commit=patched.release.commit if patched else "",
        manifest=evidence.digest(patched.files()["manifest.json"]) if patched else "",
        device=device,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(state.get("devices") or ()),
        versions=dict(environment.packages),
        flags=flags,
        quick=options.quick,
        cases=tuple(cases),
    )


def _torch_sides(
    options: argparse.Namespace, device: Device, environment: Environment, scratch: Path
) -> list[torch_cases.TorchSide]:
    """What runs, in order: the CPU where it is the baseline, and the device."""
    kinds = [(options.baseline, Device(options.baseline))] if options.baseline in DEVICES else []
    return [
        torch_cases.TorchSide(name, on, device, environment.python, scratch / f"probe-{name}.log", options.timeout)
        for name, on in [*kinds, (TORCH, device)]
    ]


def _sides(
    options: argparse.Namespace, device: Device, trees: Trees, environment: Environment, scratch: Path
) -> list[workflows.WorkflowSide]:
    """What runs, in order: the CPU, which gives the reference; upstream where it is asked for; the patched tree."""

    def side(name: str, tree: TrialSide, on: Device, **more: Any) -> workflows.WorkflowSide:
        return workflows.WorkflowSide(
            name,
            trees[tree],
            on,
            environment,
            scratch / f"{name.replace(', ', '-')}.log",
            options.timeout,
            trials.STARTING,
            remove=[scratch],
            beside=device,
            **more,
        )

    sides = []
    for precision, level in _variants(options):
        name = ", ".join((PATCHED, *([precision] if precision != workflows.FP32 else []), *([level] if level else [])))
        sides.append(side(name, TrialSide.PATCHED, device, precision=precision, level=level))
    if options.baseline == UPSTREAM:
        sides.insert(0, side(UPSTREAM, TrialSide.UPSTREAM, device))
    if options.baseline == CUDA:
        sides.insert(0, replace(side(CUDA, TrialSide.UPSTREAM, Device(CUDA)), beside=None))
    if device.kind != CPU:
        sides.insert(0, side(CPU, TrialSide.UPSTREAM, Device(CPU), timed=options.baseline == CPU))
    return sides


def _teller(release: str) -> Tell:
    def tell(line: str) -> None:
        progress.step(f"{release}: {line}")

    return tell


def _rows(benchmark: Benchmark) -> Iterator[list[str]]:
    head = ["suite", "case", "side", "verdict", "time", "operations", "copies", "waits", "allocations", "peak MiB"]
    yield [*head, "why"]
    for case in benchmark.cases:
        counts = total(case.counts.values()) if case.counts else None
        seconds = _seconds(case.times.seconds) if case.times else NOT_MEASURED
        figures: list[float | None] = [None] * 5
        if counts is not None:
            peak = None if counts.peak_bytes is None else round(counts.peak_bytes / (1 << 20), 1)
            copies = sum(count for count, _ in counts.copies.values())
            figures = [sum(counts.operations.values()), copies, counts.waits, counts.allocations, peak]
        yield [*case.place, case.verdict.value, seconds, *map(shown, figures), case.reason]


def _seconds(values: Sequence[float]) -> str:
    interval = statistics.interval(values)
    unit, factor = ("s", 1) if interval.median >= 1 else ("ms", 1e3) if interval.median >= 1e-3 else ("us", 1e6)
    low, high = interval.low * factor, interval.high * factor
    return f"{interval.median * factor:.3g} {unit} ({low:.3g} to {high:.3g})"
