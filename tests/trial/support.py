"""What several tests of trials need: waiting, whether a process has ended, workflows and releases of the miniature."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from patchforge import bounded
from patchforge.pipeline import PatchedRelease
from patchforge.trial.model import Workflow
from patchforge.trial.server import comfyui
from patchforge.vocabulary import FileChange, Purpose, Segment, split_lines
from tests.support import MemoryTree, engine_of, release
from tests.trial import miniature_server


def wait_until(holds: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def hanging(monkeypatch: pytest.MonkeyPatch, log: Callable[[], Path]) -> None:
    """The time of a server that hangs is up once its log says so, and not before, however slow the machine is."""

    def now() -> float:
        return time.monotonic() + (1e6 if "hanging" in bounded.head(log()) else 0)

    monkeypatch.setattr(comfyui, "time", SimpleNamespace(monotonic=now, sleep=time.sleep))


def dead(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not listed.strip() or listed.strip().startswith("Z")


def workflow_of(name: str, graph: miniature_server.Graph, computes: Mapping[str, int], *outputs: str) -> Workflow:
    return Workflow(name, name, graph, computes, outputs)


#: What the miniature's nodes take: 2 steps of 60 operations, and 63 for decoding.
TXT2IMG = workflow_of("txt2img", miniature_server.txt2img(), {"2": 100, "3": 50}, "4")
#: Needs no torch.
NOISE = workflow_of("noise", miniature_server.noise(), {"1": 1}, "2")

#: A node pack of one node, which does nothing.
COPY = """
class Copy:
    FUNCTION = "copy"

    def copy(self, images):
        return (images,)


NODE_CLASS_MAPPINGS = {"Copy": Copy}
"""


def release_of(
    before: Mapping[str, bytes], after: Mapping[str, bytes] | None = None, name: str = "v9.0.0"
) -> PatchedRelease:
    """A release of ``before``, whose patches make it ``after``."""
    conversion = engine_of(()).convert(release(name), MemoryTree(before))
    changes = [
        FileChange(path, before[path], data, (_whole(before[path], data),))
        for path, data in sorted((after or before).items())
        if before[path] != data
    ]
    return PatchedRelease(conversion, {Purpose.DEVICE: changes} if changes else {}, ())


def _whole(before: bytes, after: bytes) -> Segment:
    return Segment(0, len(split_lines(before)), tuple(split_lines(after)))
