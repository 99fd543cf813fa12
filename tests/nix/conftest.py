"""One miniature project with its own pins, generated once; tests build and evaluate it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patchforge import pipeline
from patchforge.atomic import write_file, write_tree
from patchforge.nix.generate import generate
from patchforge.nodes.convert import convert
from patchforge.nodes.pack import read_pack
from patchforge.nodes.patched import PatchedPack
from patchforge.outputs import listed
from patchforge.pattern import Options
from patchforge.vocabulary import Release, Version
from tests.nix import sandbox
from tests.nix.sandbox import ABI, PYTHON, Miniature, Nix, library, wheel, write_json, write_pins
from tests.support import ROOT, MemoryTree, engine_of, miniature

MINIATURE = "v0.33.0"
COMMIT = "1" * 40
NODE_COMMIT = "2" * 40
NODE = {
    "__init__.py": b"from .move import NODE_CLASS_MAPPINGS\n",
    "move.py": b"import torch\n\nNODE_CLASS_MAPPINGS = {}\n\n\ndef move(tensor):\n    return tensor.cuda()\n",
}
DATA_FLAGS = (b"base-directory", b"database-url")
REQUIREMENTS = ["comfy-kitchen==0.2.31", "numpy>=1.25", "torch", "torchsde"]


#: What Intel's licence forbids to change, and what stripping breaks.
INTEL = library("libstdc++.so.6", "libze_loader.so.1", "libc.so.6", terms=True, runpath=["$ORIGIN"])
TORCH = library("libsycl.so.9", "libstdc++.so.6", "libc.so.6", fragile=True)


def _torch_lock(network: Path) -> dict[str, Any]:
    torch = (sandbox.HERE / "minitorch" / "torch.py").read_text()
    version = "__version__ = '2.14.0+xpu'\n"
    files: dict[tuple[str, str], dict[str, str]] = {
        ("torch", "2.14.0+xpu"): {
            "torch/__init__.py": torch,
            "torch/version.py": version,
            "torch/lib/libc10.so": TORCH,
            "torch/lib/libtorch.so": TORCH,
        },
        ("torchvision", "0.29.0+xpu"): {
            "torchvision/__init__.py": "",
            "torchvision/_C.so": library("libc10.so", "libtorch.so", fragile=True),
        },
        ("torchaudio", "2.11.0+xpu"): {
            "torchaudio/__init__.py": "",
            "torchaudio/lib/libtorchaudio.so": library("libtorch.so", fragile=True),
        },
        ("triton-xpu", "3.8.0"): {
            "triton/__init__.py": "",
            "triton/_C/libtriton.so": library("libz.so.1", "libstdc++.so.6", fragile=True),
        },
        ("intel-sycl-rt", "2026.1.0"): {
            "intel_sycl_rt-2026.1.0.data/data/lib/libsycl.so.9": INTEL,
            "intel_sycl_rt-2026.1.0.data/data/include/sycl/sycl.hpp": "",
            "intel_sycl_rt-2026.1.0.dist-info/LICENSE.txt": "Do not modify.",
        },
        ("intel-opencl-rt", "2026.1.0"): {
            "intel_opencl_rt-2026.1.0.data/data/lib/libintelocl.so": library("libnuma.so.1", terms=True)
        },
    }
    wheels = [wheel(network, *name, content, "linux_x86_64") for name, content in files.items()]
    for torch_wheel in wheels:
        torch_wheel["url"] = f"https://wheels.invalid/{torch_wheel['file'].replace('+', '%2B')}"
    about = {"format": 1, "torch": "2.14.0", "abi": ABI, "complete": True, "missing": [], "unread": ["torch"]}
    return {**about, "wheels": wheels}


def _upstream(folder: Path, network: Path) -> None:
    """Puts the pins of the miniature in the place of the real ones."""
    for name in ("pins", "nodes"):
        shutil.rmtree(folder / name)
    pins = folder / "pins"
    comfyui = sandbox.source(network, "Comfy-Org", "ComfyUI", COMMIT, release_files())
    write_pins(pins / "comfyui.json", {MINIATURE: {**comfyui, "tag": MINIATURE, "requirements": REQUIREMENTS}})
    code = {"comfy_kitchen/__init__.py": "", "comfy_kitchen/_C.so": library("libamdhip64.so.7", "libstdc++.so.6")}
    kitchen = wheel(network, "comfy-kitchen", "0.2.31", code, "manylinux_2_28_x86_64")
    kept = {key: kitchen[key] for key in ("file", "hash", "hash_source", "requires")}
    pin = {**kept, "python": ABI, "abi": ABI, "platform": "manylinux_2_28_x86_64"}
    write_pins(pins / "python.json", {"comfy-kitchen": {"0.2.31": pin}})
    node = sandbox.source(network, "someone", "ComfyUI-Node", NODE_COMMIT, NODE)
    write_pins(
        pins / "nodes.json",
        {
            "a-node": {
                **node,
                "date": "2026-01-02",
                "license": "MIT",
                "submodules": False,
                "requirements": ["opencv-python", "pywavelets"],
            }
        },
    )
    (folder / "nodes").mkdir()
    (folder / "nodes" / "a-node.toml").write_text(
        'name = "a-node"\ntitle = "A node"\nurl = "https://github.com/someone/ComfyUI-Node"\nbranch = "main"\n'
        'group = "samplers"\nlicense = "MIT"\n'
    )
    legacy = sandbox.source(network, "MordragT", "nixos", sandbox.LEGACY_COMMIT, _legacy(network))
    single = {"format": 1, **legacy, "date": "2026-01-02", "license": "MIT", "submodules": False}
    write_json(pins / "mordragt-nixos.json", single)
    write_json(pins / "ollama.json", {**single, "owner": "ollama", "repo": "ollama", "version": "0.32.0"})
    write_json(pins / "torch" / f"2.14.0-{ABI}.json", _torch_lock(network))
    lines = ['title = "torch"', "indexes = []", 'local = "xpu"', 'default = "2.14.0"', 'elsewhere = ["numpy"]']
    (folder / "torch.toml").write_text(
        "\n".join([*lines, f'pythons = ["3.99", "{PYTHON}"]', '[versions."2.14.0"]', ""])
    )


def _legacy(network: Path) -> dict[str, bytes]:
    """MordragT/nixos in miniature, with the locks of what its packages fetch."""
    folder = sandbox.HERE / "mordragt"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    fetched = {}
    for name in ("by-name/intel-mkl/default", "by-name/intel-tbb/default", "by-scope/intel-dpcpp/default"):
        file = f"{name.split('/')[1]}.deb"
        (network / file).write_text(f"{file}\n")
        fetched[name] = (file, sandbox.sha256(f"{file}\n".encode()))
    ipex = wheel(network, "intel-extension-for-pytorch", "2.8.10", {"intel_extension_for_pytorch/__init__.py": ""})
    fetched["by-lang/intel-python/ipex"] = (ipex["file"], ipex["hash"])
    for name, (file, text) in fetched.items():
        files[f"pkgs/{name}.lock"] = json.dumps({"url": f"https://intel.invalid/{file}", "hash": text}).encode()
    return files


def regenerate(project: Path) -> None:
    """What ``patchforge nix`` does."""
    made = generate(project / "upstream", project / "generated")
    shutil.rmtree(project / "generated" / "nix", ignore_errors=True)
    write_tree(project / "generated" / "nix", listed(made.files))
    write_file(project / "flake.nix", made.flake)


def release_files() -> dict[str, bytes]:
    """The miniature release, with requirements and the flags that say where data is."""
    files = miniature(MINIATURE)
    flags = b"".join(b'parser.add_argument("--%b", default=None)\n' % name for name in DATA_FLAGS)
    flags += b'parser.add_argument("--extra-model-paths-config", nargs="+", action="append")\n'
    before, call, after = files["comfy/cli_args.py"].partition(b"args = parser.parse_args(")
    return {
        **files,
        "comfy/cli_args.py": before + flags + b"\n" + call + after,
        "requirements.txt": "".join(f"{requirement}\n" for requirement in REQUIREMENTS).encode(),
    }


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nix]:
    if sandbox.MISSING:
        pytest.skip(sandbox.MISSING)
    yield Nix(folder := tmp_path_factory.mktemp("nix"))
    for path in (folder / "store").rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def mini(nix: Nix, tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    from patchforge.rules import transforms

    folder = tmp_path_factory.mktemp("miniature")
    made = Miniature(folder, nix)
    sandbox.project(made.project)
    made.network.mkdir()
    _upstream(made.project / "upstream", made.network)
    patched = pipeline.convert(
        engine_of(transforms()), Release(Version.parse(MINIATURE), COMMIT), MemoryTree(release_files())
    )
    write_tree(made.project / "generated" / "comfyui" / MINIATURE, patched.files())
    write_tree(made.project / "generated" / "nodes" / "a-node", _converted_node(folder / "ComfyUI-Node"))
    shutil.copytree(ROOT / "generated" / "monitoring", made.project / "generated" / "monitoring")
    regenerate(made.project)
    sandbox.mock_nixpkgs(made.nixpkgs, made.network, packages=_packages(), pythons=["3.12", "3.13", "3.14"])
    return made


def _converted_node(folder: Path) -> dict[str, bytes]:
    """What ``patchforge packs apply`` writes for the miniature's node pack."""
    write_tree(folder, NODE)
    return PatchedPack(convert(read_pack(folder), Options()), NODE_COMMIT).files()


def _packages() -> dict[str, Any]:
    """Python packages of nixpkgs: of these only names and versions are there, the rest is the interpreter's."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(text for name in ("bot", "operate", "test") for text in project["optional-dependencies"][name]),
    ]
    names = {text.split(">")[0].split("=")[0].lower() for text in wanted}
    named = (name for name, path in sandbox.contract()["python"].items() if "/python-modules/" in path)
    return {
        **dict.fromkeys(named, "1"),
        **dict.fromkeys(names, "99"),
        "numpy": "2.0",
        "pillow": "12.0",
        "pywavelets": "1.8",
        "setuptools": "80.0",
        "torch": "2.9",
        # Its distribution is called opencv; what wheels ask for by PyPI's names are meta packages.
        **{name: {"version": "4.12.0", "dist": dist} for name, dist in sandbox.contract()["distributions"].items()},
        "opencv-python": {"version": "4.12.0", "requires": ["opencv4"]},
        # A test that fails when torch is for XPU.
        "torchsde": {"version": "0.2.6", "requires": ["torch"], "xpu": ["test_normality_conditional"]},
    }
