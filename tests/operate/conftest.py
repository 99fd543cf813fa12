"""Servers to look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.operate.servers import ComfyUI, Ollama


@pytest.fixture
def comfyui() -> Iterator[ComfyUI]:
    made = ComfyUI()
    with made.running():
        yield made


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    made = Ollama()
    with made.running():
        yield made
