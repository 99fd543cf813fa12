"""What an examination is about, as types: facts as they were gathered, and findings. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

INTEL, NVIDIA, AMD = 0x8086, 0x10DE, 0x1002
VENDORS = {INTEL: "Intel", NVIDIA: "NVIDIA", AMD: "AMD"}


class FactState(StrEnum):
    """What a finding says of its subject."""

    OK = "ok"
    WARNING = "warning"  #: works, or may work, but not as it could
    WRONG = "wrong"  #: ComfyUI will not use the GPU, or will fail
    UNKNOWN = "unknown"  #: could not be examined
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``do`` says what to do about it, and where nothing has to be done, what one may."""

    subject: str
    state: FactState
    text: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Intel GPUs of one design. ``kernel`` is the first Linux whose own driver takes them without an option."""

    name: str
    integrated: bool
    kernel: tuple[int, int] | None = None
    validated: bool = True  #: on PyTorch's list of validated hardware


_ALCHEMIST = Family("Alchemist (Arc A, Flex)", integrated=False, kernel=(6, 2))
_METEOR_LAKE = Family("Meteor Lake or Arrow Lake", integrated=True)
_OLDER = Family("Tiger Lake to Raptor Lake (Iris Xe, UHD)", integrated=True, validated=False)

#: First and last PCI device id → family. Ids: Linux, include/drm/intel/pciids.h. Kernels: 6.2 for Arc A from
#: dgpu-docs.intel.com/driver/kernel-driver-types.html; Lunar Lake and Battlemage were behind xe.force_probe in 6.11,
#: and DL Streamer's system requirements name 6.12; Panther Lake is on by default from 6.17 (its drm-xe pull request).
#: Validated: PyTorch's "Getting Started on Intel GPU".
FAMILIES = (
    (0x0B69, 0x0BE5, Family("Ponte Vecchio (Data Center GPU Max)", integrated=False)),
    (0x4626, 0x46D4, _OLDER),
    (0x4905, 0x4909, Family("DG1 (Iris Xe MAX)", integrated=False, validated=False)),
    (0x4C80, 0x4C9A, _OLDER),
    (0x5690, 0x56C2, _ALCHEMIST),
    (0x6420, 0x64B0, Family("Lunar Lake", integrated=True, kernel=(6, 12))),
    (0x7D40, 0x7DD5, _METEOR_LAKE),
    (0x9A40, 0x9AF8, _OLDER),
    (0xA720, 0xA7AD, _OLDER),
    (0xB080, 0xB0B0, Family("Panther Lake", integrated=True, kernel=(6, 17))),
    (0xB640, 0xB640, _METEOR_LAKE),
    (0xE202, 0xE223, Family("Battlemage (Arc B, Arc Pro B)", integrated=False, kernel=(6, 12))),
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A display or 3D controller on the PCI bus."""

    address: str
    vendor: int
    device: int
    driver: str = ""  #: the kernel driver that is bound
    nodes: tuple[str, ...] = ()  #: names under /dev/dri
    model: str = ""  #: from the driver or the PCI id list, where the machine has it
    bar: int = 0  #: size in bytes of BAR 2, on Windows of the largest range of memory; 0: not known
    version: str = ""  #: of Windows' driver, such as 32.0.101.6989
    date: str = ""  #: of Windows' driver, in ISO 8601
    problem: int = 0  #: what Windows' Device Manager has against it, by number

    @property
    def intel(self) -> bool:
        return self.vendor == INTEL

    @property
    def family(self) -> Family | None:
        """Of an Intel GPU; None for one that is not in the table."""
        matches = (family for first, last, family in FAMILIES if self.intel and first <= self.device <= last)
        return next(matches, None)

    @property
    def integrated(self) -> bool:
        """Intel's integrated GPU has always been device 2 of bus 0; the family decides where it is known."""
        return self.family.integrated if self.family else self.intel and self.address.endswith("00:02.0")

    def __str__(self) -> str:
        name = self.model or (self.family.name if self.family else f"device {self.device:04x}")
        vendor = VENDORS.get(self.vendor, f"vendor {self.vendor:04x}")
        shown = name if name.startswith(vendor) else f"{vendor} {name}"
        return f"{shown} at {self.address}" if self.address else shown


@dataclass(frozen=True, slots=True)
class Node:
    """A render node under /dev/dri."""

    name: str
    usable: bool  #: this process may read and write it, by its mode or an access control list
    group: str


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What a file tree (usually ``/``), or Windows, says of a machine. Memory in bytes; 0: not known."""

    system: str = "linux"  #: sys.platform
    kernel: str = ""  #: such as 6.12.5-arch1-1, or Microsoft Windows 11 Pro 10.0.26100
    pci: bool = True  #: the PCI bus could be read
    unread: Mapping[str, str] = field(default_factory=dict)  #: what Windows did not tell → why
    container: bool = False
    nixos: bool = False
    dxg: bool = False  #: /dev/dxg is there, as on WSL 2
    user: str = ""
    gpus: tuple[Gpu, ...] = ()
    render: tuple[Node, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)  #: file name → where, after links were followed
    opencl: bool = False  #: /etc/OpenCL/vendors names Intel's driver
    packages: Mapping[str, str] = field(default_factory=dict)  #: driver packages of the distribution → version
    ram: int = 0
    available: int = 0
    swap: int = 0

    @property
    def intel(self) -> tuple[Gpu, ...]:
        return tuple(gpu for gpu in self.gpus if gpu.intel)

    @property
    def wsl(self) -> bool:
        return self.system == "linux" and "microsoft" in self.kernel.lower()

    @property
    def windows(self) -> bool:
        return self.system == "win32"


@dataclass(frozen=True, slots=True)
class InterpreterFacts:
    """What another interpreter said of its torch: answers by question, named as in probe.py.

    ``end`` is "" for a run that came to its end; else how it ended, and ``last`` is the question it was at.
    """

    python: str
    answers: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    end: str = ""
    last: str = ""
    said: str = ""  #: the last lines of its standard error

    @property
    def devices(self) -> list[dict[str, Any]]:
        """The XPUs that could be described."""
        return [value for name, value in self.answers.items() if name.startswith("device ")]

    @property
    def xpu_build(self) -> bool:
        return bool(self.answers.get("torch", {}).get("xpu"))

    @property
    def sees_xpu(self) -> bool:
        return bool(self.answers.get("xpu available"))

    @property
    def emulated(self) -> bool:
        return any("emulated" in str(device.get("platform", "")) for device in self.devices)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with ComfyUI in it."""

    path: str
    version: str = ""  #: as it states it; "" if it does not
    state: str = "not patched"  #: a ``patchforge.checkout.examine.State``
    says: str = "not patched"  #: the same as a sentence
    do: str = ""  #: what puts it right
    requirements: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: file → lines about torch or an index


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks look at."""

    machine: MachineFacts
    interpreter: InterpreterFacts
    environment: Mapping[str, str] = field(default_factory=dict)
    checkout: Checkout | None = None

    @property
    def needs_xpu(self) -> bool:
        """Whether ComfyUI depends on an Intel GPU here: torch uses no other, and there is one of a known design."""
        known = self.machine.wsl or any(gpu.family for gpu in self.machine.intel)
        return known and not self.interpreter.answers.get("cuda available")
