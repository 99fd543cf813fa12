"""GPUs as the exporter reads them, on trees that are like the kernel's."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge.operate.hardware import Reader
from patchforge.operate.metrics import checked
from tests.operate import trees
from tests.operate.trees import A770, B580, COMFYUI, GIB, LUNAR_LAKE, OLLAMA, Machine

Values = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def reader(machine: Machine, stale: float = 30) -> Reader:
    return Reader(machine.root, stale=stale, clock=lambda: 1000 + machine.now)


def values(of: Reader) -> Values:
    told: Values = {}
    for sample in checked(of.collect()):
        assert sample.labels not in told.setdefault(sample.name, {}), sample
        told[sample.name][sample.labels] = sample.value
    return told


def sampled(machine: Machine, seconds: float = 10, times: int = 2) -> Values:
    of = reader(machine)
    of.sample()
    for _ in range(times - 1):
        machine.pass_time(seconds)
        of.sample()
    return values(of)


def test_a770_by_i915(machine: Machine) -> None:
    machine.a770(watts=150)
    told = sampled(machine)
    assert told["hw_gpu_info"] == {(A770, "i915", "0x56a0"): 1}
    assert told["hw_energy_joules_total"] == {(A770, "card"): pytest.approx(5000 + 1500)}
    assert told["hw_power_watts"] == {(A770, "card"): pytest.approx(150)}
    assert told["hw_power_limit_watts"] == {(A770, "card"): 190}
    assert told["hw_temperature_celsius"] == {(A770, "gpu"): 61}
    assert told["hw_voltage_volts"] == {(A770, "gpu"): 0.94}
    assert told["hw_fan_speed_rpm"] == {(A770, "fan1"): 1210}
    assert told["hw_frequency_hertz"] == {(A770, "gpu"): 2.1e9}
    assert told["hw_frequency_limit_hertz"] == {(A770, "gpu", "max"): 2.4e9, (A770, "gpu", "min"): 3e8}
    status = told["hw_frequency_throttle_status"]
    assert {reason for (_, _, reason), value in status.items() if value} == {"any", "thermal"}
    assert len(status) == 1 + len(trees.REASONS)
    assert "hw_memory_size_bytes" not in told
    assert "hw_errors_total" not in told  # i915 leaves no dump that can be counted


def test_b580_by_xe(machine: Machine) -> None:
    machine.b580(card=140, package=110)
    machine.held(COMFYUI, B580, 5 * GIB, str(8 * GIB))
    machine.held(OLLAMA, B580, 2 * GIB)
    told = sampled(machine)
    assert told["hw_gpu_info"] == {(B580, "xe", "0xe20b"): 1}
    assert told["hw_power_watts"] == {(B580, "card"): pytest.approx(140), (B580, "package"): pytest.approx(110)}
    assert told["hw_power_limit_watts"] == {(B580, "card"): 190, (B580, "package"): 160}
    assert told["hw_temperature_celsius"] == {(B580, "gpu"): 58, (B580, "memory"): 72}
    assert told["hw_voltage_volts"] == {(B580, "card"): 0.865}
    assert told["hw_frequency_hertz"] == {(B580, "gpu"): 2.85e9, (B580, "media"): 1.45e9}
    assert set(told["hw_frequency_throttle_status"].values()) == {0}
    assert told["hw_memory_size_bytes"] == {(B580, "device"): 12 * GIB}
    assert told["hw_memory_usage_bytes"] == {(B580, "device"): 7 * GIB}
    assert told["patchforge_service_vram_bytes"] == {(COMFYUI, B580): 5 * GIB, (OLLAMA, B580): 2 * GIB}
    assert told["patchforge_service_vram_limit_bytes"] == {(COMFYUI, B580): 8 * GIB}
    assert told["hw_errors_total"] == {(B580, "engine_reset"): 0}


def test_lunar_lake_has_neither_sensors_nor_memory_of_its_own(machine: Machine) -> None:
    machine.lunar_lake()
    told = sampled(machine)
    assert told["hw_gpu_info"] == {(LUNAR_LAKE, "xe", "0x64a0"): 1}
    assert told["hw_frequency_hertz"] == {(LUNAR_LAKE, "gpu"): 1.95e9, (LUNAR_LAKE, "media"): 0}
    assert not {"hw_energy_joules_total", "hw_power_watts", "hw_temperature_celsius", "hw_memory_size_bytes"} & set(
        told
    )


def test_two_cards_are_kept_apart(machine: Machine) -> None:
    machine.a770(watts=100)
    machine.b580(card=200, package=150)
    machine.held(COMFYUI, B580, GIB)
    machine.process(70, OLLAMA, trees.i915(A770, 4, 0, vram_kib=4 << 20))
    told = sampled(machine)
    assert {key[0]: value for key, value in told["hw_power_watts"].items() if key[1] == "card"} == {
        A770: pytest.approx(100),
        B580: pytest.approx(200),
    }
    assert told["hw_memory_usage_bytes"] == {(A770, "device"): 4 * GIB, (B580, "device"): GIB}
    assert told["patchforge_service_vram_bytes"] == {(OLLAMA, A770): 4 * GIB, (COMFYUI, B580): GIB}


def test_another_makers_gpu_is_left_out(machine: Machine) -> None:
    (machine.b580() / "vendor").write_text("0x10de\n")
    assert values(reader(machine)) == {}


@pytest.mark.parametrize("wrap", [1 << 32, 1 << 64])
def test_a_counter_that_begins_anew_is_followed(machine: Machine, wrap: int) -> None:
    """At 250 W a counter of 32 bits does so every 17 seconds."""
    machine.b580(card=250, package=100, wrap=wrap, begin=wrap - 800 * trees.MICRO)
    of = reader(machine)
    of.sample()
    before = values(of)["hw_energy_joules_total"][B580, "card"]
    for _ in range(24):
        machine.pass_time(5)
        of.sample()
    told = values(of)
    assert told["hw_energy_joules_total"][B580, "card"] - before == pytest.approx(250 * 120, rel=1e-6)
    assert told["hw_power_watts"][B580, "card"] == pytest.approx(250, rel=1e-6)


@pytest.mark.parametrize("begin", [9e9, 2e8], ids=["far", "near"])
def test_a_counter_that_was_reset_begins_again_and_gives_no_watts(machine: Machine, begin: float) -> None:
    """As by a suspend: Prometheus knows a counter that falls as one that began anew."""
    device = machine.b580(card=100, begin=begin)
    of = reader(machine)
    for _ in range(3):
        machine.pass_time(5)
        of.sample()
    trees.put(device / "hwmon/hwmon5/energy1_input", 7 * trees.MICRO)
    machine.counters.clear()
    machine.pass_time(5)
    of.sample()
    told = values(of)
    assert told["hw_energy_joules_total"][B580, "card"] == pytest.approx(7)
    assert (B580, "card") not in told["hw_power_watts"]


def test_a_reading_between_samples_is_no_power(machine: Machine) -> None:
    """Watts are of samples, whoever asks in between, and how often."""
    machine.b580(card=120)
    of = reader(machine)
    of.sample()
    machine.pass_time(4)
    of.sample()
    for _ in range(5):
        machine.pass_time(0.01)
        assert values(of)["hw_power_watts"][B580, "card"] == pytest.approx(120, rel=1e-6)


def test_clients_are_counted_once(machine: Machine) -> None:
    """Files of one client, also in two processes, are one; a client of the same number on another card is another."""
    machine.a770()
    machine.b580()
    both = trees.i915(A770, 7, 0, vram_kib=1 << 20)
    machine.process(10, COMFYUI, both, both, trees.xe(B580, 7, 100, 1000))
    machine.process(11, COMFYUI, both)
    of = reader(machine)
    of.sample()
    machine.pass_time(10)
    busy = trees.i915(A770, 7, 4_000_000_000, vram_kib=1 << 20)
    machine.process(10, COMFYUI, busy, busy, trees.xe(B580, 7, 350, 2000))
    machine.process(11, COMFYUI, busy)
    of.sample()
    told = values(of)
    assert told["hw_gpu_utilization_ratio"] == {
        (A770, "compute-all"): pytest.approx(0.4),
        (A770, "render-all"): 0,
        (A770, "all"): pytest.approx(0.4),
        (B580, "compute-all"): pytest.approx(0.25),
        (B580, "all"): pytest.approx(0.25),
    }
    assert told["patchforge_service_vram_bytes"][COMFYUI, A770] == GIB


def test_clients_add_up_and_their_capacity_counts(machine: Machine) -> None:
    machine.b580()

    def show(busy: int, total: int) -> None:
        for pid in (10, 11):
            text = trees.xe(B580, pid, busy, total).replace("capacity-ccs:\t1", "capacity-ccs:\t4")
            machine.process(pid, COMFYUI, text)

    of = reader(machine)
    show(0, 0)
    of.sample()
    machine.pass_time(10)
    show(1000, 1000)
    of.sample()
    assert values(of)["hw_gpu_utilization_ratio"][B580, "compute-all"] == pytest.approx(0.5)


def test_engine_resets_are_counted_while_their_dumps_come_and_go(machine: Machine) -> None:
    device = machine.b580()
    other = machine.lunar_lake()
    of = reader(machine)
    of.sample()
    machine.reset(device, 1)
    of.sample()
    of.sample()
    shutil.rmtree(machine.root / "sys/class/devcoredump/devcd1")
    machine.reset(device, 2)
    of.sample()
    assert values(of)["hw_errors_total"] == {(B580, "engine_reset"): 2, (LUNAR_LAKE, "engine_reset"): 0}
    machine.reset(other, 3)
    of.sample()
    assert values(of)["hw_errors_total"][LUNAR_LAKE, "engine_reset"] == 1


def test_what_was_sampled_long_ago_is_not_told(machine: Machine) -> None:
    machine.b580()
    machine.held(COMFYUI, B580, GIB)
    of = reader(machine, stale=30)
    of.sample()
    machine.pass_time(5)
    of.sample()
    assert "hw_power_watts" in values(of)
    machine.pass_time(31)
    told = values(of)
    assert not {"hw_power_watts", "patchforge_service_vram_bytes", "hw_gpu_utilization_ratio"} & set(told)
    assert told["hw_temperature_celsius"]


def gone(machine: Machine) -> None:
    shutil.rmtree(machine.root / "sys/devices")


def unbound(machine: Machine) -> None:
    (machine.root / f"sys/devices/pci0000:00/{B580}/driver").unlink()


def no_card(machine: Machine) -> None:
    shutil.rmtree(machine.root / "sys/class/drm")


@pytest.mark.parametrize("how", [gone, unbound, no_card])
def test_a_gpu_that_goes_is_told_no_more(machine: Machine, how: Callable[[Machine], None]) -> None:
    machine.b580()
    of = reader(machine)
    of.sample()
    machine.pass_time(5)
    of.sample()
    how(machine)
    assert not any(B580 in key for by_label in values(of).values() for key in by_label)
    of.sample()


NONSENSE = ("", "\n", "unknown", "-1", "9" * 40, "0x10", "\x00\x01", "1e9", "nan", "12 13", "é")


@pytest.mark.parametrize("text", NONSENSE, ids=repr)
def test_files_of_nonsense_are_less_and_no_error(machine: Machine, text: str) -> None:
    machine.b580()
    machine.a770()
    machine.held(COMFYUI, B580, GIB)
    machine.process(10, COMFYUI, trees.xe(B580, 1, 1, 10), trees.i915(A770, 1, 5))
    of = reader(machine)
    of.sample()
    links = {"name", "driver", "vendor", "device"}
    for file in machine.root.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.name not in links:
            file.write_text(text)
    of.sample()
    for name, by_label in values(of).items():
        for value in by_label.values():
            assert 0 <= value < 1e18 or name.startswith(("hw_temperature", "hw_voltage")), name


def test_files_that_vanish_while_they_are_read(machine: Machine) -> None:
    """Another thread takes away and puts back, again and again."""
    machine.b580()
    machine.a770()
    machine.held(COMFYUI, B580, GIB)
    ended = threading.Event()
    away = machine.root.with_name("away")

    def disturb() -> None:
        places = [
            machine.root / place for place in ("sys/class/drm", f"sys/devices/pci0000:00/{B580}", "sys/fs/cgroup")
        ]
        while not ended.is_set():
            for place in places:
                place.rename(away)
                away.rename(place)

    of = reader(machine)
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        seen = set()
        for pid in range(60):
            machine.process(pid, COMFYUI, trees.xe(B580, pid, pid, 10))
            of.sample()
            seen.add(len(values(of)))
            shutil.rmtree(machine.root / f"proc/{pid}")
    finally:
        ended.set()
        thread.join()
    assert values(of)["hw_gpu_info"].keys() == {(A770, "i915", "0x56a0"), (B580, "xe", "0xe20b")}


def test_a_machine_without_any_of_it(tmp_path: Path) -> None:
    of = Reader(tmp_path / "nothing")
    of.sample()
    assert list(of.collect()) == []
