"""What is read from the files of a machine, on miniatures of /sys, /proc, /dev and /usr."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from patchforge.doctor.facts import INTEL
from patchforge.doctor.machine import examine
from tests.doctor.machines import plug_in, render_node, write


def test_an_arc_card_is_found_with_its_driver_nodes_and_bar(tmp_path: Path) -> None:
    gpu = plug_in(tmp_path, "0000:03:00.0", "0x8086", "0xe20b", "xe")
    render_node(tmp_path, gpu)
    lines = ["0x0000000080000000 0x0000000080ffffff 0x0000000000140204", "0x0 0x0 0x0"]
    write(gpu, {"resource": "\n".join([*lines, "0x0000004000000000 0x00000043ffffffff 0x000000000014220c\n"])})
    (card,) = examine(tmp_path, {}).gpus
    assert (card.vendor, card.device, card.driver) == (INTEL, 0xE20B, "xe")
    assert card.nodes == ("card0", "renderD128")
    assert card.bar == 16 << 30
    assert card.family
    assert card.family.name.startswith("Battlemage")
    assert not card.integrated


def test_what_is_no_display_controller_is_no_gpu(tmp_path: Path) -> None:
    plug_in(tmp_path, "0000:00:1f.3", "0x8086", "0x7e28", kind="0x040300")
    plug_in(tmp_path, "0000:04:00.0", "0x8086", "0x56c0", kind="0x038000")  # a Flex card has no display
    assert [gpu.device for gpu in examine(tmp_path, {}).gpus] == [0x56C0]


def test_models_are_named_by_the_driver_or_the_list_of_ids(tmp_path: Path) -> None:
    plug_in(tmp_path, "0000:01:00.0", "0x10de", "0x2684", "nvidia")
    amd = plug_in(tmp_path, "0000:02:00.0", "0x1002", "0x744c", "amdgpu")
    plug_in(tmp_path, "0000:03:00.0", "0x8086", "0x56a0")
    plug_in(tmp_path, "0000:04:00.0", "0x8086", "0x56a1")
    intel = "8086  Intel\n\t1000  Other\n\t\t8086 1  Sub\n\t56a0  DG2 [Arc A770]\n"
    ids = f"1002  AMD\n\t56a0  Not this one\n{intel}ffff  Last\n\t56a1  Nor this\n"
    write(amd, {"product_name": "Imagined Radeon\n"})
    write(
        tmp_path,
        {
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t Imagined GeForce\nIRQ: 1\n",
            "usr/share/hwdata/pci.ids": ids,
        },
    )
    models = [gpu.model for gpu in examine(tmp_path, {}).gpus]
    assert models == ["Imagined GeForce", "Imagined Radeon", "DG2 [Arc A770]", ""]


def test_an_empty_tree_gives_nothing_and_no_error(tmp_path: Path) -> None:
    examined = examine(tmp_path, {})
    assert not examined.pci
    assert (examined.gpus, examined.render, examined.libraries, examined.ram, examined.kernel) == ((), (), {}, 0, "")


def test_the_kernel_is_asked_whether_a_node_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"dev/dri/renderD128": "", "dev/dri/renderD129": "", "dev/dri/card0": ""})
    allowed = {"renderD128": os.R_OK | os.W_OK, "renderD129": os.R_OK}
    monkeypatch.setattr(os, "access", lambda path, mode: allowed[path.name] & mode == mode)
    assert [(node.name, node.usable) for node in examine(tmp_path, {}).render] == [
        ("renderD128", True),
        ("renderD129", False),
    ]


@pytest.mark.parametrize("folder", ["run/opengl-driver/lib", "usr/lib/x86_64-linux-gnu", "usr/lib64"])
def test_libraries_are_found_and_links_followed(tmp_path: Path, folder: str) -> None:
    write(tmp_path, {"store/intel-compute-runtime-25.35/libze_intel_gpu.so.1.6.35096": ""})
    place = tmp_path / folder
    place.mkdir(parents=True)
    target = tmp_path / "store/intel-compute-runtime-25.35/libze_intel_gpu.so.1.6.35096"
    (place / "libze_intel_gpu.so.1").symlink_to(os.path.relpath(target, place))
    (place / "libze_loader.so.1").symlink_to("nowhere")
    libraries = examine(tmp_path, {}).libraries
    assert set(libraries) == {"libze_intel_gpu.so.1"}
    assert libraries["libze_intel_gpu.so.1"].endswith("intel-compute-runtime-25.35/libze_intel_gpu.so.1.6.35096")


def test_the_paths_of_this_machine_do_not_count_for_another_tree(tmp_path: Path) -> None:
    write(tmp_path, {"mine/libze_loader.so.1": ""})
    root = tmp_path / "root"
    root.mkdir()
    examined = examine(root, {"LD_LIBRARY_PATH": str(tmp_path / "mine"), "container": "docker"})
    assert examined.libraries == {}
    assert not examined.container


def test_packages_of_debian_are_read_from_its_database(tmp_path: Path) -> None:
    entry = "Package: {}\nStatus: {}\nVersion: {}\nDescription: about\n Version: not this\n"
    entries = [
        entry.format("libze1", "install ok installed", "1.21.9-1"),
        entry.format("libze-intel-gpu1", "deinstall ok config-files", "25.1"),
        entry.format("zlib1g", "install ok installed", "1.3"),
    ]
    write(tmp_path, {"var/lib/dpkg/status": "\n".join(entries)})
    assert examine(tmp_path, {}).packages == {"libze1": "1.21.9-1"}


def test_memory_is_in_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal:       16000000 kB\nMemAvailable: 8000000 kB\nSwapTotal: 0 kB\n"})
    examined = examine(tmp_path, {})
    assert (examined.ram, examined.available, examined.swap) == (16_000_000 << 10, 8_000_000 << 10, 0)


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv"])
def test_a_container_is_known_by_its_mark(tmp_path: Path, mark: str) -> None:
    assert not examine(tmp_path, {}).container
    write(tmp_path, {mark: ""})
    assert examine(tmp_path, {}).container


def test_wsl_is_known_by_its_kernel(tmp_path: Path) -> None:
    write(tmp_path, {"proc/sys/kernel/osrelease": "6.6.87.2-microsoft-standard-WSL2\n", "dev/dxg": ""})
    examined = examine(tmp_path, {})
    assert examined.wsl
    assert examined.dxg


def test_opencl_drivers_of_others_are_not_intels(tmp_path: Path) -> None:
    write(tmp_path, {"etc/OpenCL/vendors/nvidia.icd": "libnvidia-opencl.so.1"})
    assert not examine(tmp_path, {}).opencl
    write(tmp_path, {"etc/OpenCL/vendors/intel.icd": "libigdrcl.so"})
    assert examine(tmp_path, {}).opencl
