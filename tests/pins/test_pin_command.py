"""``patchforge pin`` and ``lock-torch`` on a small ``upstream/`` of their own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from patchforge.commands import lock_torch, pin
from patchforge.documents import plain
from patchforge.errors import Exit, PatchforgeError
from patchforge.pins import pin_files
from patchforge.project import load_project
from tests.pins.conftest import Server, git, lose, repository, wheel_of

HASH = "sha256-bJPj7L6w5Uj9LfRaYFRys0wWFCh8VrUbszze965SNbU="
SINGLE = 'name = "{0}"\ntitle = "t"\nurl = "https://github.com/a/{0}"\nlicense = "MIT"\nbranch = "main"\n'
PACK = SINGLE + 'group = "samplers"\n'
LINUX = "manylinux_2_28_x86_64"


@pytest.fixture
def world(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with everything tracked once, clones of it, and an index."""
    top = tmp_path / "top"
    files = {
        "comfyui.toml": 'name = "comfyui"\ntitle = "ComfyUI"\nurl = "https://github.com/Comfy-Org/ComfyUI"\n'
        'index = "comfyui.releases.tsv"\ntag = "v{version}"\nversion_file = "comfyui_version.py"\n',
        "nodes/one.toml": PACK.format("one"),
        "nodes/two.toml": PACK.format("two"),
        "ollama.toml": SINGLE.format("ollama"),
        "mordragt-nixos.toml": SINGLE.format("mordragt-nixos"),
        "companions.toml": 'title = "t"\npython = "3.12"\nnames = ["loose"]\nelsewhere = ["torch"]\n',
        "torch.toml": f'title = "t"\nindexes = ["{server.address}/xpu"]\nlocal = "xpu"\ndefault = "2.14.0"\n'
        'pythons = ["3.12"]\nelsewhere = []\n[versions."2.14.0"]\ntorchvision = "0.29.0"\n',
    }
    for path, text in files.items():
        (top / "upstream" / path).parent.mkdir(parents=True, exist_ok=True)
        (top / "upstream" / path).write_text(text, "utf-8")
    for name in ("one", "two", "ollama", "mordragt-nixos"):
        repository(tmp_path / name, {"README.md": name})
    commit = repository(tmp_path / "comfyui", {"requirements.txt": "parts==0.1.0\nloose\ntorch\n"})
    git(tmp_path / "comfyui", "tag", "v0.32.0")
    (top / "upstream/comfyui.releases.tsv").write_text(
        f"version\tcommit\tdate\nv0.32.0\t{commit}\t2026-03-04\n", "utf-8"
    )
    (top / "generated/comfyui/v0.32.0").mkdir(parents=True)
    (top / "generated/comfyui/v0.32.0/manifest.json").write_text("{}", "utf-8")
    for name, version in (("parts", "0.1.0"), ("loose", "0.4.2")):
        server.add("simple", f"{name}-{version}-py3-none-any.whl", wheel_of(name, version))
    for name, version in (("torch", "2.14.0+xpu"), ("torchvision", "0.29.0+xpu")):
        server.add("xpu", f"{name}-{version}-cp312-cp312-{LINUX}.whl", wheel_of(name, version))
    for module in (pin, lock_torch):
        monkeypatch.setattr(module, "resources", SimpleNamespace(path=top.joinpath))
        monkeypatch.setattr(module, "configured_indexes", lambda: [f"{server.address}/simple"])
    monkeypatch.setattr(pin, "load_project", lambda: load_project(folder=top / "upstream"))
    return tmp_path


def options(world: Path, *kinds: str, dry_run: bool = False, only: list[str] | None = None) -> argparse.Namespace:
    names = ("one", "two", "ollama", "mordragt-nixos")
    upstream = [str(world / "comfyui"), *(f"{name}={world / name}" for name in names)]
    pins, generated = str(world / "pins"), str(world / "top/generated/comfyui")
    return argparse.Namespace(
        kind=list(kinds), pins=pins, generated=generated, upstream=upstream, dry_run=dry_run, json=True, only=only
    )


def lock_options(world: Path, *, online: bool) -> argparse.Namespace:
    return argparse.Namespace(version="2.14.0", python="", online=online, json=True, pins=str(world / "pins"))


Outcomes = dict[tuple[str, str], str]


def run(given: argparse.Namespace, capsys: pytest.CaptureFixture[str]) -> tuple[int, Outcomes]:
    status = pin.run(given)
    return status, {
        (result["kind"], result["pin"]): result["outcome"] for result in json.loads(capsys.readouterr().out)["results"]
    }


def contents(world: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (world / "pins").rglob("*.json")}


ALL = ("comfyui", "python", "nodes", "ollama", "mordragt-nixos")


def test_everything_is_pinned_and_a_second_run_changes_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lock_torch.run(lock_options(world, online=True)) == Exit.OK
    capsys.readouterr()
    status, first = run(options(world), capsys)
    assert status == Exit.OK
    assert first == {
        ("comfyui", "v0.32.0"): "new",
        ("python", "parts"): "new",
        ("python", "loose"): "new",
        ("torch", "torch/2.14.0-cp312"): "same",
        ("nodes", "one"): "new",
        ("nodes", "two"): "new",
        ("ollama", ""): "new",
        ("mordragt-nixos", ""): "new",
    }
    before = contents(world)
    assert sorted(before) == [
        "2.14.0-cp312.json", "comfyui.json", "mordragt-nixos.json", "nodes.json", "ollama.json", "python.json",
    ]  # fmt: skip
    assert pin_files.load("comfyui", world / "pins")["v0.32.0"].requirements == ("loose", "parts==0.1.0", "torch")
    status, second = run(options(world), capsys)
    assert (status, set(second.values())) == (Exit.OK, {"same"})
    assert contents(world) == before


def test_a_dry_run_writes_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, outcomes = run(options(world, "nodes", dry_run=True), capsys)
    assert (status, set(outcomes.values())) == (Exit.OK, {"new"})
    assert not (world / "pins").exists()


def test_one_pack_alone(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(options(world, "nodes"), capsys)
    for name in ("one", "two"):
        git(world / name, "commit", "-q", "--allow-empty", "-m", "later")
    _, outcomes = run(options(world, "nodes", only=["two"]), capsys)
    assert outcomes == {("nodes", "one"): "same", ("nodes", "two"): "changed"}
    before = contents(world)
    pin.run(options(world, "nodes", only=["three"]))
    [failed] = json.loads(capsys.readouterr().out)["results"]
    assert "no pack is called three" in failed["problem"]
    assert contents(world) == before


def test_only_what_changed_is_written(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(options(world, *ALL), capsys)
    git(world / "two", "commit", "-q", "--allow-empty", "-m", "later")
    (world / "top/upstream/nodes/one.toml").unlink()
    before = contents(world)
    _, outcomes = run(options(world, *ALL), capsys)
    assert {key: value for key, value in outcomes.items() if value != "same"} == {
        ("nodes", "two"): "changed",
        ("nodes", "one"): "removed",
    }
    assert [name for name, data in contents(world).items() if before[name] != data] == ["nodes.json"]
    assert list(pin_files.load("nodes", world / "pins")) == ["two"]


def test_one_that_fails_stays_and_the_others_go_on(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(options(world, "nodes"), capsys)
    before = pin_files.load("nodes", world / "pins")
    git(world / "one", "branch", "-m", "main", "trunk")
    git(world / "two", "commit", "-q", "--allow-empty", "-m", "later")
    status, outcomes = run(options(world, "nodes"), capsys)
    assert (status, outcomes) == (Exit.UNCHECKED, {("nodes", "one"): "failed", ("nodes", "two"): "changed"})
    after = pin_files.load("nodes", world / "pins")
    assert after["one"] == before["one"]
    assert after["two"].rev != before["two"].rev


def test_a_release_without_any_hash_is_not_pinned(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(world / "comfyui", "commit", "-q", "--allow-empty", "-m", "x")
    lose(world / "comfyui", "requirements.txt")
    status, outcomes = run(options(world, "comfyui"), capsys)
    assert (status, outcomes) == (Exit.UNCHECKED, {("comfyui", "v0.32.0"): "failed"})
    assert pin_files.load("comfyui", world / "pins") == {}


def test_an_index_that_is_down_leaves_the_pins(world: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    run(options(world, "comfyui", "python"), capsys)
    before = contents(world)
    server.pages["/simple/parts/"] = ("application/vnd.pypi.simple.v1+json", b"{half")
    status, outcomes = run(options(world, "python"), capsys)
    assert (status, outcomes) == (Exit.DATA, {("python", ""): "failed"})
    assert contents(world) == before


def test_an_unknown_name(world: Path) -> None:
    with pytest.raises(PatchforgeError, match="nothing is called everything"):
        pin.run(options(world, "nodes", "everything"))


def test_text(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(world, "nodes", dry_run=True)
    given.json = False
    pin.run(given)
    assert capsys.readouterr().out.splitlines() == [
        "new      nodes one",
        "new      nodes two",
        "nothing was written (--dry-run)",
    ]


def test_a_lock_offline_needs_published_hashes(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PatchforgeError, match=r"(?s)nothing is known of torch.*--online"):
        lock_torch.run(lock_options(world, online=False))
    text = f"torch\tabi\tfile\thash\tpublished_by\n2.14.0\tcp312\ttorch-2.14.0+xpu-cp312-cp312-{LINUX}.whl\t{HASH}\tx\n"
    (world / "top/upstream/torch.hashes.tsv").write_text(text, "utf-8")
    assert lock_torch.run(lock_options(world, online=False)) == Exit.FAILED
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("schema") == "patchforge/lock-torch/1"
    assert printed["missing"] == ["torchvision==0.29.0+xpu for cp312"]
    lock = pin_files.load_lock("2.14.0-cp312", world / "pins")
    assert lock
    assert json.loads(json.dumps(plain(lock))) == printed


@pytest.mark.parametrize("python", ["3", "cp312", "3.12.1", "latest"])
def test_a_python_that_is_none(world: Path, python: str) -> None:
    given = lock_options(world, online=True)
    given.python = python
    with pytest.raises(PatchforgeError, match="is not a version of Python"):
        lock_torch.run(given)


def test_a_complete_lock_is_not_made_worse_offline(world: Path) -> None:
    assert lock_torch.run(lock_options(world, online=True)) == Exit.OK
    before = contents(world)
    assert lock_torch.run(lock_options(world, online=False)) == Exit.OK
    assert contents(world) == before
