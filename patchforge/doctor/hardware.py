"""Judges GPUs, their kernel driver, access to them, Intel's libraries and memory. Pure functions of the facts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from patchforge.doctor.facts import Facts, FactState, Finding, Gpu, MachineFacts
from patchforge.paths import quoted

_MIB, _GIB = 1 << 20, 1 << 30
#: SDXL's weights are 7 GB in fp16, and an integrated GPU has them beside the CPU's copy.
_ENOUGH_RAM = 15 * _GIB
_SMALL_BAR = 256 * _MIB
_DRIVERS = ("i915", "xe")
#: PyTorch 2.5 of 17 October 2024 was the first with a build for XPUs on Windows (its release notes).
_FIRST_XPU = "2024-10-17"
_BASIC = "Microsoft Basic Display Adapter"  #: what Windows uses where it has no driver
#: Numbers of Device Manager (Microsoft, "Device Manager error messages") that say more than "look there".
_PROBLEMS = {
    22: ("it is disabled", "enable it in Device Manager"),
    28: ("it has no driver", "install Intel's graphics driver for Windows"),
    43: ("Windows stopped it, as it reported a problem", "shut the machine down and start it; then update the driver"),
}
_INSTALL = (
    "install the Intel GPU driver packages of your distribution (compute runtime and Level Zero loader; "
    "Debian and Ubuntu: libze1 libze-intel-gpu1 intel-opencl-icd; Fedora: oneapi-level-zero intel-compute-runtime; "
    "Arch: level-zero-loader intel-compute-runtime)"
)
_INSTALL_WINDOWS = "install Intel's graphics driver for Windows, which brings it"
_INSTALL_NIXOS = (
    "set hardware.graphics.enable = true and "
    "hardware.graphics.extraPackages = [ pkgs.intel-compute-runtime pkgs.level-zero ]"
)


def findings(facts: Facts) -> Iterator[Finding]:
    """All of this module, in the order of a report. Nothing is wrong with an Intel GPU that is not needed."""
    for finding in _findings(facts):
        spare = finding.state is FactState.WRONG and not facts.needs_xpu
        yield replace(finding, state=FactState.WARNING) if spare else finding


def _findings(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    yield from gpus(facts)
    for gpu in machine.intel:
        yield from windows_driver(gpu) if machine.windows else kernel(machine, gpu)
    yield from render_nodes(machine)
    yield from libraries(facts)
    for gpu in machine.intel:
        yield from resizable_bar(machine, gpu)
    yield from memory(machine)


def gpus(facts: Facts) -> Iterator[Finding]:
    """Which GPUs there are. On WSL 2 they are not on the bus: /dev/dxg stands for them."""
    machine = facts.machine
    if machine.wsl:
        yield _wsl(machine)
    elif machine.system == "darwin":
        text = (
            "macOS: PyTorch has no XPU build for it, so ComfyUI uses Apple's GPU, and the patches change nothing there"
        )
        yield Finding("GPU", FactState.NOT_APPLICABLE, text)
    elif machine.windows and not machine.pci:
        why = "; ".join(f"{name}: {text}" for name, text in machine.unread.items())
        do = "Device Manager, under Display adapters, shows the GPUs and their drivers"
        yield Finding("GPU", FactState.UNKNOWN, f"Windows did not tell its GPUs ({why})", do)
    elif not machine.pci:
        text = f"the PCI bus cannot be read on this system ({machine.system})"
        yield Finding("GPU", FactState.UNKNOWN, text, "run patchforge doctor on the Linux machine that has the GPU")
    elif not machine.gpus:
        yield Finding("GPU", FactState.WARNING, "no GPU on the PCI bus", "without one, start ComfyUI with --cpu")
    for gpu in machine.gpus:
        yield _gpu(gpu)
    if machine.gpus and not machine.intel:
        yield Finding("GPU", FactState.OK, "no Intel GPU: patchforge's patches change nothing on this machine")


def _wsl(machine: MachineFacts) -> Finding:
    if machine.dxg:
        return Finding("GPU", FactState.OK, "WSL 2 with /dev/dxg: GPUs are reached through the Windows driver")
    do = "update the GPU driver in Windows, then: wsl --update, wsl --shutdown"
    return Finding("GPU", FactState.WRONG, "WSL 2 without /dev/dxg: no GPU reaches Linux", do)


def _gpu(gpu: Gpu) -> Finding:
    if not gpu.intel:
        return Finding("GPU", FactState.OK, f"{gpu}, driver {gpu.driver or gpu.version or 'none'}")
    kind = "integrated" if gpu.integrated else "discrete"
    if gpu.family is None:
        text = f"{gpu} ({kind}) is older or newer than the GPUs that patchforge knows"
        return Finding("GPU", FactState.UNKNOWN, text, "see whether PyTorch's page on Intel GPUs lists it")
    text = f"{gpu}: {gpu.family.name}, {kind}"
    if not gpu.family.validated:
        do = "expect trouble: users report bfloat16 errors on Iris Xe; --fp16-unet --fp32-vae helped there"
        return Finding("GPU", FactState.WARNING, f"{text}; not among the GPUs that PyTorch is validated on", do)
    return Finding("GPU", FactState.OK, text)


def kernel(machine: MachineFacts, gpu: Gpu) -> Iterator[Finding]:
    """The kernel driver of one Intel GPU. An old kernel with a bound driver is a backport, and only worth a word."""
    wanted = gpu.family.kernel if gpu.family else None
    old = wanted is not None and _version(machine.kernel) < wanted
    since = f"Linux {wanted[0]}.{wanted[1]}" if wanted else ""
    if gpu.driver in _DRIVERS:
        if old:
            text = f"{gpu.driver} is bound, but Linux {machine.kernel} is older than the first that takes it by itself"
            yield Finding("kernel driver", FactState.WARNING, f"{gpu}: {text}", f"prefer {since} or later")
        else:
            yield Finding("kernel driver", FactState.OK, f"{gpu}: {gpu.driver}, Linux {machine.kernel}")
    elif gpu.driver.startswith("vfio") or gpu.driver == "pci-stub":
        text = f"{gpu}: {gpu.driver} holds it for a virtual machine"
        do = "run ComfyUI in that virtual machine, or remove the vfio-pci binding (kernel command line, modprobe.d)"
        yield Finding("kernel driver", FactState.WRONG, text, do)
    elif gpu.driver:
        yield Finding("kernel driver", FactState.WRONG, f"{gpu}: bound to {gpu.driver}", "bind it to i915 or xe")
    else:
        do = f"use {since} or later" if old else "load i915 or xe; dmesg says why it did not (firmware, nomodeset)"
        yield Finding("kernel driver", FactState.WRONG, f"{gpu}: no driver is bound, Linux {machine.kernel}", do)


def windows_driver(gpu: Gpu) -> Iterator[Finding]:
    """Windows' driver of one Intel GPU."""
    if gpu.problem or gpu.model == _BASIC:
        usual = (f"Device Manager reports problem {gpu.problem}", "look there, and update the driver")
        text, do = _PROBLEMS.get(gpu.problem or 28, usual)
        yield Finding("driver", FactState.WRONG, f"{gpu}: {text}", do)
        return
    text = f"{gpu}: {gpu.version or 'of a version that Windows does not tell'}"
    text += f" of {gpu.date}" if gpu.date else ""
    if gpu.date and gpu.date < _FIRST_XPU:
        text += ", older than PyTorch's first XPU build for Windows"
        yield Finding("driver", FactState.WARNING, text, "update it, from Intel or the maker of the machine")
    else:
        yield Finding("driver", FactState.OK, text)


def _version(release: str) -> tuple[int, ...]:
    """(6, 12) of 6.12.5-arch1-1; higher than any where the kernel is not known."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (1 << 30,)


def render_nodes(machine: MachineFacts) -> Iterator[Finding]:
    """/dev/dri/renderD*, and whether this user may use those of Intel GPUs."""
    bound = [gpu for gpu in machine.intel if gpu.driver in _DRIVERS]
    if not bound:
        return
    wanted = {name for gpu in bound for name in gpu.nodes if name.startswith("renderD")}
    there = [node for node in machine.render if node.name in wanted or not wanted]
    for name in sorted(wanted - {node.name for node in there}) or ([] if there else ["renderD*"]):
        yield _missing(machine, name)
    for node in there:
        if node.usable:
            yield Finding(
                "render node", FactState.OK, f"/dev/dri/{node.name} can be used by {machine.user or 'this user'}"
            )
        else:
            yield _closed(machine, node.name, node.group)


def _missing(machine: MachineFacts, name: str) -> Finding:
    text = f"/dev/dri/{name} is not there"
    if machine.container:
        text += ": the GPU is not passed into this container"
        group = '--group-add "$(stat -c %g /dev/dri/renderD128)"'
        do = f"docker or podman: run --device /dev/dri {group}; Kubernetes: Intel's GPU device plugin"
        return Finding("render node", FactState.WRONG, text, do)
    do = "dmesg says why the kernel driver made none (firmware, nomodeset, a display-only virtual function)"
    return Finding("render node", FactState.WRONG, text, do)


def _closed(machine: MachineFacts, name: str, group: str) -> Finding:
    text = f"/dev/dri/{name} may not be read and written by {machine.user or 'this user'} (group {group or 'unknown'})"
    if machine.container:
        return Finding(
            "render node", FactState.WRONG, text, "start the container with --group-add and that group's number"
        )
    group = group if group not in {"", "root", "nogroup"} else "render"
    if machine.nixos:
        do = f'add "{group}" to users.users.{machine.user or "NAME"}.extraGroups, rebuild and log in again'
    else:
        do = f"sudo usermod -aG {group} {quoted(machine.user) if machine.user else '$USER'}, then log in again"
    return Finding("render node", FactState.WRONG, text, do)


def libraries(facts: Facts) -> Iterator[Finding]:
    """Level Zero's loader and Intel's driver for it. What torch finds counts more than where we looked."""
    machine = facts.machine
    if not machine.intel and not (machine.wsl and facts.interpreter.xpu_build):
        return
    do = _INSTALL_WINDOWS if machine.windows else _INSTALL_NIXOS if machine.nixos else _INSTALL
    linux = (("libze_loader.so.1", "Level Zero loader"), ("libze_intel_gpu.so.1", "Level Zero driver"))
    for name, what in (("ze_loader.dll", "Level Zero loader"),) if machine.windows else linux:
        if name in machine.libraries:
            yield Finding(what, FactState.OK, machine.libraries[name])
        elif facts.interpreter.sees_xpu:
            text = f"{name} is not in the usual folders, but torch finds its GPU, so it is elsewhere"
            yield Finding(what, FactState.UNKNOWN, text)
        else:
            yield Finding(what, FactState.WRONG, f"{name} was not found", do)
    if machine.windows:
        return
    if "libze_intel_gpu.so.1" in machine.libraries and not any("libigc" in name for name in machine.libraries):
        text = "libigc was not found: the driver cannot compile kernels without Intel's graphics compiler"
        yield Finding("graphics compiler", FactState.WARNING, text, do)
    opencl = "names Intel's driver" if machine.opencl else "does not name Intel's driver; PyTorch does not need it"
    yield Finding("OpenCL", FactState.OK, f"/etc/OpenCL/vendors {opencl}")
    if machine.packages:
        text = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
        yield Finding("driver packages", FactState.OK, text)


def resizable_bar(machine: MachineFacts, gpu: Gpu) -> Iterator[Finding]:
    """Whether the CPU sees more than 256 MiB of a discrete card's memory at once.

    Windows lists a card's ranges of memory; one that is smaller than the window ever was says nothing of it.
    """
    if gpu.integrated or (machine.windows and gpu.problem):
        return
    if machine.windows and gpu.bar < _SMALL_BAR:
        do = "Device Manager, its Properties, Resources: a Large Memory Range there says that it is on"
        yield Finding("resizable BAR", FactState.UNKNOWN, f"{gpu}: Windows does not tell the window to its memory", do)
    elif not gpu.bar:
        yield Finding("resizable BAR", FactState.UNKNOWN, f"{gpu}: the size of BAR 2 cannot be read")
    elif gpu.bar <= _SMALL_BAR:
        text = f"{gpu}: off; the CPU sees {gpu.bar // _MIB} MiB of its memory at a time, which slows transfers"
        do = "enable Above 4G Decoding and Resizable BAR in the firmware set-up, and disable CSM"
        yield Finding("resizable BAR", FactState.WARNING, text, do)
    else:
        yield Finding("resizable BAR", FactState.OK, f"{gpu}: on, {gpu.bar / _GIB:.0f} GiB")


def memory(machine: MachineFacts) -> Iterator[Finding]:
    """RAM and swap. An integrated GPU takes its memory from the same RAM, beside the CPU's copy of the weights."""
    if not machine.ram:
        where = "Windows did not tell it" if machine.windows else "/proc/meminfo cannot be read"
        if machine.system != "darwin":
            yield Finding("RAM", FactState.UNKNOWN, where)
        return
    ram, available, swap = (f"{size / _GIB:.1f} GiB" for size in (machine.ram, machine.available, machine.swap))
    text = f"{ram}, {available} available; {'page file' if machine.windows else 'swap'} {swap}"
    shared = bool(machine.intel) and all(gpu.integrated for gpu in machine.intel)
    if shared and machine.ram < _ENOUGH_RAM:
        do = "use small models (SD 1.5) or quantised ones, and have swap; close what else needs memory"
        text += "; an integrated GPU shares it, and weights are there twice"
        yield Finding("RAM", FactState.WARNING, text, do)
    elif shared and not machine.swap:
        text += "; an integrated GPU shares it"
        do = "without swap, Linux ends ComfyUI when the RAM is full: add some"
        if machine.windows:
            do = "let Windows manage the size of its page file: without one, ComfyUI fails when the RAM is full"
        yield Finding("RAM", FactState.WARNING, text, do)
    else:
        yield Finding("RAM", FactState.OK, text)
