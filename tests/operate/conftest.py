"""Servers to look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.operate.servers import FakeComfyUI, FakeOllama


@pytest.fixture
def comfyui() -> Iterator[FakeComfyUI]:
    made = FakeComfyUI()
    with made.running():
        yield made


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    made = FakeOllama()
    with made.running():
        yield made
