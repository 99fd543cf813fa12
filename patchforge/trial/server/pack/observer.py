"""Watches a running ComfyUI: a journal of every prompt with counters of the device, its state, and faults on demand.

Adds to the server: ``/patchforge/journal?prompt=ID``, ``/patchforge/state``, ``/patchforge/fault``, and what
``counting.py`` does.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import counting
from .counting import back_end
from .device import counter, emulated, operations

_EVENTS = frozenset({
    "execution_start",
    "execution_cached",
    "executing",
    "executed",
    "execution_error",
    "execution_interrupted",
    "execution_success",
})  # fmt: skip
_PROMPTS = 500  # the journal forgets older ones
_FAULTS = (
    "fail",
    "fail_allocation",
    "fail_synchronize",
    "fail_empty_cache",
    "memory_info",
    "other_process",
    "clear",
)
_ANSWERS = (
    "get_torch_device",
    "get_all_torch_devices",
    "unet_offload_device",
    "text_encoder_device",
    "text_encoder_offload_device",
    "vae_device",
    "vae_offload_device",
    "intermediate_device",
    "vae_dtype",
    "get_total_memory",
    "get_free_memory",
    "is_intel_xpu",
    "is_nvidia",
    "xformers_enabled",
    "pytorch_attention_enabled",
)
_ENGINES = ("drm-engine-", "drm-cycles-")

_prompts = counting.Prompts()
_journal: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
_lock = threading.Lock()


def busy() -> dict[str, int]:
    """How long each engine of a GPU has worked for this process (ns, or cycles), as the Linux kernel counts it."""
    counts: dict[tuple[str, str, str], int] = {}
    for file in Path("/proc/self/fdinfo").glob("*"):
        try:
            lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if line.startswith("drm-"))
        except (OSError, ValueError):
            continue
        client = (lines.get("drm-pdev", "").strip(), lines.get("drm-client-id", file.name).strip())
        for name, text in lines.items():
            if name.startswith(_ENGINES) and not name.startswith("drm-engine-capacity"):
                counts[*client, name] = int(text.split()[0])
    total: dict[str, int] = {}
    for (_, _, name), value in counts.items():
        total[name] = total.get(name, 0) + value
    return total


def _note(event: str, data: dict[str, Any]) -> None:
    prompt = data.get("prompt_id")
    if not prompt:
        return
    entry = {
        "event": event,
        "node": data.get("node", data.get("node_id")),
        "nodes": list(data.get("nodes") or ()),
        "operations": operations(),
        "busy": busy(),
        "time": time.monotonic(),
    }
    with _lock:
        _journal.setdefault(str(prompt), []).append(entry)
        while len(_journal) > _PROMPTS:
            _journal.popitem(last=False)


def _watch(server: Any) -> None:
    """Puts a note before every event that the server sends; a note that fails never stops the event."""
    send = server.send_sync

    def send_sync(event: Any, data: Any, sid: Any = None) -> Any:
        if event in _EVENTS and isinstance(data, dict):
            try:
                _note(event, data)
                _prompts.note(event, data)
            except Exception as error:  # noqa: BLE001 - a lost device also answers no question
                print(f"patchforge: no note of {event}: {error}", file=sys.stderr)
        return send(event, data, sid)

    server.send_sync = send_sync


def _try(function: Callable[..., Any], *arguments: Any) -> Any:
    """An answer that JSON can hold; an error becomes text."""
    try:
        answer = function(*arguments)
    except Exception as error:  # noqa: BLE001 - the state is told as far as it is known
        return f"{type(error).__name__}: {error}"
    return answer if isinstance(answer, (int, float, bool, type(None))) else str(answer)


def _bytes(function: Callable[..., Any], *arguments: Any) -> int | None:
    try:
        return int(function(*arguments))
    except Exception:  # noqa: BLE001 - not known
        return None


def _devices() -> list[dict[str, Any]]:
    used = back_end()
    listed = []
    for index in range(used.device_count() if used else 0):
        properties = used.get_device_properties(index)
        listed.append({
            "type": used.__name__.removeprefix("torch."),
            "index": index,
            "name": used.get_device_name(index),
            "driver": str(getattr(properties, "driver_version", "")),
            "platform": str(getattr(properties, "platform_name", "")),
            "total": _bytes(lambda of: of.total_memory, properties),
            "allocated": _bytes(used.memory_allocated, index),
            "reserved": _bytes(used.memory_reserved, index),
            "free": _bytes(lambda at: used.mem_get_info(at)[0], index),
        })  # fmt: skip
    return listed


def _models() -> int | None:
    """How many models ComfyUI holds as loaded; None where it does not say."""
    loaded = getattr(sys.modules.get("comfy.model_management"), "current_loaded_models", None)
    return len(loaded) if isinstance(loaded, list) else None


def _answers() -> dict[str, Any]:
    """What ComfyUI says of devices; of what the release has."""
    import comfy.model_management as management  # noqa: PLC0415

    return {name: _try(getattr(management, name)) for name in _ANSWERS if hasattr(management, name)}


def state() -> dict[str, Any]:
    """Torch, devices and their memory (bytes), versions, threads, and what ComfyUI answers about devices."""
    is_emulated = emulated()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": {name: getattr(torch.version, name, None) for name in ("cuda", "hip", "xpu")},
        "packages": {
            distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()
        },
        "emulated": os.environ.get("PATCHFORGE_EMULATE_XPU", "") if is_emulated else "",
        "options": os.environ.get("PATCHFORGE_EMULATE_XPU_OPTIONS", "") if is_emulated else "",
        "devices": _devices(),
        "counter": counter(),
        "operations": _try(operations),
        "busy": busy(),
        "runtime": "comfy.patchforge_xpu" in sys.modules,
        "models": _models(),
        "answers": _answers(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }


def fault(name: str, arguments: dict[str, Any]) -> str:
    """Sets a fault of the emulated XPU; the reason where that cannot be done, else ""."""
    if not emulated():
        return "this process has no emulated XPU"
    if name not in _FAULTS:
        return f"expected one of {', '.join(_FAULTS)}, found {name!r}"
    try:
        getattr(sys.modules["emulator.faults"], name)(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        return str(error)
    return ""


def _routes(server: Any, web: Any) -> None:
    async def get_state(_request: Any) -> Any:
        return web.json_response(state())

    async def get_journal(request: Any) -> Any:
        with _lock:
            events = list(_journal.get(request.query.get("prompt", ""), ()))
        return web.json_response({"events": events})

    async def post_fault(request: Any) -> Any:
        asked = await request.json()
        reason = fault(asked["name"], asked.get("arguments", {}))
        return web.json_response({"error": reason} if reason else {}, status=404 if reason else 200)

    server.routes.get("/patchforge/state")(get_state)
    server.routes.get("/patchforge/journal")(get_journal)
    server.routes.post("/patchforge/fault")(post_fault)


def install() -> None:
    """Once, when ComfyUI loads the pack."""
    from aiohttp import web  # noqa: PLC0415 - ComfyUI's own
    from server import PromptServer  # type: ignore[import-not-found]  # noqa: PLC0415

    _watch(PromptServer.instance)
    _routes(PromptServer.instance, web)
    counting.routes(PromptServer.instance, web, _prompts)
