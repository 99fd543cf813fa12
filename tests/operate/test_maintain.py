"""``patchforge maintain``: what goes and what stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from patchforge import symlinks
from patchforge.cli import main
from patchforge.errors import Exit
from patchforge.inside import Inside
from patchforge.operate import upkeep
from tests.support import bound

DAY = 86400


def put(path: Path, days: float, size: int = 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def test_old_outputs_go_and_new_ones_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = put(tmp_path / "output/a/old.png", 40), put(tmp_path / "output/new.png", 3)
    (tmp_path / "models").mkdir()
    words = ["maintain", str(tmp_path), "--output-age", "30", "--json"]
    assert main([*words, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert old.exists()
    assert main(words) == 0
    done = json.loads(capsys.readouterr().out)
    assert not old.exists()
    assert new.exists()
    assert told["parts"] == done["parts"]
    assert [file["path"] for file in done["parts"][0]["removed"]] == ["a/old.png"]
    assert done["freed"] == told["freed"] >= 5000


def run(*words: str | Path) -> int:
    if words and isinstance(words[0], Path) and words[0].is_dir():
        for name in ("models", "user"):
            (words[0] / name).mkdir(exist_ok=True)
    return main(["maintain", *map(str, words)])


def test_what_is_linked_open_or_newer_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "output"
    named, _target, held, mapped, young = (
        put(out / name, 90) for name in ("named", "target", "held", "mapped", "young")
    )
    os.utime(young)
    os.link(named, out / "again")
    (out / "link").symlink_to("target")
    (tmp_path / "elsewhere").mkdir()
    put(tmp_path / "elsewhere" / "theirs", 90)
    (out / "folder").symlink_to(tmp_path / "elsewhere")
    gone = put(out / "gone", 90)
    script = (
        "import mmap, sys\nheld = open(sys.argv[1], 'rb')\nfile = open(sys.argv[2], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\nfile.close()\nprint('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(held), str(mapped)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"ready\n"
        assert run(tmp_path, "--output-age", "30", "--json") == 0
        assert other.stdin
        other.stdin.close()
    told = json.loads(capsys.readouterr().out)["parts"][0]
    assert [file["path"] for file in told["removed"]] == ["gone"]
    assert not gone.exists()
    assert dict(told["kept"]) == {
        "again": "it has another name (a hard link)",
        "named": "it has another name (a hard link)",
        "target": "a link leads to it",
        "held": "somebody has it open",
        "mapped": "somebody has it open",
    }
    assert {path.name for path in out.iterdir()} == {*told_names(told), "young", "link", "folder"}
    assert (tmp_path / "elsewhere/theirs").exists()


def test_where_links_cannot_be_told_nothing_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are counted, or in a folder that cannot be read: each may lead to a file that is old."""
    old = put(tmp_path / "output/old", 90)
    (links := tmp_path / "input").mkdir()
    for number in range(4):
        (links / f"{number}").symlink_to(old if number == 3 else "/")
    monkeypatch.setattr("patchforge.operate.upkeep.symlinks.targets", partial(symlinks.targets, most=3))
    assert run(tmp_path, "--output-age", "30") == 1
    assert "too many links" in capsys.readouterr().out
    assert old.exists()
    monkeypatch.undo()
    monkeypatch.setattr("os.scandir", refusing(links, os.scandir))
    assert run(tmp_path, "--output-age", "30") == 1
    assert f"links in {links} lead to cannot be told" in capsys.readouterr().out
    assert old.exists()


def refusing(folder: Path, real: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """As the system does, to whoever is not root."""

    def scandir(path: Any = ".") -> Any:
        if not isinstance(path, int) and Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(folder))
        return real(path)

    return scandir


@pytest.mark.parametrize("name", [b"line\nbreak.png", b"no \xff utf-8.png", b"\x1b[31mred.png"])
def test_a_name_that_is_not_touched_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: bytes) -> None:
    plain = put(tmp_path / "output/plain.png", 90)
    odd = put(tmp_path / "output" / os.fsdecode(name), 90)
    assert run(tmp_path, "--output-age", "30") == 0
    told = capsys.readouterr().out
    assert (plain.exists(), odd.exists()) == (False, True)
    assert "  kept: " in told
    assert " name" in told.partition("kept: ")[2]
    assert "\x1b" not in told
    assert run(tmp_path, "--output-age", "30", "--json") == 0
    ((path, why),) = json.loads(capsys.readouterr().out)["parts"][0]["kept"]
    assert "name" in why
    assert path


def told_names(part: dict[str, list[list[str]]]) -> set[str]:
    return {path for path, _ in part["kept"]}


def test_the_oldest_go_above_a_size(tmp_path: Path) -> None:
    files = [put(tmp_path / f"output/{age}.png", age, 40960) for age in (5, 1, 9, 3)]
    assert run(tmp_path, "--output-size", "100K") == 0
    assert [file.exists() for file in files] == [False, True, False, True]


def test_a_file_in_use_counts_and_stays(tmp_path: Path) -> None:
    old, new = put(tmp_path / "output/old", 9, 40960), put(tmp_path / "output/new", 1, 40960)
    with old.open("rb"):
        assert run(tmp_path, "--output-size", "50K") == 0
    assert (old.exists(), new.exists()) == (True, False)


def test_a_file_that_changes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(tmp_path / "output/a", 90)
    real = upkeep.UpkeepFolder._why_not

    def late(self: upkeep.UpkeepFolder, chosen: upkeep.UpkeepFile) -> str:
        said = real(self, chosen)
        file.write_text("somebody's")
        return said

    monkeypatch.setattr(upkeep.UpkeepFolder, "_why_not", late)
    assert run(tmp_path, "--output-age", "30") == 0
    assert file.read_text() == "somebody's"


def test_temporary_files_and_caches(tmp_path: Path) -> None:
    temp = put(tmp_path / "ComfyUI/temp/a.png", 2)
    fresh = put(tmp_path / "ComfyUI/temp/b.png", 0.5)
    kernel, used = put(tmp_path / "cache/k/old.bin", 60), put(tmp_path / "cache/k/used.bin", 60)
    os.utime(used, (time.time(), used.stat().st_mtime))  # read today
    (tmp_path / "cache/CACHEDIR.TAG").touch()
    assert run(tmp_path / "ComfyUI", "--temp-age", "1", "--cache", tmp_path / "cache") == 0
    assert [file.exists() for file in (temp, fresh, kernel, used)] == [False, True, False, True]


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letter = put(tmp_path / "home/letters/old.txt", 900)
    assert run("--cache", tmp_path / "home/letters") == 1
    assert "is not known to be a cache" in capsys.readouterr().out
    assert letter.exists()
    (tmp_path / "home/letters/CACHEDIR.TAG").touch()
    assert run("--cache", tmp_path / "home/letters") == 0
    assert not letter.exists()


def test_models_are_listed_and_go_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = put(tmp_path / "models/checkpoints/old.safetensors", 200)
    put(tmp_path / "models/checkpoints/put_checkpoints_here", 200)
    used = put(tmp_path / "models/checkpoints/used.safetensors", 200)
    os.utime(used, (time.time(), used.stat().st_mtime))
    assert run(tmp_path, "--model-age", "100") == 0
    assert "checkpoints/old.safetensors: 8192 bytes, listed only" in capsys.readouterr().out
    assert old.exists()
    assert run(tmp_path, "--model-age", "100", "--remove-models") == 0
    assert {path.name for path in (tmp_path / "models/checkpoints").iterdir()} == {
        "used.safetensors",
        "put_checkpoints_here",
    }


def test_journal_and_nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As the real ones are asked, and what they say of it."""
    for name, said in (
        ("journalctl", "Vacuuming done, freed 48.0M of archived journals from /var/log/journal/abc."),
        ("nix-collect-garbage", "12 store paths deleted, 1.50 GiB freed"),
    ):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/asked\necho "{said}" >&2\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert run("--journal", "500M", "--nix-age", "14", "--json") == 0
    assert json.loads(capsys.readouterr().out)["freed"] == 48 * 1024**2 + 3 * 1024**3 // 2
    assert run("--journal", "500M", "--nix-age", "14", "--dry-run") == 0
    assert (tmp_path / "asked").read_text().splitlines() == [
        "journalctl --vacuum-size=524288000",
        "nix-collect-garbage --delete-older-than 14d",
        "journalctl --disk-usage",
        "nix-collect-garbage --delete-older-than 14d --dry-run",
    ]


@pytest.mark.parametrize("after", [0, 2])
def test_who_interrupts_is_told_what_is_gone(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        put(tmp_path / f"output/{number}.png", 40 - number)
    discard, asked = Inside.discard, list[str]()

    def some(self: Inside, path: str, was: os.stat_result) -> bool:
        asked.append(path)
        if len(asked) > after:
            raise KeyboardInterrupt
        return discard(self, path, was)

    monkeypatch.setattr(Inside, "discard", some)
    assert run(tmp_path, "--output-age", "30") == Exit.INTERRUPTED
    told = f"; of {tmp_path}/output 2 old files are removed, and the rest is as it was" if after else ""
    assert capsys.readouterr().err == f"patchforge: interrupted{told}\n"
    assert len(list((tmp_path / "output").iterdir())) == 4 - after


def test_a_folder_that_may_not_be_changed_keeps_its_files_alone(tmp_path: Path) -> None:
    for name in ("models", "user"):
        (tmp_path / name).mkdir()
    for name in ("a/old.png", "b/old.png", "c/old.png"):
        put(tmp_path / "output" / name, 40)
    (tmp_path / "output" / "b").chmod(0o555)
    try:
        done = bound("maintain", tmp_path, "--output-age", "30", "--json")
    finally:
        (tmp_path / "output" / "b").chmod(0o755)
    (part,) = json.loads(done.stdout)["parts"]
    assert done.returncode == Exit.FAILED
    assert [gone["path"] for gone in part["removed"]] == ["a/old.png", "c/old.png"]
    assert part["kept"] == [["b/old.png", "Permission denied"]]
    assert (tmp_path / "output/b/old.png").exists()


def test_one_part_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    old = put(tmp_path / "ComfyUI/temp/old", 9)
    (state := tmp_path / "state").mkdir()
    assert (
        run(
            tmp_path / "ComfyUI",
            "--temp-age",
            "1",
            "--cache",
            tmp_path / "nowhere",
            "--journal",
            "1G",
            "--state",
            state,
        )
        == 1
    )
    assert not old.exists()
    (record,) = [json.loads(file.read_text()) for file in state.iterdir()]
    assert (record["ok"], record["freed"] > 0) == (False, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "there is nothing to do"),
        (["--output-age", "3"], "--output-age needs ComfyUI's base folder"),
        (["{}", "--output-age", "3"], "is not ComfyUI's base folder"),
        (["{}/none", "--output-age", "3"], "is not there"),
        (["{}", "--remove-models"], "--remove-models needs --model-age"),
        (["{}", "--output-age", "-3"], "is not a whole number"),
        (["{}", "--output-size", "much"], "is not a size"),
    ],
)
def test_mistakes(tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "temp/thesis.odt", 900)
    assert run(*(word.format(tmp_path) for word in words)) == 2
    assert (tmp_path / "temp/thesis.odt").exists()
    assert says in capsys.readouterr().err


def test_a_folder_that_is_a_link_is_not_cleaned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letter = put(tmp_path / "home/letter.txt", 900)
    (base := tmp_path / "ComfyUI").mkdir()
    (base / "output").symlink_to(tmp_path / "home")
    assert run(base, "--output-age", "1", "--output-size", "1K") != 0
    assert "output is a link, and links are not followed" in capsys.readouterr().out
    assert letter.exists()


def test_what_just_came_markers_and_what_a_link_elsewhere_leads_to_stay(tmp_path: Path) -> None:
    output = tmp_path / "output"
    stay = [
        put(output / "new.png", 0),
        put(output / "_output_images_will_be_put_here", 90),
        put(output / ".hidden/a.png", 90),
        put(output / "used.png", 90),
        put(output / "favourites/b.png", 90),
    ]
    gone = put(output / "old.png", 90)
    (tmp_path / "input").mkdir()
    (tmp_path / "input/used.png").symlink_to(output / "used.png")
    (tmp_path / "input/favourites").symlink_to(output / "favourites")
    assert run(tmp_path, "--output-age", "0", "--output-size", "0K") == 0
    assert [path.exists() for path in (*stay, gone)] == [True] * 5 + [False]


@pytest.mark.parametrize("name", [".cache", "src/triton", "geocache/docs"])
def test_what_only_sounds_like_a_cache_is_left_alone(name: str, tmp_path: Path) -> None:
    file = put(tmp_path / name / "x", 900)
    assert run("--cache", tmp_path / name) == 1
    assert file.exists()


@pytest.mark.parametrize("name", [".cache/neo_compiler_cache", "torchinductor_alice", ".triton/cache"])
def test_caches_are_known(name: str, tmp_path: Path) -> None:
    file = put(tmp_path / name / "x", 900)
    assert run("--cache", tmp_path / name) == 0
    assert not file.exists()


def test_nothing_to_do_is_no_error_where_a_folder_is_new(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    assert run(tmp_path, "--output-age", "3") == 0
