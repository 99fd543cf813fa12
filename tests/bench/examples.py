"""Small benchmarks for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from patchforge.bench.model import PATCHED, UPSTREAM, Benchmark, Case, Counts, Machine
from patchforge.trial.model import Device, TrialVerdict

EMULATED = Device("xpu", "b580", "rng=cpu")
SAMPLER, DECODER = "5 KSampler", "6 VAEDecode"


def counts(**changes: Any) -> Counts:
    usual = Counts(
        operations={"float32 linear": 96, "float32 to": 12},
        copies={"cpu to xpu": (7, 4096), "xpu to cpu": (1, 1024)},
        synchronisations={"asked for": 1, "blocking copy": 7},
        allocations=210,
        allocated_bytes=1 << 24,
        peak_bytes=1 << 20,
        models=1,
        files=0,
        graphs=0,
        recompilations=0,
    )
    return replace(usual, **changes)


def case(name: str = "txt2img", side: str = PATCHED, parts: Mapping[str, Counts] | None = None, **more: Any) -> Case:
    counted = {SAMPLER: counts(), DECODER: counts(operations={"float32 conv2d": 30})} if parts is None else parts
    return replace(Case("workflows", name, side, TrialVerdict.FRESH, "equal to the reference", counted), **more)


def benchmark(*cases: Case, **changes: Any) -> Benchmark:
    usual = Benchmark(
        release="v0.33.0",
        commit="c" * 40,
        manifest="d" * 64,
        device=EMULATED,
        date="2026-11-29T10:00:00+00:00",
        machine=Machine("Linux 6.1", "a processor", 2, 8 << 30, ("Intel(R) Arc(TM) B580 Graphics",)),
        versions={"torch": "2.13.0"},
        flags=("--force-fp32",),
        quick=True,
        cases=cases or (case(side=UPSTREAM), case()),
    )
    return replace(usual, **changes)
