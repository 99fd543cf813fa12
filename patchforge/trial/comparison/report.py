"""A comparison as Markdown and as JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict

from patchforge.trial.comparison.figures import MEMORY, Comparison, Stage
from patchforge.trial.model import JsonObject, TrialSide


def report(comparison: Comparison, title: str = "") -> str:
    """The comparison as Markdown, under a heading (default: the case)."""
    first = next((run.record for run in comparison.runs if run.record is not None), {})
    versions = ", ".join(f"{name} {value}" for name, value in first.get("versions", {}).items() if value)
    device = first.get("device", {}).get("name", "unknown")
    settings = ", ".join(f"{name} {first.get(name)}" for name in ("dynamic_vram", "allocator", "attention"))
    lines = [
        f"## {title or comparison.case}",
        "",
        _verdict(comparison),
        "",
        *(f"- PROBLEM: {problem}" for problem in comparison.problems),
        *([""] if comparison.problems else []),
        f"Device: {device}; driver {comparison.facts.get('driver', 'unknown')}; {versions}.",
        f"Model: {first.get('model', {})}; {settings}.",
        "",
        "| stage | outputs | upstream | patched | time ratio | upstream's noise | allocated | reserved | on card |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, stage in comparison.stages.items():
        memory = " | ".join(_memory(stage, kind) for kind in MEMORY)
        outputs = "-" if name == "step" else "identical" if stage.identical else "**differ**"
        lines.append(
            f"| {name} | {outputs} | {stage.seconds[TrialSide.UPSTREAM]:.4f} s "
            f"| {stage.seconds[TrialSide.PATCHED]:.4f} s | {stage.time} | {stage.noise:.2%} | {memory} |"
        )
    return "\n".join([*lines, ""])


def as_json(comparison: Comparison) -> JsonObject:
    """Everything: the verdict, the figures, and the record of each run."""
    return {"same": comparison.same, "identical": comparison.identical, **asdict(comparison)}


def _verdict(comparison: Comparison) -> str:
    counted = sum(run.record is not None for run in comparison.runs)
    runs = f"in {counted} of {len(comparison.runs)} runs."
    if not comparison.judged:
        outputs = "are bit-identical" if comparison.identical else "differ, as they may on this device,"
        return f"**{'Compared' if comparison.same else 'FAILED'}**, not judged: outputs {outputs} {runs}"
    outputs = "bit-identical" if comparison.identical else "NOT bit-identical"
    return f"**{'Same' if comparison.same else 'NOT the same'}**: outputs {outputs} {runs}"


def _memory(stage: Stage, kind: str) -> str:
    """A ratio with upstream's median in GiB, or that all runs agree to the byte."""
    if kind not in stage.memory:
        return "-"
    sides = stage.peak_bytes[kind]
    size = f"{statistics.median(sides[TrialSide.UPSTREAM]) / 2**30:.3f} GiB"
    if len({*sides[TrialSide.UPSTREAM], *sides[TrialSide.PATCHED]}) == 1:
        return f"equal to the byte, {size}"
    return f"{stage.memory[kind]}, {size}"
