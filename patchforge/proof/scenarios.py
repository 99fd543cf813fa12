"""The machines of the dynamic proof, and the command lines that are tried on them, as data."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

GIB = 1024**3
FORCE = "--force-intel-xpu"  #: the patched tree's flag that prefers an Intel GPU to a CUDA one


@dataclass(frozen=True, slots=True)
class FakedCard:
    """One accelerator; memory in bytes, ``free`` as the driver tells it, the rest as torch's allocator does."""

    name: str
    total: int
    free: int
    reserved: int = 3 * GIB
    active: int = 2 * GIB
    major: int = 0
    minor: int = 0
    arch: str = ""
    bf16: bool = True
    fp64: bool = True
    integrated: bool = False
    tells_free: bool = True  #: False: mem_get_info raises


@dataclass(frozen=True, slots=True)
class FakedMachine:
    """What torch says of a host; ``ram`` and ``ram_available`` in bytes."""

    version: str
    cuda: tuple[FakedCard, ...] = ()
    xpu: tuple[FakedCard, ...] = ()
    mps: bool = False
    cuda_version: str | None = None
    hip: str | None = None
    ipex: bool = False
    ram: int = 64 * GIB
    ram_available: int = 48 * GIB
    vendors: tuple[str, ...] = ()  #: PCI ids of the vendors of the GPUs that the system tells of


NOTHING = "nothing"


class Group(enum.StrEnum):
    """Which declarations a scenario honours."""

    OTHER = "other"  #: no Intel GPU, an accelerator or ``--cpu``: nothing may differ
    CPU = "cpu"  #: no accelerator and no ``--cpu``: only names declared under ``cpu:``
    XPU = "xpu"  #: an Intel GPU alone
    MIXED = "mixed"  #: a card after an integrated Intel GPU
    DUAL = "dual"  #: an Intel GPU beside a CUDA one


@dataclass(frozen=True, slots=True)
class Scenario:
    """One machine and one command line."""

    name: str
    group: Group
    machine: FakedMachine
    device: str  #: device that get_torch_device() must name on the patched tree; NOTHING: the start must stop
    flags: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()  #: further flags for the patched tree alone
    through_main: bool = True  #: run main's argument block first, as ComfyUI does; else import as a library
    starts: bool = True  #: False: upstream is known to fail at import


_RTX = FakedCard("NVIDIA GeForce RTX 4090", 24 * GIB, 18 * GIB, major=8, minor=9)
_GTX = FakedCard("NVIDIA GeForce GTX 1060 6GB", 6 * GIB, 4 * GIB, GIB, GIB // 2, major=6, minor=1, bf16=False)
_RDNA3 = FakedCard("AMD Radeon RX 7900 XTX", 24 * GIB, 18 * GIB, major=11, minor=0, arch="gfx1100")
_RDNA2 = FakedCard("AMD Radeon RX 6800", 16 * GIB, 12 * GIB, major=10, minor=3, arch="gfx1030")
_B580 = FakedCard("Intel(R) Arc(TM) B580 Graphics", 12 * GIB, 4 * GIB)
_SHARED = FakedCard("Intel(R) Arc(TM) Graphics", 57 * GIB, 40 * GIB, integrated=True, fp64=False)
_SILENT = FakedCard("Intel(R) Arc(TM) A770 Graphics", 16 * GIB, 8 * GIB, fp64=False, tells_free=False)
_CUDA = FakedMachine("2.13.0+cu130", cuda=(_RTX, _RTX), cuda_version="13.0")
_NO_CUDA = FakedMachine("2.13.0+cu130", cuda_version="13.0")
_NO_ROCM = FakedMachine("2.13.0+rocm7.1", hip="7.1.25424")
_XPU = FakedMachine("2.13.0+xpu", xpu=(_B580, _B580))
_BOTH = FakedMachine("2.13.0+cu130", cuda=(_RTX,), xpu=(_B580,), cuda_version="13.0")
SCENARIOS: tuple[Scenario, ...] = (
    Scenario("cuda", Group.OTHER, _CUDA, "cuda:0"),
    Scenario("cuda-library", Group.OTHER, _CUDA, "cuda:0", through_main=False),
    Scenario("cuda-old", Group.OTHER, FakedMachine("2.13.0+cu126", cuda=(_GTX,), cuda_version="12.6"), "cuda:0"),
    Scenario("rocm", Group.OTHER, FakedMachine("2.13.0+rocm7.1", cuda=(_RDNA3,), hip="7.1.25424"), "cuda:0"),
    Scenario("rocm-old", Group.OTHER, FakedMachine("2.13.0+rocm6.4", cuda=(_RDNA2,), hip="6.4.43482"), "cuda:0"),
    Scenario("mps", Group.OTHER, FakedMachine("2.13.0", mps=True), "mps"),
    Scenario("cpu-flag", Group.OTHER, FakedMachine("2.13.0+cpu"), "cpu", flags=("--cpu",)),
    Scenario("cpu", Group.CPU, FakedMachine("2.13.0+cpu"), "cpu", starts=False),
    Scenario("cuda-no-driver", Group.OTHER, _NO_CUDA, NOTHING, starts=False),
    Scenario("rocm-no-driver", Group.OTHER, _NO_ROCM, NOTHING, starts=False),
    Scenario("intel-cuda-torch", Group.CPU, replace(_NO_CUDA, vendors=("1002", "8086")), NOTHING, starts=False),
    Scenario("intel-cpu-torch", Group.CPU, FakedMachine("2.13.0+cpu", vendors=("8086",)), "cpu", starts=False),
    Scenario("intel-no-driver", Group.CPU, FakedMachine("2.13.0+xpu", vendors=("8086",)), "cpu", starts=False),
    Scenario("cpu-forced", Group.CPU, FakedMachine("2.13.0+cpu"), NOTHING, ours=(FORCE,), starts=False),
    Scenario("cuda-forced", Group.CPU, _CUDA, NOTHING, ours=(FORCE,)),
    Scenario("xpu", Group.XPU, _XPU, "xpu:0"),
    Scenario("xpu-library", Group.XPU, _XPU, "xpu:0", through_main=False),
    Scenario(
        "xpu-integrated",
        Group.XPU,
        FakedMachine("2.13.0+xpu", xpu=(_SHARED,), ram=64 * GIB, ram_available=10 * GIB),
        "xpu:0",
    ),
    Scenario("xpu-silent", Group.XPU, FakedMachine("2.13.0+xpu", xpu=(_SILENT,)), "xpu:0"),
    Scenario("xpu-ipex", Group.XPU, FakedMachine("2.8.0+xpu", xpu=(_B580,), ipex=True), "xpu:0"),
    Scenario("xpu-cpu-flag", Group.XPU, _XPU, "cpu", flags=("--cpu",)),
    Scenario("xpu-mixed", Group.MIXED, FakedMachine("2.13.0+xpu", xpu=(_SHARED, _B580)), "xpu:1"),
    Scenario("cuda-xpu", Group.DUAL, _BOTH, "cuda:0"),
    Scenario("cuda-xpu-forced", Group.DUAL, _BOTH, "xpu:0", ours=(FORCE,)),
)
