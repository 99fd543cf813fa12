"""Judges the environment variables that decide what SYCL, Level Zero, torch and patchforge do. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from patchforge import faults
from patchforge.doctor.facts import AMD, NVIDIA, Facts, FactState, Finding
from patchforge.transforms.runtime.patchforge_xpu.settings import VARIABLES

#: Names, or beginnings of names, that a report shows.
SHOWN = (
    *("ZE_", "ZES_", "ONEAPI_", "SYCL_", "UR_", "NEO_", "IGC_", "OverrideDefaultFP64Settings", "PYTORCH_", "IPEX_"),
    *("PATCHFORGE_", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_", "LD_LIBRARY_PATH"),
)
_NOT_OF_THE_MACHINE = {"PATCHFORGE_UPSTREAM", "PATCHFORGE_CACHE", "PATCHFORGE_STATE"}
_OURS = {
    *(name for name in VARIABLES if name.startswith("PATCHFORGE_")),
    *_NOT_OF_THE_MACHINE,
    faults.VARIABLE,
    *("PATCHFORGE_EMULATE_XPU", "PATCHFORGE_EMULATE_XPU_OPTIONS", "PATCHFORGE_EMULATE_XPU_CACHE"),
    *("PATCHFORGE_EMULATE_XPU_TORCH", "PATCHFORGE_TOKEN"),  # the emulator's tests; a secret of the bot's workflow
    *("PATCHFORGE_COMFYUI_PYTHON", "PATCHFORGE_SECOND_TORCH_PYTHON", "PATCHFORGE_NIXPKGS_LIB", "PATCHFORGE_TRIVIA"),
    *("PATCHFORGE_PACKS", "PATCHFORGE_TARBALL"),  # what tests and measurements take
}
_MASK = re.compile(r"\d+(\.\d+)?(,\d+(\.\d+)?)*")
_BACKENDS = {"*", "level_zero", "opencl", "cuda", "hip", "native_cpu"}
_TERM = re.compile(r"(!?)([\w*]+):([\w.*]+(?:,[\w.*]+)*)", re.ASCII)
#: From the time of Intel's extension; nothing reads them now.
_RETIRED = re.compile(r"IPEX_\w+|SYCL_PI_\w+|SYCL_DEVICE_FILTER|USE_XETLA")
_NOTES = {
    "UR_L0_ENABLE_RELAXED_ALLOCATION_LIMITS": "set to 1 it allows single allocations above 4 GiB (compute-runtime#627)",
    "UR_L0_ENABLE_SYSMAN_ENV_DEFAULT": "set to 0 it is a remedy where free memory cannot be asked for (pytorch#159728)",
    "SYCL_CACHE_PERSISTENT": "set to 1 it keeps compiled kernels on disk, so that later starts are quicker",
    "PYTORCH_DEBUG_XPU_FALLBACK": "set to 1 torch says which operators it computes on the CPU",
}


def shown(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a report shows; no others, as a report is made to be passed on."""
    named = (name for name in sorted(environment) if name.startswith(SHOWN) and name not in _NOT_OF_THE_MACHINE)
    return {name: environment[name] for name in named}


def findings(facts: Facts) -> Iterator[Finding]:
    """All of this module, in the order of a report."""
    yield from filters(facts)
    yield from other_filters(facts)
    yield from switches(facts.environment)
    yield from ours(facts.environment)


def filters(facts: Facts) -> Iterator[Finding]:
    """ZE_AFFINITY_MASK and ONEAPI_DEVICE_SELECTOR: which Intel GPUs a process sees."""
    checks = (("ZE_AFFINITY_MASK", _mask), ("ONEAPI_DEVICE_SELECTOR", _selector))
    for name, problem in checks:
        value = facts.environment.get(name)
        if value == "":
            yield Finding(name, FactState.WARNING, "is set and empty: it names no device", f"unset {name}")
        elif value is not None:
            wrong = problem(value, _gpus(facts))
            if wrong:
                yield Finding(name, FactState.WRONG, f"{value}: {wrong}", f"unset {name}, or correct it")
            else:
                yield Finding(name, FactState.OK, f"{value}: other Intel GPUs than these are hidden")


def _gpus(facts: Facts) -> int | None:
    """How many Intel GPUs Level Zero can number; None where it may be others than those on the bus."""
    gpus = facts.machine.intel
    tiles = any(gpu.family and gpu.family.name.startswith("Ponte") for gpu in gpus)
    return None if not gpus or tiles or facts.interpreter.emulated or facts.machine.wsl else len(gpus)


def _mask(value: str, gpus: int | None) -> str:
    """What is wrong with a ZE_AFFINITY_MASK; "" when some GPU stays."""
    if not _MASK.fullmatch(value):
        return "is not a list of device numbers such as 0 or 0,1"
    if gpus is not None and all(int(device.partition(".")[0]) >= gpus for device in value.split(",")):
        return f"hides every device: there are {gpus} Intel GPU(s), numbered from 0"
    return ""


def _selector(value: str, gpus: int | None) -> str:
    """What is wrong with a ONEAPI_DEVICE_SELECTOR; "" when torch, which wants Level Zero, may find some GPU.

    Terms are separated by semicolons; those with ``!`` take away (intel/llvm, sycl/doc/EnvironmentVariables.md).
    """
    terms = [_TERM.fullmatch(term.strip().lower()) for term in value.split(";") if term.strip()]
    if not terms or any(term is None or term[2] not in _BACKENDS for term in terms):
        return "is not of the form BACKEND:DEVICES, such as level_zero:0 or level_zero:gpu"
    usable = [term for term in terms if term and term[2] in {"*", "level_zero"}]
    wanted = [term[3].split(",") for term in usable if not term[1]]
    if any(term and not term[1] for term in terms) and not any(_some_gpu(devices, gpus) for devices in wanted):
        return "hides every device: torch uses Level Zero GPUs only, and no term names one that is there"
    if any(term[1] and {"*", "gpu"} & set(term[3].split(",")) for term in usable):
        return "hides every device: a term with ! takes away all Level Zero GPUs"
    return ""


def _some_gpu(devices: list[str], gpus: int | None) -> bool:
    numbers = [int(device.partition(".")[0]) for device in devices if device[0].isdigit()]
    return bool({"*", "gpu"} & set(devices)) or any(gpus is None or number < gpus for number in numbers)


def other_filters(facts: Facts) -> Iterator[Finding]:
    """The same for NVIDIA and AMD, where there is such a GPU."""
    vendors = {gpu.vendor for gpu in facts.machine.gpus}
    names = {"CUDA_VISIBLE_DEVICES": {NVIDIA, AMD}, "HIP_VISIBLE_DEVICES": {AMD}, "ROCR_VISIBLE_DEVICES": {AMD}}
    for name, of in names.items():
        value = facts.environment.get(name)
        if value is not None and of & vendors:
            hidden = not value.strip() or value.strip().startswith("-1")
            text = f"{value!r}: hides every GPU of that kind" if hidden else f"{value!r}: hides the others of that kind"
            state = FactState.WARNING if hidden else FactState.OK
            yield Finding(name, state, text, f"unset {name} if they are to be used" if hidden else "")
    if AMD in vendors and (value := facts.environment.get("HSA_OVERRIDE_GFX_VERSION")):
        text = f"{value}: ROCm treats the GPU as another model"
        yield Finding("HSA_OVERRIDE_GFX_VERSION", FactState.WARNING, text, "unset it if this ROCm supports the GPU")


def switches(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that change how Level Zero, SYCL and torch work."""
    for name, note in _NOTES.items():
        if name in environment:
            yield Finding(name, FactState.OK, f"{environment[name]}: {note}")
    hierarchy = environment.get("ZE_FLAT_DEVICE_HIERARCHY")
    if hierarchy is not None:
        known = hierarchy in {"FLAT", "COMBINED", "COMPOSITE"}
        text = f"{hierarchy}: how cards of several tiles are numbered"
        do = "" if known else "use FLAT, COMBINED or COMPOSITE, or unset it"
        yield Finding("ZE_FLAT_DEVICE_HIERARCHY", FactState.OK if known else FactState.WARNING, text, do)
    if environment.get("PYTORCH_ENABLE_XPU_FALLBACK", "0") not in {"", "0"}:
        text = "on: operators that XPU lacks are computed on the CPU without a word, which is slow"
        do = "set PYTORCH_DEBUG_XPU_FALLBACK=1 as well, to see which"
        yield Finding("PYTORCH_ENABLE_XPU_FALLBACK", FactState.WARNING, text, do)
    for name in ("OverrideDefaultFP64Settings", "IGC_EnableDPEmulation"):
        if environment.get(name, "0") not in {"", "0"}:
            yield Finding(
                name, FactState.WARNING, "on: float64 is emulated, which is slow", f"unset {name} if nothing needs it"
            )
    for name in sorted(environment):
        if _RETIRED.fullmatch(name):
            yield Finding(name, FactState.WARNING, "is of older versions and has no effect any more", f"unset {name}")


def ours(environment: Mapping[str, str]) -> Iterator[Finding]:
    """PATCHFORGE_*: unknown names, and the emulated XPU. Values are checked when a patched ComfyUI starts."""
    if preset := environment.get("PATCHFORGE_EMULATE_XPU"):
        text = f"{preset}: XPU devices are EMULATED in every process that has the emulator on its PYTHONPATH"
        yield Finding("PATCHFORGE_EMULATE_XPU", FactState.WARNING, text, "unset it to use real devices")
    for name in sorted(environment):
        if name in _OURS and name in VARIABLES:
            yield Finding(name, FactState.OK, environment[name] or "set and empty, which counts as not set")
        elif name.startswith("PATCHFORGE_") and name not in _OURS:
            do = f"the names are {', '.join(sorted(known for known in _OURS if known in VARIABLES))}"
            yield Finding(name, FactState.WARNING, "is not a variable of patchforge", do)
