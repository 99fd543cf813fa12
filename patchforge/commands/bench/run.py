"""``patchforge bench run``: measures a release on a device, and writes what it costs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from patchforge import outputs, pipeline, progress
from patchforge.bench import workflows
from patchforge.bench.machine import machine
from patchforge.bench.model import CPU, FILE, FORMAT, PATCHED, UPSTREAM, Benchmark, Case, total
from patchforge.bench.places import KIND, check
from patchforge.commands import test as trials
from patchforge.commands.apply import release_from_files
from patchforge.commands.common import generated_versions, inputs, make_engine, show_json, table
from patchforge.errors import Exit, PatchforgeError
from patchforge.pipeline import PatchedRelease
from patchforge.sources import open_upstream
from patchforge.sources.upstream import LATEST
from patchforge.trial.model import Device, Execution, Verdict, Workflow
from patchforge.trial.model import Side as Tree
from patchforge.trial.reports import evidence
from patchforge.trial.runner import Trees
from patchforge.trial.server import devices
from patchforge.trial.server.environment import Environment
from patchforge.trial.server.supervisor import temporary_folder
from patchforge.trial.workflows.library import load
from patchforge.vocabulary import Release
from patchforge.vocabulary import Tree as Files

Tell = Callable[[str], None]


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when everything that was run was fresh, 1 when something was not."""
    chosen = _workflows(options)
    print(trials.NOTICE, file=sys.stderr, flush=True)
    device = devices.choose(options.device, Path(options.python))
    with ExitStack() as stack:
        found = _source(options, stack)
        out = Path(options.out) / f"{found[0].version}-{device}".replace(":", "-")
        read = inputs(options.source, options.upstream, options.generated)
        check(out, read)
        patched = pipeline.convert(make_engine(options), *found)
        benchmark = _measured(options, device, patched, chosen)
    outputs.write_folder(out, {FILE: FORMAT.dump(benchmark)}, KIND, inputs=read)
    if options.json:
        show_json("bench", FORMAT.data(benchmark))
    else:
        table(list(_rows(benchmark)))
        print(f"written: {out / FILE}")
    ran = [one for one in benchmark.cases if one.verdict is not Verdict.SKIPPED]
    return Exit.OK if ran and all(one.verdict is Verdict.FRESH for one in ran) else Exit.FAILED


def _workflows(options: argparse.Namespace) -> list[Workflow]:
    """Those named, or the few of ``--quick``, or all."""
    known = load()
    if unknown := [name for name in options.workflow if name not in known]:
        raise PatchforgeError(f"no workflow is called {unknown[0]!r}", expected=", ".join(known))
    return [known[name] for name in options.workflow or (workflows.QUICK if options.quick else known)]


def _source(options: argparse.Namespace, stack: ExitStack) -> tuple[Release, Files]:
    """The release that is named, by its version or as a folder; the newest that was generated where none is."""
    if options.source or (options.release and Path(options.release).is_dir()):
        named = options.release if options.source else None
        return release_from_files(Path(options.source or options.release), named)
    known = generated_versions(Path(options.generated))
    wanted = known[-1] if options.release in (None, LATEST) and known else options.release or LATEST
    upstream = stack.enter_context(open_upstream(options.upstream))
    release = upstream.resolve(wanted)
    return release, upstream.tree(release)


def _measured(
    options: argparse.Namespace, device: Device, patched: PatchedRelease, chosen: Sequence[Workflow]
) -> Benchmark:
    tell = _teller(str(patched.release.version))
    progress.step("preparing what the release requires")
    environment = trials.environment_of(options, device, patched, tell)
    named = sorted({name for one in chosen for name in (*one.weights, *one.inputs)})
    weights = trials.generated_models(environment, tell, named)
    with temporary_folder("patchforge-bench-") as scratch:
        trees = Trees(patched, weights, scratch, tell)
        sides = _sides(options, device, trees, environment, scratch)
        reference: dict[str, Execution] = {}
        cases: list[Case] = []
        for side in sides:
            found = workflows.measure(side, chosen, reference, lambda what: progress.step(f"measuring {what}"))
            if side.name == CPU:
                reference = found.executions
            else:
                cases += found.cases
        progress.step("")
    measured = sides[-1]
    return Benchmark(
        release=str(patched.release.version),
        commit=patched.release.commit,
        manifest=evidence.digest(patched.files()["manifest.json"]),
        device=device,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(measured.state.get("devices") or ()),
        versions=dict(environment.packages),
        flags=measured.arguments,
        quick=options.quick,
        cases=tuple(cases),
    )


def _sides(
    options: argparse.Namespace, device: Device, trees: Trees, environment: Environment, scratch: Path
) -> list[workflows.Side]:
    """What runs, in order: the CPU, which gives the reference; upstream where it is asked for; the patched tree."""

    def side(name: str, tree: Tree, on: Device) -> workflows.Side:
        return workflows.Side(
            name,
            trees[tree],
            on,
            environment,
            scratch / "server.log",
            options.timeout,
            trials.STARTING,
            remove=[scratch],
            beside=device,
        )

    found = [side(PATCHED, Tree.PATCHED, device)]
    if options.baseline == UPSTREAM:
        found.insert(0, side(UPSTREAM, Tree.UPSTREAM, device))
    if device.kind != CPU:
        found.insert(0, side(CPU, Tree.UPSTREAM, Device(CPU)))
    return found


def _teller(release: str) -> Tell:
    def tell(line: str) -> None:
        progress.step(f"{release}: {line}")

    return tell


def _rows(benchmark: Benchmark) -> Iterator[list[str]]:
    yield ["suite", "case", "side", "verdict", "operations", "copies", "waits", "allocations", "peak", "why"]
    for one in benchmark.cases:
        if one.counts:
            counts = total(one.counts.values())
            copies = [count for count, _ in counts.copies.values()]
            peak = "not measured" if counts.peak_bytes is None else f"{counts.peak_bytes / (1 << 20):.1f} MiB"
            figures = [
                str(sum(counts.operations.values())),
                str(sum(copies)),
                _shown(counts.waits),
                _shown(counts.allocations),
                peak,
            ]
        else:
            figures = ["not measured"] * 5
        yield [one.suite, one.name, one.side, one.verdict.value, *figures, one.reason]


def _shown(number: int | None) -> str:
    return "not measured" if number is None else str(number)
