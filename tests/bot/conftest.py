from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge.engine.convert import Engine
from tests.bot.pack_world import PackWorld, build_packs
from tests.bot.world import World, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Engine]:
    folder = tmp_path_factory.mktemp("bot")
    return folder, build(folder)


@pytest.fixture(scope="session")
def built_packs(built: tuple[Path, Engine], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    build_packs(folder, built[0])
    return folder


@pytest.fixture
def packs(
    built: tuple[Path, Engine],
    built_packs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[PackWorld]:
    shutil.copytree(built[0] / "upstream.git", tmp_path / "world" / "upstream.git")
    for name in ("ours.git", "github"):
        shutil.copytree(built_packs / name, tmp_path / "world" / name)
    pack_world = PackWorld(tmp_path / "world", built[1], monkeypatch, capsys)
    yield pack_world
    pack_world.close()


@pytest.fixture
def world(
    built: tuple[Path, Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[World]:
    for name in ("upstream.git", "ours.git"):
        shutil.copytree(built[0] / name, tmp_path / "world" / name)
    bot_world = World(tmp_path / "world", built[1], monkeypatch, capsys)
    yield bot_world
    bot_world.close()
