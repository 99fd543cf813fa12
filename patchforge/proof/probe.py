"""Asks a release what it would do on a machine that is not here. Runs in a clean interpreter with a CPU build of torch.

``python -I probe.py TREE SCENARIO [FLAG...]`` prints one JSON record as its last line.
``python -I probe.py --serve`` reads requests, one JSON object a line (``tree``, ``scenario``, ``flags``, ``timeout`` in
seconds), and answers each with a line.

torch is imported once; each record is taken in a child forked before anything of the release was imported.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import importlib
import importlib.util
import io
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

if __name__ == "__main__":  # -I leaves our own folder out of sys.path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from patchforge import bounded
from patchforge.proof.argument_block import COMMAND_LINES, OURS, knows_flag, run_main
from patchforge.proof.fake_torch import Fakes, lacking
from patchforge.proof.function_calls import MODULE, Asker
from patchforge.proof.recording import canonical
from patchforge.proof.scenarios import FORCE, SCENARIOS, Scenario

if __name__ == "__main__":
    del sys.path[0]

#: Imported before the fork, to save their time in every record; any may be missing. comfy_kitchen looks for its own
#: backends when imported, so it sees a CPU in every scenario.
WARM = ("numpy", "psutil", "PIL.Image", "safetensors.torch", "einops", "tqdm.auto", "yaml", "comfy_kitchen")
#: What the import of model_management takes over all releases, beside torch.
NEEDED = ("numpy", "psutil", "PIL", "safetensors", "einops", "tqdm")
#: What ComfyUI imports and swallows the absence of, so that it must be looked for: module to pip package.
SWALLOWED = {"comfy_kitchen": "comfy-kitchen", "comfy_aimdo": "comfy-aimdo"}
_MOST = 64 << 20  #: bytes of a record, and of a file that a release's code writes
_GRACE = 5.0  #: seconds after its alarm, in which a child may tell of it


def take_record(tree: Path, scenario: Scenario, flags: tuple[str, ...], scratch: Path) -> dict[str, object]:
    """The whole record of one scenario; run in a process of its own."""
    os.environ.clear()
    os.environ.update({"PATH": os.defpath, "HOME": str(scratch), "LANG": "C.UTF-8"})
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(tree))
    os.chdir(scratch)
    fakes = Fakes(scenario.machine, str(tree), scratch)
    fakes.install()
    sys.argv = ["main.py"]
    record: dict[str, object] = {"scenario": scenario.name, "torch": scenario.machine.version, "flags": list(flags)}
    record["forcible"] = knows_flag(tree, FORCE)
    record["lacking"] = sorted(f for f in flags if f.startswith("--") and not knows_flag(tree, f))
    flags = tuple(flag for flag in flags if flag not in record["lacking"])  # type: ignore[operator]
    record["main"] = [_command_line(fakes, tree, flags + extra, held) for extra, held in COMMAND_LINES]
    if scenario.through_main:
        record["help"] = _help(fakes, tree, flags)
        run_main(fakes, tree, flags)
    return {**record, **_interview(fakes, tree)}


def _help(fakes: Fakes, tree: Path, flags: tuple[str, ...]) -> str:
    """The device that ``--help-gpu`` names, as ``xpu:1``; "" where the tree has no such flag."""
    if not knows_flag(tree, "--help-gpu"):
        return ""

    def asked() -> dict[str, object]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            run_main(fakes, tree, (*flags, "--help-gpu"))
        return {"said": said.getvalue()}

    said = str(in_child(asked, timeout=60).get("said", ""))
    chosen = re.search(r"^Chosen: ([^,]+),", said, re.MULTILINE)
    return chosen[1] if chosen else f"no device: {said[-400:]}"


def _command_line(fakes: Fakes, tree: Path, flags: tuple[str, ...], held: dict[str, str]) -> dict[str, object]:
    line = " ".join([*(f"{key}={value}" for key, value in held.items()), "main.py", *flags])
    lacking = sorted(flag for flag in flags if flag.startswith("--") and not knows_flag(tree, flag))
    if lacking:
        return {"line": line, "lacking": lacking}

    def attempt() -> dict[str, object]:
        os.environ.update(held)
        return run_main(fakes, tree, flags)

    return {"line": line, "lacking": [], **in_child(attempt, timeout=60)}


def _interview(fakes: Fakes, tree: Path) -> dict[str, object]:
    swallowed = lacking_packages(tree)
    try:
        module = importlib.import_module(MODULE)
    except BaseException as error:  # noqa: BLE001 - some scenarios end here by design
        where = "".join(traceback.format_exception(error)[-4:])
        return {
            "import_error": canonical(error),
            "import_trace": where,
            "requires": _required(_requirement(error, tree), swallowed),
            "import_calls": fakes.log.take(),
            "lacks": {name: "the import" for name in (lacking(error),) if name},
        }
    import_calls = fakes.log.take()
    fakes.started()
    asker = Asker(fakes, module)
    record = {
        "import_error": "",
        "requires": swallowed,
        "import_calls": import_calls,
        "names": names(module),
        "constants": constants(module),
        "switches": switches(fakes.torch),
        "answers": asker.answers(),
    }
    return {**record, "not_asked": asker.not_asked, "unfaked": fakes.log.unfaked, "lacks": asker.lacks}


def constants(module: types.ModuleType) -> dict[str, str]:
    """Every value of the module that is neither code nor private to Python."""
    code = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
    return {
        name: canonical(value)
        for name, value in sorted(vars(module).items())
        if not name.startswith("__") and (not isinstance(value, code) or isinstance(value, enum.Enum))
    }


def names(module: types.ModuleType) -> list[str]:
    """Names that the module binds, but for our runtime module's."""
    return sorted(name for name in vars(module) if not name.startswith("__") and name != OURS)


def switches(torch: Any) -> dict[str, str]:
    """Global settings of torch that a release changes at import."""
    return {
        "cudnn.enabled": canonical(torch.backends.cudnn.enabled),
        "cudnn.benchmark": canonical(torch.backends.cudnn.benchmark),
        "matmul.allow_fp16_accumulation": canonical(
            getattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", None)
        ),
        "deterministic": canonical(torch.are_deterministic_algorithms_enabled()),
        "math_sdp": canonical(torch.backends.cuda.math_sdp_enabled()),
        "flash_sdp": canonical(torch.backends.cuda.flash_sdp_enabled()),
        "mem_efficient_sdp": canonical(torch.backends.cuda.mem_efficient_sdp_enabled()),
    }


def _requirement(error: BaseException, tree: Path) -> str:
    """Name of the package that the interpreter lacks, where that is why an import failed; else nothing."""
    if not isinstance(error, ImportError) or not error.name:
        return ""
    top = error.name.partition(".")[0]
    own = (tree / top).exists() or (tree / f"{top}.py").exists()
    return top if isinstance(error, ModuleNotFoundError) and not own else ""


def _required(module: str, swallowed: list[str]) -> list[str]:
    """All that is missing where something is, so that it can be installed at once."""
    return list(dict.fromkeys([*([module, *absent()] if module else []), *swallowed]))


def absent() -> list[str]:
    """Modules of NEEDED that are not installed."""
    return [name for name in NEEDED if not _present(name)]


def lacking_packages(tree: Path) -> list[str]:
    """Modules that the release's requirements name, that are not installed, and whose absence it would swallow."""
    return [module for module, package in SWALLOWED.items() if _wanted(tree, package) and not _present(module)]


def _wanted(tree: Path, package: str) -> bool:
    requirements = tree / "requirements.txt"
    return package in bounded.head(requirements)


def _present(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def in_child(work: Callable[[], dict[str, object]], timeout: int, output: IO[bytes] | None = None) -> dict[str, object]:
    """What ``work`` returns in a forked child; ``{"crash": ...}`` when it dies or outlives ``timeout`` seconds.

    The child is strangers' code: it may undo its alarm, print without end, or leave children that hold its pipe.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _bound(leads=output is not None)
        signal.alarm(timeout)
        status = 1
        try:
            if output is not None:
                for descriptor in (1, 2):
                    os.dup2(output.fileno(), descriptor)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(json.dumps(work()).encode())
            status = 0
        except BaseException:  # noqa: BLE001 - the parent reports it
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    end = time.monotonic() + timeout + _GRACE
    data = _said(read, end)
    status = _ended(child, end)
    with contextlib.suppress(ValueError, RecursionError):
        result = json.loads(data)
        if isinstance(result, dict):
            return result
    return {"crash": f"child ended with {os.waitstatus_to_exitcode(status)} (negative: by that signal)"}


def _bound(*, leads: bool) -> None:
    """What this process and its children may write is bounded; with ``leads`` they become one session."""
    import resource  # noqa: PLC0415 - not on Windows, which cannot fork either

    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST, _MOST))
    if leads:
        os.setsid()


def _ended(child: int, end: float) -> int:
    """The wait status of a child that has said all, or is killed at ``end``, with what it leads."""
    ended = 0
    while not ended and time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0 if ended else 0.001)
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(child, signal.SIGKILL)
    return status if ended else os.waitpid(child, 0)[1]


def _said(read: int, end: float) -> bytes:
    """What comes through a pipe, up to a bound and a time."""
    data = bytearray()
    try:
        while len(data) < _MOST and select.select([read], [], [], max(end - time.monotonic(), 0))[0]:
            if not (block := os.read(read, 1 << 16)):
                break
            data += block
    finally:
        os.close(read)
    return bytes(data)


def answer(request: dict[str, Any]) -> dict[str, object]:
    """Take the record that a request asks for."""
    tree = Path(request["tree"]).resolve()
    scenario = next(item for item in SCENARIOS if item.name == request["scenario"])
    flags = tuple(request.get("flags", ()))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        scratch = Path(folder).resolve()
        record = in_child(lambda: take_record(tree, scenario, flags, scratch), int(request["timeout"]), output)
        if "crash" in record:
            record["output"] = bounded.ended(output, 2000)
    text = json.dumps(record, sort_keys=True)
    ours = Path(__file__).resolve().parent
    for place, name in ((tree, "<tree>"), (scratch, "<scratch>"), (ours, "<patchforge>"), (sys.prefix, "<python>")):
        text = text.replace(str(place), name)
    cleaned: dict[str, object] = json.loads(text)
    return cleaned


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Answer requests until they end; the first line says which torch this is, or why there is none."""
    try:
        import torch  # noqa: PLC0415 - its absence is reported, not raised

        for name in WARM:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        gc.freeze()  # a child that looks for garbage would copy every page of torch
        print(json.dumps({"torch": torch.__version__, "python": sys.version.split()[0]}), file=replies, flush=True)
    except ImportError as error:
        print(json.dumps({"error": canonical(error), "absent": absent()}), file=replies, flush=True)
        return
    for line in requests:
        print(json.dumps(answer(json.loads(line)), sort_keys=True), file=replies, flush=True)


def main(arguments: list[str]) -> int:
    """Exit status: 0 with a record on stdout's last line, 2 when the command line cannot be used."""
    if arguments == ["--serve"]:
        replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever a library prints stays out of the replies
        serve(sys.stdin, replies)
        return 0
    if len(arguments) < 2 or arguments[1] not in {scenario.name for scenario in SCENARIOS}:
        print(
            "usage: probe.py TREE SCENARIO [FLAG...]",
            *(scenario.name for scenario in SCENARIOS),
            sep="\n",
            file=sys.stderr,
        )
        return 2
    request = {"tree": arguments[0], "scenario": arguments[1], "flags": arguments[2:], "timeout": 120}
    print(json.dumps(answer(request), sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
