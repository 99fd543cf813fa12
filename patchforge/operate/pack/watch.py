"""Counts what ComfyUI does, where it does it, and answers ``GET /patchforge/watch``.

Three functions of ComfyUI are wrapped; each is called with what it was given, and what it gives or raises is handed on.
ComfyUI sends its own events to the client that asked alone, and none to one without a name, so they cannot be used.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .device import counter, operations  # type: ignore[import-not-found]

_MOST_CLASSES, _MOST_PROMPTS, _MOST_NODES = 500, 20, 2000
#: A node that takes one of these and gives one of those computes with a model.
_MODELS, _RESULTS = frozenset({"MODEL", "VAE"}), frozenset({"LATENT", "IMAGE"})

_lock = threading.Lock()
_classes: dict[str, dict[str, float]] = {}
_prompts: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
_running: dict[str, Any] = {"prompt": "", "since": 0.0, "moved": 0.0}


def _moved() -> None:
    _running["moved"] = time.monotonic()


def _counted() -> int | None:
    """None where nothing can be counted: a lost device answers nothing."""
    try:
        counts = operations()
    except Exception:  # noqa: BLE001
        return None
    return None if counts is None else int(counts)


@contextmanager
def _job(prompt: str) -> Iterator[None]:
    now = time.monotonic()
    with _lock:
        _running.update(prompt=prompt, since=now, moved=now)
        _prompts[prompt] = []
        while len(_prompts) > _MOST_PROMPTS:
            _prompts.popitem(last=False)
    try:
        yield
    finally:
        with _lock:
            _running["prompt"] = ""


@contextmanager
def _node(of: Any) -> Iterator[None]:
    _moved()
    begin, before, ended = time.monotonic(), _counted(), False
    try:
        yield
        ended = True
    finally:
        with suppress(Exception):  # whatever goes wrong here is not the node's
            after = _counted()
            done = None if before is None or after is None else after - before
            _note(of, time.monotonic() - begin, done, ended=ended)
        _moved()


def _note(of: Any, seconds: float, done: int | None, *, ended: bool) -> None:
    kind = of if isinstance(of, type) else type(of)
    name = _names().get(kind, kind.__name__)
    idle = ended and done == 0 and _computes(kind)
    with _lock:
        if name in _classes or len(_classes) < _MOST_CLASSES:
            row = _classes.setdefault(name, {"seconds": 0.0, "runs": 0, "operations": 0, "fallbacks": 0})
            row["seconds"] += seconds
            row["runs"] += 1
            row["operations"] += done or 0
            row["fallbacks"] += idle
        steps = _prompts.get(_running["prompt"])
        if steps is not None and len(steps) < _MOST_NODES:
            steps.append({"class_type": name, "seconds": seconds, "operations": done})


def _names() -> dict[type, str]:
    """Classes of nodes → what workflows call them."""
    mappings = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
    if len(mappings) != len(_known):
        _known.clear()
        _known.update({kind: name for name, kind in mappings.items() if isinstance(kind, type)})
    return _known


_known: dict[type, str] = {}


@functools.cache
def _computes(kind: Any) -> bool:
    """Whether nodes of a class sample, encode or decode with a model, on a GPU if there is one."""
    management = sys.modules.get("comfy.model_management")
    if management is None or not counter() or management.get_torch_device().type == "cpu":
        return False
    inputs = {
        str(spec[0])
        for group in ("required", "optional")
        for spec in kind.INPUT_TYPES().get(group, {}).values()
        if isinstance(spec, (tuple, list)) and spec
    }
    models = inputs & _MODELS
    if "VAE" in models and management.vae_device().type == "cpu":
        models -= {"VAE"}
    return bool(models) and bool(_RESULTS & set(map(str, getattr(kind, "RETURN_TYPES", ()) or ())))


def _around_job(execute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute)
    def wrapped(self: Any, prompt: Any, prompt_id: Any, *more: Any, **named: Any) -> Any:
        with _job(str(prompt_id)):
            return execute(self, prompt, prompt_id, *more, **named)

    return wrapped


def _around_node(run: Callable[..., Any], at: int) -> Callable[..., Any]:
    """``at``: which argument the node is. A coroutine's time is until it ends."""
    if inspect.iscoroutinefunction(run):

        @functools.wraps(run)
        async def awaited(*given: Any, **named: Any) -> Any:
            with _node(named.get("obj") if len(given) <= at else given[at]):
                return await run(*given, **named)

        return awaited

    @functools.wraps(run)
    def wrapped(*given: Any, **named: Any) -> Any:
        with _node(named.get("obj") if len(given) <= at else given[at]):
            return run(*given, **named)

    return wrapped


def _around_step(update: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(update)
    def wrapped(*given: Any, **named: Any) -> Any:
        _moved()
        return update(*given, **named)

    return wrapped


def told(prompt: str = "") -> dict[str, Any]:
    """What is known: of all jobs so far, of the one that runs, of the thread, and of one prompt's nodes."""
    now = time.monotonic()
    with _lock:
        running = {
            "prompt": _running["prompt"],
            "seconds": now - _running["since"],
            "stalled": max(0.0, now - _running["moved"]),
        }
        return {
            "worker": _worker_lives(),
            "running": running if running["prompt"] else None,
            "counter": counter(),
            "classes": {name: dict(row) for name, row in _classes.items()},
            "nodes": list(_prompts.get(prompt, ())),
        }


def _worker_lives() -> bool:
    """Also where that cannot be told: before Python 3.10 threads are not called after what they run."""
    names = [thread.name for thread in threading.enumerate()]
    return sys.version_info < (3, 10) or any("prompt_worker" in name for name in names)


def install() -> None:
    """Once, when ComfyUI loads the pack."""
    import comfy.utils  # noqa: PLC0415 - ComfyUI's own
    import execution  # type: ignore[import-not-found]  # noqa: PLC0415
    from aiohttp import web  # noqa: PLC0415
    from server import PromptServer  # type: ignore[import-not-found]  # noqa: PLC0415

    execution.PromptExecutor.execute = _around_job(execution.PromptExecutor.execute)
    run = execution.get_output_data
    execution.get_output_data = _around_node(run, list(inspect.signature(run).parameters).index("obj"))
    bar = comfy.utils.ProgressBar
    bar.update_absolute = _around_step(bar.update_absolute)

    async def get_watch(request: Any) -> Any:
        return web.json_response(told(request.query.get("prompt", "")))

    PromptServer.instance.routes.get("/patchforge/watch")(get_watch)
