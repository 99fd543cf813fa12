"""A miniature of ComfyUI's server: its endpoints, its events and its queue, with nodes that misbehave on request.

``tree`` writes it as a folder that ``Server`` can start. It loads ``custom_nodes`` as ComfyUI does, so that the trial
pack runs in it; torch is imported by the pack and by the node Compute only.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
import threading
import time
import traceback
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

with suppress(ModuleNotFoundError):  # ``missing`` says so
    from aiohttp import WSMsgType, web

Graph = dict[str, dict[str, Any]]
REQUIRED = {"Source": ("value",), "Compute": ("of",), "Sleep": ("seconds",), "Fail": ("how",), "Save": ("images",)}
CLI_ARGS = """
parser.add_argument("--listen")
parser.add_argument("--port")
parser.add_argument("--disable-auto-launch")
parser.add_argument("--front-end-root")
"""
MODEL_MANAGEMENT = """
def get_torch_device():
    import torch
    return torch.device("xpu" if torch.xpu.is_available() else "cpu")
"""


def missing(*more: str) -> str:
    """What its tests need and is not installed."""
    return ", ".join(name for name in ("aiohttp", "websockets", *more) if importlib.util.find_spec(name) is None)


def tree(folder: Path, *, frontend: bool = False) -> Path:
    """The miniature as a release's folder."""
    (folder / "comfy").mkdir(parents=True)
    (folder / "custom_nodes").mkdir()
    (folder / "main.py").write_bytes(Path(__file__).read_bytes())
    (folder / "comfy" / "__init__.py").touch()
    (folder / "comfy" / "cli_args.py").write_text(CLI_ARGS)
    (folder / "comfy" / "model_management.py").write_text(MODEL_MANAGEMENT)
    (folder / "requirements.txt").write_text("comfyui-frontend-package==1.2.3\n" if frontend else "aiohttp\n")
    return folder


def graph(how: str = "", *, value: int = 1, operations: int = 3, seconds: float = 0) -> Graph:
    """Source, Compute, perhaps a Fail or a Sleep, Save."""
    found: Graph = {
        "1": {"class_type": "Source", "inputs": {"value": value}},
        "2": {"class_type": "Compute", "inputs": {"of": ["1", 0], "operations": operations}},
        "9": {"class_type": "Save", "inputs": {"images": ["2", 0]}},
    }
    if how or seconds:
        between = {"how": how} if how else {"seconds": seconds}
        found["3"] = {"class_type": "Fail" if how else "Sleep", "inputs": {"of": ["2", 0], **between}}
        found["9"]["inputs"]["images"] = ["3", 0]
    return found


class Interrupted(Exception):
    pass


class PromptServer:
    instance: PromptServer

    def __init__(self, options: argparse.Namespace) -> None:
        PromptServer.instance = self
        self.options = options
        self.routes = web.RouteTableDef()
        self.client_id: str | None = None
        self.loop = asyncio.new_event_loop()
        self.messages: asyncio.Queue[tuple[str, Any, str | None]] = asyncio.Queue()
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.pending: list[tuple[int, str, Graph, dict[str, Any]]] = []
        self.running: list[tuple[int, str, Graph, dict[str, Any]]] = []
        self.history: dict[str, Any] = {}
        self.changed = threading.Condition()
        self.interrupted = False
        self.cache: dict[str, Any] = {}
        self.number = 0
        self._add_routes()

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        if not self.options.silent:
            self.loop.call_soon_threadsafe(self.messages.put_nowait, (event, data, sid))

    def _add_routes(self) -> None:
        for method, path, handler in (
            ("GET", "/ws", self.ws),
            ("GET", "/system_stats", self.system_stats),
            ("GET", "/object_info", self.object_info),
            ("GET", "/queue", self.get_queue),
            ("POST", "/queue", self.post_queue),
            ("POST", "/prompt", self.post_prompt),
            ("POST", "/interrupt", self.post_interrupt),
            ("POST", "/free", self.post_free),
            ("GET", "/history/{prompt_id}", self.get_history),
            ("GET", "/view", self.view),
        ):
            self.routes.route(method, path)(handler)

    async def ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        name = request.query["clientId"]
        self.sockets[name] = socket
        await socket.send_json({"type": "status", "data": {"status": {}, "sid": name}})
        async for message in socket:
            if message.type == WSMsgType.ERROR:
                break
        self.sockets.pop(name, None)
        return socket

    async def publish(self) -> None:
        while True:
            event, data, sid = await self.messages.get()
            if sid in self.sockets:
                await self.sockets[sid].send_bytes(b"\0\0\0\1preview")
                await self.sockets[sid].send_json({"type": event, "data": data})

    async def system_stats(self, _request: web.Request) -> web.Response:
        return web.json_response({"system": {"argv": sys.argv}, "devices": [{"name": "miniature", "type": "xpu"}]})

    async def object_info(self, _request: web.Request) -> web.Response:
        return web.json_response({name: {} for name in REQUIRED})

    async def get_queue(self, _request: web.Request) -> web.Response:
        return web.json_response({"queue_running": self.running, "queue_pending": self.pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        wanted = (await request.json())["delete"]
        self.pending = [item for item in self.pending if item[1] not in wanted]
        return web.Response()

    async def post_prompt(self, request: web.Request) -> web.Response:
        data = await request.json()
        found: Graph = data["prompt"]
        for node, what in found.items():
            kind = what["class_type"]
            if kind not in REQUIRED:
                error = {"type": "invalid_prompt", "message": f"no node {kind}", "details": f"Node ID '#{node}'"}
                return web.json_response({"error": error, "node_errors": {}}, status=400)
            if lacking := [name for name in REQUIRED[kind] if name not in what["inputs"]]:
                errors = [{"message": "Required input is missing", "details": lacking[0]}]
                error = {"type": "prompt_outputs_failed_validation", "message": "invalid", "details": ""}
                of = {node: {"class_type": kind, "errors": errors}}
                return web.json_response({"error": error, "node_errors": of}, status=400)
        prompt_id, self.number = str(uuid.uuid4()), self.number + 1
        with self.changed:
            self.pending.append((self.number, prompt_id, found, {"client_id": data.get("client_id")}))
            self.changed.notify()
        return web.json_response({"prompt_id": prompt_id, "number": self.number, "node_errors": {}})

    async def post_interrupt(self, _request: web.Request) -> web.Response:
        self.interrupted = True
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        if (await request.json())["free_memory"]:
            self.cache.clear()
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        name = request.match_info["prompt_id"]
        return web.json_response({name: self.history[name]} if name in self.history else {})

    async def view(self, request: web.Request) -> web.Response:
        return web.Response(body=Path("output", request.query["filename"]).read_bytes())  # noqa: ASYNC240


class Executor:
    """Works through one prompt at a time, as ComfyUI's does."""

    def __init__(self, server: PromptServer) -> None:
        self.server = server

    def execute(self, item: tuple[int, str, Graph, dict[str, Any]]) -> None:
        _, prompt_id, found, extra = item
        server = self.server
        server.client_id, server.interrupted = extra["client_id"], False
        self.messages: list[tuple[str, Any]] = []
        self.outputs: dict[str, Any] = {}
        cached = [node for node in found if self.key(found, node) in server.cache]
        self.tell("execution_start", {"prompt_id": prompt_id})
        self.tell("execution_cached", {"nodes": cached, "prompt_id": prompt_id})
        success = self.run(prompt_id, found)
        status = {"status_str": "success" if success else "error", "completed": success, "messages": self.messages}
        server.history[prompt_id] = {"prompt": item, "outputs": self.outputs, "status": status}
        server.send_sync("executing", {"node": None, "prompt_id": prompt_id}, server.client_id)

    def run(self, prompt_id: str, found: Graph) -> bool:
        for node in sorted(found):
            what = found[node]
            key = self.key(found, node)
            if key not in self.server.cache:
                data = {"node": node, "prompt_id": prompt_id}
                self.server.send_sync("executing", data, self.server.client_id)
                try:
                    self.server.cache[key] = self.node(node, what["class_type"], what["inputs"])
                except Interrupted:
                    self.tell("execution_interrupted", {"prompt_id": prompt_id, "node_id": node})
                    return False
                except Exception as error:
                    self.tell("execution_error", self.error(error, prompt_id, node, what["class_type"]))
                    return False
            if self.server.cache[key]:
                self.outputs[node] = self.server.cache[key]
        if not self.server.options.old:
            self.tell("execution_success", {"prompt_id": prompt_id})
        return True

    def tell(self, event: str, data: dict[str, Any]) -> None:
        self.messages.append((event, data))
        self.server.send_sync(event, data, self.server.client_id)

    def error(self, error: Exception, prompt_id: str, node: str, kind: str) -> dict[str, Any]:
        return {
            "prompt_id": prompt_id,
            "node_id": node,
            "node_type": kind,
            "exception_type": type(error).__name__,
            "exception_message": str(error),
            "traceback": traceback.format_tb(error.__traceback__),
        }

    def key(self, found: Graph, node: str) -> str:
        inputs = found[node]["inputs"]
        before = [self.key(found, str(value[0])) for value in inputs.values() if isinstance(value, list)]
        return json.dumps([node, found[node]["class_type"], inputs, before], sort_keys=True)

    def node(self, node: str, kind: str, inputs: dict[str, Any]) -> dict[str, Any]:
        if kind == "Compute":
            self.compute(int(inputs.get("operations", 0)))
        elif kind == "Sleep":
            self.sleep(float(inputs["seconds"]))
        elif kind == "Fail":
            self.fail(inputs["how"])
        elif kind == "Save":
            name = f"{node}-{len(self.server.history)}.png"
            Path("output").mkdir(exist_ok=True)
            Path("output", name).write_bytes(b"picture " + name.encode())
            return {"images": [{"filename": name, "subfolder": "", "type": "output"}]}
        return {}

    def compute(self, operations: int) -> None:
        """On the device; on the CPU where the tree is blind for it; nowhere where it is a stub."""
        if self.server.options.out_of_memory:
            raise MemoryError("XPU out of memory")
        if self.server.options.stub or "torch" not in sys.modules:
            return
        import torch

        value = torch.ones(4, device="cpu" if self.server.options.blind or not torch.xpu.is_available() else "xpu")
        for _ in range(operations):
            value.add_(1)

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.server.interrupted:
                raise Interrupted
            time.sleep(0.01)

    def fail(self, how: str) -> None:
        print(f"failing: {how}", flush=True)
        if how == "exit":
            os._exit(3)
        if how == "worker":
            raise SystemExit  # ends the thread
        raise RuntimeError(how)


def prompt_worker(server: PromptServer) -> None:
    while True:
        with server.changed:
            while not server.pending:
                server.changed.wait()
            item = server.pending.pop(0)
        server.running = [item]
        Executor(server).execute(item)
        server.running = []


def load_custom_nodes() -> None:
    sys.modules["server"] = sys.modules["__main__"]
    for file in sorted(Path("custom_nodes").glob("*/__init__.py")):
        name = str(file.parent.absolute()).replace(".", "_x_")
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
        assert spec
        assert spec.loader
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


async def start(server: PromptServer) -> None:
    application = web.Application()
    application.add_routes(server.routes)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, server.options.listen, server.options.port).start()
    print("\x1b[32mready\x1b[0m", flush=True)
    await server.publish()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--front-end-root", type=Path)
    for flag in ("disable-auto-launch", "blind", "stub", "old", "silent", "out-of-memory", "ends", "hangs", "children"):
        parser.add_argument(f"--{flag}", action="store_true")
    options = parser.parse_args()
    if options.front_end_root and not (options.front_end_root / "index.html").is_file():
        parser.error("no front end")
    if options.ends:
        sys.exit("cannot start: no such driver")
    if options.hangs:
        print("hanging", flush=True)
        time.sleep(600)
    if options.children:
        import subprocess

        for new_session in (False, True):
            child = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=new_session
            )
            with Path("children").open("a") as file:
                file.write(f"{child.pid}\n")
    server = PromptServer(options)
    load_custom_nodes()
    threading.Thread(target=prompt_worker, args=(server,), daemon=True).start()
    server.loop.run_until_complete(start(server))


if __name__ == "__main__":
    main()
