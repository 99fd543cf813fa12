"""The pack patchforge-watch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from patchforge import documents
from patchforge.cli import main
from patchforge.operate import watch_pack
from patchforge.operate.comfyui import Watch
from tests.checkout.places import content, fill
from tests.operate import pack_host
from tests.operate.servers import FakeComfyUI


def test_the_pack_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in place of another version, which ComfyUI has run."""
    written, now = tmp_path / "patchforge-watch", watch_pack.files()
    for files in ({**now, "watch.py": b"# an earlier one\n"}, now, now):
        monkeypatch.setattr(watch_pack, "files", lambda files=files: files)
        assert main(["health", "--write-pack", str(tmp_path), "--json"]) == 0
        assert Path(json.loads(capsys.readouterr().out)["written"]) == written
        assert {path.name: path.read_bytes() for path in written.glob("*.py")} == files
        assert {path.name for path in written.iterdir()} == {*files, "SHA256SUMS"}
        (written / "__pycache__").mkdir()
        (written / "__pycache__" / "watch.cpython-311.pyc").write_bytes(b"")
    assert main(["health", "--write-pack", str(tmp_path / "nowhere")]) == 2
    (written / "watch.py").write_text("mine\n")
    assert main(["health", "--write-pack", str(tmp_path)]) == 2
    assert "edited since" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "named", "do"),
    [
        ({"main.py": b"", "comfy/model_management.py": b"", "custom_nodes/x": b""}, "", "/custom_nodes"),
        ({"main.py": b"", "comfy/model_management.py": b""}, "comfy", "name ComfyUI's custom_nodes"),
        ({"pack/__init__.py": b"NODE_CLASS_MAPPINGS = {}"}, "pack", "name ComfyUI's custom_nodes"),
        ({"letters/a.txt": b""}, "letters", "name ComfyUI's custom_nodes"),
        ({"custom_nodes/patchforge-watch/mine.py": b""}, "custom_nodes", "choose another output"),
        ({"custom_nodes/patchforge-watch/__pycache__/mine.pyc": b""}, "custom_nodes", "choose another output"),
    ],
)
def test_the_pack_is_written_among_packs_only(
    files: dict[str, bytes], named: str, do: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, files)
    assert main(["health", "--write-pack", str(tmp_path / named)]) == 2
    assert do in capsys.readouterr().err
    assert content(tmp_path) == files


@pytest.mark.parametrize("era", ["old", "new"])
def test_it_tells_what_runs_and_disturbs_nothing(era: str, tmp_path: Path) -> None:
    pack = watch_pack.write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-B", pack_host.__file__, pack, era], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    seen = json.loads(done.stdout)
    assert (seen["begin"]["worker"], seen["begin"]["running"], seen["begin"]["classes"]) == (False, None, {})
    running = seen["running"]["running"]
    assert (running["prompt"], running["seconds"] >= running["stalled"] >= 0) == ("two", True)
    assert seen["running"]["worker"]
    classes = seen["end"]["classes"]
    assert {name: (row["runs"], row["operations"], row["fallbacks"]) for name, row in classes.items()} == {
        "KSampler": (4, 4, 1),  # of 5, 0, one that raised (-1), and one whose count a lost device did not tell
        "CLIPTextEncode": (1, 0, 0),
        "Asks": (1, 0, 1),
    }
    assert seen["end"]["running"] is None
    assert (seen["end"]["nodes"], seen["forgotten"], seen["last"]) == ([], [], [])  # only the last prompts are kept


def test_its_answer_is_as_the_exporter_reads_it(tmp_path: Path) -> None:
    """The small ComfyUI of these tests answers as the pack does."""
    pack = watch_pack.write(tmp_path)
    command = [sys.executable, "-B", pack_host.__file__, str(pack), "new"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    real = json.loads(done.stdout)["running"]
    documents.structured(real, Watch, "the pack")
    fake = FakeComfyUI()
    told = fake._get_patchforge(["patchforge", "watch"], {}, None)[1]
    assert told.keys() == real.keys()
