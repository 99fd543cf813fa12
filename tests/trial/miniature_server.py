"""A miniature of ComfyUI's server: endpoints, events, queue, a sampler and a decoder; it misbehaves on request.

``files`` are those of a release of it, ``tree`` writes them as a folder that ``Server`` can start. It loads
``custom_nodes`` as ComfyUI does, so that the trial pack runs in it; torch is imported by the pack and by the nodes that
compute. Every mode of ``MODES`` is a flag; ``POST /misbehave`` changes them while the server runs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import random
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
REQUIRED = {
    "Source": ("value",),
    "Compute": ("of",),
    "Sleep": ("seconds",),
    "Fail": ("how",),
    "Save": ("images",),
    "Noise": ("seed",),
    "EmptyLatentImage": ("width", "height"),
    "KSampler": ("latent_image", "seed", "steps"),
    "LatentFlip": ("samples", "flip_method"),
    "VAEDecode": ("samples",),
    "SaveImage": ("images",),
}
MODES = {
    "blind": "computes on the CPU though there is a GPU",
    "stub": "computes nothing and gives a picture of one colour",
    "fixed-picture": "computes, and saves the same picture whatever came out",
    "old": "does not tell execution_success, as older releases do not",
    "silent": "nothing on the socket",
    "out-of-memory": "Compute runs out of memory",
    "accepts-anything": "does not look at a prompt's inputs",
    "no-cache": "computes everything again",
    "stale-cache": "its cache does not look at seeds",
    "deaf": "cannot be interrupted",
    "stuck": "samples until it is interrupted",
    "leaks": "/free does nothing",
    "over-estimates": "memory of other processes is free",
    "trusts-driver": "takes for free memory what the driver says, whatever it is",
    "oom-kills": "ends when the device has no memory left",
    "no-tiles": "does not decode in tiles when memory runs out",
    "fragile": "a device error ends the thread that works through the queue",
    "whole-models": "loads a model or fails, never a part of it",
    "two-kinds": "names a CUDA device, too",
    "no-packs": "loads no custom nodes",
}
CLI_ARGS = """
parser.add_argument("--listen")
parser.add_argument("--port")
parser.add_argument("--disable-auto-launch")
parser.add_argument("--front-end-root")
parser.add_argument("--cpu")
"""
MODEL_MANAGEMENT = """
def get_torch_device():
    import torch
    return torch.device("xpu" if torch.xpu.is_available() else "cpu")
"""
CUDA_BLIND = MODEL_MANAGEMENT.replace("xpu", "cuda")
#: For servers that compute nothing: they start in a fraction of the time that torch takes.
NO_TORCH = """
__version__ = "0"


class version:
    pass


class cuda:
    @staticmethod
    def is_available():
        return False


class device:
    def __init__(self, type):
        self.type = type


xpu = cuda
"""
MIB = 1 << 20
HALF = 12 * MIB  # of the model, in bytes; torch takes smaller pieces from blocks of 20 MiB


def missing(*more: str) -> str:
    """What its tests need and is not installed."""
    return ", ".join(name for name in ("aiohttp", "websockets", *more) if importlib.util.find_spec(name) is None)


def files(*modes: str, frontend: bool = False, torch: bool = True, blind: bool = False) -> dict[str, bytes]:
    """The miniature as a release that misbehaves by itself; ``torch`` False: its own torch, which can do nothing.

    ``blind``: the tree knows of no GPU but CUDA's, as releases do that were not written for Intel's.
    """
    texts = {
        "main.py": Path(__file__).read_text(),
        "comfy/__init__.py": "",
        "comfy/cli_args.py": CLI_ARGS,
        "comfy/model_management.py": CUDA_BLIND if blind else MODEL_MANAGEMENT,
        "custom_nodes/README": "",
        "modes": " ".join(f"--{mode}" for mode in modes),
        "requirements.txt": "comfyui-frontend-package==1.2.3\n" if frontend else "aiohttp\n",
        **({} if torch else {"torch.py": NO_TORCH}),
    }
    return {name: text.encode() for name, text in texts.items()}


def tree(folder: Path, *modes: str, frontend: bool = False) -> Path:
    """The miniature in a folder."""
    for name, data in files(*modes, frontend=frontend).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def txt2img(seed: int = 7, steps: int = 2) -> Graph:
    """Samples, decodes and saves, under the numbers 2, 3 and 4."""
    return {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 16, "height": 16}},
        "2": {"class_type": "KSampler", "inputs": {"latent_image": ["1", 0], "seed": seed, "steps": steps}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    }


def noise(seed: int = 7, seconds: float = 0) -> Graph:
    """A picture that needs no torch, and time."""
    return {
        "1": {"class_type": "Noise", "inputs": {"seed": seed, "seconds": seconds}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }


def graph(how: str = "", *, value: int = 1, operations: int = 3, seconds: float = 0) -> Graph:
    """Source, Compute, perhaps a Fail or a Sleep, Save."""
    graph: Graph = {
        "1": {"class_type": "Source", "inputs": {"value": value}},
        "2": {"class_type": "Compute", "inputs": {"of": ["1", 0], "operations": operations}},
        "9": {"class_type": "Save", "inputs": {"images": ["2", 0]}},
    }
    if how or seconds:
        between = {"how": how} if how else {"seconds": seconds}
        graph["3"] = {"class_type": "Fail" if how else "Sleep", "inputs": {"of": ["2", 0], **between}}
        graph["9"]["inputs"]["images"] = ["3", 0]
    return graph


#: The nodes of custom_nodes: their classes and modules.
PACKED: dict[str, tuple[Any, str]] = {}


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
        self.cache: dict[str, tuple[dict[str, Any], Any]] = {}  # by key: what the history shows, what the node gave
        self.number = 0
        self.modes = {mode for mode in MODES if getattr(options, mode.replace("-", "_"))}
        self.to_free = False
        self.model = Model(self)
        self._add_routes()

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        if "silent" not in self.modes:
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
            ("POST", "/misbehave", self.misbehave),
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
        devices: list[dict[str, Any]] = [{"name": "miniature", "type": "xpu"}]
        if "torch" in sys.modules:
            total, free = self.model.memory()
            kind = self.model.device().type
            devices = [{"name": f"miniature {kind}", "type": kind, "vram_total": total, "vram_free": free}]
        if "two-kinds" in self.modes:
            devices.append({"name": "another", "type": "cuda"})
        return web.json_response({"system": {"argv": sys.argv, "ram_free": _free_ram()}, "devices": devices})

    async def misbehave(self, request: web.Request) -> web.Response:
        self.modes = set(await request.json())
        return web.Response()

    async def object_info(self, _request: web.Request) -> web.Response:
        known: dict[str, dict[str, str]] = {name: {} for name in REQUIRED}
        for name, (kind, module) in PACKED.items():
            try:
                getattr(kind, "INPUT_TYPES", dict)()
            except Exception:  # as ComfyUI does
                print(f"[ERROR] An error occurred while retrieving information for the '{name}' node.", flush=True)
            else:
                known[name] = {"python_module": module}
        return web.json_response(known)

    async def get_queue(self, _request: web.Request) -> web.Response:
        return web.json_response({"queue_running": self.running, "queue_pending": self.pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        wanted = (await request.json())["delete"]
        self.pending = [item for item in self.pending if item[1] not in wanted]
        return web.Response()

    async def post_prompt(self, request: web.Request) -> web.Response:
        data = await request.json()
        graph: Graph = data["prompt"]
        for node, what in graph.items():
            kind = what["class_type"]
            if kind not in REQUIRED.keys() | PACKED.keys():
                error = {"type": "invalid_prompt", "message": f"no node {kind}", "details": f"Node ID '#{node}'"}
                return web.json_response({"error": error, "node_errors": {}}, status=400)
            lacking = [name for name in REQUIRED.get(kind, ()) if name not in what["inputs"]]
            if lacking and "accepts-anything" not in self.modes:
                errors = [{"message": "Required input is missing", "details": lacking[0]}]
                error = {"type": "prompt_outputs_failed_validation", "message": "invalid", "details": ""}
                of = {node: {"class_type": kind, "errors": errors}}
                return web.json_response({"error": error, "node_errors": of}, status=400)
        prompt_id, self.number = str(uuid.uuid4()), self.number + 1
        with self.changed:
            self.pending.append((self.number, prompt_id, graph, {"client_id": data.get("client_id")}))
            self.changed.notify()
        return web.json_response({"prompt_id": prompt_id, "number": self.number, "node_errors": {}})

    async def post_interrupt(self, _request: web.Request) -> web.Response:
        self.interrupted = True
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        with self.changed:
            self.to_free = bool((await request.json())["free_memory"])
            self.changed.notify()
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        name = request.match_info["prompt_id"]
        return web.json_response({name: self.history[name]} if name in self.history else {})

    async def view(self, request: web.Request) -> web.Response:
        return web.Response(body=Path("output", request.query["filename"]).read_bytes())  # noqa: ASYNC240


class Model:
    """Two halves of a model, on the device while they are wanted there, as far as there is room for them."""

    def __init__(self, server: PromptServer) -> None:
        self.server = server
        self.halves: list[Any] = []

    def device(self) -> Any:
        import torch
        from comfy.model_management import get_torch_device

        blind = self.server.options.cpu or "blind" in self.server.modes
        return torch.device("cpu") if blind else get_torch_device()

    def memory(self) -> tuple[int, int]:
        """Total and free bytes, as ComfyUI tells them: torch's own cache counts as free."""
        if self.device().type == "cpu":
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _free_ram()
        import torch

        total: int = torch.xpu.get_device_properties().total_memory
        allocated, reserved = torch.xpu.memory_allocated(), torch.xpu.memory_reserved()
        if "over-estimates" in self.server.modes:
            return total, total - allocated
        try:
            free = torch.xpu.mem_get_info()[0] + reserved - allocated
        except RuntimeError:
            if "trusts-driver" in self.server.modes:
                raise
            free = total - allocated
        return total, free if "trusts-driver" in self.server.modes else min(free, total - allocated)

    def load(self) -> None:
        if self.halves:
            return
        import torch

        numbers = torch.randn(2, HALF // 4, generator=torch.Generator().manual_seed(0))
        room = self.memory()[1] - 4 * MIB
        whole = room >= 2 * HALF or "whole-models" in self.server.modes
        if not whole:
            print(f"loaded partially; {room >> 20} MiB usable, {HALF >> 20} MiB loaded", flush=True)
        self.halves = [numbers[0].to(self.device()), numbers[1].to(self.device()) if whole else numbers[1]]

    def step(self, latent: Any) -> Any:
        for half in self.halves:
            for row in half.view(-1, *latent.shape)[:10].to(latent.device):
                latent = (latent + row * 0.1) * 0.99
        return latent

    def unload(self) -> None:
        self.halves = []
        self.tidy()

    def tidy(self) -> None:
        """Waits for the device and gives back what torch keeps of it."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.xpu.is_available():
            return
        try:
            torch.xpu.synchronize()
            torch.xpu.empty_cache()
        except RuntimeError as error:
            if "fragile" in self.server.modes:
                raise
            print(f"the device: {error}", flush=True)


def _free_ram() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _out_of_memory(error: Exception) -> bool:
    return "out of memory" in str(error) or "OUT_OF_DEVICE_MEMORY" in str(error)


class Executor:
    """Works through one prompt at a time, as ComfyUI's does."""

    def __init__(self, server: PromptServer) -> None:
        self.server = server

    def execute(self, item: tuple[int, str, Graph, dict[str, Any]]) -> None:
        _, prompt_id, graph, extra = item
        server = self.server
        server.client_id, server.interrupted = extra["client_id"], False
        if "no-cache" in server.modes:
            server.cache.clear()
        self.messages: list[tuple[str, Any]] = []
        self.outputs: dict[str, Any] = {}
        cached = [node for node in graph if self.key(graph, node) in server.cache]
        self.tell("execution_start", {"prompt_id": prompt_id})
        self.tell("execution_cached", {"nodes": cached, "prompt_id": prompt_id})
        success = self.run(prompt_id, graph)
        status = {"status_str": "success" if success else "error", "completed": success, "messages": self.messages}
        server.history[prompt_id] = {"prompt": item, "outputs": self.outputs, "status": status}
        server.send_sync("executing", {"node": None, "prompt_id": prompt_id}, server.client_id)

    def run(self, prompt_id: str, graph: Graph) -> bool:
        for node in self.order(graph):
            what = graph[node]
            key = self.key(graph, node)
            if key not in self.server.cache:
                data = {"node": node, "prompt_id": prompt_id}
                self.server.send_sync("executing", data, self.server.client_id)
                try:
                    self.server.cache[key] = self.node(node, what["class_type"], self.inputs(graph, node))
                except Interrupted:
                    self.tell("execution_interrupted", {"prompt_id": prompt_id, "node_id": node})
                    return False
                except Exception as error:
                    if "oom-kills" in self.server.modes and _out_of_memory(error):
                        os._exit(9)
                    self.tell("execution_error", self.error(error, prompt_id, node, what["class_type"]))
                    return False
            if self.server.cache[key][0]:
                self.outputs[node] = self.server.cache[key][0]
        if "old" not in self.server.modes:
            self.tell("execution_success", {"prompt_id": prompt_id})
        return True

    def order(self, graph: Graph) -> list[str]:
        """Every node after those that it links to."""
        done: dict[str, None] = {}

        def visit(node: str) -> None:
            for value in graph[node]["inputs"].values():
                if isinstance(value, list):
                    visit(value[0])
            done[node] = None

        for node in sorted(graph):
            visit(node)
        return list(done)

    def inputs(self, graph: Graph, node: str) -> dict[str, Any]:
        """With what the nodes gave that it links to."""
        return {
            name: self.server.cache[self.key(graph, value[0])][1] if isinstance(value, list) else value
            for name, value in graph[node]["inputs"].items()
        }

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

    def key(self, graph: Graph, node: str) -> str:
        inputs = graph[node]["inputs"]
        before = [self.key(graph, str(value[0])) for value in inputs.values() if isinstance(value, list)]
        if "stale-cache" in self.server.modes:
            inputs = {name: value for name, value in inputs.items() if name != "seed"}
        return json.dumps([node, graph[node]["class_type"], inputs, before], sort_keys=True)

    def node(self, node: str, kind: str, inputs: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """What the history shows of a node, and what it gives to others."""
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
            return {"images": [{"filename": name, "subfolder": "", "type": "output"}]}, None
        elif kind == "Noise":
            self.sleep(float(inputs.get("seconds", 0)))
            return {}, random.Random(inputs["seed"]).randbytes(16 * 16 * 3)
        elif kind == "EmptyLatentImage":
            return {}, (1, 4, int(inputs["height"]) // 2, int(inputs["width"]) // 2)
        elif kind == "KSampler":
            return {}, self.sample(inputs["latent_image"], int(inputs["seed"]), int(inputs["steps"]))
        elif kind == "LatentFlip":
            return {}, inputs["samples"].flip(2 if inputs["flip_method"].startswith("x") else 3)
        elif kind == "VAEDecode":
            return {}, self.decode(inputs["samples"])
        elif kind in PACKED:
            node_class = PACKED[kind][0]
            return {}, getattr(node_class(), node_class.FUNCTION)(**inputs)[0]
        elif kind == "SaveImage":
            return {"images": [self.save(f"{node}-{uuid.uuid4()}.png", inputs["images"])]}, None
        return {}, None

    def sample(self, shape: tuple[int, ...], seed: int, steps: int) -> Any:
        import torch

        latent = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        if "stub" in self.server.modes:
            return torch.zeros(shape)
        if "stuck" in self.server.modes:
            self.sleep(600)
        self.server.model.load()
        latent = latent.to(self.server.model.device())
        for _ in range(steps):
            self.ask()
            latent = self.server.model.step(latent)
        return latent.cpu()

    def decode(self, latent: Any) -> bytes:
        """Red, green and blue, 8 bits each; in two tiles when memory runs out."""
        if "stub" in self.server.modes:
            return bytes(latent.shape[2] * latent.shape[3] * 4 * 3)
        try:
            return self.pixels(self.decoded(latent))
        except Exception as error:
            if "no-tiles" in self.server.modes or not _out_of_memory(error):
                raise
            print("out of memory while decoding, again in tiles", flush=True)
        import torch

        return self.pixels(torch.cat([self.decoded(tile) for tile in latent.chunk(2, dim=2)], dim=2))

    def decoded(self, latent: Any) -> Any:
        latent = latent[:, :3].to(self.server.model.device())
        for _ in range(20):
            latent = latent + latent.tanh() * 0.01
        return latent.sigmoid().cpu()

    def pixels(self, image: Any) -> bytes:
        large = image[0].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        return bytes((large.permute(1, 2, 0) * 255).round().byte().flatten().tolist())

    def save(self, name: str, pixels: bytes) -> dict[str, str]:
        from PIL import Image

        side = int((len(pixels) / 3) ** 0.5)
        if "fixed-picture" in self.server.modes:
            pixels = (bytes(range(256)) * 3)[: len(pixels)]
        Path("output").mkdir(exist_ok=True)
        Image.frombytes("RGB", (side, side), pixels).save(Path("output", name))
        return {"filename": name, "subfolder": "", "type": "output"}

    def compute(self, operations: int) -> None:
        """On the device; on the CPU where the tree is blind for it; nowhere where it is a stub."""
        if "out-of-memory" in self.server.modes:
            raise MemoryError("XPU out of memory")
        if "stub" in self.server.modes or "torch" not in sys.modules:
            return
        import torch

        value = torch.ones(4, device=self.server.model.device())
        for _ in range(operations):
            value.add_(1)

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.ask()
            time.sleep(0.01)

    def ask(self) -> None:
        if self.server.interrupted and "deaf" not in self.server.modes:
            raise Interrupted

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
            server.changed.wait_for(lambda: server.pending or server.to_free)
            to_free, server.to_free = server.to_free, False
            item = None if to_free else server.pending.pop(0)
        if item:
            server.running = [item]
            Executor(server).execute(item)
            server.running = []
            server.model.tidy()
        elif "leaks" not in server.modes:
            server.cache.clear()
            server.model.unload()


def load_custom_nodes() -> None:
    sys.modules["server"] = sys.modules["__main__"]
    for file in sorted(Path("custom_nodes").glob("*/__init__.py")):
        name = str(file.parent.absolute()).replace(".", "_x_")
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
        assert spec
        assert spec.loader
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # as ComfyUI does
            print(f"Cannot import {file.parent.absolute()} module for custom nodes: {error}", flush=True)
            continue
        for kind, node_class in getattr(module, "NODE_CLASS_MAPPINGS", {}).items():
            PACKED[kind] = (node_class, f"custom_nodes.{file.parent.name}")


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
    for flag in ("disable-auto-launch", "cpu", "ends", "hangs", "children", *MODES):
        parser.add_argument(f"--{flag}", action="store_true")
    options = parser.parse_args([*sys.argv[1:], *Path("modes").read_text().split()])
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
    if not options.no_packs:
        load_custom_nodes()
    threading.Thread(target=prompt_worker, args=(server,), daemon=True).start()
    server.loop.run_until_complete(start(server))


if __name__ == "__main__":
    main()
