"""Asks a release what it would do on a machine that is not here. Runs in a clean interpreter with a CPU build of torch.

``python -I probe.py TREE SCENARIO [FLAG...]`` prints one JSON record as its last line.
``python -I probe.py --serve`` reads requests, one JSON object a line (``tree``, ``scenario``, ``flags``, ``timeout`` in
seconds), and answers each with a line.

torch is imported once; each record is taken in a child forked before anything of the release was imported.
"""

from __future__ import annotations

import ast
import contextlib
import enum
import importlib
import importlib.util
import inspect
import itertools
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if __name__ == "__main__":  # -I leaves our own folder out of sys.path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from patchforge.proof.fake_torch import FORCE, GIB, SCENARIOS, Fakes, Scenario, canonical

    del sys.path[0]
else:
    from patchforge.proof.fake_torch import FORCE, GIB, SCENARIOS, Fakes, Scenario, canonical

MODULE = "comfy.model_management"
OURS = "patchforge_xpu"

#: What main's argument block is run with, beside the scenario's own flags, and what the environment already holds.
COMMAND_LINES: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    ((), {}),
    (("--cuda-device", "1"), {}),
    (("--cuda-device", "1"), {"ZE_AFFINITY_MASK": "0"}),
    (("--default-device", "1"), {}),
    (("--oneapi-device-selector", "level_zero:1"), {}),
    (("--oneapi-device-selector", "level_zero:1", "--cuda-device", "1"), {}),
    (("--deterministic",), {}),
    (("--disable-cuda-malloc",), {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
)

#: Imported before the fork, to save their time in every record; any may be missing. comfy_kitchen looks for its own
#: backends when imported, so it sees a CPU in every scenario.
WARM = ("numpy", "psutil", "PIL.Image", "safetensors.torch", "einops", "tqdm.auto", "yaml", "comfy_kitchen")

#: What ComfyUI imports and swallows the absence of, so that it must be looked for: module to pip package.
SWALLOWED = {"comfy_kitchen": "comfy-kitchen", "comfy_aimdo": "comfy-aimdo"}

#: Functions that change what later questions see; asked last, in this order.
LATE = [
    "load_model_gpu",
    "load_models_gpu",
    "loaded_models",
    "use_more_memory",
    "offloaded_memory",
    "cleanup_models",
    "cleanup_models_gc",
    "free_memory",
    "unload_model_clones",
    "unload_model_and_clones",
    "unload_all_models",
    "reset_cast_buffers",
    "interrupt_current_processing",
    "processing_interrupted",
    "throw_exception_if_processing_interrupted",
]


class Patcher:
    """Stands for a loaded model: says how big it is and records what is asked of it. Sizes in bytes."""

    CANONICAL = True
    parent = None
    clone_base_uuid = "patcher"
    SIZE = 8 * GIB

    def __init__(self, fakes: Fakes, device: object) -> None:
        self._log, self._torch, self.load_device = fakes.log, fakes.torch, device
        self.offload_device = self.current_device = fakes.torch.device("cpu")
        self.model = fakes.torch.nn.Linear(2, 2)
        self.model.lowvram_patch_counter, self.model.current_weight_patches_uuid = 0, None
        self._loaded = 0

    def __repr__(self) -> str:
        return f"patcher({self.load_device})"

    def _say(self, what: str, *values: object) -> None:
        self._log.calls.append(f"{self!r}.{what}({', '.join(map(canonical, values))})")

    def is_dynamic(self) -> bool:
        return False

    def is_clone(self, other: object) -> bool:
        return other is self

    def clone_has_same_weights(self, _clone: object) -> bool:
        return False

    def model_size(self) -> int:
        return self.SIZE

    def loaded_size(self) -> int:
        return self._loaded

    def loaded_ram_size(self) -> int:
        return self.SIZE - self._loaded

    def lowvram_patch_counter(self) -> int:
        return 0

    def memory_required(self, _shape: object) -> int:
        return GIB

    def model_dtype(self) -> object:
        return self._torch.float16

    def current_loaded_device(self) -> object:
        return self.load_device if self._loaded else self.offload_device

    def get_nested_additional_models(self) -> list[object]:
        return []

    def model_patches_models(self) -> list[object]:
        return []

    def model_patches_to(self, target: object) -> None:
        self._say("model_patches_to", target)

    def patch_model(self, *values: object, **named: object) -> object:
        self._say("patch_model", *values, named)
        self._loaded = self.SIZE
        return self.model

    def patch_model_lowvram(self, *values: object, **named: object) -> object:
        self._say("patch_model_lowvram", *values, named)
        self._loaded = self.SIZE // 2
        return self.model

    def unpatch_model(self, *values: object, **named: object) -> None:
        self._say("unpatch_model", *values, named)
        self._loaded = 0

    def partially_load(self, device: object, extra: float = 0, **named: object) -> int:
        self._say("partially_load", device, extra, named)
        added = int(min(extra, self.SIZE - self._loaded))
        self._loaded += added
        return added

    def partially_unload(self, device: object, memory: float = 0, **named: object) -> int:
        self._say("partially_unload", device, memory, named)
        freed = int(min(memory, self._loaded))
        self._loaded -= freed
        return freed

    def detach(self, *values: object, **named: object) -> None:
        self._say("detach", *values, named)
        self._loaded = 0

    unpatch = model_unload = detach


class Asker:
    """Puts questions to one imported ``model_management``: every function, with values chosen by parameter name."""

    def __init__(self, fakes: Fakes, module: types.ModuleType) -> None:
        self._fakes, self._module, self._torch = fakes, module, fakes.torch
        self.not_asked: dict[str, str] = {}
        devices = [self._torch.device("cpu")]
        for backend in fakes.backends:
            devices += [self._torch.device(backend.kind, number) for number in range(len(backend.cards))]
        if fakes.machine.mps:
            devices.append(self._torch.device("mps"))
        self._devices = devices
        self._patchers = [Patcher(fakes, device) for device in devices]
        self._values = self._by_parameter()
        self._special = self._by_function()

    def answers(self) -> list[dict[str, object]]:
        """One entry a question: its text, the function, the answer and the calls that it made."""
        names = sorted(name for name, value in vars(self._module).items() if self._is_own(value))
        ordered = [name for name in names if name not in LATE] + [name for name in LATE if name in names]
        return [self._ask(name, chosen) for name in ordered for chosen in self._choices(name)]

    def _is_own(self, value: object) -> bool:
        return inspect.isfunction(value) and value.__module__ == MODULE and not value.__name__.startswith("_")

    def _choices(self, name: str) -> Iterator[dict[str, object]]:
        columns: list[list[tuple[str, object]]] = []
        for parameter in inspect.signature(getattr(self._module, name)).parameters.values():
            values = self._column(name, parameter)
            if values is None:
                self.not_asked[name] = f"no values for parameter {parameter.name!r}"
                return
            columns.append(values)
        for row in itertools.product(*columns):
            yield {key: value for key, value in row if value is not inspect.Parameter.empty}

    def _column(self, name: str, parameter: inspect.Parameter) -> list[tuple[str, object]] | None:
        omitted = (parameter.name, inspect.Parameter.empty)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return [omitted]
        optional = parameter.default is not parameter.empty
        known = {**self._values, **self._special.get(name, {})}.get(parameter.name)
        if isinstance(parameter.default, bool):
            known = [not parameter.default]
        if known is None and not optional:
            return None
        return ([omitted] if optional else []) + [(parameter.name, value) for value in known or []]

    def _by_parameter(self) -> dict[str, list[object]]:
        torch, devices = self._torch, self._devices
        half, brain, full, eight = torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn
        weight = torch.ones(4)
        values: dict[str, list[Any]] = {
            "device dev inference_device load_device": devices,
            "offload_device": devices[:1],
            "dtype weight_dtype fallback_dtype": [full, half, brain, eight],
            "supported_dtypes": [[brain, full]],
            "allowed_dtypes": [[half, brain], [brain, full]],
            "model_params parameters": [10**9, 12 * 10**9],
            "size shortfall model_size extra_memory": [0, 2 * GIB, 60 * GIB],
            "memory_required minimum_memory_required": [2 * GIB],
            "loaded active evict_active registrations force_full_load": [False, True],
            "subsets keep_loaded loaded_models": [[]],
            "stream offload_stream r ref current_prompt": [None],
            "option": ["default", "cpu", "gpu:0", "gpu:1", "gpu:9", "gpu:x", "other"],
            "type": ["cpu", "cuda", "xpu", "mps"],
            "min_rdna_version": [3, 4],
            "gpu_arch": ["gfx1100", "gfx1030"],
            "weight tensor": [weight],
            "tensors": [[weight]],
            "storage": [weight.untyped_storage()],
            "key": ["weight"],
            "module": [torch.nn.Linear(2, 2)],
            "value": [False],
            "e": self._errors(),
            "model": self._patchers,
            "models": [[patcher] for patcher in self._patchers],
        }
        return {name: chosen for names_, chosen in values.items() for name in names_.split()}

    def _by_function(self) -> dict[str, dict[str, list[object]]]:
        devices = self._devices
        return {
            "archive_model_dtypes": {"model": [self._torch.nn.Linear(2, 2)]},
            "cast_to": {"dtype": [self._torch.float16]},
            "get_cast_buffer": {"size": [1024]},
            "get_autocast_device": {"dev": [*devices, None]},
            "get_torch_device_name": {"device": [*devices, 0]},
            "load_models_gpu_orig": {"memory_required": [0]},
            "load_models_gpu_thread": {"force_patch_weights": [False], "memory_required": [0]},
            "sync_stream": {"stream": [None]},
            "current_stream": {"device": [*devices, None]},
            "is_device_type": {"device": [*devices, None]},
        }

    def _errors(self) -> list[object]:
        memory = "Tried to allocate 2.00 GiB. GPU out of memory"
        accelerator = getattr(self._torch, "AcceleratorError", RuntimeError)
        return [
            self._torch.cuda.OutOfMemoryError(memory),
            accelerator("out of memory"),
            accelerator("an illegal memory access was encountered"),
            RuntimeError(memory),
            RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
            RuntimeError("level_zero backend failed with error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"),
            RuntimeError("shapes cannot be multiplied"),
            ValueError(memory),
        ]

    def _ask(self, name: str, chosen: dict[str, object]) -> dict[str, object]:
        self._fakes.reset()
        self._fakes.log.take()
        arguments = ", ".join(f"{key}={canonical(value)}" for key, value in chosen.items())
        try:
            answer = self._answered(getattr(self._module, name)(**chosen))
        except BaseException as error:  # noqa: BLE001 - an answer too; upstream's interrupt is a BaseException
            answer = f"! {canonical(error)}"
        return {
            "question": f"{name}({arguments})",
            "function": name,
            "answer": answer,
            "calls": self._fakes.log.take(),
        }

    @staticmethod
    def _answered(value: object) -> str:
        if isinstance(value, contextlib.AbstractContextManager) and isinstance(value, contextlib.ContextDecorator):
            with value as entered:
                return f"context {canonical(entered)}"
        return canonical(list(value) if isinstance(value, types.GeneratorType) else value)


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


def argument_blocks(tree: Path) -> list[ast.stmt]:
    """main.py's ``if __name__ == "__main__":`` blocks up to the one that sets CUDA_VISIBLE_DEVICES; else none."""
    source = (tree / "main.py").read_bytes()
    blocks: list[ast.stmt] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
    ]
    last = max((number for number, block in enumerate(blocks, 1) if _sets_visible_devices(block)), default=0)
    return blocks[:last]


def our_imports(tree: Path) -> list[ast.stmt]:
    """main.py's top-level imports of our module, which the blocks use."""
    body = ast.parse((tree / "main.py").read_bytes()).body
    return [node for node in body if isinstance(node, ast.ImportFrom) and any(name.name == OURS for name in node.names)]


def _sets_visible_devices(block: ast.stmt) -> bool:
    return any(
        isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.slice, ast.Constant)
        and node.slice.value == "CUDA_VISIBLE_DEVICES"
        for node in ast.walk(block)
    )


def knows_flag(tree: Path, flag: str) -> bool:
    """Whether the tree's own parser, or our module in it, spells the flag."""
    files = (tree / "comfy" / "cli_args.py", tree / "comfy" / f"{OURS}.py")
    return any(f'"{flag}"'.encode() in path.read_bytes() for path in files if path.is_file())


def run_main(fakes: Fakes, tree: Path, flags: tuple[str, ...]) -> dict[str, object]:
    """Run main's argument block as if torch were not imported yet; what became of the environment and the arguments."""
    before = dict(os.environ)
    sys.argv = ["main.py", *flags]
    torch, stub = fakes.torch, fakes.scratch / "torch" / "__init__.py"
    stub.write_text("import sys\nsys.modules['torch'] = sys._patchforge_torch()\n", encoding="utf-8")
    imported: list[str] = []

    def lend_torch() -> object:
        imported.append("torch")
        return torch

    sys._patchforge_torch = lend_torch  # type: ignore[attr-defined] # noqa: SLF001 - the stub is a file of its own
    sys.path.insert(1, str(fakes.scratch))
    del sys.modules["torch"]
    arguments: dict[str, str] = {}
    error = ""
    try:
        arguments = _exec_blocks(tree)
    except BaseException as problem:  # noqa: BLE001 - argparse exits
        error = canonical(problem)
    finally:
        sys.modules["torch"] = torch
        sys.path.remove(str(fakes.scratch))
        importlib.invalidate_caches()
    changed = {
        k: os.environ.get(k, "<unset>") for k in sorted({*before, *os.environ}) if os.environ.get(k) != before.get(k)
    }
    return {
        "error": error,
        "environment": changed,
        "arguments": arguments,
        "imported": imported,
        "calls": fakes.log.take(),
    }


def _exec_blocks(tree: Path) -> dict[str, str]:
    options = importlib.import_module("comfy.options")
    options.enable_args_parsing()
    args = importlib.import_module("comfy.cli_args").args
    blocks = argument_blocks(tree)
    if not blocks:
        raise LookupError("main.py has no argument block that sets CUDA_VISIBLE_DEVICES")
    code = compile(ast.Module([*our_imports(tree), *blocks], []), str(tree / "main.py"), "exec")
    given = {"__name__": "__main__", "os": os, "sys": sys, "logging": logging, "importlib": importlib, "args": args}
    exec(code, given)  # noqa: S102 - running upstream's block is what this is for
    return {name: canonical(value) for name, value in sorted(vars(args).items())}


def _requirement(error: BaseException, tree: Path) -> str:
    """Name of the package that the interpreter lacks, where that is why an import failed; else nothing."""
    if not isinstance(error, ImportError) or not error.name:
        return ""
    top = error.name.partition(".")[0]
    own = (tree / top).exists() or (tree / f"{top}.py").exists()
    return top if isinstance(error, ModuleNotFoundError) and not own else ""


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
        run_main(fakes, tree, flags)
    return {**record, **_interview(fakes, tree)}


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
            "requires": [name for name in (_requirement(error, tree),) if name] + swallowed,
            "import_calls": fakes.log.take(),
        }
    import_calls = fakes.log.take()
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
    return {**record, "not_asked": asker.not_asked, "unfaked": fakes.log.unfaked}


def lacking_packages(tree: Path) -> list[str]:
    """Modules that the release's requirements name, that are not installed, and whose absence it would swallow."""
    return [module for module, package in SWALLOWED.items() if _wanted(tree, package) and not _present(module)]


def _wanted(tree: Path, package: str) -> bool:
    requirements = tree / "requirements.txt"
    return requirements.is_file() and package in requirements.read_text(encoding="utf-8", errors="replace")


def _present(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def in_child(work: Callable[[], dict[str, object]], timeout: int, output: IO[bytes] | None = None) -> dict[str, object]:
    """What ``work`` returns in a forked child; ``{"crash": ...}`` when it dies or outlives ``timeout`` seconds."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
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
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if status == 0:
        result: dict[str, object] = json.loads(data)
        return result
    return {"crash": f"child ended with {os.waitstatus_to_exitcode(status)} (negative: by that signal)"}


def answer(request: dict[str, Any]) -> dict[str, object]:
    """Take the record that a request asks for."""
    tree = Path(request["tree"]).resolve()
    scenario = next(item for item in SCENARIOS if item.name == request["scenario"])
    flags = tuple(request.get("flags", ()))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        scratch = Path(folder).resolve()
        record = in_child(lambda: take_record(tree, scenario, flags, scratch), int(request["timeout"]), output)
        if "crash" in record:
            output.seek(0)
            record["output"] = output.read().decode(errors="replace")[-2000:]
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
        print(json.dumps({"torch": torch.__version__, "python": sys.version.split()[0]}), file=replies, flush=True)
    except ImportError as error:
        print(json.dumps({"error": canonical(error)}), file=replies, flush=True)
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
        print(__doc__, *(scenario.name for scenario in SCENARIOS), sep="\n", file=sys.stderr)
        return 2
    request = {"tree": arguments[0], "scenario": arguments[1], "flags": arguments[2:], "timeout": 120}
    print(json.dumps(answer(request), sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
