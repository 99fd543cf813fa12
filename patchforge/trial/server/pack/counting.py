"""Counts exactly what torch is asked to do, part by part: operators, copies, waits, allocations, loads, graphs.

Uses torch and nothing of patchforge; ComfyUI runs it for a prompt, whose parts are its nodes, and the benchmark's
probe for one case. It reads torch's profiler, which sees every operator (with a GPU of every thread, else of its own),
and the statistics of torch's allocators. Times are of no use while it counts.

What is counted, by name of the result:

- ``operations``: ATen operators as they are called, by type and name. Those that an operator calls itself are not
  in it. The type is that of the first floating tensor among the arguments, else of the first tensor, else ``none``.
- ``copies``: number and bytes (of the result) by direction, such as ``cpu to xpu``; one within a device is one, too.
- ``synchronisations``: how often the host waited for a GPU, by cause: ``asked for``, ``blocking copy``, or the operator
  that answers with a value or a shape that depends on values.
- ``allocations``, ``allocated_bytes``, ``peak_bytes``: of the GPUs, else of the CPU; the peak is above the beginning's.
- ``models``, ``files``: models that ComfyUI loaded, and files of weights that it read.
- ``graphs``, ``recompilations``: what torch.compile made.

None is what cannot be counted here. Python's garbage collector rests meanwhile, as it would free memory at any moment.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch

_MARK = "patchforge: "
#: The host waits for their answer: a value, or a shape that depends on values (torch.cuda.set_sync_debug_mode).
_WAIT = frozenset({
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
})  # fmt: skip
_BLOCKING = "blocking copy"
_BY_MASK = "aten::nonzero"  # by which a GPU's tensor is indexed; the emulated XPU does it on the CPU
_METRICS = 100_000  # torch keeps 64 compilations otherwise

Counts = dict[str, Any]


class _Calls:
    """How often some functions were called, in any thread; None while there are none."""

    def __init__(self) -> None:
        self.count: int | None = None
        self._lock = threading.Lock()

    def watch(self, owner: Any, name: str) -> None:
        """Counts calls of ``owner.name`` from now on; once."""
        function = getattr(owner, name, None)
        if function is None or getattr(function, "patchforge_counts", None) is self:
            return

        def counted(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self.count = (self.count or 0) + 1
            return function(*arguments, **named)

        counted.patchforge_counts = self  # type: ignore[attr-defined]
        setattr(owner, name, counted)
        self.count = self.count or 0


_waits, _models, _files = _Calls(), _Calls(), _Calls()


def back_end() -> Any:
    """torch.xpu or torch.cuda, whichever has a device; None on a CPU."""
    for module in (getattr(torch, "xpu", None), torch.cuda):
        if module is not None and module.is_available():
            return module
    return None


def _watch() -> None:
    """Wherever a program can ask for a wait, and ComfyUI for a model."""
    module = back_end()
    if module is not None:
        for owner in (module, module.Stream, module.Event, getattr(torch, "accelerator", None)):
            _waits.watch(owner, "synchronize")
    management = sys.modules.get("comfy.model_management")
    _models.watch(getattr(management, "LoadedModel", None), "model_load")
    _files.watch(sys.modules.get("comfy.utils"), "load_torch_file")


def _graphs() -> tuple[int, int]:
    """Graphs and recompilations that torch.compile has made in this process."""
    utils = sys.modules.get("torch._dynamo.utils")
    if utils is None:
        return 0, 0
    utils.set_compilation_metrics_limit(_METRICS)
    frames = [str(metric.compile_id or "") for metric in utils.get_compilation_metrics()]
    again = sum(name.rpartition("/")[2].partition("_")[0] not in {"", "0"} for name in frames)
    return int(utils.counters["stats"]["unique_graphs"]), again


class _Memory:
    """The allocators of all GPUs of this process."""

    def __init__(self, *, on_gpu: bool) -> None:
        self.back_end: Any = back_end() if on_gpu else None

    def _stats(self) -> list[dict[str, Any]]:
        if self.back_end is None or not self.back_end.is_initialized():
            return []
        return [self.back_end.memory_stats(index) for index in range(self.back_end.device_count())]

    def begin(self) -> list[dict[str, Any]]:
        """How they stand; the peak begins anew."""
        stats = self._stats()
        for index in range(len(stats)):
            self.back_end.reset_peak_memory_stats(index)
        return stats

    def since(self, before: list[dict[str, Any]]) -> Counts:
        now = self._stats()
        if self.back_end is None or (now and "allocation.all.allocated" not in now[0]):
            return {}

        def told(stats: list[dict[str, Any]], name: str) -> int:
            return sum(int(stat.get(name, 0)) for stat in stats)

        return {
            "allocations": told(now, "allocation.all.allocated") - told(before, "allocation.all.allocated"),
            "allocated_bytes": told(now, "allocated_bytes.all.allocated")
            - told(before, "allocated_bytes.all.allocated"),
            "peak_bytes": told(now, "allocated_bytes.all.peak") - told(before, "allocated_bytes.all.current"),
        }


class Counting:
    """Counts from ``begin`` to ``end``, both in one thread; ``enter`` says which part comes now.

    ``on_gpu``: False where a process that has a GPU works on the CPU.
    """

    def __init__(self, *, on_gpu: bool = True) -> None:
        self._memory = _Memory(on_gpu=on_gpu)
        self._counts: dict[str, Counts] = {}
        self._part, self._number = "", 0
        self._before: tuple[list[dict[str, Any]], int, int, int, tuple[int, int]] | None = None
        self._collecting = gc.isenabled()
        self._profiler = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU],
            record_shapes=True,
            profile_memory=True,
            experimental_config=_all_threads() if self._memory.back_end else None,  # then it sees no memory of the CPU
        )

    def begin(self) -> None:
        _watch()
        gc.collect()
        gc.disable()
        self._profiler.start()

    def enter(self, part: str) -> None:
        """What follows belongs to ``part``, which may come again; "" is nobody."""
        self._leave()
        self._part, self._number = part, self._number + 1
        with torch.profiler.record_function(f"{_MARK}{self._number} {part}"):
            pass
        waits, models, files = (counter.count or 0 for counter in (_waits, _models, _files))
        self._before = self._memory.begin(), waits, models, files, _graphs()

    def end(self) -> dict[str, Counts]:
        """The counts of every part. The garbage collector works again."""
        try:
            self._leave()
            with torch.profiler.record_function(f"{_MARK}0 "):
                pass
            self._profiler.stop()
        finally:
            if self._collecting:
                gc.enable()
        tree = self._profiler.profiler.kineto_results.experimental_event_tree()
        on_cpu = self._memory.back_end is None
        for part, events in _parted(tree):
            if part:
                _add(self._counts.setdefault(part, _nothing()), _told(events, on_cpu=on_cpu))
        return self._counts

    def _leave(self) -> None:
        if self._before is None or not self._part:
            return
        memory, waits, models, files, graphs = self._before
        now = _graphs()
        counted = {
            "synchronisations": None
            if _waits.count is None or self._memory.back_end is None
            else {"asked for": _waits.count - waits},
            "models": None if _models.count is None else _models.count - models,
            "files": None if _files.count is None else _files.count - files,
            "graphs": now[0] - graphs[0],
            "recompilations": now[1] - graphs[1],
            **self._memory.since(memory),
        }
        _add(self._counts.setdefault(self._part, _nothing()), counted)


def _all_threads() -> Any:
    """None where the profiler sees its own thread only, before torch 2.9."""
    with suppress(TypeError, ImportError):
        from torch._C._profiler import _ExperimentalConfig  # noqa: PLC0415

        return _ExperimentalConfig(profile_all_threads=True)
    return None


def _nothing() -> Counts:
    names = ("synchronisations", "allocations", "allocated_bytes", "peak_bytes", "models", "files")
    return {"operations": {}, "copies": {}, **dict.fromkeys(names), "graphs": 0, "recompilations": 0}


def _add(counts: Counts, more: Counts) -> None:
    """Sums, but of the peaks the highest."""
    for name, value in more.items():
        if name == "operations" or (name == "synchronisations" and value is not None):
            known = counts[name] = counts[name] or {}
            for key, count in value.items():
                known[key] = known.get(key, 0) + count
        elif name == "copies":
            for key, (count, size) in value.items():
                before = counts[name].get(key, (0, 0))
                counts[name][key] = [before[0] + count, before[1] + size]
        elif value is not None:
            before = counts[name] or 0
            counts[name] = max(before, value) if name == "peak_bytes" else before + value


def _parted(tree: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """The outermost events of each part, in order of time."""
    part, events = "", list[Any]()
    for event in sorted(tree, key=lambda begun: int(begun.start_time_ns)):
        if event.name.startswith(_MARK):
            yield part, events
            part, events = event.name.removeprefix(_MARK).partition(" ")[2], []
        else:
            events.append(event)
    yield part, events


def _told(events: list[Any], *, on_cpu: bool) -> Counts:
    """What the profiler saw."""
    operations: dict[str, int] = {}
    copies: dict[str, tuple[int, int]] = {}
    waits: dict[str, int] = {}
    allocations = allocated = held = peak = 0
    for event, outer, on_gpu in _walk(events):
        if _is_allocation(event):
            size = int(event.typed[1].alloc_size)
            if _kind(event.typed[1].device) == "cpu":
                held += size
                peak = max(peak, held)
                allocations += size > 0
                allocated += max(size, 0)
            continue
        if not event.name.startswith("aten::"):
            continue
        tensors = list(_tensors(event))
        if not outer:
            key = f"{_type(tensors)} {event.name.removeprefix('aten::')}"
            operations[key] = operations.get(key, 0) + 1
        if event.name == "aten::copy_" and len(tensors) > 1:
            direction = _kind(tensors[1].device), _kind(tensors[0].device)
            if direction != ("cpu", "cpu") or not on_gpu:
                count, size = copies.get(" to ".join(direction), (0, 0))
                copies[" to ".join(direction)] = count + 1, size + _size(tensors[0])
            if len(set(direction)) > 1 and not _last_is_true(event):
                waits[_BLOCKING] = waits.get(_BLOCKING, 0) + 1
        elif event.name in _WAIT:
            own = any(_kind(tensor.device) != "cpu" for tensor in tensors)
            if own or (on_gpu and event.name == _BY_MASK):
                name = event.name.removeprefix("aten::")
                waits[name] = waits.get(name, 0) + 1
    counted: Counts = {"operations": operations, "copies": copies}
    if on_cpu:
        counted |= {"allocations": allocations, "allocated_bytes": allocated, "peak_bytes": peak}
    else:
        counted["synchronisations"] = waits
    return counted


def _walk(events: list[Any], outer: str = "", *, on_gpu: bool = False) -> Iterator[tuple[Any, str, bool]]:
    """Each event, the operator that called it, and whether one of those around it works on a GPU."""
    for event in events:
        yield event, outer, on_gpu
        aten = event.name.startswith("aten::")
        below = on_gpu or (aten and any(_kind(tensor.device) != "cpu" for tensor in _tensors(event)))
        yield from _walk(event.children, event.name if aten else outer, on_gpu=below)


def _is_allocation(event: Any) -> bool:
    return str(event.tag).endswith("Allocation")


def _kind(device: Any) -> str:
    return str(device.type)


def _tensors(event: Any) -> Iterator[Any]:
    """What is known of the tensors among an operator's arguments, those in lists included."""
    for value in getattr(event.typed[1], "inputs", ()):
        for tensor in value if isinstance(value, list) else [value]:
            if hasattr(tensor, "dtype") and hasattr(tensor, "sizes"):
                yield tensor


def _type(tensors: list[Any]) -> str:
    floating = [tensor for tensor in tensors if tensor.dtype.is_floating_point]
    return str((floating or tensors)[0].dtype).removeprefix("torch.") if tensors else "none"


def _size(tensor: Any) -> int:
    size = int(tensor.dtype.itemsize)
    for length in tensor.sizes:
        size *= length
    return size


def _last_is_true(event: Any) -> bool:
    """Whether a copy was asked not to block."""
    inputs = event.typed[1].inputs
    return bool(inputs) and inputs[-1] is True


# --- In ComfyUI -------------------------------------------------------------------------------------------------------

_ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
_KEPT = 20  # prompts


class Prompts:
    """The counts of the last prompts, told by the events that ComfyUI sends in the thread that works on them."""

    def __init__(self) -> None:
        self.wanted = False
        self._found: dict[str, dict[str, Counts]] = {}
        self._now: tuple[str, Counting] | None = None

    def note(self, event: str, data: dict[str, Any]) -> None:
        """What ComfyUI says of a prompt."""
        prompt, node = str(data.get("prompt_id")), data.get("node")
        if event == "execution_start" and self.wanted:
            self._stop()
            self._now = prompt, Counting(on_gpu="--cpu" not in sys.argv)
            self._now[1].begin()
        elif self._now is None or self._now[0] != prompt:
            return
        elif event in _ENDS or (event == "executing" and node is None):
            self._stop()
        elif event == "executing":
            self._now[1].enter(str(node))

    def counts(self, prompt: str) -> dict[str, Counts] | None:
        """By node; None for a prompt that was not counted."""
        return self._found.get(prompt)

    def _stop(self) -> None:
        if self._now is None:
            return
        (prompt, counting), self._now = self._now, None
        self._found[prompt] = counting.end()
        while len(self._found) > _KEPT:
            self._found.pop(next(iter(self._found)))


def routes(server: Any, web: Any, prompts: Prompts) -> None:
    """``/patchforge/count`` switches it, ``/patchforge/counters?prompt=ID`` answers."""

    async def post_count(request: Any) -> Any:
        prompts.wanted = bool((await request.json())["wanted"])
        return web.json_response({})

    async def get_counters(request: Any) -> Any:
        nodes = prompts.counts(request.query.get("prompt", ""))
        return web.json_response({"nodes": nodes})

    server.routes.post("/patchforge/count")(post_count)
    server.routes.get("/patchforge/counters")(get_counters)
