"""Whether a patched tree gives upstream's bytes on a device, in the same time, with the same peak memory.

``python -m patchforge.trial.comparison.against_upstream UPSTREAM_TREE PATCHED_TREE --case sdxl --runs 5 --python PY``

Every run is a new process of PY (``gpu_probe.py``) with the same environment; the trees take turns, and so does which
of the two goes first. Ratios are patched to upstream, pair by pair. The noise is upstream's own spread: its slowest run
to its fastest, its largest peak to its smallest.

With ``--turns`` there is one process of each tree, both are alive at once, and they take turns step by step; each
sampling counts as a run. That has least noise, and the device must hold both.

On an XPU, where the patches are there to change things, nothing is judged but whether the runs succeed.

Exit status: 0 when everything is the same, 1 when something is not or a run failed, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from patchforge import bounded, processes
from patchforge.errors import Exit, PatchforgeError
from patchforge.outputs import mark, marked, place_of, write_document
from patchforge.trial.comparison import gpu_probe
from patchforge.trial.comparison.figures import SIDES, Comparison, compare
from patchforge.trial.comparison.report import as_json, report
from patchforge.trial.comparison.runs import PROBE, Processes, Tell, alternate, take_turns
from patchforge.trial.model import TrialSide

DEVICES = ("cuda", "xpu", "cpu")
_LARGEST = 1 << 30  #: bytes of a file that is read
_NOT_UPSTREAMS = frozenset({".git", "user", "temp", "output"})


def measure(
    trees: Mapping[TrialSide, Path],
    cases: Sequence[str],
    *,
    python: str,
    device: str = "cuda",
    runs: int = 5,
    repeats: int = 3,
    turns: int = 0,
    tolerance: float = 0.01,
    timeout: float = 300.0,
    folder: Path | None = None,
    tell: Tell = lambda _line: None,
    probe: Path = PROBE,
) -> list[Comparison]:
    """Compares both trees on each case; ``tell`` gets a line for each run.

    With ``turns`` the trees take that many turns, whatever ``runs`` and ``repeats`` say (:func:`take_turns`).
    ``folder`` keeps the weights (3 to 10 GB for a case), records and logs; weights that lie there already are used.
    Without it they go to a temporary folder. PatchforgeError when nothing can be measured, RunFailed among them.
    """
    _check(trees, cases, runs=runs, repeats=repeats, turns=turns or 1)
    facts = {"driver": _driver(), "tolerance": tolerance, "files": differing(*(trees[side] for side in SIDES))}
    comparisons = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="patchforge-against-") as scratch:
            place = folder or Path(scratch)
            place.mkdir(parents=True, exist_ok=True)
            processes = Processes(trees, case, python, place.resolve(), device, repeats, timeout, probe)
            processes.make_weights()
            done = take_turns(processes, turns, tell) if turns else alternate(processes, runs, tell)
        comparison = compare(case, done, tolerance=tolerance, judged=device != "xpu")
        comparisons.append(replace(comparison, facts=facts))
    return comparisons


def _check(trees: Mapping[TrialSide, Path], cases: Sequence[str], **counts: int) -> None:
    for tree in trees.values():
        if not (tree / "main.py").is_file():
            raise PatchforgeError(f"{tree} is not a ComfyUI tree", expected="a folder with main.py", do="name one")
    for case in cases:
        if case not in gpu_probe.CASES:
            raise PatchforgeError(
                "no such case", expected=", ".join(gpu_probe.CASES), found=case, do="name one of these"
            )
    for name, count in counts.items():
        if count < 1:
            raise PatchforgeError(
                "nothing would be measured",
                expected=f"{name} of at least 1",
                found=str(count),
                do="name a larger number",
            )


def differing(upstream: Path, patched: Path) -> dict[str, dict[str, str | None]]:
    """Files that the trees do not share, with the git blob ids that the manifest names too."""
    ids = [_blob_ids(tree) for tree in (upstream, patched)]
    names = sorted(name for name in {*ids[0], *ids[1]} if ids[0].get(name) != ids[1].get(name))
    return {name: {"before": ids[0].get(name), "after": ids[1].get(name)} for name in names}


def _blob_ids(tree: Path) -> dict[str, str]:
    ids = {}
    for path in sorted(tree.rglob("*")):
        relative = path.relative_to(tree)
        if path.is_file() and "__pycache__" not in relative.parts and relative.parts[0] not in _NOT_UPSTREAMS:
            data = bounded.file(path, _LARGEST)
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
            ids[relative.as_posix()] = blob.hexdigest()
    return ids


def _driver() -> str:
    program = processes.program("nvidia-smi")
    if not program:
        return "unknown"
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = processes.run(query, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="patchforge.trial.comparison.against_upstream",
        description="Whether a patched tree gives upstream's bytes on a device, in the same time and memory.",
    )
    parser.add_argument("upstream", type=Path, help="upstream's tree")
    parser.add_argument("patched", type=Path, help="the same release, patched")
    parser.add_argument("--case", choices=gpu_probe.CASES, default="sdxl", help="what is run (default: sdxl)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each tree (default: 5)")
    parser.add_argument("--repeats", type=int, default=3, help="measured samplings in each run (default: 3)")
    parser.add_argument("--turns", type=int, default=0, help="instead: samplings of each tree, in turn, side by side")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the release's requirements")
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="cpu shows nothing about a GPU")
    parser.add_argument("--folder", type=Path, help="keep weights, records and logs here; use weights already there")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--markdown", type=Path, help="write the report here; it is printed too")
    parser.add_argument("--title", default="", help="the report's heading")
    parser.add_argument("--tolerance", type=float, default=0.01, help="accepted excess of time and memory (0.01)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one run may take (300)")
    return parser


def main(arguments: Sequence[str] | None = None, *, probe: Path = PROBE) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(arguments)
    read = [options.upstream, options.patched]
    try:
        for path in (options.json, options.markdown):
            if path:
                place_of(path, read)
        (comparison,) = measure(
            {TrialSide.UPSTREAM: options.upstream, TrialSide.PATCHED: options.patched},
            [options.case],
            python=options.python,
            device=options.device,
            runs=options.runs,
            repeats=options.repeats,
            turns=options.turns,
            tolerance=options.tolerance,
            timeout=options.timeout,
            folder=options.folder,
            tell=lambda line: print(line, flush=True),
            probe=probe,
        )
    except PatchforgeError as error:
        print(f"against_upstream: {error}", file=sys.stderr)
        return int(error.status)
    text = report(comparison, options.title)
    if options.json:
        document = {**as_json(comparison), "patchforge": mark()}
        write_document(options.json, marked(json.dumps(document, indent=1, sort_keys=True) + "\n"), inputs=read)
    if options.markdown:
        write_document(options.markdown, marked(f"{text.rstrip()}\n\n<!-- {mark()} -->\n"), inputs=read)
    print(text)
    return int(Exit.OK if comparison.same else Exit.FAILED)


if __name__ == "__main__":
    sys.exit(main())
