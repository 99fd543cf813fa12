"""A card with a budget, a ComfyUI and an Ollama that share it, and the arbiter in front of them, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from patchforge.arbiter.card import Memory
from patchforge.arbiter.proxy import serving
from patchforge.arbiter.services import SharedComfyUI, SharedOllama
from patchforge.arbiter.turns import CardSide, Policy, Turns
from patchforge.cli import main
from tests.arbiter.ollama_stand_in import OllamaStandIn, Stub
from tests.models.world import gguf_bytes

MIB = 1 << 20


class OutOfMemory(Exception):
    """As torch's."""


class EmulatedCard:
    """So many bytes, and who holds them."""

    def __init__(self, total: int) -> None:
        self.total, self.held = total, dict.fromkeys((*CardSide, "somebody"), 0)

    def take(self, who: str, size: int) -> bool:
        if size > self.free:
            return False
        self.held[who] += size
        return True

    def give(self, who: str, size: int) -> None:
        assert size <= self.held[who]
        self.held[who] -= size

    @property
    def free(self) -> int:
        return self.total - sum(self.held.values())

    def memory(self) -> Memory | None:
        return Memory(self.total, self.free)


class FakeComfyUI:
    """ComfyUI's queue and memory, as server.py, main.py and execution.py have them (v0.33.0).

    A job takes ``need`` bytes and keeps them, as cached models are, until ``/free`` is obeyed: by the worker, when it
    next has nothing to do. A node ``Ask`` asks Ollama at its ``url`` and waits.
    """

    def __init__(self, card: EmulatedCard, need: int, seconds: float = 0.002) -> None:
        self.card, self.need, self.seconds = card, need, seconds
        self.pending: list[tuple[str, dict[str, Any]]] = []
        self.current: tuple[str, dict[str, Any]] | None = None
        self.history: dict[str, asyncio.Future[str]] = {}
        self.out_of_memory = self.loads = 0
        self.delay = 0.0
        self.collects = 0.0  #: seconds after ``/free`` in which Python collects garbage, and nobody is answered
        self._silent_until = 0.0
        self.go_on = asyncio.Event()  #: a job waits for it
        self.go_on.set()
        self._free = False
        self._wake = asyncio.Event()
        self._sockets: list[web.WebSocketResponse] = []

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._slow], client_max_size=64 << 20)
        for path in ("/prompt", "/api/prompt"):
            app.router.add_get(path, self._info)
            app.router.add_post(path, self._queue)
        app.router.add_get("/queue", self._running)
        app.router.add_get("/system_stats", self._stats)
        app.router.add_post("/free", self._ask_free)
        app.router.add_get("/ws", self._socket)
        app.router.add_post("/upload/image", self._upload)
        app.router.add_get("/experiment/models/{folder}", self._models)
        app.cleanup_ctx.append(self._work)
        return app

    @web.middleware
    async def _slow(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if (pause := max(self.delay, self._silent_until - time.monotonic())) > 0:
            await asyncio.sleep(pause)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _info(self, _: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": len(self.pending) + (self.current is not None)}})

    async def _queue(self, request: web.Request) -> web.Response:
        graph = (await request.json()).get("prompt")
        if not graph or not all("class_type" in node for node in graph.values()):
            error = {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        name = uuid.uuid4().hex
        self.pending.append((name, graph))
        self.history[name] = asyncio.get_running_loop().create_future()
        self._wake.set()
        return web.json_response({"prompt_id": name, "number": 1, "node_errors": {}})

    async def _running(self, _: web.Request) -> web.Response:
        rows = [[1, *job, {}, []] for job in ([self.current] if self.current else [])]
        return web.json_response({"queue_running": rows, "queue_pending": [[1, *job, {}, []] for job in self.pending]})

    async def _stats(self, _: web.Request) -> web.Response:
        held = self.card.held[CardSide.COMFYUI]
        device = {"name": "xpu", "type": "xpu", "index": 0, "vram_total": self.card.total, "vram_free": self.card.free}
        return web.json_response({"devices": [{**device, "torch_vram_total": held, "torch_vram_free": 0}]})

    async def _ask_free(self, request: web.Request) -> web.Response:
        self._free |= bool((await request.json()).get("unload_models"))
        self._wake.set()
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        rows = [{"name": "a.safetensors", "size": self.need}] if request.match_info["folder"] == "checkpoints" else []
        return web.json_response(rows)

    async def _upload(self, request: web.Request) -> web.Response:
        return web.json_response({"bytes": len(await request.read()), "headers": dict(request.headers)})

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "status", "data": {"sid": request.query.get("clientId")}})
        async for message in socket:
            await socket.send_bytes(message.data.encode()[::-1])
        return socket

    async def _work(self, _: web.Application) -> AsyncIterator[None]:
        worker = asyncio.create_task(self._worker())
        yield
        worker.cancel()

    async def _worker(self) -> None:
        while True:
            self._wake.clear()
            if self.pending:
                self.current = self.pending.pop(0)
                try:
                    await self._run(self.current[1])
                    ended = "success"
                except OutOfMemory:
                    ended = "error"
                (name, _), self.current = self.current, None
                self.history[name].set_result(ended)
            if self._free:  # as main.py: flags are looked at behind each job, and when the queue is empty
                self.card.give(CardSide.COMFYUI, self.card.held[CardSide.COMFYUI])
                self._free = False
                self._silent_until = time.monotonic() + self.collects
            if not self.pending:
                await self._wake.wait()

    async def _run(self, graph: dict[str, Any]) -> None:
        for node in graph.values():
            if node["class_type"] == "CreateList":
                continue
            if node["class_type"] == "Ask":
                await self._ask(node["inputs"], graph)
            else:
                held = self.card.held[CardSide.COMFYUI]
                if held < self.need:
                    self.loads += 1
                    if not self.card.take(CardSide.COMFYUI, self.need - held):
                        self.out_of_memory += 1
                        raise OutOfMemory
                await asyncio.sleep(self.seconds)
                await self.go_on.wait()

    async def _ask(self, inputs: dict[str, Any], graph: dict[str, Any]) -> None:
        """One after another, what a list has."""
        prompts = inputs["prompt"]
        for prompt in graph[prompts[0]]["inputs"].values() if isinstance(prompts, list) else [prompts]:
            body = {"model": inputs["model"], "prompt": prompt, "stream": False}
            async with ClientSession() as session, session.post(inputs["url"], json=body) as answer:
                text = await answer.text()
                assert answer.status == 200, text


GRAPH = {"1": {"class_type": "KSampler", "inputs": {"ckpt_name": "a.safetensors"}}}


def asking(url: str, *prompts: str) -> dict[str, Any]:
    """A graph that asks Ollama, once for each prompt, and then samples."""
    listed = {"class_type": "CreateList", "inputs": {f"inputs.input{n}": text for n, text in enumerate(prompts)}}
    asks = {"url": f"{url}/api/generate", "model": "small", "prompt": ["0", 0] if len(prompts) > 1 else "why"}
    return {"0": listed, "1": {"class_type": "Ask", "inputs": asks}, "2": GRAPH["1"]}


@dataclass
class World:
    """All of them, and where they listen. ``direct``: without the arbiter."""

    card: EmulatedCard
    comfyui: FakeComfyUI
    ollama: OllamaStandIn
    turns: Turns
    said: list[str]
    session: ClientSession
    addresses: dict[CardSide, str] = field(default_factory=dict)
    direct: dict[CardSide, str] = field(default_factory=dict)

    async def draw(self, graph: object = GRAPH, *, direct: bool = False) -> str:
        """A job, to its end: ``success``, ``error`` or a status."""
        address = (self.direct if direct else self.addresses)[CardSide.COMFYUI]
        async with self.session.post(f"{address}/prompt", json={"prompt": graph}) as answer:
            if answer.status != 200:
                return str(answer.status)
            name = (await answer.json())["prompt_id"]
        return await self.comfyui.history[name]

    async def ask(self, model: str = "small", *, direct: bool = False, **more: object) -> dict[str, Any]:
        """A question to Ollama, streamed; its last line."""
        address = (self.direct if direct else self.addresses)[CardSide.OLLAMA]
        body = {"model": model, "prompt": "why", **more}
        async with self.session.post(f"{address}/api/generate", json=body) as answer:
            lines = [json.loads(line) async for line in answer.content]
        last: dict[str, Any] = lines[-1]
        return last


@contextlib.asynccontextmanager
async def world(
    top: Path,
    policy: Policy = Policy.FAIR,
    *,
    total: int = 100 * MIB,
    need: int = 70 * MIB,
    models: dict[str, int] | None = None,
    patience: float = 5.0,
    settle: float = 5.0,
    seconds: float = 0.002,
    by_kernel: bool = False,
    see: Callable[[EmulatedCard], Memory | None] = EmulatedCard.memory,
) -> AsyncIterator[World]:
    """``models``: MiB of each of Ollama's. Their files are small; the stand-in counts a thousand times of it."""
    card = EmulatedCard(total)
    folder = top / "ollama"
    (folder / "blobs").mkdir(parents=True)
    for name, size in (models or {"small": 60}).items():
        file = top / f"{name}.gguf"
        file.write_bytes(gguf_bytes("llama", weights=bytes(size * 1024)))
        words = ["models", "link", str(file), f"ollama:{name}", "--ollama", str(folder), "--store", str(top / "store")]
        assert main(words) == 0
    comfyui = FakeComfyUI(card, need, seconds)
    ollama = OllamaStandIn(
        folder,
        Stub(seconds),
        lambda size: card.take(CardSide.OLLAMA, size),
        lambda size: card.give(CardSide.OLLAMA, size),
        factor=1024.0,
    )
    said: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        direct = {
            side: await served(stack, server.app())
            for side, server in ((CardSide.COMFYUI, comfyui), (CardSide.OLLAMA, ollama))
        }
        turns = Turns(
            SharedComfyUI(direct[CardSide.COMFYUI], 1.0),
            SharedOllama(direct[CardSide.OLLAMA], 1.0),
            lambda: see(card),
            policy,
            by_kernel=by_kernel,
            patience=patience,
            settle=settle,
            say=said.append,
        )
        session = await stack.enter_async_context(ClientSession())
        ports = await stack.enter_async_context(serving(turns, dict.fromkeys(CardSide, ("127.0.0.1", 0))))
        addresses = {side: f"http://127.0.0.1:{port}" for side, port in ports.items()}
        yield World(card, comfyui, ollama, turns, said, session, addresses, direct)


async def served(stack: contextlib.AsyncExitStack, app: web.Application) -> str:
    """An application that listens until the end; its address."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


async def until(what: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits for something to be true; fails where it does not become so."""
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not become so"
        await asyncio.sleep(0.005)
