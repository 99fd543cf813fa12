"""What measures the alarms: the probe that takes longer, and what is called missed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from benchmarks import alarms, slower_probe

GOOD: dict[str, Any] = {
    "exact": {"runs": 100, "other figures": 0, "found": {"one copy more": 100, "one wait more": 100}},
    "timed": {"runs": 100, "false alarms": 1, "slowdowns found": 95},
}


def test_it_takes_longer_by_its_share() -> None:
    def busy() -> float:
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        return end

    begin = time.perf_counter()
    slower_probe.slowed(busy, on_gpu=False)()
    assert time.perf_counter() - begin >= 0.02 * (1 + slower_probe.SHARE) * 0.999


def test_on_a_gpu_every_twentieth_run_is_done_twice() -> None:
    ran: list[int] = []
    slower = slower_probe.slowed(ran.append, on_gpu=True)
    for number in range(100):
        slower(number)
    assert len(ran) == 105


def test_nothing_is_missed_at_the_bounds() -> None:
    assert alarms.missed(GOOD) == []
    assert alarms.missed({}) == []


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("exact", {"other figures": 1}, "exact figures differ"),
        ("exact", {"found": {"one wait more": 99}}, "one wait more is not always found"),
        ("timed", {"false alarms": 2}, "more than 1 % false alarms"),
        ("timed", {"slowdowns found": 94}, "less than 95 % of slowdowns found"),
    ],
)
def test_what_is_beyond_is_missed(part: str, changes: dict[str, Any], said: str) -> None:
    assert alarms.missed({**GOOD, part: {**GOOD[part], **changes}}) == [said]
