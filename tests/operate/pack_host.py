"""As much of ComfyUI as the pack patchforge-watch touches, as a script: ``pack_host.py PACK old|new``.

``old``: nodes are run as in v0.3.10, ``new``: as in v0.33.0 (execution.py). torch is a stand-in whose device counts
allocations. Prints what the pack tells, as JSON, and exits with 1 if the host was disturbed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import threading
import types
from pathlib import Path
from typing import Any

ALLOCATED = [0]
LOST = [False]


def torch() -> types.ModuleType:
    def memory_stats(_index: int) -> dict[str, int]:
        if LOST[0]:
            raise RuntimeError("device lost")
        return {"allocation.all.allocated": ALLOCATED[0]}

    made = types.ModuleType("torch")
    made.xpu = types.SimpleNamespace(  # type: ignore[attr-defined]
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        memory_stats=memory_stats,
        __name__="torch.xpu",
    )
    made.cuda = types.SimpleNamespace(is_available=lambda: False)  # type: ignore[attr-defined]
    made.Tensor = made.Generator = object  # type: ignore[attr-defined]
    return made


class Sampler:
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> Any:
        return {"required": {"model": ("MODEL",), "steps": ("INT", {"default": 1})}}

    def run(self, work: int) -> str:
        ALLOCATED[0] += work
        if work < 0:
            raise KeyError("as it should")
        return f"sampled {work}"


class Text(Sampler):
    """Takes no model."""

    @classmethod
    def INPUT_TYPES(cls) -> Any:
        return {"required": {"clip": ("CLIP",)}}


class ProgressBar:
    def __init__(self) -> None:
        self.value = 0

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        self.value = value


def execution(*, new: bool) -> types.ModuleType:
    made: Any = types.ModuleType("execution")
    if new:

        async def get_output_data(
            prompt_id: str, unique_id: str, obj: Any, input_data_all: Any, v3_data: Any = None
        ) -> Any:
            await asyncio.sleep(0)
            return obj.run(input_data_all), unique_id
    else:

        def get_output_data(obj: Any, input_data_all: Any, execution_block_cb: Any = None) -> Any:  # type: ignore[misc]
            return obj.run(input_data_all), "1"

    made.get_output_data = get_output_data

    class PromptExecutor:
        def execute(self, prompt: Any, prompt_id: str, extra_data: Any = None, execute_outputs: Any = ()) -> list[Any]:
            outputs = []
            for obj, work in prompt:
                try:
                    given = made.get_output_data(prompt_id, "1", obj, work) if new else made.get_output_data(obj, work)
                    outputs.append(asyncio.run(given) if new else given)
                except KeyError as error:
                    outputs.append(error)
            return outputs

    made.PromptExecutor = PromptExecutor
    return made  # type: ignore[no-any-return]


def main(pack: Path, era: str) -> None:
    routes: dict[str, Any] = {}
    server: Any = types.ModuleType("server")
    server.PromptServer = types.SimpleNamespace(
        instance=types.SimpleNamespace(
            routes=types.SimpleNamespace(get=lambda path: lambda f: routes.update({path: f}))
        )
    )
    nodes: Any = types.ModuleType("nodes")
    nodes.NODE_CLASS_MAPPINGS = {"KSampler": Sampler, "CLIPTextEncode": Text}
    management: Any = types.ModuleType("comfy.model_management")
    management.get_torch_device = lambda: types.SimpleNamespace(type="xpu")
    management.vae_device = lambda: types.SimpleNamespace(type="xpu")
    comfy: Any = types.ModuleType("comfy")
    comfy.utils = types.ModuleType("comfy.utils")
    comfy.utils.ProgressBar = ProgressBar
    host = execution(new=era == "new")
    sys.modules.update({"torch": torch(), "server": server, "nodes": nodes, "execution": host, "comfy": comfy})
    sys.modules.update({"comfy.utils": comfy.utils, "comfy.model_management": management})
    spec = importlib.util.spec_from_file_location("pack", pack / "__init__.py", submodule_search_locations=[str(pack)])
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["pack"] = module
    spec.loader.exec_module(module)

    def told(prompt: str = "") -> Any:
        request = types.SimpleNamespace(query={"prompt": prompt})
        try:
            routes["/patchforge/watch"](request).send(None)  # it waits for nothing
        except StopIteration as ended:
            return json.loads(ended.value.text)

    seen: dict[str, Any] = {"begin": told()}
    worker = threading.Thread(target=threading.Event().wait, daemon=True, name="Thread-1 (prompt_worker)")
    worker.start()
    first = host.PromptExecutor().execute([(Sampler(), 5), (Sampler(), 0), (Text(), 0), (Sampler(), -1)], "one", {}, [])
    assert first[:3] == [("sampled 5", "1"), ("sampled 0", "1"), ("sampled 0", "1")], first
    assert isinstance(first[3], KeyError), first

    class Asks(Sampler):
        def run(self, work: int) -> str:
            bar = ProgressBar()
            bar.update_absolute(7, 9)
            assert bar.value == 7
            seen["running"] = told()
            return "asked"

    nodes.NODE_CLASS_MAPPINGS["Asks"] = Asks
    host.PromptExecutor().execute(prompt=[(Asks(), 1)], prompt_id="two")
    LOST[0] = True
    assert host.PromptExecutor().execute([(Sampler(), 3)], "three") == [("sampled 3", "1")]
    for number in range(60):
        host.PromptExecutor().execute([], f"many {number}")
    seen["end"] = told("one")
    seen["forgotten"] = told("three")["nodes"]
    seen["last"] = told("many 59")["nodes"]
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
