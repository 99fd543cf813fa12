"""Commands that write patchforge's own files do so in its checkout, and nowhere by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforge import resources
from patchforge.cli import main
from tests.support import ROOT

COMMANDS = {
    "pin": ["pin", "ollama"],
    "lock-torch": ["lock-torch", "2.14.0"],
    "nix": ["nix"],
    "nix --check": ["nix", "--check"],
    "verify --online": ["verify", "--online"],
}
STRANGERS = {
    "nothing": {},
    "upstream of a stranger": {"upstream/pins/ollama.json": "{}", "upstream/comfyui.toml": "", "generated/x": ""},
    "pyproject of a stranger": {"pyproject.toml": '[project]\nname = "other"\n', "upstream/pins/x": ""},
    "text that is none": {"pyproject.toml": b"\xff".decode("latin-1")},
}


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_nothing_is_written_outside_of_a_checkout(
    command: str, stranger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in STRANGERS[stranger].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "latin-1")
    before = content(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(COMMANDS[command]) == 2
    assert "a checkout of patchforge" in capsys.readouterr().err
    assert content(tmp_path) == before


def test_a_folder_below_the_checkout_is_not_the_checkout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT / "docs")
    assert main(["nix", "--check"]) == 2
    assert "change to a checkout" in capsys.readouterr().err
    assert not (ROOT / "docs" / "generated").exists()


def test_an_installed_patchforge_leaves_a_checkout_to_the_code_in_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(resources, "repository", lambda: None)
    assert main(["nix", "--check"]) == 2
    assert "python -m patchforge" in capsys.readouterr().err


def test_a_folder_that_is_named_is_written_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pin", "ollama", "--pins", "elsewhere", "--upstream", f"ollama={tmp_path}", "--dry-run"]) != 0
    assert "a checkout of patchforge" not in capsys.readouterr().err
