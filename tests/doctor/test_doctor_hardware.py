"""What is said of GPUs, drivers, access, libraries and memory."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from patchforge.doctor.facts import FAMILIES, Facts, FactState, Finding, Gpu, InterpreterFacts, Node
from patchforge.doctor.hardware import findings
from tests.doctor.machines import (
    A770,
    ANSWERS,
    B580,
    LIBRARIES,
    LUNAR_LAKE,
    NVIDIA_CARD,
    UHD_630,
    about,
    facts,
    interpreter,
    machine,
    states,
)

BLIND = interpreter(xpu_available=False, device_0=None)


def judged(*gpus: Gpu, torch: InterpreterFacts = BLIND, **more: object) -> list[Finding]:
    return list(findings(Facts(machine(*gpus, **more), torch)))


@pytest.mark.parametrize("gpu", [B580, A770, LUNAR_LAKE], ids=["b580", "a770", "lunar-lake"])
def test_a_machine_in_order_has_nothing_wrong(gpu: Gpu) -> None:
    assert set(states(list(findings(facts(gpu)))).values()) == {FactState.OK}


def test_the_families_do_not_overlap() -> None:
    ranges = sorted((first, last) for first, last, _ in FAMILIES)
    assert all(first <= last for first, last in ranges)
    assert all(span[1] < other[0] for span, other in itertools.pairwise(ranges))


@pytest.mark.parametrize(
    ("driver", "state", "says"),
    [
        ("xe", FactState.OK, ""),
        ("i915", FactState.OK, ""),
        ("", FactState.WRONG, "dmesg"),
        ("vfio-pci", FactState.WRONG, "virtual machine"),
        ("simpledrm", FactState.WRONG, "i915 or xe"),
    ],
)
def test_the_kernel_driver(driver: str, state: FactState, says: str) -> None:
    finding = about(judged(replace(B580, driver=driver)), "kernel driver")
    assert finding.state is state
    assert says in finding.do


@pytest.mark.parametrize(
    ("gpu", "kernel", "driver", "state"),
    [
        (B580, "6.12.0", "xe", FactState.OK),
        (B580, "6.8.0-45-generic", "xe", FactState.WARNING),
        (B580, "6.8.0-45-generic", "", FactState.WRONG),
        (LUNAR_LAKE, "6.11.9", "xe", FactState.WARNING),
        (A770, "6.8.0", "i915", FactState.OK),
        (A770, "5.19.0", "i915", FactState.WARNING),
        (B580, "unreadable", "xe", FactState.OK),
    ],
)
def test_an_old_kernel(gpu: Gpu, kernel: str, driver: str, state: FactState) -> None:
    finding = about(judged(replace(gpu, driver=driver), kernel=kernel), "kernel driver")
    assert finding.state is state
    if gpu is B580 and state is not FactState.OK:
        assert "6.12" in finding.do


def test_a_node_without_permission_names_the_group_and_the_user() -> None:
    closed = (Node("renderD128", usable=False, group="render"),)
    finding = about(judged(B580, render=closed), "render node")
    assert finding.state is FactState.WRONG
    assert "usermod -aG render ann" in finding.do
    assert "extraGroups" in about(judged(B580, render=closed, nixos=True), "render node").do
    assert "--group-add" in about(judged(B580, render=closed, container=True), "render node").do


def test_a_node_that_belongs_to_root_does_not_lead_into_the_group_of_root() -> None:
    finding = about(judged(B580, render=(Node("renderD128", usable=False, group="root"),)), "render node")
    assert "usermod -aG render ann" in finding.do


def test_a_missing_node_is_told_apart_in_a_container() -> None:
    assert "dmesg" in about(judged(B580, render=()), "render node").do
    finding = about(judged(B580, render=(), container=True), "render node")
    assert finding.state is FactState.WRONG
    assert "--device /dev/dri" in finding.do


def test_the_node_of_another_card_does_not_stand_for_intels() -> None:
    nodes = (Node("renderD129", usable=True, group="render"),)
    assert about(judged(B580, NVIDIA_CARD, render=nodes), "render node").state is FactState.WRONG


def test_missing_libraries_are_wrong_unless_torch_finds_the_gpu() -> None:
    assert states(judged(B580, libraries={}))["Level Zero loader"] is FactState.WRONG
    assert states(judged(B580, libraries={}))["Level Zero driver"] is FactState.WRONG
    seen = states(judged(B580, libraries={}, torch=interpreter()))
    assert seen["Level Zero loader"] is seen["Level Zero driver"] is FactState.UNKNOWN
    assert "hardware.graphics" in about(judged(B580, libraries={}, nixos=True), "Level Zero loader").do


def test_a_driver_without_a_compiler() -> None:
    without = {name: path for name, path in LIBRARIES.items() if "igc" not in name}
    assert about(judged(B580, libraries=without), "graphics compiler").state is FactState.WARNING


@pytest.mark.parametrize(
    ("bar", "state"), [(256 << 20, FactState.WARNING), (16 << 30, FactState.OK), (0, FactState.UNKNOWN)]
)
def test_resizable_bar(bar: int, state: FactState) -> None:
    assert about(judged(replace(B580, bar=bar)), "resizable BAR").state is state


def test_an_integrated_gpu_has_no_resizable_bar() -> None:
    assert "resizable BAR" not in states(judged(LUNAR_LAKE))


@pytest.mark.parametrize(
    ("gpus", "ram", "swap", "state"),
    [
        ((LUNAR_LAKE,), 8 << 30, 8 << 30, FactState.WARNING),
        ((LUNAR_LAKE,), 32 << 30, 0, FactState.WARNING),
        ((LUNAR_LAKE,), 32 << 30, 8 << 30, FactState.OK),
        ((B580,), 8 << 30, 0, FactState.OK),
        ((LUNAR_LAKE, B580), 8 << 30, 0, FactState.OK),
        ((), 0, 0, FactState.UNKNOWN),
    ],
)
def test_memory_matters_where_the_gpu_shares_it(gpus: tuple[Gpu, ...], ram: int, swap: int, state: FactState) -> None:
    assert about(judged(*gpus, ram=ram, swap=swap), "RAM").state is state


def test_an_unused_intel_gpu_beside_a_cuda_card_is_not_wrong() -> None:
    torch = interpreter(
        torch={**ANSWERS["torch"], "xpu": False, "cuda": "13.0"}, cuda_available=True, xpu_available=False
    )
    assert FactState.WRONG not in states(judged(LUNAR_LAKE, NVIDIA_CARD, torch=torch, libraries={}, render=())).values()
    assert FactState.WRONG in states(judged(LUNAR_LAKE, NVIDIA_CARD, libraries={}, render=())).values()


def test_a_gpu_too_old_for_torch_is_not_promised_anything() -> None:
    told = judged(UHD_630, libraries={})
    assert states(told)["GPU"] is FactState.UNKNOWN
    assert FactState.WRONG not in states(told).values()


def test_iris_xe_is_not_on_the_list_of_validated_gpus() -> None:
    assert about(judged(replace(LUNAR_LAKE, device=0x46A6)), "GPU").state is FactState.WARNING


def test_wsl_needs_its_device() -> None:
    wsl: dict[str, Any] = {"kernel": "6.6.87-microsoft-standard-WSL2", "pci": True, "render": ()}
    assert about(judged(**wsl, dxg=True), "GPU").state is FactState.OK
    assert about(judged(**wsl, dxg=False), "GPU").state is FactState.WRONG


def test_machines_without_an_intel_gpu() -> None:
    assert "change nothing" in " ".join(finding.text for finding in judged(NVIDIA_CARD))
    assert about(judged(), "GPU").state is FactState.WARNING
    assert about(judged(pci=False, system="freebsd14"), "GPU").state is FactState.UNKNOWN
