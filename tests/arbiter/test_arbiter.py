"""The arbiter in front of a ComfyUI and an Ollama that share a card with room for one of them.

Both are stand-ins; Ollama's own program is not at hand. See ``ollama_stand_in.py`` and ``world.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from patchforge.arbiter.card import Memory
from patchforge.arbiter.services import Reach
from patchforge.arbiter.turns import CardSide, Policy
from patchforge.cli import main
from tests.arbiter.world import GRAPH, MIB, World, asking, until, world
from tests.support import ROOT

Play = Callable[[World], Awaitable[None]]


def played(top: Path, play: Play, policy: Policy = Policy.FAIR, **settings: Any) -> World:
    """What became of it all."""

    async def run() -> World:
        async with world(top, policy, **settings) as stage:
            await play(stage)
        return stage

    return asyncio.run(run())


async def in_turns(stage: World, count: int, *, direct: bool = False) -> list[object]:
    """So many jobs, in turns of a picture and an answer, as they come when two users work."""
    ended: list[object] = []

    async def pictures() -> None:
        ended.extend([await stage.draw(direct=direct) for _ in range(count // 2)])

    async def answers() -> None:
        ended.extend([(await stage.ask(direct=direct)).get("done_reason") for _ in range(count // 2)])

    await asyncio.gather(pictures(), answers())
    return ended


def handovers(stage: World) -> float:
    """How many times the card changed hands; how long that takes, ``benchmarks/share.py`` measures."""
    samples = (sample for family in stage.turns.metrics.registry.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "patchforge_arbiter_handover_seconds_count")


def test_two_hundred_jobs_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing runs out of memory, goes to the CPU or is broken off; and without the arbiter it does."""

    async def play(stage: World) -> None:
        ended = await in_turns(stage, 200)
        assert {*ended} == {"success", "stop"}
        assert len(ended) == 200

    stage = played(tmp_path / "with", play)
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu, stage.ollama.broken_off) == (0, 0, 0)
    assert handovers(stage) > 150, "they did take turns"

    async def without(stage: World) -> None:
        await in_turns(stage, 20, direct=True)

    other = played(tmp_path / "without", without)
    assert other.comfyui.out_of_memory + other.ollama.on_cpu > 0


@pytest.mark.parametrize("policy", [Policy.COMFYUI_FIRST, Policy.OLLAMA_FIRST, Policy.FIT])
def test_every_policy_keeps_both_from_failing(policy: Policy, tmp_path: Path) -> None:
    async def play(stage: World) -> None:
        assert {*await in_turns(stage, 40)} == {"success", "stop"}

    stage = played(tmp_path, play, policy)
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu, stage.ollama.broken_off) == (0, 0, 0)


@pytest.mark.parametrize("total", [150, 250])
def test_fit_unloads_nothing_where_both_fit(total: int, tmp_path: Path) -> None:
    """The first job's need is guessed from its files' sizes, 105 MiB; it takes 70, beside a model of 60."""

    async def play(stage: World) -> None:
        await in_turns(stage, 40)

    stage = played(tmp_path, play, Policy.FIT, total=total * MIB)
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu) == (0, 0)
    if total == 250:
        assert (stage.comfyui.loads, stage.ollama.loads) == (1, {"small:latest": 1})
        assert handovers(stage) == 0
    else:  # unloaded once at most, until it is known what a job takes
        assert stage.comfyui.loads + stage.ollama.loads["small:latest"] <= 4


def test_fit_unloads_only_what_must_go(tmp_path: Path) -> None:
    async def play(stage: World) -> None:
        await stage.draw()
        await stage.ask("small", keep_alive="10m")
        await stage.ask("tiny", keep_alive="20m")
        assert await stage.draw() == "success"
        async with stage.session.get(f"{stage.direct[CardSide.OLLAMA]}/api/ps") as answer:
            left = [row["name"] for row in (await answer.json())["models"]]
        assert left == ["tiny:latest"]

    played(tmp_path, play, Policy.FIT, total=135 * MIB, models={"small": 60, "tiny": 20})


def test_who_comes_first(tmp_path: Path) -> None:
    """Both wait for a long job; what is served then, and in which order, is the policy's."""

    async def order(policy: Policy) -> list[str]:
        served: list[str] = []
        async with world(tmp_path / policy, policy) as stage:
            stage.comfyui.go_on.clear()
            first = asyncio.create_task(stage.draw())
            await until(lambda: stage.comfyui.current)

            async def note(name: str, work: Awaitable[object]) -> None:
                await work
                served.append(name)

            tasks = [asyncio.create_task(note("answer", stage.ask()))]
            await until(lambda: stage.turns.status()["waiting"] == {CardSide.COMFYUI: 0, CardSide.OLLAMA: 1})
            tasks += [asyncio.create_task(note("picture", stage.draw())) for _ in range(2)]
            await until(lambda: sum(stage.turns.status()["waiting"].values()) + len(stage.comfyui.pending) == 3)  # type: ignore[attr-defined]
            stage.comfyui.go_on.set()
            await asyncio.gather(first, *tasks)
        return served

    assert asyncio.run(order(Policy.FAIR)) == ["answer", "picture", "picture"]
    assert asyncio.run(order(Policy.COMFYUI_FIRST)) == ["picture", "picture", "answer"]
    assert asyncio.run(order(Policy.OLLAMA_FIRST)) == ["answer", "picture", "picture"]


def test_an_answer_streams_through(tmp_path: Path) -> None:
    """Each piece comes when it is made, as Ollama's own client reads them, and in Ollama's own bytes."""
    library = pytest.importorskip("ollama", reason="PyPI's ollama is not installed")

    async def play(stage: World) -> None:
        client = library.AsyncClient(host=stage.addresses[CardSide.OLLAMA])
        seen = [stage.ollama.answered async for _ in await client.generate("small", "why", stream=True)]
        assert len(seen) == 6
        assert seen[:3] == [0, 0, 0], "pieces come before the answer is at its end"
        chat = await client.chat("small", messages=[{"role": "user", "content": "why"}])
        assert chat.message.content
        assert [model.model for model in (await client.ps()).models] == ["small:latest"]
        assert [model.model for model in (await client.list()).models] == ["small:latest"]
        with pytest.raises(library.ResponseError, match="not found"):
            await client.generate("nothing", "why")
        unloaded = await client.generate("small", keep_alive=0)
        assert unloaded.done_reason == "unload"
        assert (await client.ps()).models == []

    played(tmp_path, play, seconds=0.1)


async def _pieces() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield bytes(1 << 20)


def test_a_fault_of_its_own_stops_nothing(tmp_path: Path) -> None:
    async def play(stage: World) -> None:
        fault = iter([ValueError("odd")])

        def look() -> Memory | None:
            for error in fault:
                raise error
            return stage.card.memory()

        stage.turns._card = look
        assert await stage.draw() == "success"
        assert any("a mistake in patchforge: ValueError" in line for line in stage.said)

    played(tmp_path, play)


def test_everything_else_passes_unchanged(tmp_path: Path) -> None:
    async def play(stage: World) -> None:
        here, there = stage.addresses[CardSide.COMFYUI], stage.direct[CardSide.COMFYUI]
        for path in ("/system_stats", "/queue", "/prompt", "/nothing%2F..%2F?a=%20b"):
            answers = []
            for address in (here, there):
                async with stage.session.get(address + path) as answer:
                    answers.append((answer.status, await answer.read(), answer.headers["Content-Type"]))
            assert answers[0] == answers[1]
        async with stage.session.post(f"{here}/prompt", json={"prompt": {}}) as answer:
            assert (answer.status, (await answer.json())["error"]["type"]) == (400, "prompt_no_outputs")
        async with stage.session.post(f"{stage.addresses[CardSide.OLLAMA]}/api/generate", data=b"{") as answer:
            assert answer.status == 400
        for data in (bytes(3 << 20), _pieces()):
            headers = {"X-Mine": "1", "Origin": here}
            async with stage.session.post(f"{here}/upload/image", data=data, headers=headers) as answer:
                told = await answer.json()
            assert (told["bytes"], told["headers"]["X-Mine"], told["headers"]["Origin"]) == (3 << 20, "1", here)
            assert told["headers"]["Host"] == here.removeprefix("http://"), "for ComfyUI's own guard"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(here.rpartition(":")[2]))
        writer.write(b"GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
        async with stage.session.ws_connect(f"{here}/ws?clientId=me") as socket:
            assert (await socket.receive_json())["data"] == {"sid": "me"}
            await socket.send_str("abc")
            assert await socket.receive_bytes() == b"cba"

    played(tmp_path, play)


def test_a_job_that_asks_ollama(tmp_path: Path) -> None:
    """It waits for nobody but Ollama; it begins with an empty card, and gets its memory back before the answer."""

    async def play(stage: World) -> None:
        graph = asking(stage.addresses[CardSide.OLLAMA])
        for _ in range(3):
            assert await asyncio.wait_for(stage.draw(graph), 5) == "success"
        assert await stage.draw() == "success"
        assert (await stage.ask())["done_reason"] == "stop"

    stage = played(tmp_path, play)
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu, stage.ollama.broken_off) == (0, 0, 0)
    assert sum("within a job" in line for line in stage.said) == 3


def test_a_list_of_prompts_loads_each_model_once(tmp_path: Path) -> None:
    """While ComfyUI's Create List has more of them, Ollama stays; behind the last one it goes."""

    async def play(stage: World) -> None:
        assert await stage.draw(asking(stage.addresses[CardSide.OLLAMA], "a cat", "a dog", "a cow")) == "success"

    stage = played(tmp_path, play)
    assert (stage.comfyui.loads, stage.ollama.loads, stage.ollama.answered) == (1, {"small:latest": 1}, 3)
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu) == (0, 0)


def test_an_answer_is_never_broken_off(tmp_path: Path) -> None:
    """A picture waits for a slow answer; one that is let on waits for the memory; a client that goes is forgotten."""

    async def play(stage: World) -> None:
        asked = asyncio.create_task(stage.ask())
        await until(lambda: stage.ollama.running)
        drawn = asyncio.create_task(stage.draw())
        gone = asyncio.create_task(stage.ask())
        await until(lambda: sum(stage.turns.status()["waiting"].values()) == 2)  # type: ignore[attr-defined]
        gone.cancel()
        assert (await asked)["done_reason"] == "stop"
        assert await drawn == "success"
        await until(lambda: not sum(stage.turns.status()["waiting"].values()))  # type: ignore[attr-defined]

    stage = played(tmp_path, play, seconds=0.3)
    assert (stage.ollama.broken_off, stage.ollama.answered) == (0, 1)


def test_what_was_unloaded_is_loaded_again(tmp_path: Path) -> None:
    """As long as its user wanted it, and where there is room; for those who come first, room is made."""

    async def play(stage: World) -> None:
        await stage.ask(keep_alive="5m")
        await stage.draw()
        await until(lambda: "loaded small:latest again" in stage.said)
        assert stage.ollama.running["small:latest"].until - asyncio.get_running_loop().time() < 301
        await stage.ask("tiny", keep_alive="0s")

    stage = played(tmp_path / "first", play, Policy.OLLAMA_FIRST, settle=0.1, models={"small": 60, "tiny": 5})
    assert (stage.ollama.on_cpu, stage.comfyui.out_of_memory) == (0, 0)

    async def stays(stage: World) -> None:
        await stage.ask(keep_alive="5m")
        await stage.draw()
        await asyncio.sleep(0.6)
        assert "loaded small:latest again" not in stage.said, "the pictures' models have the card"

    played(tmp_path / "fair", stays, settle=0.1)


# --- What goes wrong


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """The other one goes on; who asks the missing one is told, in its own form of an error."""

    async def play(stage: World) -> None:
        stage.turns.ollama.address = "http://127.0.0.1:9"
        assert await stage.draw() == "success"
        assert "Ollama is not there" in stage.said
        stage.turns.ollama.address, stage.turns.comfyui.address = stage.direct[CardSide.OLLAMA], "http://127.0.0.1:9"
        assert (await stage.ask())["done_reason"] == "stop"

    played(tmp_path / "a", play, total=200 * MIB)

    async def closed(stage: World) -> None:
        await stage.ask()
        stage.ollama.delay = 0
        assert await stage.draw() == "success"

    played(tmp_path / "b", closed)


@pytest.mark.parametrize("policy", list(Policy))
def test_nothing_is_unloaded_for_a_program_that_is_not_there(tmp_path: Path, policy: Policy) -> None:
    async def play(stage: World) -> None:
        assert await stage.draw() == "success"
        stage.turns.ollama.address = "http://127.0.0.1:9"
        await until(lambda: stage.turns.ollama.reach is Reach.GONE)
        assert "is not there" in (await stage.ask())["error"]
        assert await stage.draw() == "success"
        assert stage.comfyui.loads == 1
        stage.turns.ollama.address = stage.direct[CardSide.OLLAMA]
        assert (await stage.ask(keep_alive="10m"))["done_reason"] == "stop"  # it is asked again, each time
        stage.turns.comfyui.address = "http://127.0.0.1:9"
        await until(lambda: stage.turns.comfyui.reach is Reach.GONE)
        assert await stage.draw() == "502"
        assert (await stage.ask(keep_alive="10m"))["done_reason"] == "stop"
        assert stage.ollama.loads == {"small:latest": 1}
        assert stage.turns.status()["waiting"] == dict.fromkeys(CardSide, 0)

    played(tmp_path, play, policy)


def test_nobody_listens_behind(tmp_path: Path) -> None:
    async def play(stage: World) -> None:
        from patchforge.arbiter.proxy import Proxy

        proxy = Proxy(stage.turns, CardSide.OLLAMA, "http://127.0.0.1:9", stage.session)
        from aiohttp import web

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with stage.session.get(f"http://127.0.0.1:{port}/api/tags") as answer:
            assert answer.status == 502
            assert "does not answer" in (await answer.json())["error"]
        await runner.cleanup()

    played(tmp_path, play)


def test_slow_programs(tmp_path: Path) -> None:
    """Slow is not gone: one that does not say whether it works is not unloaded from under its work."""

    async def play(stage: World) -> None:
        await stage.draw()
        stage.comfyui.delay = 1.5  # later than the arbiter waits for an answer
        asked = asyncio.create_task(stage.ask())
        await until(lambda: "ollama waits: comfyui does not say whether it works" in stage.said)
        assert not asked.done()
        stage.comfyui.delay = 0
        assert (await asked)["done_reason"] == "stop"
        stage.ollama.delay = 0.2
        assert await stage.draw() == "success"

    stage = played(tmp_path, play)
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu, stage.ollama.broken_off) == (0, 0, 0)


@pytest.mark.parametrize(
    "lie",
    [
        lambda rows: {"models": []},
        lambda rows: {"models": [{**row, "size": 1 << 40, "size_vram": 1 << 40} for row in rows]},
        lambda rows: {"models": [{**row, "size": -1, "size_vram": "much", "expires_at": "never"} for row in rows]},
        lambda rows: {"models": [{"name": "other:latest", "size": 1, "size_vram": 1}]},
        lambda rows: {"models": [{"name": f"m{number}"} for number in range(100)]},
        lambda rows: {"models": "none"},
        lambda rows: [],
        lambda rows: None,
    ],
)
def test_a_lying_list_of_models(lie: Callable[[list[Any]], object], tmp_path: Path) -> None:
    """What was asked for through here is unloaded whatever is told, and the card decides whether it is."""

    async def play(stage: World) -> None:
        await stage.ask()
        stage.ollama.lie = lie
        for _ in range(3):
            assert await stage.draw() == "success"
            assert (await stage.ask())["done_reason"] == "stop"

    stage = played(tmp_path, play, patience=1.0)
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu, stage.ollama.broken_off) == (0, 0, 0)


def test_memory_that_does_not_come_back(tmp_path: Path) -> None:
    """It is waited for, then it is said and counted, and the job comes on: the program finds out."""

    async def play(stage: World) -> None:
        await stage.ask()
        stage.ollama.give = lambda size: None  # it says that it has unloaded, and keeps the memory
        assert await stage.draw() == "error"
        assert any("is not seen free" in line for line in stage.said)
        assert b'patchforge_arbiter_unseen_total{side="ollama"} 1.0' in stage.turns.metrics.text()

    played(tmp_path, play, patience=0.5)


def test_somebody_else_on_the_card(tmp_path: Path) -> None:
    """A game takes memory meanwhile: that of the models is seen to come back all the same."""

    async def play(stage: World) -> None:
        await stage.draw()
        await stage.ask()
        await stage.draw()
        stage.card.take("somebody", 10 * MIB)
        before = asyncio.get_running_loop().time()
        assert (await stage.ask())["done_reason"] == "stop"
        assert asyncio.get_running_loop().time() - before < 2
        assert not any("is not seen free" in line for line in stage.said)

    played(tmp_path, play)


def test_a_card_that_nobody_sees(tmp_path: Path) -> None:
    async def play(stage: World) -> None:
        assert {*await in_turns(stage, 10)} == {"success", "stop"}
        assert any("cannot be seen" in line for line in stage.said)

    stage = played(tmp_path, play, see=lambda _: None)
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu) == (0, 0)


def test_jobs_that_go_round_it_are_said(tmp_path: Path) -> None:
    async def play(stage: World) -> None:
        await stage.ask(direct=True)
        assert await stage.draw() == "success", "what was loaded elsewhere is unloaded too"
        await stage.ask()
        stage.comfyui.go_on.clear()
        drawn = asyncio.create_task(stage.draw(direct=True))
        await until(lambda: any("does not come through here" in line for line in stage.said))
        stage.comfyui.go_on.set()
        await drawn

    played(tmp_path, play, total=200 * MIB)


def test_started_again(tmp_path: Path) -> None:
    """A new arbiter finds both loaded, or at work, and does as if it had been there."""

    async def play(stage: World) -> None:
        await stage.draw(direct=True)
        stage.comfyui.go_on.clear()
        drawn = asyncio.create_task(stage.draw(direct=True))
        await until(lambda: stage.comfyui.current)
        asked = asyncio.create_task(stage.ask())
        await until(lambda: "ollama waits: comfyui is at work" in stage.said)
        stage.comfyui.go_on.set()
        assert (await drawn, (await asked)["done_reason"]) == ("success", "stop")

    stage = played(tmp_path, play)
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu) == (0, 0)


def test_the_end(tmp_path: Path) -> None:
    """Answers come to their end, who waits is sent away with a word."""

    async def play(stage: World) -> None:
        asked = asyncio.create_task(stage.ask())
        await until(lambda: stage.ollama.running)
        drawn = asyncio.create_task(stage.draw())
        await until(lambda: sum(stage.turns.status()["waiting"].values()) == 1)  # type: ignore[attr-defined]
        stage.turns.close()
        assert await drawn == "503"
        assert (await asked)["done_reason"] == "stop"

    assert played(tmp_path, play, seconds=0.3).ollama.broken_off == 0


# --- The command


def kernel(root: Path, total: int, **units: int) -> Path:
    """A machine's ``/sys/fs/cgroup`` with the dmem controller."""
    top = root / "sys/fs/cgroup"
    (top / "system.slice").mkdir(parents=True)
    (top / "dmem.capacity").write_text(f"drm/0000:03:00.0/vram0 {total}\ndrm/0000:00:02.0/gtt {1 << 40}\n")
    (top / "system.slice" / "dmem.current").write_text(f"drm/0000:03:00.0/vram0 {sum(units.values())}\n")
    for name, size in units.items():
        (top / "system.slice" / f"{name}.service").mkdir()
        (top / "system.slice" / f"{name}.service" / "dmem.current").write_text(f"drm/0000:03:00.0/vram0 {size}\n")
        (top / "system.slice" / f"{name}.service" / "dmem.max").write_text("drm/0000:03:00.0/vram0 max\n")
    return root


def test_the_kernels_count(tmp_path: Path) -> None:
    from patchforge.arbiter.card import kernel as reader

    look = reader(kernel(tmp_path, 12 << 30, comfyui=5 << 30, ollama=2 << 30))
    assert look is not None
    assert look() == Memory(12 << 30, 5 << 30)
    assert reader(tmp_path / "elsewhere") is None


def test_a_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = kernel(tmp_path, 12 << 30, ollama=2 << 30)
    limit = root / "sys/fs/cgroup/system.slice/ollama.service/dmem.max"
    words = ["arbiter", "limit", "ollama.service", "4GiB", "--root", str(root)]
    assert main([*words, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] is False
    assert "max" in limit.read_text()
    assert main(words) == 0
    assert limit.read_text() == f"drm/0000:03:00.0/vram0 {4 << 30}\n"
    for wrong, status in (
        (["arbiter", "limit", "nothing.service", "4GiB", "--root", str(root)], 2),
        (["arbiter", "limit", "../../etc.service", "4GiB", "--root", str(root)], 2),
        (["arbiter", "limit", "ollama.service", "much", "--root", str(root)], 2),
        (["arbiter", "limit", "ollama.service", "4GiB", "--root", str(root), "--memory", "drm/x/vram0"], 2),
        (["arbiter", "limit", "ollama.service", "4GiB", "--root", str(tmp_path / "old")], 69),
    ):
        (tmp_path / "old").mkdir(exist_ok=True)
        assert main(wrong) == status
    assert "Linux 6.14" in capsys.readouterr().err
    nowhere = str(tmp_path / "nowhere")
    for command in (["limit", "ollama.service", "4GiB"], ["run"]):
        assert main(["arbiter", *command, "--root", nowhere]) == 2
        said = capsys.readouterr().err
        assert nowhere in said
        assert "kernel" not in said


def test_the_service(tmp_path: Path) -> None:
    """It listens, tells how things are, and ends with SIGTERM."""
    command = [sys.executable, "-m", "patchforge", "arbiter", "--listen-comfyui", "127.0.0.1:0"]
    command += ["--listen-ollama", "127.0.0.1:0", "--root", str(kernel(tmp_path, 1 << 30))]
    command += ["--comfyui", "http://127.0.0.1:9", "--ollama", "http://127.0.0.1:9"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(3)]
    assert "as the kernel counts it" in said[0]
    ports = [line.rstrip().rpartition(":")[2] for line in said[1:]]

    async def look() -> tuple[str, str, int]:
        async with ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{ports[0]}/patchforge-arbiter/metrics") as answer:
                metrics = await answer.text()
            async with session.get(f"http://127.0.0.1:{ports[1]}/patchforge-arbiter/status") as answer:
                status = await answer.text()
            async with session.post(f"http://127.0.0.1:{ports[0]}/prompt", json={"prompt": GRAPH}) as answer:
                return metrics, status, answer.status

    metrics, status, refused = asyncio.run(look())
    assert "patchforge_arbiter_handover_seconds" in metrics
    assert json.loads(status)["policy"] == "fair"
    assert refused == 502
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--listen-ollama", f"127.0.0.1:{taken.getsockname()[1]}", "--listen-comfyui", "127.0.0.1:0"]
        assert main(["arbiter", *words, "--root", str(tmp_path)]) == 2
    assert "cannot listen" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--listen-comfyui", "--listen-ollama"])
def test_the_option_that_is_wrong_is_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arbiter", "run", option, "127.0.0.1:70000"]) == 2
    assert f"correct {option}\n" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["http://127.0.0.1:18288", "http://localhost:18434"])
def test_it_does_not_ask_itself(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One request would go round until no file can be opened any more."""
    words = ["--listen-comfyui", "127.0.0.1:18288", "--listen-ollama", "127.0.0.1:18434"]
    assert main(["arbiter", "run", "--ollama", address, *words]) == 2
    assert "cannot ask itself" in capsys.readouterr().err


@pytest.mark.parametrize("by_kernel", [True, False])
def test_memory_that_the_kernel_sees_is_not_waited_for_twice(tmp_path: Path, by_kernel: bool) -> None:
    """ComfyUI frees at once, and then collects garbage and answers nobody: whose word counts is what matters."""

    async def play(stage: World) -> None:
        stage.comfyui.collects = 0.8
        for _ in range(3):
            assert await stage.draw() == "success"
            assert (await stage.ask())["done_reason"] == "stop"

    stage = played(tmp_path, play, by_kernel=by_kernel)
    told = [line for line in stage.said if line.startswith("unloaded ComfyUI's models for ollama in ")]
    times = [float(line.split(" in ")[1].split(" s;")[0]) for line in told]
    assert len(times) == 3
    assert max(times) < 0.5 if by_kernel else min(times) > 0.7, times
    assert (stage.comfyui.out_of_memory, stage.ollama.on_cpu) == (0, 0)
