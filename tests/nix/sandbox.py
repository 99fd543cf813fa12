"""Nix without network, daemon or nixpkgs: a store of its own, a pretended nixpkgs, and a network that is a folder."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchforge.hashes import of_folder
from tests.support import ROOT

HERE = Path(__file__).resolve().parent
MOCK = HERE / "mock"
ABI = f"cp3{sys.version_info.minor}"
LEGACY_COMMIT = "3" * 40  #: of MordragT/nixos in miniature
PYTHON = f"3.{sys.version_info.minor}"
#: A real nixpkgs' ``lib`` folder; without it, the tests use their own small one.
REAL_LIB = os.environ.get("PATCHFORGE_NIXPKGS_LIB", "")
MISSING = "" if shutil.which("nix-instantiate") and shutil.which("nix-build") else "needs Nix (nix-bin): not installed"

_CONFIG = """\
sandbox = false
build-users-group =
substituters =
experimental-features = nix-command flakes
flake-registry =
connect-timeout = 1
download-attempts = 1
"""


@dataclass(frozen=True)
class Nix:
    """A private store below ``folder``, which may be of any user."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        places = {
            "STORE_DIR": "store",
            "STATE_DIR": "state",
            "LOG_DIR": "log",
            "LOCALSTATE_DIR": "lv",
            "CONF_DIR": "etc",
        }
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("NIX_")},
            **{f"NIX_{name}": str(self.folder / place) for name, place in places.items()},
            "HOME": str(self.folder / "home"),
            "NIX_USER_CONF_FILES": "/dev/null",
            "NIX_REMOTE": "",
            "NIX_PATH": "",
            "NIX_CONFIG": _CONFIG,
            "NO_COLOR": "1",
        }

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=self.environment, cwd=cwd, capture_output=True, text=True, errors="replace", check=False
        )

    def evaluate(self, expression: str) -> Any:
        """The value, as JSON gives it. Fails for errors and for anything on standard error, such as warnings."""
        done = self.run("nix-instantiate", "--eval", "--strict", "--json", "--expr", expression)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)

    def refused(self, expression: str) -> str:
        """What evaluation fails with."""
        done = self.run("nix-instantiate", "--eval", "--strict", "--json", "--expr", expression)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def build(self, expression: str) -> Path:
        done = self.run("nix-build", "--no-out-link", "--expr", expression)
        assert done.returncode == 0, done.stderr[-4000:]
        return Path(done.stdout.strip().splitlines()[-1])

    def failing(self, expression: str) -> str:
        """What a build that fails prints."""
        done = self.run("nix-build", "--no-out-link", "--expr", expression)
        assert done.returncode != 0, done.stdout
        return done.stderr


@dataclass(frozen=True)
class Miniature:
    """A project, its network and a pretended nixpkgs, all below one folder."""

    folder: Path
    nix: Nix

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def network(self) -> Path:
        return self.folder / "network"

    @property
    def nixpkgs(self) -> Path:
        return self.folder / "nixpkgs"

    def scope(self, rest: str, arguments: str = "", project: Path | None = None) -> str:
        """A Nix expression about the scope of all packages."""
        where = (project or self.project) / "generated" / "nix"
        return f"let pkgs = import {self.nixpkgs} {{ }}; s = import {where} {{ inherit pkgs; {arguments} }}; in {rest}"


def sha256(data: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode()


def library(*needs: str, **about: object) -> str:
    """A shared library of the pretended nixpkgs (mock/builder.py): what it needs, and how it may be treated."""
    return "\x7fELF" + json.dumps({"needs": needs, **about})


def wheel(network: Path, name: str, version: str, files: Mapping[str, str], platform: str = "any") -> dict[str, Any]:
    """Puts a wheel into the network; its pin."""
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        metadata = {f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
        metadata[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, *metadata, f"{info}/RECORD"])
        for path, text in {**files, **metadata}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    abi = "none" if platform == "any" else ABI
    file = f"{plain}-{version}-{'py3' if abi == 'none' else ABI}-{abi}-{platform}.whl"
    (network / file).write_bytes(data.getvalue())
    hashed = {"hash": sha256(data.getvalue()), "hash_source": "index"}
    return {"name": name, "version": version, "file": file, **hashed, "requires": []}


#: What an interpreter has, by canonical name: version, the paths of its files, and what it requires of the others.
_INSTALLED = """
import json
from importlib.metadata import distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NONE = {"extra": ""}

def about(one):
    tops = {file.parts[0] for file in one.files or () if not {"..", "__pycache__"} & set(file.parts[:1])}
    needed = [each for each in map(Requirement, one.requires or ()) if not each.marker or each.marker.evaluate(NONE)]
    return {
        "version": one.version,
        "paths": sorted(str(one.locate_file(top)) for top in tops),
        "requires": sorted({canonicalize_name(each.name) for each in needed}),
    }

found = {canonicalize_name(one.name): about(one) for one in distributions()}
for one in found.values():
    one["requires"] = [name for name in one["requires"] if name in found]
print(json.dumps(found))
"""


def installed(python: str) -> dict[str, dict[str, Any]]:
    """The packages of an interpreter, as ``packages`` of a pretended nixpkgs."""
    done = subprocess.run([python, "-c", _INSTALLED], capture_output=True, text=True, check=True)
    units: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return units


def as_nixpkgs(there: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same packages as nixpkgs has them: one OpenCV, whose distribution has another name, and meta packages."""
    wheels = {name for name in there if name.startswith("opencv-")}
    if not wheels:
        return there
    metas = {name for name in contract()["python"] if name.startswith("opencv-")}
    about = there[min(wheels)]
    code = [path for path in about["paths"] if not path.endswith(".dist-info")]
    changed = {name: dict(about) for name, about in there.items() if name not in wheels}
    for package in changed.values():
        package["requires"] = sorted({"opencv4" if name in wheels - metas else name for name in package["requires"]})
    meta = {"version": about["version"], "requires": ["opencv4"]}
    opencv = {**about, "paths": code, "dist": contract()["distributions"]["opencv4"]}
    return {**changed, **dict.fromkeys(metas, meta), "opencv4": opencv}


def packed(network: Path, name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Puts a wheel of what an interpreter has into the network; its pin."""
    file = network / f"{name.replace('-', '_')}-{about['version']}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for top in map(Path, about["paths"]):
            for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
                if path.is_file() and "__pycache__" not in path.parts:
                    archive.write(path, path.relative_to(top.parent))
    pin = {"file": file.name, "hash": sha256(file.read_bytes()), "requires": about["requires"]}
    return {**pin, "hash_source": "index", "python": "py3", "abi": "none", "platform": "any"}


def source(network: Path, owner: str, repo: str, rev: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Puts a repository into the network; its pin."""
    folder = network / f"{owner}-{repo}-{rev}"
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return {"owner": owner, "repo": repo, "rev": rev, "hash": of_folder(folder).hash, "hash_source": "computed"}


def contract() -> dict[str, Any]:
    """What the expressions take from nixpkgs, and which of its files prove it."""
    names: dict[str, Any] = json.loads((ROOT / "templates/nix/data/nixpkgs.json").read_bytes())
    return names


def write_pins(path: Path, pins: Mapping[str, object]) -> None:
    """A file of pins by name."""
    write_json(path, {"format": 1, "pins": pins})


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True))


def mock_nixpkgs(
    folder: Path,
    network: Path,
    *,
    python_path: str = "",
    python: str = sys.executable,
    packages: Mapping[str, Any] | None = None,
    version: str = PYTHON,
    pythons: Iterable[str] = (),
) -> Path:
    """A copy of the pretended nixpkgs that knows where its network is."""
    shutil.copytree(MOCK, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if REAL_LIB:
        shutil.rmtree(folder / "lib")
        shutil.copytree(REAL_LIB, folder / "lib")
    settings = {
        "shell": shutil.which("bash"),
        "python": python,
        "pythonVersion": version,
        "pythons": sorted({version, *pythons}),
        "pythonPath": python_path,
        "network": str(network),
        "packages": dict(packages or {}),
        "names": sorted(name for name in contract()["packages"] if "." not in name),
    }
    write_json(folder / "settings.json", settings)
    return folder


def project(folder: Path) -> Path:
    """A copy of what the flake needs of this project, without what is generated."""
    for name in ("patchforge", "templates", "transforms", "upstream"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder
