"""Every sampler and scheduler of real releases: the same bits on the emulated XPU as on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.releases import NEEDED, Record, run_in, write_release

pytestmark = [*NEEDED, pytest.mark.xdist_group("samplers")]

EXACT = ("--force-fp32", "--use-pytorch-cross-attention")
#: (version, "upstream" or "patched", arguments of run_samplers.py) -> what it printed
Run = Callable[..., Record]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the script in a tree, once per arguments."""
    top, records = tmp_path_factory.mktemp("trees"), dict[tuple[str, ...], Record]()

    def record(version: str, side: str, *arguments: str) -> Record:
        key = (version, side, *arguments)
        if key not in records:
            tree = top / version / side
            if not tree.exists():
                write_release(version, side, tree)
            records[key] = run_in(tree, "run_samplers.py", *EXACT, *arguments)
        return records[key]

    return record


def different(one: Record, other: Record) -> set[str]:
    """The samplers whose results differ."""
    assert one["digests"].keys() == other["digests"].keys()
    return {name for name, digest in one["digests"].items() if other["digests"][name] != digest}


@pytest.mark.parametrize("version", ["v0.3.77", "v0.32.0"])
def test_every_sampler_gives_the_cpus_bits(run: Run, version: str) -> None:
    reference = run(version, "upstream", "--cpu", "--same-seeds")
    assert reference["device"] == "cpu"
    assert reference["operations"] == 0
    assert len(reference["digests"]) >= 50
    for side in ("upstream", "patched"):
        found = run(version, side)
        assert found["device"] == "xpu:0"
        assert found["operations"] > 50_000
        assert different(reference, found) == set()


def test_v0_3_77_has_the_same_seeds_everywhere(run: Run) -> None:
    assert different(run("v0.3.77", "upstream", "--cpu"), run("v0.3.77", "patched")) == set()


def test_v0_32_0_moves_the_seeds_of_stochastic_samplers_on_the_cpu(run: Run) -> None:
    reference = run("v0.32.0", "upstream", "--cpu")
    differing = different(reference, run("v0.32.0", "patched"))
    assert "euler_ancestral normal" in differing
    assert differing <= set(reference["noisy"])
