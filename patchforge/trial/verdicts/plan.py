"""What a trial consists of: its sessions, each one start of the server, and the tests of each session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchforge.trial.model import Device, TrialSide

#: Makes an emulated device and the CPU compute the same bits; the flags that a release lacks are left out.
EXACT = ("--force-fp32", "--fp32-vae", "--fp32-text-enc", "--use-pytorch-cross-attention")
#: The same for all workflows on an emulated device, which has none of the faults of Intel's fused attention.
EMULATED_EXACT = ("--xpu-attention=fused",)
#: Results stay in ComfyUI's cache until they are asked to go, whatever RAM is left.
STEADY = ("--cache-classic",)
BOTH = (TrialSide.PATCHED, TrialSide.UPSTREAM)


@dataclass(frozen=True, slots=True)
class Session:
    """One server: its flags and the tests that it goes through, in order.

    ``flags`` are left out of a tree that does not have them, but for those of ``needs``: without one of these the whole
    session is skipped. ``emulated`` and ``options`` change an emulated device; ``sides`` says which trees it is for.
    """

    name: str
    title: str
    tests: tuple[str, ...]
    flags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    patched_flags: tuple[str, ...] = ()  #: only for the patched tree
    emulated: str = ""
    options: tuple[str, ...] = ()
    exact: bool = True
    emulated_only: bool = False
    sides: tuple[TrialSide, ...] = BOTH
    pack: str = ""  #: folder in custom_nodes of the node pack that it is about

    def device(self, device: Device) -> Device:
        """``device`` as this session has it."""
        if not device.emulated:
            return device
        options = ";".join(filter(None, (device.options, *self.options)))
        return Device(device.kind, self.emulated or device.emulated, options)


REFERENCE = Session(
    "reference", "the CPU's results", ("workflows",), (*EXACT, *STEADY), ("--cpu",), sides=(TrialSide.UPSTREAM,)
)

SESSIONS = (
    Session(
        "workflows",
        "every workflow, then the API and recovery",
        (
            "api",
            "workflows",
            "cached",
            "two-prompts",
            "interrupt",
            "free",
            "other-process",
            "memory-info-raises",
            "memory-info-nonsense",
            "oom-sampling",
            "oom-vae",
            "device-error",
            "device-lost",
        ),
        (*EXACT, *STEADY),
    ),
    Session(
        "defaults",
        "ComfyUI's own choice of types and attention",
        ("txt2img", "sdxl", "dit"),
        STEADY,
        exact=False,
        sides=(TrialSide.PATCHED,),
    ),
    Session(
        "small-memory",
        "a model larger than the device",
        ("partial-load",),
        (*EXACT, *STEADY),
        options=("memory=1400M",),
        emulated_only=True,
        sides=(TrialSide.PATCHED,),
    ),
    Session(
        "novram",
        "no weights kept on the device",
        ("txt2img",),
        (*EXACT, *STEADY),
        ("--novram",),
        sides=(TrialSide.PATCHED,),
    ),
    Session(
        "lowvram",
        "few weights kept on the device",
        ("txt2img",),
        (*EXACT, *STEADY),
        ("--lowvram",),
        sides=(TrialSide.PATCHED,),
    ),
    Session(
        "async-offload",
        "weights offloaded on streams of their own",
        ("txt2img",),
        (*EXACT, *STEADY, "--novram"),
        ("--async-offload",),
        sides=(TrialSide.PATCHED,),
    ),
    Session(
        "integrated",
        "an integrated GPU with more memory than the machine has to spare",
        ("integrated-memory", "txt2img"),
        (*EXACT, *STEADY),
        emulated="lunar-lake",
        options=("memory=1024G",),
        emulated_only=True,
    ),
    Session(
        "two-devices",
        "the second of two GPUs, asked for",
        ("second-device", "txt2img"),
        (*EXACT, *STEADY),
        ("--cuda-device=1",),
        emulated="two",
        emulated_only=True,
    ),
    Session(
        "two-vendors",
        "a torch that has CUDA and XPU, the Intel GPU asked for",
        ("two-vendors", "txt2img"),
        (*EXACT, *STEADY),
        patched_flags=("--force-intel-xpu",),
        options=("cuda=declared",),
        emulated_only=True,
    ),
)


def flags(session: Session, side: TrialSide, device: Device) -> tuple[str, ...]:
    """What a server is started with, as far as its tree has it, beside what the session needs."""
    wanted = (*session.flags, *(session.patched_flags if side is TrialSide.PATCHED else ()))
    if "workflows" in session.tests and device.emulated:
        wanted = (*wanted, *EMULATED_EXACT)
    if device.kind == "cuda":
        wanted = (*wanted, "--disable-cuda-malloc")  # cudaMallocAsync does not count allocations
    return wanted


def sessions(device: Device, side: TrialSide, names: Sequence[str] = ()) -> list[Session]:
    """The sessions of a side on a device; all of them, or those named."""
    return [
        session
        for session in SESSIONS
        if side in session.sides
        and (device.emulated or not session.emulated_only)
        and (not names or session.name in names)
    ]
