"""The command line from outside: a clone of miniature releases, and what each command writes, says and returns."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from patchforge import __version__
from patchforge.atomic import recover
from patchforge.cli import main
from patchforge.outputs import listed
from patchforge.rules import transforms
from patchforge.vocabulary import git_blob_id
from tests.support import ERAS, MINIATURES, ROOT, miniature

HELPERS = (
    "-c",
    "user.name=a",
    "-c",
    "user.email=a@example.org",
    "-c",
    "commit.gpgsign=false",
    "-c",
    "core.autocrlf=false",
)


def patchforge(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, which saves importing all that it needs anew."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or ROOT),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            status = main(arguments)
        except SystemExit as end:  # --help, --version
            status = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def in_a_process(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchforge", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd or ROOT, env=env, capture_output=True, text=True, check=False)


def done(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    result = patchforge(*arguments, cwd=cwd, **environment)
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *HELPERS, *arguments], check=True, capture_output=True, text=True
    ).stdout


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def content(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


# v0.35.0 and later ask whether a device multiplies int8.
INT8_GATE = b"""

def supports_int8_compute(device=None):
    if is_intel_xpu():
        return False
    return True
"""


def of_version(version: str) -> dict[str, bytes]:
    files = {**miniature("v0.33.0"), "comfyui_version.py": f'__version__ = "{version}"\n'.encode()}
    if version.startswith("9."):
        files["comfy/model_management.py"] += INT8_GATE
    return files


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with v9.0.0 and v9.1.0, a drifting v9.2.0, and a tag that disagrees with the release index."""
    top = tmp_path_factory.mktemp("upstream")
    git(top, "init", "--quiet")
    moved = of_version("9.2.0")
    moved["comfy/model_management.py"] = moved["comfy/model_management.py"].replace(b"def is_oom(e)", b"def ran_out(e)")
    unclaimed = {
        **of_version("9.1.0"),
        "comfy/new.py": b"import torch\n\n\ndef fresh():\n    torch.cuda.empty_cache()\n",
    }
    states = [
        ("v0.33.0", of_version("0.33.0")),
        ("v9.0.0", of_version("9.0.0")),
        ("v9.1.0", unclaimed),
        ("v9.2.0", moved),
    ]
    for tag, files in states:
        fill(top, files)
        git(top, "add", "--all")
        git(top, "commit", "--quiet", "--message", tag)
        git(top, "tag", tag)
    return top


def applied(upstream: Path, out: Path, *more: str) -> dict[str, bytes]:
    done("apply", "v9.0.0", "--upstream", str(upstream), "--out", str(out), *more)
    return content(out)


def test_apply_writes_patches_series_manifest_and_report(upstream: Path, tmp_path: Path) -> None:
    files = applied(upstream, tmp_path / "out")
    manifest = json.loads(files["manifest.json"])
    patches = [entry["file"] for entry in manifest["patches"]]
    assert set(files) == {*patches, "series", "manifest.json", "REPORT.md", "SHA256SUMS"}
    assert files["series"].decode().split() == patches == sorted(patches)
    assert manifest["release"] == "v9.0.0"
    assert manifest["commit"] == git(upstream, "rev-parse", "v9.0.0").strip()
    assert [transform["id"] for transform in manifest["transforms"]] == [transform.id for transform in transforms()]
    assert manifest["sites"]["unclaimed"] == 0


def test_the_same_bytes_however_the_work_is_done(upstream: Path, tmp_path: Path) -> None:
    first = applied(upstream, tmp_path / "a", "--jobs", "1", "--no-cache")
    assert applied(upstream, tmp_path / "b", "--jobs", "2") == first
    assert applied(upstream, tmp_path / "c") == first  # from the cache
    assert applied(upstream, tmp_path / "a") == first  # over an earlier run


def test_the_same_release_from_a_folder(upstream: Path, tmp_path: Path) -> None:
    fill(tmp_path / "tree", of_version("9.0.0"))
    done("apply", "--from", str(tmp_path / "tree"), "--out", str(tmp_path / "out"))
    theirs, ours = applied(upstream, tmp_path / "git"), content(tmp_path / "out")
    assert {name for name in theirs if name.endswith(".patch")} == {name for name in ours if name.endswith(".patch")}
    assert json.loads(ours["manifest.json"])["transforms"] == json.loads(theirs["manifest.json"])["transforms"]


@pytest.mark.parametrize("era", ERAS)
def test_every_miniature_converts(era: str, tmp_path: Path) -> None:
    text = done("apply", "--from", str(MINIATURES / era), "--out", str(tmp_path / "out"), "--verbose")
    assert f"ComfyUI {era}" in text
    assert "0 unclaimed" in text
    assert "expected" not in text


def test_a_dry_run_writes_nothing(upstream: Path, tmp_path: Path) -> None:
    text = done("apply", "v9.0.0", "--upstream", str(upstream), "--out", str(tmp_path / "out"), "--dry-run")
    assert "nothing written" in text
    assert not (tmp_path / "out").exists()


def test_json_is_one_document(upstream: Path, tmp_path: Path) -> None:
    text = done("apply", "v9.0.0", "--upstream", str(upstream), "--out", str(tmp_path / "out"), "--json")
    document = json.loads(text)
    assert document["written"] == str(tmp_path / "out")
    assert document["indexed"] is False
    assert {key: document[key] for key in json.loads((tmp_path / "out" / "manifest.json").read_text())} == json.loads(
        (tmp_path / "out" / "manifest.json").read_text()
    )


@pytest.mark.parametrize("context", ["0", "3"])
def test_git_applies_the_series(upstream: Path, tmp_path: Path, context: str) -> None:
    files = applied(upstream, tmp_path / "out", "--context", context)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", "v9.0.0", str(upstream), str(clone))
    for name in files["series"].decode().split():
        git(clone, "apply", "--unidiff-zero", "--whitespace=nowarn", str(tmp_path / "out" / name))
    done("apply", "v9.0.0", "--upstream", str(upstream), "--to", str(tmp_path / "tree"))
    whole = content(tmp_path / "tree")
    assert {path: (clone / path).read_bytes() for path in whole} == whole
    assert "comfy/patchforge_xpu/__init__.py" in whole


def test_patches_with_context_apply_after_a_change_elsewhere(upstream: Path, tmp_path: Path) -> None:
    files = applied(upstream, tmp_path / "out", "--context", "3")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", "v9.0.0", str(upstream), str(clone))
    target = clone / "comfy" / "model_management.py"
    target.write_bytes(
        target.read_bytes().replace(b"current_loaded_models = []", b"current_loaded_models = list()\n\nMINE = 1")
    )
    for name in files["series"].decode().split():
        git(clone, "apply", "--whitespace=nowarn", str(tmp_path / "out" / name))
    assert b"MINE = 1" in target.read_bytes()


def test_a_whole_tree_goes_into_a_new_folder_only(upstream: Path, tmp_path: Path) -> None:
    fill(tmp_path / "tree", {"mine.txt": b"mine"})
    result = patchforge("apply", "v9.0.0", "--upstream", str(upstream), "--to", str(tmp_path / "tree"))
    assert result.returncode == 2
    assert "not empty" in result.stderr
    assert content(tmp_path / "tree") == {"mine.txt": b"mine"}


def test_a_folder_of_others_is_not_replaced(upstream: Path, tmp_path: Path) -> None:
    fill(tmp_path / "out", {"mine.txt": b"mine"})
    result = patchforge("apply", "v9.0.0", "--upstream", str(upstream), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert content(tmp_path / "out") == {"mine.txt": b"mine"}


# --- In place ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    fill(tmp_path / "ComfyUI", {**of_version("9.0.0"), "custom_nodes/pack/mine.py": b"torch.cuda.x()\n"})
    return tmp_path / "ComfyUI"


def test_in_place_and_back(checkout: Path) -> None:
    before = content(checkout)
    (checkout / "main.py").chmod(0o755)
    done("apply", "--in-place", str(checkout))
    patched = content(checkout)
    assert b"patchforge_xpu.start(args)" in patched["main.py"]
    assert patched["custom_nodes/pack/mine.py"] == before["custom_nodes/pack/mine.py"]
    assert (checkout / "main.py").stat().st_mode & 0o777 == 0o755
    done("revert", str(checkout))
    assert content(checkout) == before


def test_a_copy_of_a_folder_has_what_the_release_has_and_tells_what_it_lacks(checkout: Path, tmp_path: Path) -> None:
    fill(checkout, {"models/vae/put_vae_here": b"", "models/vae/mine.safetensors": bytes(3_000_000)})
    said = done("apply", "--from", str(checkout), "--to", str(tmp_path / "tree"))
    assert "left out: custom_nodes (1 file, 0.0 MB), models (1 file, 3.0 MB): yours" in said
    assert (tmp_path / "tree/models/vae/put_vae_here").is_file()
    assert not (tmp_path / "tree/models/vae/mine.safetensors").exists()
    told = json.loads(done("apply", "--from", str(checkout), "--to", str(tmp_path / "tree"), "--json"))
    assert [(each["path"], each["files"]) for each in told["left_out"]] == [("custom_nodes", 1), ("models", 1)]
    assert "left out" not in done("apply", "--from", str(checkout), "--out", str(tmp_path / "patches"))
    (checkout / "comfy/linked.py").symlink_to(checkout / "main.py")
    said = done("apply", "--from", str(checkout), "--to", str(tmp_path / "linked"))
    assert "missing: comfy/linked.py (symbolic link)" in said
    assert "NOT WHOLE" in said


def test_in_place_twice_is_refused(checkout: Path) -> None:
    done("apply", "--in-place", str(checkout))
    patched = content(checkout)
    again = patchforge("apply", "--in-place", str(checkout))
    assert again.returncode in (1, 2)
    assert "already" in again.stderr
    assert f"patchforge revert {checkout}" in again.stderr
    assert content(checkout) == patched


def test_a_patched_tree_without_a_journal_is_refused(checkout: Path, tmp_path: Path) -> None:
    done("apply", "--from", str(checkout), "--to", str(tmp_path / "tree"))
    again = patchforge("apply", "--in-place", str(tmp_path / "tree"))
    assert again.returncode != 0
    assert "already" in again.stderr


def test_an_edit_elsewhere_in_a_patched_file_survives_the_way_back(checkout: Path) -> None:
    before = content(checkout)
    done("apply", "--in-place", str(checkout))
    for path in ("main.py", "comfy/model_management.py"):
        file = checkout / path
        file.write_bytes(b"# mine at the top\n" + file.read_bytes() + b"# mine at the end\n")
    done("revert", str(checkout))
    for path in ("main.py", "comfy/model_management.py"):
        before[path] = b"# mine at the top\n" + before[path] + b"# mine at the end\n"
    assert content(checkout) == before


def test_an_edit_in_ours_stops_the_way_back_and_nothing_is_written(checkout: Path) -> None:
    done("apply", "--in-place", str(checkout))
    main = checkout / "main.py"
    main.write_bytes(main.read_bytes().replace(b"patchforge_xpu.start(args)", b"patchforge_xpu.start(mine)"))
    edited = content(checkout)
    result = patchforge("revert", str(checkout))
    assert result.returncode == 1
    assert "main.py" in result.stderr
    assert content(checkout) == edited


def test_a_revert_can_be_tried_first(checkout: Path) -> None:
    done("apply", "--in-place", str(checkout))
    patched = content(checkout)
    assert "would be put back; nothing written (dry run)" in done("revert", str(checkout), "--dry-run")
    assert content(checkout) == patched


def test_what_a_dry_run_would_write_and_remove(checkout: Path) -> None:
    before = content(checkout)
    text = done("apply", "--in-place", str(checkout), "--dry-run")
    assert "would write main.py" in text
    assert content(checkout) == before
    done("apply", "--in-place", str(checkout))
    text = done("revert", str(checkout), "--dry-run")
    assert "would write main.py" in text
    assert "would remove comfy/patchforge_xpu/__init__.py" in text


def test_options_that_contradict_in_place(checkout: Path, tmp_path: Path) -> None:
    fill(tmp_path / "other", of_version("9.1.0"))
    before = content(checkout)
    result = patchforge("apply", "--from", str(tmp_path / "other"), "--in-place", str(checkout))
    assert result.returncode == 2
    assert content(checkout) == before
    done("apply", "--in-place", str(checkout))
    patched = content(checkout)
    for more in (["v9.0.0"], ["--from", str(tmp_path)], ["--context", "3"], ["--no-cache"], ["--upstream", "."]):
        result = patchforge("apply", "--revert", str(checkout), *more)
        assert result.returncode == 2
        assert "leave it out" in result.stderr
    assert content(checkout) == patched


def test_status_repair_and_update_of_a_checkout(checkout: Path) -> None:
    assert "not patched" in done("status", str(checkout))
    done("apply", "--in-place", str(checkout))
    patched = content(checkout)
    (checkout / "comfy" / "patchforge_xpu" / "__init__.py").unlink()
    lost = patchforge("status", str(checkout), "--json")
    assert lost.returncode == 1
    assert json.loads(lost.stdout)["state"] == "module lost"
    assert "would write comfy/patchforge_xpu/__init__.py" in done("repair", str(checkout), "--dry-run")
    assert ": patched (it was module lost); 1 file changed" in done("repair", str(checkout))
    assert content(checkout) == patched
    fill(checkout, of_version("9.1.0"))
    moved = patchforge("status", str(checkout))
    assert moved.returncode == 1
    assert f"patchforge update {checkout}" in moved.stdout
    assert json.loads(done("update", str(checkout), "--json"))["state"] == "patched"
    done("revert", str(checkout))
    assert {**content(checkout), **of_version("9.1.0")} == content(checkout)


def test_status_of_what_is_not_comfyui(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "neither ComfyUI nor a pack" in patchforge("status", str(tmp_path / "empty")).stdout
    assert patchforge("status", str(tmp_path / "nowhere")).returncode == 2


def test_nothing_to_revert(checkout: Path) -> None:
    result = patchforge("revert", str(checkout))
    assert result.returncode == 2
    assert "not patched" in result.stderr


# --- The patched program ----------------------------------------------------------------------------------------------

NO_TORCH = "raise ImportError('no torch here')\n"


def patched_main(tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    done("apply", "--from", str(MINIATURES / "v0.33.0"), "--to", str(tmp_path / "tree"))
    fill(tmp_path / "shadow", {"torch.py": NO_TORCH.encode()})
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "shadow")}
    command = [sys.executable, "main.py", *flags]
    return subprocess.run(command, cwd=tmp_path / "tree", env=env, capture_output=True, text=True, check=False)


def test_the_patched_miniature_starts_without_torch(tmp_path: Path) -> None:
    result = patched_main(tmp_path, "--cpu", "--quick-test-for-ci", "--cuda-device", "1")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_help_gpu_says_when_torch_is_missing(tmp_path: Path) -> None:
    result = patched_main(tmp_path, "--help-gpu")
    assert result.returncode == 1
    assert "torch cannot be imported" in result.stderr


def test_help_gpu_tells_what_was_found(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("psutil")
    done("apply", "--from", str(MINIATURES / "v0.33.0"), "--to", str(tmp_path / "tree"))
    command = [sys.executable, "main.py", "--help-gpu", "--intel-device", "1"]
    result = subprocess.run(command, cwd=tmp_path / "tree", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Intel XPU devices:" in result.stdout
    assert "ZE_AFFINITY_MASK=1" in result.stdout


# --- check and verify -------------------------------------------------------------------------------------------------


@pytest.fixture
def generated(upstream: Path, tmp_path: Path) -> Path:
    applied(upstream, tmp_path / "generated" / "v9.0.0")
    return tmp_path / "generated"


def on(upstream: Path, generated: Path, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    return patchforge(command, "--upstream", str(upstream), "--generated", str(generated), *more)


def test_check_is_content_with_what_apply_wrote(upstream: Path, generated: Path) -> None:
    result = on(upstream, generated, "check")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "v9.0.0: ok" in result.stdout


@pytest.mark.parametrize("name", ["REPORT.md", "series", "0001-device-support.patch"])
def test_check_sees_what_is_out_of_date_missing_or_not_generated(upstream: Path, generated: Path, name: str) -> None:
    file = generated / "v9.0.0" / name
    original = file.read_bytes()
    file.write_bytes(original + b"\n")
    result = on(upstream, generated, "check")
    assert result.returncode == 1
    assert f"{name} is out of date" in result.stdout
    file.unlink()
    assert f"{name} is missing" in on(upstream, generated, "check").stdout
    file.write_bytes(original)
    (generated / "v9.0.0" / "0009-mine.patch").write_bytes(b"")
    assert "0009-mine.patch is not generated" in on(upstream, generated, "check").stdout


def test_check_says_drift(upstream: Path, generated: Path) -> None:
    result = on(upstream, generated, "check", "v9.2.0", "--json")
    assert result.returncode == 3
    [row] = json.loads(result.stdout)["results"]
    assert row["verdict"] == "failed"
    assert "def is_oom" in row["problems"][0]


def test_check_sees_new_unclaimed_sites(upstream: Path, generated: Path) -> None:
    result = on(upstream, generated, "check", "v9.0.0", "v9.1.0")
    assert result.returncode == 1
    assert "comfy/new.py" in result.stdout
    assert "v9.0.0: ok" in result.stdout


def test_check_of_what_is_not_generated_is_no_check(upstream: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = on(upstream, tmp_path / "empty", "check", "v9.0.0")
    assert result.returncode == 69
    assert "v9.0.0: not checked" in result.stdout
    assert f"patchforge apply v9.0.0 --out {tmp_path / 'empty' / 'v9.0.0'}" in result.stdout
    result = on(upstream, tmp_path / "empty", "check", "v9.1.0", "--json")
    assert result.returncode == 1, "a new unclaimed site is a failure all the same"
    assert len(json.loads(result.stdout)["results"][0]["problems"]) == 2


def advice(text: str) -> list[str]:
    """The command line behind ``to do:``."""
    return shlex.split(next(line for line in text.splitlines() if "to do:" in line).partition("patchforge ")[2])


def test_advice_can_be_typed(upstream: Path, generated: Path) -> None:
    manifest = generated / "v9.0.0" / "manifest.json"
    other = manifest.read_text().replace(json.loads(manifest.read_text())["rules"], "0" * 64)
    (generated / "v9.0.0" / "SHA256SUMS").unlink()  # of an earlier version of patchforge
    manifest.write_text(other)
    on_status = advice(done("status", "--generated", str(generated)))
    assert on_status == advice(on(upstream, generated, "check").stdout)
    done(*on_status, "--upstream", str(upstream))
    assert on(upstream, generated, "check").returncode == 0
    assert "v9.0.0: current" in done("status", "--generated", str(generated))


def test_an_edited_folder_is_called_so_before_it_is_written(upstream: Path, generated: Path) -> None:
    folder = generated / "v9.0.0"
    with (folder / "0001-device-support.patch").open("a") as patch:
        patch.write("# mine\n")
    status, check = done("status", "--generated", str(generated)), on(upstream, generated, "check").stdout
    assert "edited since" in status
    for said in (status, check):
        assert f"move {folder} away" in said
    command = advice(check)
    assert patchforge(*command, "--upstream", str(upstream)).returncode == 2
    folder.rename(generated / "mine")
    done(*command, "--upstream", str(upstream))
    assert on(upstream, generated, "check").returncode == 0


def test_a_folder_that_is_not_of_a_version_is_passed_over(upstream: Path, generated: Path) -> None:
    (generated / "vacant").mkdir()
    (generated / "vacant" / "manifest.json").write_text("{}")
    assert on(upstream, generated, "check").returncode == 0
    assert "vacant" not in done("status", "--generated", str(generated))


def test_check_without_anything_generated(upstream: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = on(upstream, tmp_path / "empty", "check")
    assert result.returncode == 2
    assert "nothing has been generated" in result.stderr


def test_verify_believes_what_apply_wrote(upstream: Path, generated: Path) -> None:
    result = on(upstream, generated, "verify")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "v9.0.0: ok" in result.stdout


def test_verify_sees_a_tampered_patch(upstream: Path, generated: Path) -> None:
    patch = generated / "v9.0.0" / "0001-device-support.patch"
    patch.write_bytes(patch.read_bytes().replace(b"patchforge_xpu.start(args)", b"patchforge_xpu.evil(args)", 1))
    result = on(upstream, generated, "verify", "--json")
    assert result.returncode == 1
    [row] = json.loads(result.stdout)["results"]
    assert "0001-device-support.patch" in row["problem"]


def test_verify_sees_a_patch_and_a_manifest_that_were_both_tampered_with(upstream: Path, generated: Path) -> None:
    import hashlib

    folder = generated / "v9.0.0"
    patch = folder / "0001-device-support.patch"
    old = patch.read_bytes()
    new = old.replace(b"patchforge_xpu.start(args)", b"patchforge_xpu.evil(args)", 1)
    assert new != old
    patch.write_bytes(new)
    text = (
        (folder / "manifest.json").read_text().replace(hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest())
    )
    (folder / "manifest.json").write_text(text)
    result = on(upstream, generated, "verify")
    assert result.returncode == 1
    assert "other bytes" in result.stdout


@pytest.mark.parametrize("manifest", [b"", b"{}", b'{"commit": 1}', b"[]"])
def test_verify_and_a_manifest_that_is_none(upstream: Path, generated: Path, manifest: bytes) -> None:
    (generated / "v9.0.0" / "manifest.json").write_bytes(manifest)
    result = on(upstream, generated, "verify", "v9.0.0")
    assert result.returncode == 65, result.stderr
    assert "not checked" in result.stdout
    assert "Traceback" not in result.stderr


def test_verify_and_a_patch_that_is_gone(upstream: Path, generated: Path) -> None:
    (generated / "v9.0.0" / "0002-memory-management.patch").unlink()
    result = on(upstream, generated, "verify")
    assert result.returncode == 1
    assert "0002-memory-management.patch" in result.stdout


def emptied(folder: Path) -> None:
    (folder / "SHA256SUMS").write_bytes(b"")


def without_a_name(folder: Path) -> None:
    text = (folder / "SHA256SUMS").read_bytes().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_bytes(b"".join(line for line in text if not line.endswith(b"  series\n")))


def longer(folder: Path) -> None:
    with (folder / "series").open("a") as series:
        series.write("../../x\n")


def longer_and_listed(folder: Path) -> None:
    longer(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "SHA256SUMS"}
    (folder / "SHA256SUMS").write_bytes(listed(files)["SHA256SUMS"])


def a_link_for_a_file(folder: Path) -> None:
    (folder / "REPORT.md").rename(folder.parent / "elsewhere.md")
    (folder / "REPORT.md").symlink_to(folder.parent / "elsewhere.md")


TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "series longer": (longer, "series has other bytes than SHA256SUMS names"),
    "series longer, and listed so": (longer_and_listed, "series does not list the patches of the manifest"),
    "series gone": (lambda folder: (folder / "series").unlink(), "series is missing"),
    "report gone": (lambda folder: (folder / "REPORT.md").unlink(), "REPORT.md is missing"),
    "report edited": (lambda folder: (folder / "REPORT.md").write_text("mine"), "REPORT.md has other bytes"),
    "report a link": (a_link_for_a_file, "REPORT.md is not a plain file"),
    "list emptied": (emptied, "SHA256SUMS is not as patchforge wrote it"),
    "list gone": (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "list without a name": (without_a_name, "SHA256SUMS does not name series"),
    "a stray file": (lambda folder: (folder / "mine.txt").touch(), "mine.txt is not one of its files"),
    "a stray folder": (lambda folder: (folder / "mine").mkdir(), "mine is not one of its files"),
    "a file deeper": (lambda folder: fill(folder, {"a/mine.txt": b""}), "a/mine.txt is not one of its files"),
}


def test_verify_and_check_say_what_differs_in_a_folder(upstream: Path, generated: Path) -> None:
    whole = generated / "v9.0.0"
    kept = generated.parent / "kept"
    shutil.copytree(whole, kept)
    for name, (tamper, said) in TAMPERINGS.items():
        shutil.rmtree(whole)
        shutil.copytree(kept, whole)
        tamper(whole)
        result = on(upstream, generated, "verify", "v9.0.0")
        assert result.returncode == 1, name
        assert said in result.stdout, (name, result.stdout)
        if name in {"a stray folder", "report a link", "list emptied", "a file deeper"}:
            assert on(upstream, generated, "check", "v9.0.0").returncode == 1, name


# --- The other commands -----------------------------------------------------------------------------------------------


def test_replay_needs_the_releases(upstream: Path) -> None:
    result = patchforge("replay", "--upstream", str(upstream), "--since", "v9.0.0", "--until", "v9.2.0", "--json")
    assert result.returncode == 3
    rows = json.loads(result.stdout)["releases"]
    assert [(row["release"], bool(row["drifts"])) for row in rows] == [
        ("v9.0.0", False),
        ("v9.1.0", False),
        ("v9.2.0", True),
    ]
    assert rows[1]["unclaimed"] == ["comfy/new.py fresh: torch.cuda.empty_cache"]


def test_replay_of_good_releases(upstream: Path) -> None:
    text = done("replay", "--upstream", str(upstream), "--since", "v9.0.0", "--until", "v9.1.0", "--check")
    assert "0 drifted, 0 failed, 0 outcomes outside their range, 1 unclaimed" in text


def test_explain() -> None:
    listed = done("explain")
    assert [line.split()[0] for line in listed.splitlines()] == sorted(rule.id for rule in transforms())
    assert done("explain", "t01").startswith("## free-memory: ")
    assert json.loads(done("explain", "T01", "--json"))["results"][0]["id"] == "free-memory"
    unknown = patchforge("explain", "T99")
    assert unknown.returncode == 2
    assert "no rule T99" in unknown.stderr


def test_status(generated: Path) -> None:
    printed = json.loads(done("status", "--generated", str(generated), "--json"))
    assert printed["patchforge"] == __version__
    assert [(release["release"], release["current"]) for release in printed["generated"]] == [("v9.0.0", True)]
    assert "v9.0.0: current" in done("status", "--generated", str(generated))


def test_completion() -> None:
    script = done("completion", "bash")
    assert "--in-place" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_an_unknown_version_gets_suggestions(upstream: Path, tmp_path: Path) -> None:
    result = patchforge("apply", "v9.0.1", "--upstream", str(upstream), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert "v9.0.0" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_tag_that_disagrees_with_the_index_is_refused(upstream: Path, tmp_path: Path) -> None:
    result = patchforge("apply", "v0.33.0", "--upstream", str(upstream), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert "disagree about v0.33.0" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("apply",),
        ("apply", "--context", "-1", "v9.0.0"),
        ("apply", "--from", "/nonexistent/comfyui.tar.gz"),
        ("apply", "--in-place", "/nonexistent/comfyui"),
        ("apply", "--out", "a", "--to", "b", "v9.0.0"),
        ("nonsense",),
        ("check", "--upstream", "/nonexistent/clone", "v9.0.0"),
    ],
)
def test_wrong_usage_is_status_two_without_a_traceback(arguments: tuple[str, ...]) -> None:
    result = patchforge(*arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_a_tree_without_a_version(tmp_path: Path) -> None:
    fill(tmp_path / "tree", {"main.py": b"pass\n"})
    result = patchforge("apply", "--from", str(tmp_path / "tree"), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert "not recognised" in result.stderr


def test_another_version_than_the_one_named(tmp_path: Path) -> None:
    result = patchforge("apply", "v0.32.0", "--from", str(MINIATURES / "v0.33.0"), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert "another release" in result.stderr


def on_a_terminal(**environment: str) -> bytes:
    """Output of a command whose standard output is a terminal."""
    import pty

    leader, follower = pty.openpty()
    env = {
        **{key: value for key, value in os.environ.items() if key != "NO_COLOR"},
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    command = [
        sys.executable,
        "-m",
        "patchforge",
        "apply",
        "--from",
        str(MINIATURES / "v0.33.0"),
        "--dry-run",
        "--verbose",
    ]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=follower, stderr=subprocess.DEVNULL) as running:
        os.close(follower)
        pieces: list[bytes] = []
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            pieces.append(piece)
        assert running.wait() == 0
    os.close(leader)
    return b"".join(pieces)


def test_colours_only_on_a_terminal_without_no_color() -> None:
    assert b"\033[32m" in on_a_terminal(TERM="xterm")
    assert b"\033[" not in on_a_terminal(TERM="xterm", NO_COLOR="1")
    assert b"\033[" not in on_a_terminal(TERM="dumb")
    assert "\033[" not in done("apply", "--from", str(MINIATURES / "v0.33.0"), "--dry-run", NO_COLOR="")


def test_help_imports_no_slow_library() -> None:
    script = (
        "import sys\nfrom patchforge.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'libcst', 'git', 'github', 'jinja2', 'torch'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    assert "exit status" in result.stdout


# --- Killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [True, False], ids=["over an old folder", "new folder"])
def test_a_killed_run_leaves_the_folder_whole(upstream: Path, tmp_path: Path, old: bool) -> None:
    out = tmp_path / "out"
    whole = applied(upstream, tmp_path / "reference")
    earlier = listed({"series": b"", "manifest.json": b"{}"})
    started = time.monotonic()
    again = in_a_process("apply", "v9.0.0", "--upstream", str(upstream), "--out", str(tmp_path / "reference"))
    length = time.monotonic() - started
    assert again.returncode == 0
    assert content(tmp_path / "reference") == whole, "as another process makes it"
    for attempt in range(8):
        if old:
            fill(out, earlier)
            for name in content(out).keys() - earlier.keys():
                (out / name).unlink()
        command = [
            sys.executable,
            "-m",
            "patchforge",
            "apply",
            "v9.0.0",
            "--upstream",
            str(upstream),
            "--out",
            str(out),
        ]
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(length * (attempt + 1) / 8)
        running.send_signal(signal.SIGKILL)
        running.wait()
        recover(out, ours=lambda _: None)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []
        assert (content(out) if out.exists() else None) in ((earlier if old else None), whole)
    assert applied(upstream, out) == whole
    assert {git_blob_id(data) for data in content(out).values()} == {git_blob_id(data) for data in whole.values()}
