"""Server and client against a miniature of ComfyUI's server, without torch."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.trial.model import OWN_PACK, Ending, Workflow
from patchforge.trial.server.client import Client, Rejected, steps_of
from patchforge.trial.server.comfyui import ComfyuiServer, flags, link_models
from patchforge.trial.server.environment import Environment
from tests.trial.miniature_server import graph, missing, tree
from tests.trial.support import dead, hanging, wait_until

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")

ENVIRONMENT = Environment(Path(sys.executable), {"torch": "0"}, {"torch": "0"})


def server_of(folder: Path, *arguments: str, timeout: float = 60) -> ComfyuiServer:
    made = tree(folder / "tree") if not (folder / "tree").exists() else folder / "tree"
    return ComfyuiServer(made, ENVIRONMENT, arguments=arguments, log=folder / "log", timeout=timeout)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyuiServer]:
    with server_of(tmp_path_factory.mktemp("server")) as started:
        yield started


def test_a_prompt_runs_to_its_end(server: ComfyuiServer) -> None:
    run = server.client.run(graph(value=10), 20)
    assert run.ending is Ending.SUCCESS
    assert [(step.node, step.kind, step.cached) for step in run.steps] == [
        ("1", "Source", False),
        ("2", "Compute", False),
        ("9", "Save", False),
    ]
    (output,) = run.outputs
    assert (output.node, output.data) == ("9", b"picture " + output.name.encode())
    assert run.failure is None


def test_a_second_time_everything_is_cached(server: ComfyuiServer) -> None:
    workflow = Workflow("same", "Same", graph(value=11), {}, ("9",))
    first, second = server.client.run(workflow, 20), server.client.run(workflow, 20)
    assert not any(step.cached for step in first.steps)
    assert all(step.cached for step in second.steps)
    assert len(second.steps) == 3
    assert second.outputs == first.outputs


def test_a_submitted_prompt_can_be_waited_for(server: ComfyuiServer) -> None:
    prompts = [server.client.submit(graph(value=value)) for value in (12, 13)]
    runs = [server.client.wait(prompt, 20) for prompt in prompts]
    assert [run.ending for run in runs] == [Ending.SUCCESS] * 2
    assert [run.prompt for run in runs] == prompts
    assert [step.node for step in runs[1].steps] == []  # without a journal, nobody saw them
    assert len(runs[1].outputs) == 1


def test_an_error_names_its_node_and_the_log(server: ComfyuiServer) -> None:
    run = server.client.run(graph("out of luck", value=14), 20)
    assert run.ending is Ending.ERROR
    assert run.failure
    assert (run.failure.node, run.failure.kind) == ("3", "Fail")
    assert (run.failure.error, run.failure.message) == ("RuntimeError", "out of luck")
    assert "failing: out of luck" in run.log


@pytest.mark.parametrize(
    ("broken", "node", "text"),
    [
        ({"1": {"class_type": "Nothing", "inputs": {}}}, "", "no node Nothing"),
        ({"1": {"class_type": "Save", "inputs": {}}}, "1", "images"),
    ],
)
def test_a_refused_graph(server: ComfyuiServer, broken: dict[str, dict[str, object]], node: str, text: str) -> None:
    run = server.client.run(broken, 20)
    assert run.ending is Ending.REJECTED
    assert run.failure
    assert run.failure.node == node
    assert text in run.failure.message
    with pytest.raises(Rejected, match=text):
        server.client.submit(broken)


def test_an_interrupt(server: ComfyuiServer) -> None:
    def interrupt() -> None:
        wait_until(lambda: bool(server.client.queue()["queue_running"]), 60)
        server.client.interrupt()

    threading.Thread(target=interrupt, daemon=True).start()
    run = server.client.run(graph(seconds=600, value=15), 120)
    assert run.ending is Ending.INTERRUPTED


def test_a_prompt_that_takes_too_long_is_taken_off_the_queue(server: ComfyuiServer) -> None:
    run = server.client.run(graph(seconds=60, value=16), 1)
    assert run.ending is Ending.TIMEOUT
    after = server.client.run(graph(value=17), 20)
    assert after.ending is Ending.SUCCESS


def test_other_endpoints(server: ComfyuiServer) -> None:
    assert server.client.system_stats()["devices"][0]["name"] == "miniature"
    assert "Save" in server.client.object_info()
    assert server.client.queue() == {"queue_running": [], "queue_pending": []}
    assert server.client.history("nothing") == {}
    server.client.run(graph(value=18), 20)
    server.client.free()
    again = server.client.run(graph(value=18), 20)
    assert not any(step.cached for step in again.steps)
    with pytest.raises(OSError, match="404"):
        server.client.state()
    with pytest.raises(PatchforgeError, match="fault fail cannot be set"):
        server.client.fault("fail", error="out-of-resources")


def test_an_output_that_is_not_there(server: ComfyuiServer) -> None:
    folder = server.tree / "output"
    run = server.client.run(graph(value=19), 20)
    (folder / run.outputs[0].name).unlink()
    again = server.client.run(graph(value=19), 20)
    assert again.ending is Ending.ERROR
    assert again.failure
    assert "/view" in again.failure.message


def test_the_server_ends_in_a_prompt(tmp_path: Path) -> None:
    with server_of(tmp_path) as server:
        run = server.client.run(graph("exit"), 20)
        assert run.ending is Ending.GONE
        wait_until(lambda: not server.alive)
        assert server.client.run(graph(), 20).ending is Ending.GONE
        with pytest.raises(OSError, match=r".+"):
            server.client.system_stats()


@pytest.mark.parametrize("flag", ["--old", "--silent"])
def test_servers_that_say_less(tmp_path: Path, flag: str) -> None:
    with server_of(tmp_path, flag) as server:
        run = server.client.run(graph(), 20)
        assert run.ending is Ending.SUCCESS
        assert len(run.outputs) == 1


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckFailed, match=r"ended before it was ready[\s\S]*no such driver"),
        server_of(tmp_path, "--ends"),
    ):
        pass


def test_a_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_of(tmp_path, "--hangs", timeout=600)
    hanging(monkeypatch, lambda: server.log)
    with pytest.raises(CheckFailed, match=r"not ready after 600 s[\s\S]*hanging"), server:
        pass
    assert not server.alive


def test_it_is_stopped_with_its_children(tmp_path: Path) -> None:
    with server_of(tmp_path, "--children") as server:
        children = [int(line) for line in (tmp_path / "tree" / "children").read_text().split()]
        pids = [server.pid, *(children if sys.platform == "linux" else children[:1])]
        assert not any(dead(pid) for pid in pids)
    assert all(dead(pid) for pid in pids)
    assert (tmp_path / "tree").is_dir()
    server.stop()


def test_log_lines_have_no_colours_and_can_be_read_from_a_place_on(tmp_path: Path) -> None:
    with server_of(tmp_path) as server:
        assert "ready" in server.log_lines()
        before = server.printed.end()
        server.client.run(graph("later"), 20)
        assert server.log_lines(before)[0] == "failing: later"


def test_a_front_end_of_our_own_where_the_package_is_left_out(tmp_path: Path) -> None:
    made = tree(tmp_path / "tree", frontend=True)
    assert "--front-end-root" in flags(made)
    with ComfyuiServer(made, ENVIRONMENT, log=tmp_path / "log", timeout=60) as server:
        assert "--front-end-root" in server.client.system_stats()["system"]["argv"]
    has = Environment(ENVIRONMENT.python, {"comfyui-frontend-package": "1.2.3"}, {})
    assert "--front-end-root" not in ComfyuiServer(made, has, log=tmp_path / "log", timeout=1).command(1)
    assert "--front-end-root" not in server_of(tmp_path / "without").command(1)
    assert "--disable-api-nodes" not in server.command(1)


def test_models_are_linked_and_the_pack_is_copied(tmp_path: Path) -> None:
    weights, made = tmp_path / "weights", tree(tmp_path / "tree")
    for name in ("models/checkpoints/a.safetensors", "input/b.png", "index.json"):
        (weights / name).parent.mkdir(parents=True, exist_ok=True)
        (weights / name).write_text(name)
    for _ in range(2):
        link_models(weights, made)
    assert (made / "models/checkpoints/a.safetensors").read_text() == "models/checkpoints/a.safetensors"
    assert (made / "models/checkpoints/a.safetensors").is_symlink()
    assert not (made / "input/b.png").is_symlink()
    assert not (made / "index.json").exists()
    assert (made / "custom_nodes" / OWN_PACK / "observer.py").is_file()


def test_steps_come_from_the_journal() -> None:
    def at(event: str, node: str | None, operations: int | None, when: float) -> dict[str, object]:
        return {"event": event, "node": node, "nodes": ["c"], "operations": operations, "time": when}

    events = [
        at("execution_start", None, 5, 0),
        at("execution_cached", None, 5, 0),
        at("executing", "a", 5, 1),
        at("executing", "b", 9, 2),
        at("executed", "b", 10, 2.5),
        at("executing", "a", 12, 3),
        at("execution_success", None, 20, 5),
    ]
    steps = {step.node: step for step in steps_of(events, {"a": "A"})}
    assert (steps["a"].kind, steps["a"].operations, steps["a"].seconds) == ("A", 12, 3.0)
    assert (steps["b"].operations, steps["b"].seconds) == (3, 1.0)
    assert steps["c"].cached
    uncounted = steps_of([at("executing", "a", None, 0), at("executing", None, None, 1)], {})
    assert [step.operations for step in uncounted] == [0]


def test_nobody_there() -> None:
    started = time.monotonic()
    run = Client(9, alive=lambda: False).run(graph(), 20)
    assert run.ending is Ending.GONE
    assert run.failure
    assert time.monotonic() - started < 10
