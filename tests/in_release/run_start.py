"""Starts a release, in its own tree, as far as it chooses its device, and prints JSON of what became of it.

``operators``: on the emulated XPU, which lacks an operator, and whose half products are spoilt for ``--help-gpu``.
``torch``: beside an Intel GPU that the system tells of, with a torch that cannot use it. Each start is a child's.
Runs on upstream's tree and on a patched one.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUESTION, sys.argv = sys.argv[1], ["main.py"]
sys.path.insert(0, str(Path.cwd()))
Answers = dict[str, Any]


def argument_block(*flags: str) -> None:
    """What main.py does before it imports torch: its imports of our module, and its blocks up to the devices'."""
    sys.argv = ["main.py", *flags]
    options: Any = importlib.import_module("comfy.options")
    options.enable_args_parsing()
    args = importlib.import_module("comfy.cli_args").args
    body = ast.parse(Path("main.py").read_bytes()).body
    ours = [node for node in body if isinstance(node, ast.ImportFrom) and "patchforge_xpu" in ast.unparse(node)]
    blocks = [node for node in body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)]
    last = max(number for number, block in enumerate(blocks, 1) if "CUDA_VISIBLE_DEVICES" in ast.unparse(block))
    code = compile(ast.Module([*ours, *blocks[:last]], []), "main.py", "exec")
    given = {"__name__": "__main__", "os": os, "sys": sys, "logging": logging, "importlib": importlib, "args": args}
    exec(code, given)


def operators() -> Answers:
    """Reports 9 and 5."""
    argument_block()
    import torch
    import torch.nn.functional as F

    image = torch.arange(192.0).reshape(1, 3, 8, 8)
    try:
        small = F.interpolate(image.to("xpu"), size=(4, 4), mode="bicubic", antialias=True).cpu()
        resized = (
            "computed"
            if torch.equal(small, F.interpolate(image, size=(4, 4), mode="bicubic", antialias=True))
            else "wrong"
        )
    except NotImplementedError:
        resized = "NotImplementedError"
    return {"resize": resized, "help": spoilt(torch, F)}


def spoilt(torch: Any, functional: Any) -> str:
    """What ``--help-gpu`` says of a driver whose linear layers give zeros in fp16; "" where there is no such flag."""
    args = sys.modules["comfy.cli_args"].args
    if not hasattr(args, "help_gpu"):
        return ""
    real = functional.linear

    def linear(*given: Any) -> Any:
        out = real(*given)
        return torch.zeros_like(out) if out.device.type == "xpu" and out.dtype == torch.float16 else out

    functional.linear, said = linear, io.StringIO()
    args.help_gpu = True
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        sys.modules["comfy"].patchforge_xpu.start(args)
    return said.getvalue()


def starts() -> Answers:
    """Report 4: with a CPU build of torch, and with one that says it is for CUDA and finds no driver."""
    import torch

    def of_cuda() -> None:
        def no_driver(*_: Any, **__: Any) -> None:
            raise RuntimeError("Found no NVIDIA driver on your system.")

        torch.version.cuda = "12.8"
        torch.cuda._lazy_init = torch.cuda.current_device = no_driver

    def of_cpu() -> None:
        pass

    endings = {"cpu": in_child(of_cpu), "cuda": in_child(of_cuda)}
    if importlib.util.find_spec("comfy.patchforge_xpu") is not None:
        endings |= {
            f"{name}, forced": in_child(kind, "--force-intel-xpu")
            for name, kind in (("cpu", of_cpu), ("cuda", of_cuda))
        }
        endings |= {
            f"{name}, help": in_child(kind, "--help-gpu") for name, kind in (("cpu", of_cpu), ("cuda", of_cuda))
        }
    return endings


def in_child(kind: Callable[[], None], *flags: str) -> Answers:
    """One start in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        kind()
        os.write(writer, json.dumps(started(*flags)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    answers: Answers = json.loads(text)
    return answers


def started(*flags: str) -> Answers:
    """How a start ended: with a device, a message or an error; and what was logged and printed."""
    said, logged = io.StringIO(), io.StringIO()
    logging.basicConfig(stream=logged, level=logging.INFO, force=True)
    ending: Answers = {}
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            beside_intel()
            argument_block(*flags)
            management: Any = importlib.import_module("comfy.model_management")
            ending["device"] = str(management.get_torch_device())
        except SystemExit as error:
            ending["stopped"] = str(error)
        except Exception as error:
            ending["error"] = f"{type(error).__name__}: {error}"
    return {**ending, "said": said.getvalue(), "logged": logged.getvalue()}


def beside_intel() -> None:
    """Lets our module read of one Intel GPU, in a folder laid out as /sys/class/drm is."""
    if importlib.util.find_spec("comfy.patchforge_xpu") is None:
        return
    place = Path(tempfile.mkdtemp(), "card0", "device")
    place.mkdir(parents=True)
    (place / "vendor").write_text("0x8086\n")
    machine: Any = importlib.import_module("comfy.patchforge_xpu.machine")
    machine.DRM = str(place.parents[1])


print(json.dumps(operators() if QUESTION == "operators" else starts()))
