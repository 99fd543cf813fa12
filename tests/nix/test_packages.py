"""Packages built with the real Nix in a pretended nixpkgs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator import build, environment
from patchforge import pipeline
from patchforge.atomic import write_tree
from patchforge.hashes import of_folder
from patchforge.project import root
from patchforge.sources import open_upstream
from patchforge.vocabulary import Release
from tests.nix import sandbox
from tests.nix.conftest import regenerate
from tests.nix.sandbox import Miniature, write_json
from tests.support import engine_of

PROGRAMS = ("comfyui", "comfyui-cuda", "comfyui-xpu")


@pytest.fixture
def changed(mini: Miniature, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the miniature project in which one file is changed."""

    def change(path: str, old: str, new: str) -> Path:
        copy = tmp_path / "project"
        shutil.copytree(mini.project, copy)
        file = copy / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        return copy

    return change


@pytest.fixture(scope="module")
def comfyui(mini: Miniature) -> Path:
    return mini.nix.build(mini.scope("s.comfyui-xpu"))


def test_comfyui_builds(comfyui: Path) -> None:
    assert {path.name for path in (comfyui / "bin").iterdir()} == set(PROGRAMS)
    assert (comfyui / "share/comfyui/comfy/patchforge_xpu.py").is_file()


def test_a_build_is_reproducible(mini: Miniature, comfyui: Path) -> None:
    done = mini.nix.run("nix-build", "--no-out-link", "--check", "--expr", mini.scope("s.comfyui-xpu"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert Path(done.stdout.strip()) == comfyui


def test_names_lead_to_the_same_package(mini: Miniature) -> None:
    rest = "map (x: x.drvPath) [ s.comfyui-xpu s.comfyui-ipex s.comfyui-xpu_0_33_0 ]"
    assert len(set(mini.nix.evaluate(mini.scope(rest)))) == 1


def run(program: Path, *words: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **variables}
    return subprocess.run([program, *words], env=environment, capture_output=True, text=True, check=False)


#: What is there, the program, its flags: the device it picks.
CHOICES = [
    ("cuda,xpu", "comfyui", (), "cuda"),
    ("cuda", "comfyui", (), "cuda"),
    ("xpu", "comfyui", (), "xpu"),
    ("", "comfyui", (), "cpu"),
    ("cuda,xpu", "comfyui", ("--force-intel-xpu",), "xpu"),
    ("cuda,xpu", "comfyui", ("--cpu",), "cpu"),
    ("cuda,xpu", "comfyui-cuda", (), "cuda"),
    ("cuda,xpu", "comfyui-cuda", ("--force-intel-xpu",), "xpu"),
    ("cuda,xpu", "comfyui-xpu", (), "xpu"),
    ("cuda,xpu", "comfyui-xpu", ("--cpu",), "cpu"),
    ("xpu", "comfyui-xpu", ("--intel-device", "0"), "xpu"),
    ("cuda", "comfyui-xpu", (), "cuda"),
    ("", "comfyui-xpu", (), "cpu"),
]


@pytest.mark.parametrize(("there", "program", "flags", "device"), CHOICES)
def test_which_device_a_program_picks(
    comfyui: Path, tmp_path: Path, *, there: str, program: str, flags: tuple[str, ...], device: str
) -> None:
    done = run(comfyui / "bin" / program, "--help-gpu", *flags, home=tmp_path, MINITORCH=there)
    assert done.returncode == 0, done.stderr
    assert f"Chosen: {device}, because" in done.stdout
    # Looking changes nothing.
    assert list(tmp_path.iterdir()) == []


def emulated(folder: Path) -> str:
    """A folder on PYTHONPATH that gives every Python the emulated XPU; builders do not inherit the environment."""
    variables = environment("b580", "torchvision=schemas", base={})
    lines = [f"os.environ.setdefault({key!r}, {value!r})" for key, value in variables.items() if key != "PYTHONPATH"]
    site = Path(variables["PYTHONPATH"]) / "sitecustomize.py"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "\n".join(["import os, runpy", *lines, f"runpy.run_path({str(site)!r})", ""])
    )
    return str(folder)


@pytest.mark.skipif(bool(build.missing()), reason=f"no emulated XPU: {build.missing()}")
def test_which_device_a_program_picks_on_the_emulated_xpu(mini: Miniature, tmp_path: Path) -> None:
    """With a real torch, a CPU build."""
    nixpkgs = sandbox.mock_nixpkgs(
        tmp_path / "nixpkgs",
        mini.network,
        python_path=emulated(tmp_path / "site"),
        packages={"numpy": "2.0", "torch": "2.9"},
    )
    scope = f"import {mini.project}/generated/nix {{ inherit pkgs; }}"
    package = f"(({scope}).comfyui-xpu.override {{ python = pkgs.python3; }})"
    unchecked = f"{package}.overrideAttrs (_: {{ doInstallCheck = false; }})"
    out = mini.nix.build(f"let pkgs = import {nixpkgs} {{ }}; in {unchecked}")
    for program in PROGRAMS:
        done = run(out / "bin" / program, "--help-gpu", home=tmp_path)
        assert "Chosen: xpu, because torch can use it" in done.stdout, done.stderr
        assert "B580" in done.stdout
    refused = run(out / "bin/comfyui-cuda", "--quick-test-for-ci", home=tmp_path)
    assert "finds no CUDA device" in refused.stderr


def test_intel_device_reaches_the_driver(comfyui: Path, tmp_path: Path) -> None:
    done = run(comfyui / "bin/comfyui-xpu", "--intel-device", "1", "--help-gpu", home=tmp_path, MINITORCH="xpu")
    assert "ZE_AFFINITY_MASK=1" in done.stdout


def test_the_cuda_program_does_not_run_on_something_else(comfyui: Path, tmp_path: Path) -> None:
    done = run(comfyui / "bin/comfyui-cuda", "--quick-test-for-ci", home=tmp_path, MINITORCH="xpu")
    assert done.returncode == 1
    assert "finds no CUDA device" in done.stderr
    assert "to do:" in done.stderr


def test_data_and_caches_are_the_users(comfyui: Path, tmp_path: Path) -> None:
    """Spaces in paths included."""
    folder = tmp_path / "my data"
    done = run(comfyui / "bin/comfyui", "--quick-test-for-ci", "--cpu", home=tmp_path / "h", COMFYUI_DIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {"models", "custom_nodes", "input", "output", "temp", "user"}
    assert (tmp_path / "h/.cache/comfyui/sycl").is_dir()


def test_a_base_directory_of_ones_own_is_kept(comfyui: Path, tmp_path: Path) -> None:
    words = ("--quick-test-for-ci", "--cpu", "--base-directory", str(tmp_path / "mine"))
    assert run(comfyui / "bin/comfyui", *words, home=tmp_path).returncode == 0
    assert not (tmp_path / ".local").exists()


def test_a_second_torch_serves_cuda(mini: Miniature, tmp_path: Path) -> None:
    """``cudaPython`` is asked only when it is there, and used when it has a device."""
    out = mini.nix.build(mini.scope("s.comfyui-xpu.override { cudaPython = s.python-xpu; }"))
    for there, device in (("cuda", "cuda"), ("xpu", "xpu")):
        done = run(out / "bin/comfyui", "--help-gpu", home=tmp_path, MINITORCH=there)
        assert f"Chosen: {device}, because" in done.stdout


def test_python_xpu_imports_the_locked_torch(mini: Miniature) -> None:
    out = mini.nix.build(mini.scope("s.python-xpu.withPackages (ps: [ ps.torch ps.torchvision ps.torchaudio ])"))
    code = "import torch, torchvision, torchaudio; print(torch.__version__)"
    done = subprocess.run([out / "bin/python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2.14.0+xpu\n"


def test_intels_libraries_are_merged(mini: Miniature) -> None:
    assert [path.name for path in (mini.nix.build(mini.scope("s.intel-oneapi-runtime")) / "lib").iterdir()] == [
        "libsycl.so.9"
    ]


def test_nodes_come_with_their_requirements(mini: Miniature, tmp_path: Path) -> None:
    out = mini.nix.build(mini.scope("s.comfyui-xpu.override { nodePacks = [ s.nodes.a-node ]; }"))
    done = run(out / "bin/comfyui", "--quick-test-for-ci", "--cpu", home=tmp_path)
    assert done.returncode == 0, done.stderr
    yaml = next(word for word in (out / "bin/comfyui").read_text().split() if "extra_model_paths.yaml" in word)
    folder = Path(Path(yaml.strip(";")).read_text().split("custom_nodes: ")[1].strip())
    assert (folder / "ComfyUI-Node" / "__init__.py").is_file()
    assert "tensor.to(_patchforge_device())" in (folder / "ComfyUI-Node" / "move.py").read_text()
    assert "pywavelets" in mini.nix.run("nix-store", "-qR", str(out)).stdout


def test_ollama_is_vulkans(mini: Miniature) -> None:
    out = mini.nix.build(mini.scope("s.ollama-xpu"))
    done = subprocess.run([out / "bin/ollama", "serve"], capture_output=True, text=True, check=True)
    assert done.stdout == "ollama serve OLLAMA_VULKAN=1\n"
    assert mini.nix.evaluate(mini.scope("[ s.ollama-xpu.backend s.ollama-xpu.isCurrent ]")) == ["vulkan", True]


def test_patchforge_runs_from_the_store(mini: Miniature) -> None:
    out = mini.nix.build(mini.scope("s.patchforge"))
    done = subprocess.run([out / "bin/patchforge", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("patchforge ")


def test_legacy_packages_need_their_source(mini: Miniature, tmp_path: Path) -> None:
    assert "comes from MordragT/nixos" in mini.nix.refused(mini.scope("s.intel-mkl.name"))
    for folder in ("by-attr", "by-lang", "by-name", "by-scope", "overrides", "lib"):
        (tmp_path / "pkgs" / folder).mkdir(parents=True)
        (tmp_path / "pkgs" / folder / "default.nix").write_text("final: prev: { }")
    (tmp_path / "pkgs/by-name/default.nix").write_text(
        "final: prev: { intel-mkl = prev.zlib; intel-tbb = final.intel-mkl; }"
    )
    (tmp_path / "pkgs/by-lang/default.nix").write_text(
        "final: prev: { intel-python.withPackages = f: f { ipex = prev.git; }; }"
    )
    rest = "[ s.intel-mkl.pname s.intel-tbb.pname (lib.head s.python-ipex).pname ]".replace("lib", "pkgs.lib")
    found = mini.nix.evaluate(mini.scope(rest, f"mordragt = {tmp_path};"))
    assert found == ["zlib", "zlib", "git"]


# What goes wrong says what.


def test_a_wrong_hash_is_refused(mini: Miniature, changed: Callable[..., Path]) -> None:
    right = mini.nix.evaluate(mini.scope("s.data.comfyui.releases.${s.data.comfyui.default}.hash"))
    wrong = "sha256-LlJHF/wEL8HhJAKw2DaxsoMltLpV3DtFWDlTW3AZZuI="
    copy = changed("generated/nix/data/comfyui.json", right, wrong)
    printed = mini.nix.failing(mini.scope("s.comfyui-xpu.src", project=copy))
    assert "hash mismatch in fixed-output derivation" in printed
    assert right in printed
    assert wrong in printed


def test_a_bad_hunk_is_refused(mini: Miniature, changed: Callable[..., Path]) -> None:
    patch = "generated/comfyui/v0.33.0/0002-memory-management.patch"
    first = next(
        line
        for line in (mini.project / patch).read_text().splitlines()
        if line.startswith("-") and not line.startswith("---")
    )
    copy = changed(patch, first, first + " # not there")
    printed = mini.nix.failing(mini.scope("s.comfyui-xpu", project=copy))
    assert "Hunk #" in printed
    assert "FAILED" in printed


def test_a_missing_requirement_is_named(mini: Miniature) -> None:
    """It is in the release's file, and not in the pin."""
    rest = (
        "s.comfyui-xpu.override { release = s.data.comfyui.releases.${s.data.comfyui.default} "
        '// { requirements = [ "numpy>=1.25" "torch" ]; }; }'
    )
    printed = mini.nix.failing(mini.scope(rest))
    assert "1 Python requirement(s) are not met:" in printed
    assert "comfy-kitchen==0.2.31: not installed" in printed


def test_a_requirement_that_nobody_packages_is_named(mini: Miniature, changed: Callable[..., Path]) -> None:
    copy = changed("generated/nix/data/comfyui.json", '"numpy>=1.25"', '"nobody-packages-this>=1"')
    printed = mini.nix.refused(mini.scope("s.comfyui-xpu.drvPath", project=copy))
    assert "no Python package nobody-packages-this>=1" in printed
    assert "to do: patchforge pin python" in printed


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (f'"2.14.0-{sandbox.ABI}"', '"2.13.0-cp399"', "there is no such file"),
        ('"missing": []', '"missing": ["torchaudio==2.11.0+xpu"]', "it lacks torchaudio==2.11.0+xpu"),
    ],
)
def test_without_a_lock_only_our_torch_is_missing(
    mini: Miniature, changed: Callable[..., Path], old: str, new: str, found: str
) -> None:
    copy = changed("generated/nix/data/torch.json", old, new)
    if "lacks" in found:
        data = copy / "generated/nix/data/torch.json"
        data.write_text(data.read_text().replace('"complete": true', '"complete": false'))
    for attribute in ("python-xpu.name", "comfyui-xpu.drvPath"):
        printed = mini.nix.refused(mini.scope(f"s.{attribute}", project=copy))
        assert "is not locked for Python" in printed
        assert found in printed
        assert "patchforge lock-torch 2.14.0" in printed
    own = "(s.comfyui-xpu.override { python = pkgs.python3; }).name"
    assert mini.nix.evaluate(mini.scope(own, project=copy)) == "comfyui-xpu-0.33.0"


def test_another_torch_than_the_expected_is_refused(mini: Miniature) -> None:
    rest = 's.comfyui-xpu.override { python = s.python-xpu // { torchLocal = "other"; }; }'
    printed = mini.nix.failing(mini.scope(rest))
    assert "expected: a version with +other" in printed
    assert "found: 2.14.0+xpu" in printed


def test_another_wheel_than_the_locked_torch_is_refused(mini: Miniature, changed: Callable[..., Path]) -> None:
    copy = changed("generated/nix/data/torch.json", '"version": "2.14.0+xpu"', '"version": "2.15.0+xpu"')
    assert "torch is not the locked build" in mini.nix.failing(mini.scope("s.python-xpu.pkgs.torch", project=copy))


def test_a_release_that_demotes_an_xpu_host_is_refused(mini: Miniature, tmp_path: Path) -> None:
    """The failure that the one other XPU package has: whatever is not CUDA becomes a CPU."""
    lines = [
        "--- a/comfy/model_management.py",
        "+++ b/comfy/model_management.py",
        "@@ -46,0 +47,2 @@",
        "+if not torch.cuda.is_available():",
        "+    cpu_state = CPUState.CPU",
        "",
    ]
    file = tmp_path / "cpu.patch"
    file.write_text("\n".join(lines))
    rest = f"s.comfyui-xpu.override {{ patchesOf = _: [ {file} ]; }}"
    assert "an XPU host is demoted" in mini.nix.failing(mini.scope(rest))


# A real release.


@pytest.mark.upstream
@pytest.mark.skipif(not os.environ.get("PATCHFORGE_UPSTREAM"), reason="PATCHFORGE_UPSTREAM is not set")
def test_a_real_release_builds(mini: Miniature, tmp_path: Path) -> None:
    """v0.32.0 as far as the clone has it: a tree with missing blobs is verified by the hash of what is there.

    PATCHFORGE_COMFYUI_PYTHON names an interpreter with that release's requirements and a CPU build of torch, which
    then has an emulated XPU; without it, the release is patched and installed, and none of its checks are run.
    """
    from transforms.comfyui import transforms

    version = "v0.32.0"
    with open_upstream() as upstream:
        release = upstream.resolve(version)
        tree = upstream.tree(release)
        patched = pipeline.convert(engine_of(transforms()), Release(release.version, release.commit), tree)
        missing = pipeline.write_whole(tree, mini.network / f"Comfy-Org-ComfyUI-{release.commit}")
    found = of_folder(mini.network / f"Comfy-Org-ComfyUI-{release.commit}")
    project = Path(shutil.copytree(mini.project, tmp_path / "project"))
    pin = json.loads((root() / "upstream/pins/comfyui.json").read_bytes())[version]
    assert missing or pin["hash"] == found.hash
    write_json(project / "upstream/pins/comfyui.json", {version: {**pin, "hash": found.hash}})
    write_tree(project / "generated/comfyui" / version, patched.files())
    regenerate(project)

    python = os.environ.get("PATCHFORGE_COMFYUI_PYTHON", "")
    extra = emulated(tmp_path / "site") if python else ""
    nixpkgs = sandbox.mock_nixpkgs(
        tmp_path / "nixpkgs", mini.network, python_path=extra, python=python or sys.executable
    )
    package = "s.comfyui-xpu.override { python = pkgs.python3; requirementsOf = ps: _: pkgs.zlib; }"
    checks = "true" if python else "false"
    out = mini.nix.build(
        f"let pkgs = import {nixpkgs} {{ }}; s = import {project}/generated/nix {{ inherit pkgs; }};"
        f" in ({package}).overrideAttrs (_: {{ doInstallCheck = {checks}; }})"
    )
    assert (out / "share/comfyui/comfy/patchforge_xpu.py").is_file()
    for program in PROGRAMS if python else ():
        done = run(out / "bin" / program, "--help-gpu", home=tmp_path)
        assert "Chosen: xpu, because" in done.stdout, done.stderr
