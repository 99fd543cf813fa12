"""Judges the torch of an interpreter and what is installed beside it. Pure functions of the facts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from patchforge.doctor.facts import AMD, NVIDIA, Facts, FactState, Finding, InterpreterFacts

_GIB = 1 << 30
_INSTALL = "install PyTorch's XPU build (https://pytorch.org/get-started/locally/) into that environment"


def findings(facts: Facts) -> Iterator[Finding]:
    """All of this module, in the order of a report."""
    yield from ending(facts.interpreter)
    yield from build(facts)
    yield from devices(facts)
    yield from packages(facts.interpreter)
    yield from pins(facts)
    yield from companions(facts.interpreter)


def ending(interpreter: InterpreterFacts) -> Iterator[Finding]:
    """A crash or a hang. With a GPU it is usually a driver and a Level Zero loader that do not fit (pytorch#179891)."""
    if not interpreter.end:
        return
    where = f' at "{interpreter.last}"' if interpreter.last else ""
    text = f"{interpreter.python} {interpreter.end}{where}"
    do = (
        "take the compute runtime and the Level Zero loader from the same source, of the same age, and update both; "
        "then look into dmesg"
    )
    if interpreter.last in {"", "python", "packages", "torch", "numpy", "torchvision"}:
        do = "try the same import in that interpreter by hand, and install its packages again"
    said = interpreter.said.splitlines()
    yield Finding("torch", FactState.WRONG, f"{text}; it said: {said[-1]}" if said else text, do)


def build(facts: Facts) -> Iterator[Finding]:
    """Whether torch is there, and was built for the GPU that is."""
    interpreter = facts.interpreter
    torch = interpreter.answers.get("torch")
    if torch is None:
        if "torch" in interpreter.errors:
            yield Finding(
                "torch",
                FactState.WRONG,
                f"{interpreter.python} cannot import torch: {interpreter.errors['torch']}",
                _torch_do(facts),
            )
        return
    text = f"{torch['version']} in {interpreter.python}, Python {interpreter.answers.get('python', '?')}"
    kind = "XPU" if torch["xpu"] else "CUDA" if torch["cuda"] else "ROCm" if torch["hip"] else "CPU"
    text += f", built for {kind}" + (" (emulated)" if interpreter.emulated else "")
    if (facts.machine.intel or facts.machine.wsl) and kind != "XPU":
        state = FactState.WRONG if facts.needs_xpu else FactState.WARNING
        yield Finding("torch", state, f"{text}, which does not use Intel GPUs", _INSTALL)
    elif kind == "CPU" and any(gpu.vendor in {NVIDIA, AMD} for gpu in facts.machine.gpus):
        do = "install PyTorch's CUDA or ROCm build if that GPU is to be used"
        yield Finding("torch", FactState.WARNING, f"{text}, which does not use the GPU of this machine", do)
    else:
        hint = f"before an Intel GPU is put in, {_INSTALL}" if kind != "XPU" and _may_get_one(facts) else ""
        yield Finding("torch", FactState.OK, text, hint)


def _torch_do(facts: Facts) -> str:
    name = "name ComfyUI's own interpreter with --python"
    return f"{name}, or {_INSTALL}" if facts.machine.intel or _may_get_one(facts) else name


def _may_get_one(facts: Facts) -> bool:
    """Whether somebody may be preparing this machine for an Intel GPU: it has none at all, and torch has a build."""
    return not facts.machine.gpus and facts.machine.system in {"linux", "win32"}


def devices(facts: Facts) -> Iterator[Finding]:
    """What torch sees, device by device."""
    interpreter = facts.interpreter
    if interpreter.emulated:
        text = "the XPU devices are EMULATED: they are computed on the CPU, and nothing here is about a real Intel GPU"
        do = "unset PATCHFORGE_EMULATE_XPU to examine the machine itself"
        yield Finding("emulated XPU", FactState.WARNING, text, do)
    if names := interpreter.answers.get("cuda names"):
        yield Finding("CUDA or ROCm", FactState.OK, f"torch sees {', '.join(names)}")
    if (
        interpreter.xpu_build
        and not interpreter.sees_xpu
        and "xpu available" in {*interpreter.answers, *interpreter.errors}
    ):
        yield _none(facts)
    for question in [name for name in interpreter.answers if name.startswith("device ")]:
        yield from _device(interpreter, int(question.split()[1]))
    for question, error in interpreter.errors.items():
        if question == "xpu count" or question.startswith(("device ", "sums ")):
            yield Finding(f"XPU: {question}", FactState.WRONG, f"raises {error}", "update the driver")


def _none(facts: Facts) -> Finding:
    if not facts.machine.intel and not facts.machine.wsl:
        return Finding("XPU", FactState.NOT_APPLICABLE, "torch sees no XPU, as there is no Intel GPU")
    said = facts.interpreter.errors.get("xpu available") or facts.interpreter.said
    text = f"torch sees no XPU; it said: {said.splitlines()[-1]}" if said else "torch sees no XPU"
    parts = "driver, Level Zero loader" if facts.machine.windows else "kernel driver, render node, libraries"
    do = (
        f"mend what is wrong above ({parts}, variables); if nothing is, the driver is too old for this torch, or too "
        "new: update both"
    )
    return Finding("XPU", FactState.WRONG, text, do)


def _device(interpreter: InterpreterFacts, index: int) -> Iterator[Finding]:
    device = interpreter.answers[f"device {index}"]
    subject = f"xpu:{index}" + (" (emulated)" if interpreter.emulated else "")
    flags = {"float64": device["fp64"], "bfloat16": device["bf16"], "matrix units": device["matrix"]}
    told = [f"{name} {_word(value)}" for name, value in flags.items()]
    kind = {True: "integrated", False: "discrete", None: "not said whether integrated"}[device["integrated"]]
    text = f"{device['name']}, {device['total_memory'] / _GIB:.1f} GiB, {kind}; {', '.join(told)}"
    text += f"; driver {device['driver']}"
    yield Finding(subject, FactState.OK, text)
    if interpreter.answers.get(f"sums {index}") is False:
        yield Finding(
            subject, FactState.WRONG, "a sum of 64 numbers is wrong", "update the driver, and report it to PyTorch"
        )
    yield from _arithmetic(interpreter, index, subject)
    yield from _memory(interpreter, index, subject)


def _arithmetic(interpreter: InterpreterFacts, index: int, subject: str) -> Iterator[Finding]:
    """Products, convolutions and attention beside the CPU's (torch-xpu-ops#5220, compute-runtime#1001)."""
    answer = interpreter.answers.get(f"arithmetic {index}")
    if answer is None:
        if error := interpreter.errors.get(f"arithmetic {index}"):
            yield Finding(subject, FactState.UNKNOWN, f"its arithmetic could not be tried: {error}")
    elif answer["wrong"]:
        text = "; ".join(f"{operation}: {seen}" for operation, seen in sorted(answer["wrong"].items()))
        yield Finding(subject, FactState.WRONG, f"wrong results ({text})", answer["do"])
    else:
        yield Finding(subject, FactState.OK, "multiplies, convolves and attends as the CPU does in fp32, fp16 and bf16")


def _word(value: bool | None) -> str:  # noqa: FBT001 - an answer, not a switch
    return {True: "yes", False: "no", None: "not said"}[value]


def _memory(interpreter: InterpreterFacts, index: int, subject: str) -> Iterator[Finding]:
    """Free memory: raises on many client GPUs (pytorch#157989, #194576), and may be nonsense (#161381)."""
    answer = interpreter.answers.get(f"memory {index}")
    if answer is not None:
        free, total = answer
        if 0 <= free <= total and total > 0:
            yield Finding(subject, FactState.OK, f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB are free")
        else:
            text = f"the driver says {free} of {total} bytes are free, which cannot be; a patched ComfyUI drops it"
            yield Finding(subject, FactState.WARNING, text, "update the driver; --reserve-vram keeps a margin")
    elif error := interpreter.errors.get(f"memory {index}"):
        text = f"free memory cannot be asked for ({error}); ComfyUI then estimates it without what other programs hold"
        do = "try UR_L0_ENABLE_SYSMAN_ENV_DEFAULT=0 (pytorch#159728); otherwise --reserve-vram N"
        yield Finding(subject, FactState.WARNING, text, do)


def packages(interpreter: InterpreterFacts) -> Iterator[Finding]:
    """Packages that get in each other's way."""
    versions = _versions(interpreter)
    torch = versions.get("torch", "")
    if ipex := versions.get("intel-extension-for-pytorch"):
        text = f"intel-extension-for-pytorch {ipex} is retired (2.8 was the last), and ComfyUI needs it no longer"
        fits = ipex.split(".")[:2] == torch.split(".")[:2]
        if not fits:
            text += f"; beside torch {torch} its import fails"
        do = "pip uninstall intel-extension-for-pytorch"
        yield Finding("IPEX", FactState.WARNING if fits else FactState.WRONG, text, do)
    if not interpreter.xpu_build:
        return
    tritons = [name for name in ("triton-xpu", "pytorch-triton-xpu", "triton") if name in versions]
    if len(tritons) > 1:
        text = f"{' and '.join(tritons)} are installed, and each overwrites files of the other"
        do = f"pip uninstall {' '.join(tritons)}, then install torch's XPU build again"
        yield Finding("Triton", FactState.WRONG, text, do)
    elif tritons == ["triton"]:
        text = "triton is NVIDIA's and AMD's; beside an XPU build of torch, torch.compile needs triton-xpu"
        yield Finding("Triton", FactState.WARNING, text, "pip uninstall triton, then install torch's XPU build again")
    elif tritons:
        yield Finding("Triton", FactState.OK, f"{tritons[0]} {versions[tritons[0]]}")


def pins(facts: Facts) -> Iterator[Finding]:
    """Requirements that would make pip replace torch: by another version, or by a build from another index."""
    interpreter = facts.interpreter
    torch = _versions(interpreter).get("torch", "")
    if not torch:
        return
    wanted: Mapping[str, str] = interpreter.answers.get("packages", {}).get("pins", {})
    for name, version in sorted(wanted.items()):
        if not fits(version, torch):
            text = f"{name} requires torch=={version}, and {torch} is installed: pip may replace torch"
            yield Finding(
                "requirement", FactState.WARNING, text, f"install the {name} that belongs to torch {torch}, or none"
            )
    if not (facts.checkout and interpreter.xpu_build):
        return
    for path, lines in sorted(facts.checkout.requirements.items()):
        for line in lines:
            pin = re.match(r"torch\s*==\s*([^\s;#]+)", line)
            foreign = re.match(r"(-i|--(extra-)?index-url)\b.*/(cu\d+|rocm[\d.]*|cpu)/?\s*$", line)
            if foreign or (pin and not fits(pin[1], torch)):
                text = f"{path}: {line!r} would replace torch {torch}"
                yield Finding(
                    "requirement", FactState.WARNING, text, "leave that line out when you install these requirements"
                )


def fits(wanted: str, installed: str) -> bool:
    """Whether ``==wanted`` takes ``installed``: the local part (+xpu) counts only if asked for."""
    if wanted.endswith(".*"):
        return f"{installed.partition('+')[0]}.".startswith(wanted[:-1])
    return (
        _plain(installed) == _plain(wanted) if "+" in wanted else _plain(installed.partition("+")[0]) == _plain(wanted)
    )


def _plain(version: str) -> str:
    """Without zeros at the end: 2.13 and 2.13.0 are the same."""
    number, plus, local = version.partition("+")
    return re.sub(r"(\.0+)+$", "", number) + plus + local


def companions(interpreter: InterpreterFacts) -> Iterator[Finding]:
    """Checks numpy and torchvision, which must be built for this torch."""
    if error := interpreter.errors.get("numpy"):
        do = "install a numpy of the major version that this torch was built with (torch 2.2 and older: numpy<2)"
        yield Finding("numpy", FactState.WRONG, f"torch cannot hand arrays to numpy: {error}", do)
    versions = _versions(interpreter)
    if "torchvision" in versions and (error := interpreter.errors.get("torchvision")):
        text = f"torchvision {versions['torchvision']} does not fit this torch: {error}"
        do = "install torchvision from where torch came from"
        yield Finding("torchvision", FactState.WRONG, text, do)


def _versions(interpreter: InterpreterFacts) -> dict[str, str]:
    answer: dict[str, Any] = interpreter.answers.get("packages", {})
    versions: dict[str, str] = answer.get("versions", {})
    return versions
