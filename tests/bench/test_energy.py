"""Energy and memory from counters, on trees that are like the kernel's: right to 1 %, or not measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge.bench import energy, memory
from patchforge.bench.energy import Meter, MeterReading
from patchforge.bench.model import EnergyUse

CARD = "0000:03:00.0"
OTHER = "0000:0b:00.0"
MICRO = 1_000_000


class Tree:
    """A /sys in which time passes as it is told to."""

    def __init__(self, top: Path) -> None:
        self.top, self.now = top, 0.0
        self.powers: list[tuple[Path, float, int, float]] = []  #: file, watts, where it begins anew (µJ), µJ so far
        (top / "class" / "hwmon").mkdir(parents=True)
        (top / "class" / "powercap").mkdir()

    def card(self, driver: str, address: str, **watts: float) -> Path:
        """A GPU's hwmon folder; watts by file."""
        device = self.top / "devices" / address
        folder = device / "hwmon" / f"hwmon{len(list((self.top / 'class' / 'hwmon').iterdir()))}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{driver}\n")
        (folder / "device").symlink_to(device)
        (self.top / "class" / "hwmon" / folder.name).symlink_to(folder)
        for file, power in watts.items():
            self.counter(folder / file, power)
        return folder

    def rapl(self, name: str, watts: float, *, most: int, place: str = "intel-rapl:0", begin: float = 0) -> Path:
        folder = self.top / "class" / "powercap" / place
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{most}\n")
        self.counter(folder / "energy_uj", watts, wrap=most, begin=begin)
        return folder

    def counter(self, file: Path, watts: float, *, wrap: int = 1 << 64, begin: float = 123456789) -> None:
        self.powers.append((file, watts, wrap, begin))
        file.write_text(f"{int(begin)}\n")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for file, watts, wrap, begin in self.powers:
            if file.exists():
                file.write_text(f"{int(begin + watts * self.now * MICRO) % wrap}\n")

    def measured(self, meters: list[Meter], seconds: float = 60, looks: int = 600) -> dict[str, EnergyUse]:
        """By meter, of a time that is looked at ``looks`` times."""
        reading = MeterReading(meters, every=0, clock=lambda: self.now)
        with reading:
            for _ in range(looks):
                self.pass_time(seconds / looks)
                reading.look()
        return {use.meter: use for use in reading.found()}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "sys")


def close(value: float) -> object:
    return pytest.approx(value, rel=0.01)


@pytest.mark.parametrize("driver", ["xe", "i915"])
def test_a_card_by_hwmon(tree: Tree, driver: str) -> None:
    tree.card(driver, CARD, energy1_input=120, energy2_input=90)
    (use,) = tree.measured(energy.meters("xpu", tree.top)).values()
    assert use.meter == f"{driver} {CARD} card"
    assert (use.joules, use.seconds, use.watts) == (close(7200), close(60), close(120))
    assert (use.runs, use.joules_per_run) == (1, use.joules)


def test_the_package_where_the_card_has_no_counter(tree: Tree) -> None:
    tree.card("xe", CARD, energy2_input=90)
    (use,) = tree.measured(energy.meters("xpu", tree.top)).values()
    assert (use.meter, use.watts) == (f"xe {CARD} package", close(90))


def test_two_cards_are_kept_apart(tree: Tree) -> None:
    tree.card("xe", CARD, energy1_input=200)
    tree.card("i915", OTHER, energy1_input=35)
    tree.card("nvme", "0000:01:00.0", energy1_input=5)
    every = tree.measured(energy.meters("xpu", tree.top))
    assert {name: use.watts for name, use in every.items()} == {
        f"xe {CARD} card": close(200),
        f"i915 {OTHER} card": close(35),
    }
    (use,) = tree.measured(energy.meters("xpu", tree.top, frozenset({OTHER}))).values()
    assert (use.meter, use.watts) == (f"i915 {OTHER} card", close(35))


@pytest.mark.parametrize("wrap", [1 << 32, 1 << 64])
def test_a_counter_begins_anew(tree: Tree, wrap: int) -> None:
    folder = tree.card("i915", CARD)
    tree.counter(folder / "energy1_input", 250, wrap=wrap, begin=wrap - 3000 * MICRO)
    (use,) = tree.measured(energy.meters("xpu", tree.top), seconds=60).values()
    assert use.joules == close(15000)


def test_the_processor_begins_anew_where_it_says(tree: Tree) -> None:
    most = 262_143_328_850
    tree.rapl("package-0", 65, most=most, begin=most - 100 * MICRO)
    tree.rapl("core", 40, most=most, place="intel-rapl:0:0")
    tree.rapl("psys", 90, most=most, place="intel-rapl:1")
    (use,) = tree.measured(energy.meters("cpu", tree.top)).values()
    assert (use.meter, use.joules) == ("rapl package-0", close(3900))


def test_both_of_two_sockets(tree: Tree) -> None:
    tree.rapl("package-0", 65, most=1 << 38)
    tree.rapl("package-1", 30, most=1 << 38, place="intel-rapl:1")
    uses = tree.measured(energy.meters("cpu", tree.top))
    assert [use.watts for use in uses.values()] == [close(65), close(30)]


def test_a_counter_that_was_reset_is_not_measured(tree: Tree) -> None:
    """A step back is no wrap-around of thousands of watts, as others have told."""
    folder = tree.card("xe", CARD, energy1_input=100)
    reading = MeterReading(energy.meters("xpu", tree.top), every=0, clock=lambda: tree.now)
    with reading:
        tree.pass_time(1)
        reading.look()
        tree.now += 1
        (folder / "energy1_input").write_text("17\n")
    assert reading.found() == ()


def gone(folder: Path) -> None:
    (folder / "energy1_input").unlink()


def nonsense(folder: Path) -> None:
    (folder / "energy1_input").write_text("unknown\n")


@pytest.mark.parametrize("how", [gone, nonsense])
def test_a_file_that_goes_is_not_measured(tree: Tree, how: Callable[[Path], None]) -> None:
    folder = tree.card("xe", CARD, energy1_input=100)
    meters = energy.meters("xpu", tree.top)
    reading = MeterReading(meters, every=0, clock=lambda: tree.now)
    with reading:
        tree.pass_time(1)
        reading.look()
        how(folder)
    assert reading.found() == ()
    assert energy.meters("xpu", tree.top) == []


def test_a_counter_that_stands_still_says_nothing(tree: Tree) -> None:
    tree.card("xe", CARD, energy1_input=0)
    assert tree.measured(energy.meters("xpu", tree.top)) == {}


def test_a_machine_without_any(tmp_path: Path) -> None:
    assert energy.meters("xpu", tmp_path) == energy.meters("cpu", tmp_path) == []


def test_a_processor_is_no_gpu(tree: Tree) -> None:
    tree.card("xe", CARD, energy1_input=120)
    assert energy.meters("cpu", tree.top) == []


def test_pauses_between_runs_are_not_in_it(tree: Tree) -> None:
    tree.card("xe", CARD, energy1_input=100)
    reading = MeterReading(energy.meters("xpu", tree.top), every=0, clock=lambda: tree.now)
    for _ in range(4):
        with reading:
            tree.pass_time(2)
        tree.pass_time(50)
    (use,) = reading.found()
    assert (use.joules, use.seconds, use.joules_per_run, use.runs) == (close(800), 8, close(200), 4)


def test_a_thread_looks_as_well() -> None:
    """A counter that begins anew after ten joules is followed, although it does so many times."""
    joules = iter(range(0, 10**6, 3))
    looked = [0]

    def read() -> float:
        looked[0] += 1
        return next(joules) % 10

    reading = MeterReading([Meter("it", read, 1.0, 10.0)], every=0.001)
    with reading:
        while looked[0] < 50:
            time.sleep(0.002)
    (use,) = reading.found()
    assert use.joules == 3 * (looked[0] - 1)


def files(folder: Path, **texts: str) -> None:
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)


XE = f"pos:\t0\ndrm-client-id:\t7\ndrm-pdev:\t{CARD}\ndrm-total-vram0:\t2048 MiB\ndrm-total-gtt:\t9 MiB\n"
I915 = f"drm-driver: i915\ndrm-client-id: 8\ndrm-pdev: {OTHER}\ndrm-total-local0: 3 KiB\n"


def test_vram_of_a_process_is_counted_once_for_each_client(tmp_path: Path) -> None:
    files(tmp_path / "12" / "fdinfo", a=XE, b=XE, c=I915, d="pos:\t0\n")
    assert memory.vram(12, tmp_path) == (2048 << 20) + (3 << 10)
    assert memory.addresses(12, tmp_path) == {CARD, OTHER}


@pytest.mark.parametrize("text", ["pos:\t0\n", "drm-driver: xe\ndrm-total-vram0: much\n", ""])
def test_vram_that_nobody_tells(tmp_path: Path, text: str) -> None:
    files(tmp_path / "12" / "fdinfo", a=text)
    assert memory.vram(12, tmp_path) is None
    assert memory.vram(13, tmp_path) is None


def test_ram_of_a_process(tmp_path: Path) -> None:
    files(tmp_path / "12", status="Name:\tpython\nVmRSS:\t  2048 kB\n")
    assert memory.resident(12, tmp_path) == 2 << 20
    assert memory.resident(13, tmp_path) is None


def test_the_highest_of_all_looks_is_kept() -> None:
    sizes = iter([3, 9, None, 4])
    reading = MeterReading((), {"VRAM": lambda: next(sizes), "RAM": lambda: None}, every=0)
    with reading:
        reading.look()
        reading.look()
    assert [(peak.what, peak.peak) for peak in reading.peaks()] == [("VRAM", 9)]
