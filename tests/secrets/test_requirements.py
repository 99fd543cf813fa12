"""Requirements of strangers: packages by name reach pip, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import pytest

from patchforge.errors import Damaged, PatchforgeError
from patchforge.nodes.pack_cache import PackStore
from patchforge.pins import requirements
from patchforge.trial import packs
from patchforge.trial.server.environment import prepare
from tests.trial.test_environment import install, wheel

REFUSED = [
    "-i https://evil.example/simple",
    "--index-url https://evil.example/simple",
    "--index-url=https://evil.example/simple",
    "--extra-index-url https://evil.example/simple",
    "-f https://evil.example/",
    "--find-links .",
    "--trusted-host evil.example",
    "--no-index",
    "--pre",
    "--no-binary :all:",
    "--only-binary :none:",
    "--prefer-binary",
    "--use-feature=fast-deps",
    "--config-settings x=y",
    "--require-hashes",
    "-e .",
    "-e git+https://evil.example/x.git#egg=x",
    "--editable .",
    "-r other.txt",
    "--requirement=/etc/passwd",
    "-c other.txt",
    "-",
    "--",
    "einops --index-url https://evil.example/simple",
    "einops==1.2 --hash=sha256:" + "0" * 64,
    "einops --global-option=build_ext",
    "einops --config-settings=x=y",
    "einops -i https://evil.example",
    "einops\t--pre",
    "einops @ https://evil.example/einops-1.2-py3-none-any.whl",
    "einops@https://evil.example/einops-1.2-py3-none-any.whl",
    "einops @ git+https://evil.example/x.git",
    "einops @ file:///etc/passwd",
    "einops[all] @ git+ssh://git@evil.example/x ; python_version > '3'",
    "torch @ https://evil.example/torch-99-py3-none-any.whl",
    "https://evil.example/einops-1.2.tar.gz",
    "http://evil.example/x.whl#egg=einops",
    "git+https://evil.example/x.git",
    "git+file:///srv/x",
    "hg+https://evil.example/x",
    "file:///tmp/x.whl",
    "ftp://evil.example/x.whl",
    "./local",
    ".",
    "..",
    "/abs/path",
    "~/x",
    "C:\\x.whl",
    "einops.whl",
    "einops-1.2.tar.gz",
    "EINOPS.ZIP",
    "x.tgz",
    "x.tar.xz",
    "x.egg",
    "${EVIL}",
    "einops==${GH_TOKEN}",
    "${PIP_INDEX_URL}einops",
    "einops \\",
    "einops==1.2 \\",
    "einops; " + "(" * 490,
    "e" * 2000,
    "einops =",
    "einops==",
    "einops 1.2",
    "einops, numpy",
    "einops\x00",
    "einops\x1b[2J",
    "import os",
    "einops; __import__('os').system('x')",
    "einops; python_version > '3' -i x",
    "\u0435inops @ https://evil.example/x",
]
TAKEN = {
    "einops": "einops",
    "einops>=1,<2 # shapes": "einops<2,>=1",
    "uvicorn[standard]==0.1": "uvicorn[standard]==0.1",
    'numpy; python_version < "4"': 'numpy; python_version < "4"',
    "comfyui_frontend_package~=1.2": "comfyui_frontend_package~=1.2",
    "  einops  ": "einops",
    "# a comment": None,
    "": None,
}


@pytest.mark.parametrize("line", REFUSED)
def test_refused(line: str) -> None:
    taken, refused = requirements.read(f"numpy\n{line}\nscipy\n".encode(), "requirements.txt")
    assert taken == ["numpy", "scipy"]
    assert [refusal.line for refusal in refused] == [line.strip().splitlines()[0]]
    with pytest.raises(Damaged) as failed:
        requirements.of_stranger(line.encode(), "its requirements.txt")
    assert "its requirements.txt" in str(failed.value)
    assert line[:5].strip() in str(failed.value), "the line is named"
    assert "\x1b" not in str(failed.value)
    assert "--no-venv" in failed.value.do


@pytest.mark.parametrize(("line", "seen"), TAKEN.items())
def test_taken(line: str, seen: str | None) -> None:
    assert requirements.read(line.encode(), "") == ([seen] if seen else [], [])


def test_deep_markers_end_no_run() -> None:
    line = "einops; " + "(" * 480 + "os_name > ''" + ")" * 480
    taken, refused = requirements.read(line.encode(), "")
    assert len(taken) + len(refused) == 1


@pytest.mark.parametrize("data", [b"\xff\xfe-\x00i\x00", b"einops\xff", b"\x80"])
def test_what_is_no_text(data: bytes) -> None:
    with pytest.raises(Damaged, match="not UTF-8"):
        requirements.read(data, "requirements.txt")


def test_what_is_too_long() -> None:
    with pytest.raises(Damaged, match="too long"):
        requirements.read(b"a\n" * (1 << 20), "requirements.txt")


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_no_line_end_smuggles_an_option_in(separator: str) -> None:
    taken, refused = requirements.read(f"einops{separator}-i https://evil.example/".encode(), "")
    assert taken == ["einops"]
    assert [refusal.line for refusal in refused] == ["-i https://evil.example/"]


def test_pins_have_the_same_door() -> None:
    assert requirements.of_file("Einops>=1\n# none\n") == ["einops>=1"]
    for line in REFUSED:
        with pytest.raises(PatchforgeError):
            requirements.of_file(line)


def test_packs_have_the_same_door(tmp_path: Path) -> None:
    """A pack can be tried without what it must not ask for; the evidence says what was left out."""
    folder = tmp_path / "a-pack"
    folder.mkdir()
    (folder / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    lines = [line for line in REFUSED if "\x1b" not in line and "\x00" not in line]
    (folder / "requirements.txt").write_text("\n".join(["einops", *lines]), "utf-8")
    (pack,) = packs.read([folder], PackStore(None))
    assert pack.requirements == ("einops",)
    assert set(pack.left_out) == {line.strip() for line in lines}


def test_a_pack_shows_no_other_file_as_its_requirements(tmp_path: Path) -> None:
    folder = tmp_path / "a-pack"
    folder.mkdir()
    (folder / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    (tmp_path / "secrets").write_text("hunter2\n")
    (folder / "requirements.txt").symlink_to(tmp_path / "secrets")
    (pack,) = packs.read([folder], PackStore(None))
    assert (pack.requirements, pack.left_out) == ((), ())


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter with a torch of its own, and a folder of packages for pip."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "packages").mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "packages"), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    venv.create(tmp_path / "base", with_pip=False, symlinks=True)
    python = tmp_path / "base" / "bin" / "python"
    install(python, wheel(tmp_path, "torch", "2.13.0"))
    return python


def source(folder: Path, told: Path) -> None:
    """A source archive whose setup.py writes down its environment."""
    place = folder.parent / "sdist-1.0"
    place.mkdir()
    (place / "setup.py").write_text(
        f"import json, os\njson.dump(dict(os.environ), open({str(told)!r}, 'w'))\n"
        "from setuptools import setup\nsetup(name='sdist', version='1.0', py_modules=[])\n"
    )
    (place / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: sdist\nVersion: 1.0\n")
    subprocess.run(["tar", "-czf", folder / "sdist-1.0.tar.gz", "-C", folder.parent, "sdist-1.0"], check=True)


def make(base: Path, text: str, *, building: bool = False, tell: list[str] | None = None) -> None:
    lines: list[str] = [] if tell is None else tell
    prepare(text.encode(), base, base.parents[2] / "cache", tell=lines.append, timeout=120, building=building)


def test_nothing_is_built_unless_it_is_allowed(base: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    source(tmp_path / "packages", told)
    with pytest.raises(PatchforgeError, match="--allow-building"):
        make(base, "sdist")
    assert not told.exists()
    said: list[str] = []
    with pytest.raises(PatchforgeError):  # without an index there is no setuptools, or the build ends otherwise
        make(base, "sdist\nnothing-of-that-name", building=True, tell=said)
    assert any("RUNS THEIR CODE" in line for line in said)


def test_installing_says_whose_code_will_run(base: Path, tmp_path: Path) -> None:
    wheel(tmp_path / "packages", "einops", "1.2")
    said: list[str] = []
    make(base, "einops", tell=said)
    assert any("wheels only: their code runs when the release does" in line for line in said)


def test_building_is_refused_beside_a_password(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://someone:hunter2@index.example.org/simple")
    with pytest.raises(PatchforgeError, match="could read a password") as failed:
        make(base, "sdist", building=True)
    assert "hunter2" not in str(failed.value)
    assert "PIP_EXTRA_INDEX_URL" in failed.value.found


def test_no_module_of_the_folder_is_taken_for_pip(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("pip.py", "json.py", "venv.py", "torch.py"):
        (trap / name).write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nraise SystemExit(3)\n")
    monkeypatch.chdir(trap)
    wheel(tmp_path / "packages", "einops", "1.2")
    make(base, "einops")
    assert not (tmp_path / "sprung").exists()
