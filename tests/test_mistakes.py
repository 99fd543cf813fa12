"""Mistakes that people make, each with the sentence that they get. Read aloud, each should say what to do."""

import subprocess
from pathlib import Path

import pytest

from patchforge.cli import main
from tests.checkout.places import PACK, fill
from tests.support import miniature

#: What is typed → exit status, a part of the problem, and a part of what to do.
MISTAKES: dict[str, tuple[int, str, str]] = {
    "": (2, "no command is named", "patchforge apply DIR --in-place patches the ComfyUI in DIR"),
    "packs": (2, "no command is named", "name one of check, apply, revert"),
    "revert": (2, "no DIR is named", "patchforge revert --help"),
    "aply ComfyUI": (2, "there is no command 'aply'; did you mean apply?", "patchforge --help"),
    "packs chek ComfyUI": (2, "there is no command 'chek'; did you mean check?", "patchforge packs --help"),
    "apply ComfyUI --inplace": (2, "there is no option --inplace; did you mean --in-place?", "patchforge apply --help"),
    "apply --help-me": (2, "there is no option --help-me; did you mean --help?", "patchforge apply --help"),
    "apply": (2, "nothing is named", "patchforge apply DIR --in-place"),
    "apply --in-place": (2, "no folder is named", "patchforge apply DIR --in-place"),
    "apply ComfyUI": (2, "ComfyUI is a folder, not the name of a release", "patchforge apply ComfyUI --in-place"),
    "apply v0.33.0 ComfyUI": (
        2,
        "nothing is done with ComfyUI: it is one argument too many",
        "patchforge apply --help",
    ),
    "apply ComfUI --in-place": (2, "ComfUI is not there", "did you mean ComfyUI?"),
    "apply ./ComfUI": (2, "ComfUI is not there", "did you mean ComfyUI?"),
    "apply C:/ComfyUI --in-place": (2, "C:/ComfyUI is not there", "name a folder of this machine"),
    "apply notes.txt --in-place": (2, "notes.txt is not a folder", "check the path"),
    "apply release.zip --in-place": (2, "release.zip is not a folder", "patchforge apply --from release.zip --to DIR"),
    "apply empty --in-place": (2, "empty is neither ComfyUI nor a pack of nodes", "check the path"),
    "apply portable --in-place": (2, "portable is the folder of the portable build", "name portable/ComfyUI"),
    "apply Documents/ComfyUI --in-place": (2, "keeps models and packs, not ComfyUI itself", "the program's own folder"),
    "apply ComfyUI/comfy --in-place": (2, "ComfyUI/comfy is a part of ComfyUI", "/ComfyUI"),
    "apply ComfyUI/custom_nodes --in-place": (2, "is the folder of all packs", "/ComfyUI"),
    "apply ComfyUI/custom_nodes/pack --in-place": (
        2,
        "is a pack of nodes",
        "patchforge packs apply ComfyUI/custom_nodes/pack --in-place",
    ),
    "packs apply ComfyUI --in-place": (2, "ComfyUI is ComfyUI itself", "patchforge apply ComfyUI --in-place"),
    "packs apply ComfyUI/custom_nodes": (2, "is the folder of all packs", "name one of the packs in it"),
    **{
        f"packs {words.format(node)}": (2, f"{node} is not a folder", do)
        for words in ("check {}", "apply {}", "apply {} --in-place")
        for node, do in (
            ("ComfyUI/custom_nodes/one.py", "move it to ComfyUI/custom_nodes/one/__init__.py"),
            ("nodes/one.py", "move it to nodes/one/__init__.py, from where ComfyUI loads it in the same way"),
            ("ComfyUI/custom_nodes/pack/nodes.py", "name ComfyUI/custom_nodes/pack"),
        )
    },
    "packs check nowhere": (2, "nowhere is not there", "check the path"),
    "apply --from notes.txt": (65, "notes.txt cannot be read as a tarball", "name a release's archive or folder"),
    "apply --from a.7z": (65, "a.7z cannot be read as a tarball", "name a release's archive or folder"),
    "apply --from none.zip": (2, "none.zip is not there", "check the path"),
    "apply v0.33": (2, "no release, commit or ref called 'v0.33'", "check the spelling"),
    "apply v99.0.0": (2, "no release, commit or ref called 'v99.0.0'", "if it is new, fetch the clone"),
    "apply latest --jobs 0": (2, "'0' is not a whole number, 1 or more", "patchforge apply --help"),
    "apply latest --jobs -2": (2, "'-2' is not a whole number, 1 or more", "patchforge apply --help"),
    "apply latest --jobs 9999999999": (2, "9999999999 is too large a number; expected 999999999 or less", "--help"),
    "packs apply ftp://a.example/b": (2, "is not accepted as an address", "name another address"),
    "apply latest --out ComfyUI": (2, "ComfyUI holds other files", "choose another output"),
    "revert ComfyUI": (2, "ComfyUI is not patched", "nothing to undo here"),
    "revert portable": (2, "portable is the folder of the portable build", "name portable/ComfyUI"),
    "update ComfyUI": (2, "ComfyUI is not patched", "patchforge apply ComfyUI --in-place"),
    "status nowhere": (2, "nowhere is not there", "check the path"),
    "doctor nowhere": (2, "nowhere is not there", "check the path"),
    "replay --since v9": (2, "'v9' is not a version", "name a VERSION"),
    "replay --since v0.33.0 --until v0.1.0": (2, "no release lies between --since and --until", "name versions"),
    "check --generated nowhere": (2, "nowhere is not there", "check the path"),
    "verify --generated nowhere": (2, "nowhere is not there", "check the path"),
    "status --generated nowhere": (2, "nowhere is not there", "check the path"),
    "track --generated nowhere": (2, "nowhere is not there", "check the path"),
    "bench report notes.txt": (65, "notes.txt is not JSON", "run patchforge bench again"),
    "bench run --suite nope": (2, "no suite is called 'nope'", "name one of these"),
    "health ftp://x": (2, "ftp://x is not asked", "correct the address"),
    "bench costs --generated nowhere": (2, "nowhere is not there", "check the path"),
    "check --generated empty": (2, "nothing has been generated in empty", "patchforge apply"),
    "models import ComfyUI": (2, "ComfyUI is a folder", "check the path"),
    "models import dangling": (2, "dangling is a link to nothing", "check the path"),
    "models import ComfyU": (2, "ComfyU is not there", "did you mean ComfyUI?"),
    "door render ComfyUI": (2, "ComfyUI is a folder", "docs/door.md has one to begin with"),
    "apply --from dangling": (2, "dangling is a link to nothing", "check the path"),
    "status dangling": (2, "dangling is not a folder", "check the path"),
    "explain free-memry": (2, "there is no rule free-memry", "patchforge explain"),
    "verify --online --pins nowhere": (2, "there are no pins in nowhere", "correct --pins"),
    "pin nonsense": (2, "nothing is called nonsense", "name one of these"),
    "pin": (2, "it runs outside of it", "change to a checkout of patchforge"),
    "bench record notes.txt": (2, "it runs outside of it", "change to a checkout of patchforge"),
    "completion powershell": (2, "SHELL is one of bash, fish, zsh, tcsh, not 'powershell'", "completion --help"),
    "test v0.33.0 --device intel": (2, "no device is called 'intel'", "did you mean xpu?"),
    "test v0.33.0 --device cude": (2, "no device is called 'cude'", "did you mean cuda?"),
    "prefetch nonsense": (2, "it is not clear what to prefetch", "patchforge prefetch --help"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    fill(folder / "ComfyUI", miniature("v0.33.0"))
    fill(folder / "ComfyUI/custom_nodes/pack", PACK)
    fill(folder / "portable/ComfyUI", {"comfy/model_management.py": b"", "main.py": b""})
    fill(folder, {"portable/python_embeded/python.exe": b"", "notes.txt": b"hello", "empty/a.txt": b""})
    fill(folder, {"ComfyUI/custom_nodes/one.py": PACK["nodes.py"], "nodes/one.py": PACK["nodes.py"]})
    fill(folder / "Documents/ComfyUI", {"custom_nodes/x.py": b"", "models/x": b"", "user/x": b""})
    (folder / "dangling").symlink_to("nothing")
    (folder / "release.zip").write_bytes(b"PK")
    (folder / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + b"0" * 50)
    clone = fill(folder / "clone", miniature("v0.33.0"))
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"], ["tag", "v9.0.0"]):
        subprocess.run([*git, *command], check=True)
    return folder


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_gets_its_sentence(
    typed: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("PATCHFORGE_UPSTREAM", str(home / "clone"))
    status, problem, do = MISTAKES[typed]
    before = sorted(home.rglob("*"))
    assert main(typed.split()) == status
    said = capsys.readouterr()
    told = said.err[said.err.index("patchforge: ") :]
    first, *more = told.splitlines()
    assert problem in first
    assert do in "".join(line for line in more if line.startswith("  to do: "))
    assert (said.out, sorted(home.rglob("*"))) == ("", before)


def test_there_are_enough() -> None:
    assert len(MISTAKES) >= 40
