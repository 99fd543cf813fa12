"""What the trial pack counts, on the emulated XPU and on the CPU: in this process and in the miniature server."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import emulator
from emulator import build
from emulator.worker import on
from patchforge.bench import workflows
from patchforge.bench.model import Counts, total
from patchforge.errors import Damaged
from patchforge.trial.model import Ending, Workflow
from patchforge.trial.server.comfyui import PACK, ComfyuiServer, link_models
from patchforge.trial.server.environment import Environment
from tests.trial.miniature_server import missing, tree

pytestmark = pytest.mark.skipif(bool(missing("torch")), reason=f"needs {missing('torch')}")
EMULATED = pytest.mark.skipif(bool(build.missing()), reason=build.missing() or "")

#: A node that does what it is told, once, on the device that is there.
EXTRA = """
import torch

class Extra:
    FUNCTION = "do"

    def do(self, of=None, what="nothing"):
        device = "xpu" if torch.xpu.is_available() else "cpu"
        held = torch.ones(16, device=device)
        if what == "copy":
            held.clone()
        elif what == "copy from the host":
            torch.tensor([1.0, 2.0], device=device)
        elif what == "wait":
            torch.xpu.synchronize()
        elif what == "value":
            float(held[0])
        elif what == "mask":
            held[held > 2]
        elif what == "allocation":
            torch.empty(1000, device=device)
        elif what == "half":
            held.half()
        elif what == "cycle":  # only the collector would free it, at any moment
            cycle = [torch.ones(1000, device=device)]
            cycle.append(cycle)
        return ([],)


NODE_CLASS_MAPPINGS = {"Extra": Extra}
"""
WHAT = ("copy", "copy from the host", "wait", "value", "mask", "allocation", "half")


def started(folder: Path, preset: str = "") -> ComfyuiServer:
    made = tree(folder / "tree")
    link_models(folder / "nothing", made)
    (made / "custom_nodes" / "extra").mkdir()
    (made / "custom_nodes" / "extra" / "__init__.py").write_text(EXTRA)
    variables = emulator.environment(preset, base={}) if preset else {"CUDA_VISIBLE_DEVICES": ""}
    environment = Environment(Path(sys.executable), {}, {})
    return ComfyuiServer(made, environment, variables=variables, log=folder / "log", timeout=120)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyuiServer]:
    with server_on(tmp_path_factory, "b580") as started:
        yield started


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyuiServer]:
    with server_on(tmp_path_factory) as started:
        yield started


def server_on(tmp_path_factory: pytest.TempPathFactory, preset: str = "") -> ComfyuiServer:
    return started(tmp_path_factory.mktemp("counting"), preset)


_numbers = iter(range(10**6))


def counted(server: ComfyuiServer, *steps: str) -> dict[str, Counts]:
    """The counts of a prompt whose nodes do ``steps``; nothing of it was computed before."""
    value = next(_numbers)
    graph: dict[str, dict[str, Any]] = {"1": {"class_type": "Source", "inputs": {"value": value}}}
    for number, what in enumerate(steps, 2):
        graph[str(number)] = {"class_type": "Extra", "inputs": {"of": [str(number - 1), 0], "what": what}}
    server.client.count(wanted=True)
    run = server.client.run(graph, 60)
    server.client.count(wanted=False)
    assert run.ending is Ending.SUCCESS, run
    return workflows.read_counts(server.client.counters(run.prompt), Workflow("it", "it", graph, {}, ()))


def more(server: ComfyuiServer, what: str) -> dict[str, int]:
    """What a node that does ``what`` costs more than one that does nothing."""
    usual, other = (counted(server, step)["2 Extra"].figures() for step in ("nothing", what))
    every = {name: other.get(name, 0) - usual.get(name, 0) for name in {*usual, *other}}
    return {name: count for name, count in sorted(every.items()) if count}


@EMULATED
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("copy", {"operation float32 clone": 1, "copies xpu to xpu": 1, "bytes xpu to xpu": 64, "allocations": 1}),
        (
            "copy from the host",
            {"copies cpu to xpu": 1, "bytes cpu to xpu": 8, "wait, blocking copy": 1, "allocations": 1},
        ),
        ("wait", {"wait, asked for": 1}),
        ("value", {"operation float32 item": 1, "wait, _local_scalar_dense": 1}),
        ("mask", {"operation float32 index": 1, "wait, nonzero": 1}),
        ("allocation", {"operation none empty": 1, "allocations": 1, "allocated bytes": 4096}),
        ("half", {"copies xpu to xpu": 1, "bytes xpu to xpu": 32, "allocations": 1}),
    ],
)
def test_one_too_many_is_counted_on_the_emulated_device(
    server: ComfyuiServer, what: str, expected: dict[str, int]
) -> None:
    assert expected.items() <= more(server, what).items()


@EMULATED
def test_the_same_prompt_has_the_same_counts(server: ComfyuiServer) -> None:
    steps = (*WHAT, "cycle", "cycle", "nothing")
    first = counted(server, *steps)
    assert all(counted(server, *steps) == first for _ in range(3))
    assert first["2 Extra"].models is None
    assert total(first.values()).graphs == 0


@EMULATED
def test_a_node_is_charged_with_what_it_did_itself(server: ComfyuiServer) -> None:
    parts = counted(server, "nothing", "wait", "wait", "nothing")
    waits = {part: counts.waits for part, counts in parts.items()}
    assert waits == {"1 Source": 0, "2 Extra": 0, "3 Extra": 1, "4 Extra": 1, "5 Extra": 0}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("copy", {"copies cpu to cpu": 1, "bytes cpu to cpu": 64, "allocations": 1, "allocated bytes": 64}),
        ("allocation", {"allocations": 1, "allocated bytes": 4000, "peak bytes": 4000}),
        ("half", {"copies cpu to cpu": 1, "bytes cpu to cpu": 32, "allocations": 1, "peak bytes": 32}),
    ],
)
def test_one_too_many_is_counted_on_the_cpu(on_cpu: ComfyuiServer, what: str, expected: dict[str, int]) -> None:
    assert expected.items() <= more(on_cpu, what).items()


def test_a_cpu_has_nothing_to_wait_for(on_cpu: ComfyuiServer) -> None:
    first = counted(on_cpu, "copy", "cycle", "value")
    assert {counts.synchronisations for counts in first.values()} == {None}
    assert counted(on_cpu, "copy", "cycle", "value") == first


def test_only_what_is_asked_for_is_counted(on_cpu: ComfyuiServer) -> None:
    graph = {"1": {"class_type": "Source", "inputs": {"value": -1}}}
    run = on_cpu.client.run(graph, 60)
    assert on_cpu.client.counters(run.prompt) is None
    with pytest.raises(Damaged, match="counted nothing"):
        workflows.read_counts(None, Workflow("it", "it", graph, {}, ()))


def test_counts_that_are_none_are_refused() -> None:
    with pytest.raises(Damaged, match="not what it should be"):
        workflows.read_counts({"1": {"operations": {"a": "many"}}}, Workflow("it", "it", {}, {}, ()))


def counting() -> Any:
    spec = importlib.util.spec_from_file_location("counting", PACK / "counting.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@EMULATED
@on("b580")
def test_graphs_of_torch_compile_are_counted() -> None:
    import torch

    @torch.compile(backend="eager", dynamic=False)  # type: ignore[untyped-decorator]
    def twice(value: Any) -> Any:
        return value + value

    counter = counting().Counting()
    counter.begin()
    counter.enter("first")
    twice(torch.ones(2, device="xpu"))
    counter.enter("again")
    twice(torch.ones(2, device="xpu"))
    counter.enter("other shape")
    twice(torch.ones(3, device="xpu"))
    parts = counter.end()
    assert {part: (counts["graphs"], counts["recompilations"]) for part, counts in parts.items()} == {
        "first": (1, 0),
        "again": (0, 0),
        "other shape": (1, 1),
    }


@EMULATED
@on("b580")
def test_other_threads_are_counted_and_a_part_may_come_again() -> None:
    import threading

    import torch

    counter = counting().Counting()
    counter.begin()
    held = torch.ones(4, device="xpu")
    for _ in range(2):
        counter.enter("part")
        thread = threading.Thread(target=lambda: held.to("cpu"))
        thread.start()
        thread.join()
        counter.enter("other")
    counts = counter.end()["part"]
    assert counts["copies"] == {"xpu to cpu": [2, 32]}
    assert counts["synchronisations"] == {"asked for": 0, "blocking copy": 2}


@EMULATED
@on("b580")
def test_the_peak_is_above_what_was_held() -> None:
    import torch

    counter, held = counting().Counting(), torch.ones(1 << 20, device="xpu")
    counter.begin()
    counter.enter("part")
    for _ in range(3):
        torch.empty(1000, device="xpu")
    part = counter.end()["part"]
    assert (part["allocations"], part["peak_bytes"]) == (3, 4096)
    assert held.numel() == 1 << 20


@EMULATED
@on("b580")
def test_a_copy_that_does_not_block_is_no_wait() -> None:
    import torch

    held, target = torch.ones(4, device="xpu"), torch.empty(4)
    counter = counting().Counting()
    counter.begin()
    counter.enter("blocks")
    target.copy_(held)
    counter.enter("goes on")
    target.copy_(held, non_blocking=True)
    parts = counter.end()
    assert parts["blocks"]["synchronisations"] == {"asked for": 0, "blocking copy": 1}
    assert parts["goes on"]["synchronisations"] == {"asked for": 0}
    assert parts["goes on"]["copies"] == {"xpu to cpu": [1, 16]}
