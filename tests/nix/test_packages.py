"""Packages built with the real Nix in a pretended nixpkgs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emulator import build, environment
from patchforge import pipeline
from patchforge.atomic import write_tree
from patchforge.cli import parser
from patchforge.hashes import IncompleteTreeError, of_folder
from patchforge.hashes.objects import isolated
from patchforge.patches import parse
from patchforge.sources import open_upstream
from patchforge.vocabulary import Release
from tests.nix import sandbox
from tests.nix.conftest import INTEL, regenerate, release_files
from tests.nix.mock.builder import libraries
from tests.nix.sandbox import Miniature, write_pins
from tests.support import ROOT, engine_of

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
    assert {path.name for path in (comfyui / "bin").iterdir()} == {*PROGRAMS, "comfyui-ipex"}
    assert (comfyui / "share/comfyui/comfy/patchforge_xpu/__init__.py").is_file()


def test_a_build_is_reproducible(mini: Miniature, comfyui: Path) -> None:
    done = mini.nix.run("nix-build", "--no-out-link", "--check", "--expr", mini.scope("s.comfyui-xpu"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert Path(done.stdout.strip()) == comfyui


@pytest.mark.parametrize("name", ["ipex-benchmark", "comfyui-benchmark"])
def test_a_benchmark_has_its_release_and_its_python(mini: Miniature, name: str) -> None:
    """Words about files go on as they are; a run gets what belongs to the package first, so that flags can follow."""
    plain = "s.patchforge.override { flip-evaluator = pkgs.python3Packages.numpy; }"
    out = mini.nix.build(mini.scope(f"s.{name}.override {{ patchforge = {plain}; }}"))
    program = out / "bin" / name
    script = program.read_text()
    assert "@" not in script.replace('"$@"', "")
    (words,) = re.findall(r'^exec (\S+) (\S+) --from (\S+) --no-venv --python (\S+) "\$@"$', script, re.MULTILINE)
    measuring, version, source, python = words
    assert version == "v0.33.0"
    assert (Path(source) / "comfy/model_management.py").is_file()
    assert not (Path(source) / "comfy/patchforge_xpu").exists()
    assert os.access(python, os.X_OK)
    assert Path(measuring).name == name
    helped = subprocess.run([program, "compare", "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0, helped.stderr
    assert "a benchmark: its file, or the folder that it is in" in helped.stdout


def test_flip_is_built_from_its_source(mini: Miniature) -> None:
    """Its pin is that of the source distribution, which fits every Python; wheels are for some."""
    pin = json.loads((ROOT / "templates/nix/data/benchmark.json").read_bytes())["flip-evaluator"]
    asked = "{ inherit (s.flip-evaluator) version; inherit (s.flip-evaluator) dontUseCmakeConfigure; }"
    assert mini.nix.evaluate(mini.scope(asked)) == {"version": pin["version"], "dontUseCmakeConfigure": True}
    assert pin["url"].endswith(f"flip_evaluator-{pin['version']}.tar.gz")


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
    ("cuda,xpu", "comfyui-ipex", (), "xpu"),
    # It ends with a message rather than compute on something else.
    ("cuda", "comfyui-xpu", (), "nothing"),
    ("", "comfyui-xpu", (), "nothing"),
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
        packages={"numpy": "2.0", "torch": "2.9", "torchsde": "0.2.6"},
    )
    scope = f"import {mini.project}/generated/nix {{ inherit pkgs; }}"
    package = f"(({scope}).comfyui-xpu.override {{ python = pkgs.python3; }})"
    unchecked = f"{package}.overrideAttrs (_: {{ doInstallCheck = false; }})"
    out = mini.nix.build(f"let pkgs = import {nixpkgs} {{ }}; in {unchecked}")
    for program in PROGRAMS:
        # The user's own compiler wins; with it, the emulated XPU is there already.
        done = run(out / "bin" / program, "--help-gpu", home=tmp_path, CXX="g++")
        assert "Chosen: xpu, because torch can use it" in done.stdout, done.stderr
        assert "B580" in done.stdout
    refused = run(out / "bin/comfyui-cuda", "--quick-test-for-ci", home=tmp_path, CXX="g++")
    assert "finds no CUDA device" in refused.stderr


def test_intel_device_reaches_the_driver(comfyui: Path, tmp_path: Path) -> None:
    done = run(comfyui / "bin/comfyui-xpu", "--intel-device", "1", "--help-gpu", home=tmp_path, MINITORCH="xpu")
    assert "ZE_AFFINITY_MASK=1" in done.stdout


def test_the_cuda_program_does_not_run_on_something_else(comfyui: Path, tmp_path: Path) -> None:
    done = run(comfyui / "bin/comfyui-cuda", "--quick-test-for-ci", home=tmp_path, MINITORCH="xpu")
    assert done.returncode == 1
    assert "finds no CUDA device" in done.stderr
    assert "to do:" in done.stderr


def test_the_xpu_program_does_not_run_on_something_else(comfyui: Path, tmp_path: Path) -> None:
    done = run(comfyui / "bin/comfyui-xpu", "--quick-test-for-ci", home=tmp_path, MINITORCH="cuda")
    assert done.returncode != 0
    assert "--force-intel-xpu" in done.stderr


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
    """As they came: their licence forbids changes. What they look for beside themselves is there."""
    out = mini.nix.build(mini.scope("s.intel-oneapi-runtime"))
    assert (out / "lib/libsycl.so.9").read_text() == INTEL
    links = {path.name for path in (out / "lib").iterdir() if path.is_symlink()}
    assert links == {"libstdc++.so.6", "libgcc_s.so.1", "libze_loader.so.1", "libOpenCL.so.1", "libz.so.1"}
    assert [path.read_text() for path in out.glob("share/wheels/intel_sycl_rt-*/LICENSE.txt")] == ["Do not modify."]


def test_triton_finds_sycls_headers_and_library_by_metadata(mini: Miniature) -> None:
    """As Triton's driver does: among the files of intel-sycl-rt, sycl.hpp and libsycl."""
    out = mini.nix.build(mini.scope("s.python-xpu.withPackages (ps: [ ps.triton ])"))
    code = (
        "from importlib.metadata import files\n"
        "for f in files('intel-sycl-rt'):\n"
        "    if f.name == 'sycl.hpp' or f.match('libsycl.so*'): print(f.locate(), f.locate().exists())"
    )
    done = subprocess.run([out / "bin/python", "-c", code], capture_output=True, text=True, check=True)
    headers = {Path(line.split()[0]).name: line.split()[1] for line in done.stdout.splitlines()}
    assert headers == {"sycl.hpp": "True", "libsycl.so.9": "True"}


def test_torchs_libraries_find_intels_and_the_driver(mini: Miniature) -> None:
    out = mini.nix.build(mini.scope("s.python-xpu.pkgs.torchvision"))
    _, about = next(libraries(str(out)))
    assert about["runpath"][-1] == "/run/opengl-driver/lib"
    assert any(folder.endswith("torch/lib") for folder in about["runpath"])
    assert about["inherited"]
    assert "stripped" not in about


def test_pythons_own_override_stays(mini: Miniature) -> None:
    """More packages are added to ours; a scope's `override` would know nothing of them."""
    more = "pkgs.lib.composeManyExtensions [ old.packageOverrides (final: prev: { mine = prev.numpy; }) ]"
    changed = f"s.python-xpu.override (old: {{ packageOverrides = {more}; }})"
    rest = f"let p = ({changed}).pkgs; in [ p.mine.pname p.torch.version ]"
    assert mini.nix.evaluate(mini.scope(rest)) == ["numpy", "2.14.0+xpu"]


def test_a_python_without_a_lock_says_so(mini: Miniature, changed: Callable[..., Path]) -> None:
    """Of those that are declared, each has a package; a lock is asked for when it is used."""
    copy = changed("generated/nix/data/torch.json", '"3.99"', '"3.0"')
    nixpkgs = sandbox.mock_nixpkgs(copy.parent / "nixpkgs", mini.network, pythons=["3.0"])
    scope = f"import {copy}/generated/nix {{ pkgs = import {nixpkgs} {{ }}; }}"
    printed = mini.nix.refused(f"({scope}).python30-xpu.name")
    assert "torch 2.14.0 for Intel XPU is not locked for Python 3.0" in printed
    assert "patchforge lock-torch 2.14.0 --python 3.0" in printed


def test_suites_that_fail_with_this_torch_are_left_out_by_name(mini: Miniature) -> None:
    """And only those: with its tests on, the same package cannot be built."""
    assert mini.nix.build(mini.scope("s.python-xpu.pkgs.torchsde"))
    again = "s.python-xpu.pkgs.torchsde.overridePythonAttrs (_: { disabledTests = [ ]; })"
    assert "FAILED torchsde: test_normality_conditional" in mini.nix.failing(mini.scope(again))
    reasons = json.loads((ROOT / "templates/nix/data/suites.json").read_bytes())
    assert all(suite["reason"] for suite in reasons.values())


def test_groups_of_packs_are_packages(mini: Miniature) -> None:
    out = mini.nix.build(mini.scope("s.comfyui-samplers"))
    line = (out / "share/comfyui/extra_model_paths.yaml").read_text()
    assert f"custom_nodes: {out}/share/comfyui/custom_nodes" in line
    assert mini.nix.evaluate(mini.scope("s.comfyui-samplers.requirements")) == ["opencv-python", "pywavelets"]
    assert mini.nix.build(mini.scope("s.nodes.a-node.tests.requirements"))


def test_what_compiles_while_it_runs_has_a_compiler(comfyui: Path) -> None:
    script = (comfyui / "bin/comfyui").read_text()
    assert re.search(r'PATH="\$\{PATH:\+\$PATH:\}/\S+gcc-wrapper-\S+/bin:/\S+ninja-\S+/bin"', script)
    assert re.search(r'CXX="\$\{CXX-/\S+/bin/c\+\+\}"', script)
    assert "LD_LIBRARY_PATH" not in script.replace("on LD_LIBRARY_PATH is left", "")


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


def test_the_update_script_brings_a_checkout_to_the_newest_release(mini: Miniature, tmp_path: Path) -> None:
    """Run as nixpkgs runs it: in the checkout, by itself. The network is a clone and an index of files."""
    script = mini.nix.build(mini.scope("s.comfyui-xpu.updateScript"))
    checkout = Path(shutil.copytree(mini.project, tmp_path / "checkout"))
    shutil.rmtree(checkout / "generated/comfyui")
    write_pins(checkout / "upstream/pins/comfyui.json", {})
    (checkout / "upstream/comfyui.releases.tsv").write_text("version\tcommit\tdate\n")
    upstream = tmp_path / "upstream"
    write_tree(upstream, {**release_files(), "comfyui_version.py": b'__version__ = "0.32.9"\n'})
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "release"), ("tag", "v0.32.9")):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words], cwd=upstream, check=True)
    index = tmp_path / "index/comfy-kitchen"
    index.mkdir(parents=True)
    file = sandbox.wheel(index, "comfy-kitchen", "0.2.31", {"comfy_kitchen/__init__.py": ""})["file"]
    (index / "index.html").write_text(f'<a href="{file}">{file}</a>')
    variables = {"PATCHFORGE_UPSTREAM": str(upstream), "PIP_INDEX_URL": index.parent.as_uri()}
    done = subprocess.run(
        [script], cwd=checkout, env={**mini.nix.environment, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    releases = json.loads((checkout / "generated/nix/data/comfyui.json").read_bytes())
    assert (releases["default"], list(releases["releases"])) == ("v0.32.9", ["v0.32.9"])


def test_a_packs_update_script_converts_it_where_it_has_a_patch(mini: Miniature) -> None:
    script = mini.nix.build(mini.scope("s.nodes.a-node.updateScript")).read_text()
    lines = [line.split("-in-checkout ")[1] for line in script.splitlines() if "-in-checkout " in line]
    commands = [shlex.split(line.removesuffix(" || exit")) for line in lines]
    assert commands == [
        ["pin", "nodes", "--only", "a-node"],
        ["packs", "apply", "someone/ComfyUI-Node", "--out", "generated/nodes/a-node"],
        ["nix"],
    ]
    for words in commands:
        parser().parse_args(words)


def test_legacy_packages_need_their_source(mini: Miniature) -> None:
    assert "comes from MordragT/nixos" in mini.nix.refused(mini.scope("s.intel-mkl.name"))


@pytest.fixture(scope="module")
def legacy(mini: Miniature) -> Callable[[str], str]:
    """An expression of a legacy package, out of MordragT/nixos in miniature."""
    return lambda name: mini.scope(f"s.{name}", f"mordragt = {mini.network}/MordragT-nixos-{sandbox.LEGACY_COMMIT};")


def test_legacy_packages_build(mini: Miniature, legacy: Callable[[str], str], tmp_path: Path) -> None:
    libraries = {path.name for path in (mini.nix.build(legacy("intel-mkl")) / "lib").iterdir()}
    assert libraries == {"libmkl_rt.so", "libsycl.so", "libtbb.so"}
    assert (mini.nix.build(legacy("intel-tbb")) / "lib/libtbb.so").is_file()
    compiler, llvm = mini.nix.build(legacy("intel-dpcpp")), mini.nix.build(legacy("intel-dpcpp.llvm"))
    assert run(compiler / "bin/icx", home=tmp_path).stdout == f"icx with {llvm}\n"
    code = "from importlib.metadata import version as v; print(v('intel-extension-for-pytorch'), v('torch'))"
    done = run(mini.nix.build(legacy("python-ipex")) / "bin/python", "-c", code, home=tmp_path)
    assert done.stdout == "2.8.10 2.9\n", done.stderr


# What goes wrong says what.


@pytest.mark.parametrize(
    ("data", "pin", "package"),
    [
        ("comfyui", "comfyui.releases.${s.data.comfyui.default}", "comfyui-xpu"),
        ("nodes", "nodes.a-node", "nodes.a-node"),
        ("python", 'python.comfy-kitchen."0.2.31"', "comfyui-xpu"),
    ],
)
def test_a_wrong_hash_is_refused(
    mini: Miniature, changed: Callable[..., Path], data: str, pin: str, package: str
) -> None:
    right = mini.nix.evaluate(mini.scope(f"s.data.{pin}.hash"))
    wrong = "sha256-LlJHF/wEL8HhJAKw2DaxsoMltLpV3DtFWDlTW3AZZuI="
    copy = changed(f"generated/nix/data/{data}.json", right, wrong)
    printed = mini.nix.failing(mini.scope(f"s.{package}", project=copy))
    assert "hash mismatch in fixed-output derivation" in printed
    assert right in printed
    assert wrong in printed


@pytest.mark.parametrize(
    ("patch", "package"),
    [
        ("comfyui/v0.33.0/0002-memory-management.patch", "comfyui-xpu"),
        ("nodes/a-node/0001-xpu.patch", "nodes.a-node"),
    ],
)
def test_a_bad_hunk_is_refused(mini: Miniature, changed: Callable[..., Path], patch: str, package: str) -> None:
    first = next(
        line
        for line in (mini.project / "generated" / patch).read_text().splitlines()
        if line.startswith("-") and not line.startswith("---")
    )
    copy = changed(f"generated/{patch}", first, first + " # not there")
    printed = mini.nix.failing(mini.scope(f"s.{package}", project=copy))
    assert "applying patch" in printed
    assert re.search(r"Hunk #\d+ FAILED", printed)


def test_a_node_pack_that_is_none_is_refused(mini: Miniature) -> None:
    without = 's.nodes.a-node.overrideAttrs (_: { postPatch = "rm __init__.py"; })'
    assert "a-node: no __init__.py, so no node pack" in mini.nix.failing(mini.scope(without))
    broken = "s.nodes.a-node.overrideAttrs (_: { postPatch = \"echo 'def x(:' >> move.py\"; })"
    printed = mini.nix.failing(mini.scope(broken))
    assert "move.py" in printed
    assert "SyntaxError" in printed


def test_a_node_packs_missing_requirement_is_named(mini: Miniature, changed: Callable[..., Path]) -> None:
    """One that nixpkgs has too old, and one that it has not."""
    package = "s.comfyui-xpu.override { nodePacks = [ s.nodes.a-node ]; }"
    copy = changed("generated/nix/data/nodes.json", '"pywavelets"', '"pywavelets>=99"')
    printed = mini.nix.failing(mini.scope(package, project=copy))
    assert "1 Python requirement(s) are not met:" in printed
    assert "pywavelets>=99: found 1.8" in printed
    nodes = copy / "generated/nix/data/nodes.json"
    nodes.write_text(nodes.read_text().replace("pywavelets>=99", "nobody-packages-this"))
    assert "no Python package nobody-packages-this" in mini.nix.refused(
        mini.scope(f"({package}).drvPath", project=copy)
    )


def test_a_missing_requirement_is_named(mini: Miniature) -> None:
    """It is in the release's file, and not in the pin."""
    rest = (
        "s.comfyui-xpu.override { release = s.data.comfyui.releases.${s.data.comfyui.default} "
        '// { requirements = [ "numpy>=1.25" "torch" "torchsde" ]; }; }'
    )
    printed = mini.nix.failing(mini.scope(rest))
    assert "1 Python requirement(s) are not met:" in printed
    assert "comfy-kitchen==0.2.31: not installed" in printed


def test_a_requirement_that_nobody_packages_is_named(mini: Miniature, changed: Callable[..., Path]) -> None:
    copy = changed("generated/nix/data/comfyui.json", '"numpy>=1.25"', '"nobody-packages-this>=1"')
    printed = mini.nix.refused(mini.scope("s.comfyui-xpu.drvPath", project=copy))
    assert "no Python package nobody-packages-this>=1" in printed
    assert "put it into extraPythonPackages" in printed


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
    """A set that says it has one for XPU, and an environment that has none."""
    torch = "torch = pkgs.python3.pkgs.torch // { xpuSupport = true; };"
    said = f"pkgs.python3 // {{ pkgs = pkgs.python3.pkgs // {{ {torch} }}; }}"
    printed = mini.nix.failing(mini.scope(f"s.comfyui-xpu.override {{ python = {said}; }}"))
    assert "expected: a version with +xpu" in printed


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


# A real release and real node packs.

VERSION = "v0.32.0"
PYTHON = os.environ.get("PATCHFORGE_COMFYUI_PYTHON", "")
PACKS = os.environ.get("PATCHFORGE_PACKS", "")
PINS = json.loads((ROOT / "upstream/pins/nodes.json").read_bytes())["pins"]


@pytest.fixture(scope="module")
def real(mini: Miniature, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature project with a real release and the committed node packs in the place of its own.

    The release is there as far as the clone has it: a tree with missing blobs is verified by the hash of what is there.
    """
    from patchforge.rules import transforms

    with open_upstream() as upstream:
        release = upstream.resolve(VERSION)
        tree = upstream.tree(release)
        patched = pipeline.convert(engine_of(transforms()), Release(release.version, release.commit), tree)
        missing = pipeline.write_whole(tree, mini.network / f"Comfy-Org-ComfyUI-{release.commit}")
    hashed = of_folder(mini.network / f"Comfy-Org-ComfyUI-{release.commit}")
    project = Path(shutil.copytree(mini.project, tmp_path_factory.mktemp("real") / "project"))
    pin = json.loads((ROOT / "upstream/pins/comfyui.json").read_bytes())["pins"][VERSION]
    assert missing or pin["hash"] == hashed.hash
    write_pins(project / "upstream/pins/comfyui.json", {VERSION: {**pin, "hash": hashed.hash}})
    write_tree(project / "generated/comfyui" / VERSION, patched.files())
    write_pins(project / "upstream/pins/nodes.json", PINS)
    for folder in ("upstream/nodes", "generated/nodes"):
        shutil.copytree(ROOT / folder, project / folder, dirs_exist_ok=True)
    (project / "upstream/nodes/a-node.toml").unlink()
    regenerate(project)
    return project


@pytest.mark.upstream
@pytest.mark.skipif(not os.environ.get("PATCHFORGE_UPSTREAM"), reason="PATCHFORGE_UPSTREAM is not set")
def test_a_real_release_is_patched_and_installed(mini: Miniature, real: Path) -> None:
    """Without its requirements and checks."""
    package = "s.comfyui-xpu.override { python = pkgs.python3; requirementsOf = ps: _: pkgs.zlib; }"
    unchecked = f"({package}).overrideAttrs (_: {{ doInstallCheck = false; }})"
    out = mini.nix.build(mini.scope(unchecked, project=real))
    assert (out / "share/comfyui/comfy/patchforge_xpu/__init__.py").is_file()


@pytest.fixture(scope="module")
def furnished(mini: Miniature, real: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """An expression about the scope in a nixpkgs that has what PATCHFORGE_COMFYUI_PYTHON and these tests' own have.

    Its bare interpreter is used, so that a package finds only what its environment gives it; pinned companions are
    packed as wheels. Every interpreter has the emulated XPU.
    """
    folder = tmp_path_factory.mktemp("furnished")
    own = sandbox.installed(sys.executable)  # what patchforge itself needs
    there = sandbox.as_nixpkgs({**own, **sandbox.installed(PYTHON)})
    pinned = [name for name in json.loads((ROOT / "upstream/pins/python.json").read_bytes())["pins"] if name in there]
    pins = {name: {there[name]["version"]: sandbox.packed(mini.network, name, there[name])} for name in pinned}
    write_pins(real / "upstream/pins/python.json", pins)
    regenerate(real)
    bare = subprocess.run(
        [PYTHON, "-c", "import sys; print(sys._base_executable)"], capture_output=True, text=True, check=True
    )
    nixpkgs = sandbox.mock_nixpkgs(
        folder / "nixpkgs",
        mini.network,
        python=bare.stdout.strip(),
        python_path=emulated(folder / "site"),
        packages=there,
    )
    start = f"let pkgs = import {nixpkgs} {{ }}; s = import {real}/generated/nix {{ inherit pkgs; }};"
    return lambda rest: f"{start} real = s.comfyui-xpu.override {{ python = pkgs.python3; }}; in {rest}"


real_python = pytest.mark.skipif(
    not (os.environ.get("PATCHFORGE_UPSTREAM") and PYTHON),
    reason="PATCHFORGE_UPSTREAM and PATCHFORGE_COMFYUI_PYTHON are not both set",
)


@pytest.mark.upstream
@real_python
def test_a_real_release_passes_all_its_checks(mini: Miniature, furnished: Callable[[str], str], tmp_path: Path) -> None:
    out = mini.nix.build(furnished("real"))
    for program in PROGRAMS:
        done = run(out / "bin" / program, "--help-gpu", home=tmp_path, CXX="g++")
        assert "Chosen: xpu, because" in done.stdout, done.stderr


@pytest.mark.upstream
@real_python
@pytest.mark.parametrize("name", ["ipex-benchmark", "comfyui-benchmark"])
def test_a_real_release_is_measured_on_the_cpu(mini: Miniature, furnished: Callable[[str], str], name: str) -> None:
    """The flake's own check, with FLIP as it is installed here."""
    plain = "s.patchforge.override { inherit (pkgs.python3Packages) flip-evaluator; }"
    out = mini.nix.build(furnished(f"(s.{name}.override {{ comfyui-xpu = real; patchforge = {plain}; }}).tests.quick"))
    (measured,) = out.iterdir()
    cases = json.loads((measured / "benchmark.json").read_bytes())["cases"]
    assert {case["verdict"] for case in cases} == {"fresh"}
    assert all(case["times"] for case in cases)
    assert "takes" in (measured / "report.md").read_text()


@pytest.mark.upstream
@real_python
def test_a_requirement_that_a_real_release_lacks_is_named(mini: Miniature, furnished: Callable[[str], str]) -> None:
    less = 'requirements = builtins.filter (x: x != "torchsde") real.release.requirements;'
    printed = mini.nix.failing(furnished(f"real.override {{ release = real.release // {{ {less} }}; }}"))
    assert "1 Python requirement(s) are not met:" in printed
    assert "torchsde: not installed" in printed


def fetched(name: str, network: Path) -> tuple[Path, str]:
    """Puts what fetchFromGitHub gives for a pin into the network: an archive, or a checkout with its submodules.

    And the hash that Nix has to find: the pinned one or, where the clone lacks blobs, that of what is there.
    """
    pin = PINS[name]
    clone, folder = Path(PACKS, pin["repo"]), network / f"{pin['owner']}-{pin['repo']}-{pin['rev']}"
    if not clone.is_dir():
        pytest.skip(f"{clone} is not there")
    with isolated(clone) as objects:
        try:
            objects.require(objects.listing(pin["rev"]))
            complete = True
        except IncompleteTreeError:
            complete = False
        if complete and not pin["submodules"]:
            folder.mkdir(exist_ok=True)
            with objects.piped("archive", "--format=tar", pin["rev"]) as stream:
                subprocess.run(["tar", "-x", "-C", folder], stdin=stream, check=True)
        else:
            shutil.copytree(clone, folder, symlinks=True, ignore=shutil.ignore_patterns(".git"), dirs_exist_ok=True)
            submodules = [path for mode, path in _entries(clone, pin["rev"]) if mode == "160000"]
            complete = complete and all(any((folder / path).iterdir()) for path in submodules)
    return folder, pin["hash"] if complete else of_folder(folder).hash


def _entries(clone: Path, rev: str) -> Iterator[tuple[str, str]]:
    """Modes and paths of a tree."""
    listed = subprocess.run(["git", "ls-tree", "-r", rev], cwd=clone, capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        head, path = line.split("\t")
        yield head.split()[0], path


@pytest.mark.upstream
@pytest.mark.skipif(not PACKS, reason="PATCHFORGE_PACKS names no folder with checkouts of the packs")
@pytest.mark.parametrize("name", PINS)
def test_a_real_node_pack_builds(mini: Miniature, name: str) -> None:
    """With the committed expressions, pins and patches; Nix itself verifies the source."""
    source, text = fetched(name, mini.network)
    scope = f"s = import {ROOT}/generated/nix {{ pkgs = import {mini.nixpkgs} {{ }}; }}"
    pin = f's.data.nodes.{name} // {{ hash = "{text}"; }}'
    out = mini.nix.build(f"let {scope}; in s.nodes.{name}.override {{ pin = {pin}; }}")
    pack = out / "share/comfyui/custom_nodes" / PINS[name]["repo"]
    assert (pack / "__init__.py").is_file()
    changed = {
        path.relative_to(pack).as_posix()
        for path in pack.rglob("*")
        if path.is_file() and path.read_bytes() != (source / path.relative_to(pack)).read_bytes()
    }
    patched = (ROOT / "generated/nodes" / name).glob("*.patch")
    assert changed == {part.path for file in patched for part in parse(file.read_bytes())}


@pytest.mark.upstream
@real_python
@pytest.mark.skipif(not PACKS, reason="PATCHFORGE_PACKS names no folder with checkouts of the packs")
def test_a_real_release_loads_real_node_packs(mini: Miniature, furnished: Callable[[str], str], tmp_path: Path) -> None:
    """All whose requirements the interpreter has; by the names that nixpkgs has, OpenCV's among them."""
    there = sandbox.as_nixpkgs(sandbox.installed(PYTHON))
    needed = {
        name: [re.split(r"[^a-z0-9-]", text)[0] for text in pin.get("requirements", [])] for name, pin in PINS.items()
    }
    names = [name for name, packages in needed.items() if set(packages) <= there.keys()]
    assert {name for name, packages in needed.items() if not packages} <= set(names)
    packs = " ".join(
        f'(s.nodes.{name}.override {{ pin = s.data.nodes.{name} // {{ hash = "{text}"; }}; }})'
        for name, (_, text) in ((name, fetched(name, mini.network)) for name in names)
    )
    out = mini.nix.build(furnished(f"real.override {{ nodePacks = [ {packs} ]; }}"))
    done = run(out / "bin/comfyui", "--quick-test-for-ci", "--cpu", home=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    assert "IMPORT FAILED" not in printed
    assert [name for name in names if f"custom_nodes/{PINS[name]['repo']}" not in printed] == []
    print(f"{len(names)} of {len(PINS)} packs: {', '.join(names)}")
