"""What a machine has, also where a container or a service has less of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforge.bench.machine import available
from tests.checkout.places import fill

FREE = b"MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n"
ALL = 16000000 << 10
MEM = "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, ALL),
        ("0::/\n", {}, ALL),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": b"max\n", "sys/fs/cgroup/a/b/memory.current": b"9\n"}, ALL),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": b"5000\n", "sys/fs/cgroup/a/b/memory.current": b"2000\n"}, 3000),
        ("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": b"5000\n", "sys/fs/cgroup/a/memory.current": b"2000\n"}, 3000),
        ("0::/\n", {"sys/fs/cgroup/memory.max": b"5000\n", "sys/fs/cgroup/memory.current": b"2000\n"}, 3000),
        (
            "0::/a\n",
            {
                "sys/fs/cgroup/a/memory.max": b"5000\n",
                "sys/fs/cgroup/a/memory.current": b"4000\n",
                "sys/fs/cgroup/a/memory.stat": b"anon 1\nactive_file 7\ninactive_file 500\n",
            },
            1500,
        ),
        (
            "9:name=systemd:/x\n4:cpu,memory:/a\n0::/\n",
            {f"{MEM}/a/memory.limit_in_bytes": b"5000\n", f"{MEM}/a/memory.usage_in_bytes": b"2000\n"},
            3000,
        ),
        ("0::/a\n", {"sys/fs/cgroup/a/memory.max": b"5000\n", "sys/fs/cgroup/a/memory.current": b"6000\n"}, 1),
    ],
)
def test_memory_that_can_be_had(groups: str, files: dict[str, bytes], expected: int, tmp_path: Path) -> None:
    fill(tmp_path, {"proc/meminfo": FREE, "proc/self/cgroup": groups.encode(), **files})
    assert available(tmp_path) == expected


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert available(tmp_path) == 0
