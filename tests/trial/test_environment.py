"""Environments, made of tiny wheels that the tests write; pip sees nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from patchforge.errors import PatchforgeError
from patchforge.trial.server.environment import Environment, existing, prepare

pytestmark = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode != 0,
    reason="this Python has no ensurepip",
)


def wheel(folder: Path, name: str, version: str, *, files: Mapping[str, str] | None = None, requires: str = "") -> Path:
    """A wheel with one module and what else is named."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    content = {f"{module}/__init__.py": f"version = {version!r}\n", **(files or {})}
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    content[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    sums = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()) for path, text in content.items()}
    record = "".join(f"{path},sha256={sums[path].rstrip(b'=').decode()},{len(content[path])}\n" for path in content)
    made = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return made


def install(python: Path, made: Path) -> None:
    """Without pip: a wheel of modules is its own installation."""
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    with zipfile.ZipFile(made) as archive:
        archive.extractall(site)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An interpreter with a torch of its own."""
    venv.create(tmp_path / "base", with_pip=False, symlinks=True)
    python = tmp_path / "base" / "bin" / "python"
    packages = tmp_path / "packages"
    packages.mkdir()
    install(python, wheel(packages, "torch", "2.13.0+xpu"))
    (packages / "torch-2.13.0+xpu-py3-none-any.whl").unlink()
    wheel(packages, "torch", "2.99.0")  # what pip would rather have
    return python


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "packages"))
    return tmp_path / "packages"


def make(
    base: Path, requirements: str, *, lean: bool = False, torch_companions: bool = False, building: bool = False
) -> Environment:
    return prepare(
        requirements.encode(),
        base,
        base.parents[2] / "cache",
        tell=lambda _: None,
        timeout=120,
        lean=lean,
        torch_companions=torch_companions,
        building=building,
    )


def says(environment: Environment, code: str) -> str:
    return subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_torch_is_left_alone_and_the_rest_is_installed(base: Path, packages: Path) -> None:
    wheel(packages, "einops", "1.2", requires="torch>=2")
    made = make(base, "torch\nTriton>=3\neinops>=1 # shapes\n#soundfile\n")
    assert says(made, "import torch, einops; print(torch.version, einops.version)") == "2.13.0+xpu 1.2"
    assert made.packages["einops"] == "1.2"
    assert made.left_alone == {"torch": "2.13.0+xpu"}
    assert str(base.parents[1]) in says(made, "import torch; print(torch.__file__)")


def test_a_package_of_the_base_in_another_version_is_hidden_not_replaced(base: Path, packages: Path) -> None:
    install(base, wheel(packages, "numpy", "1.0"))
    wheel(packages, "numpy", "2.5")
    made = make(base, "numpy>=2")
    assert says(made, "import numpy; print(numpy.version)") == "2.5"
    assert existing(base).packages["numpy"] == "1.0"


def test_it_is_made_once(base: Path, packages: Path) -> None:
    wheel(packages, "einops", "1.2")
    first = make(base, "einops\ntorch\n")
    (packages / "einops-1.2-py3-none-any.whl").unlink()
    assert make(base, "# in another order\ntorch\n\neinops\n") == first


def test_one_that_was_not_finished_is_made_again(base: Path, packages: Path) -> None:
    wheel(packages, "einops", "1.2")
    made = make(base, "einops")
    folder = made.python.parents[1]
    (folder / "patchforge-environment.json").unlink()
    (folder / "left-over").touch()
    assert make(base, "einops") == made
    assert not (folder / "left-over").exists()


def test_another_torch_gives_another_environment(base: Path) -> None:
    before = make(base, "torch")
    site = next(base.parents[1].glob("lib/python*/site-packages"))
    for info in site.glob("torch-*"):
        info.rename(site / "torch-2.14.0.dist-info")
        metadata = site / "torch-2.14.0.dist-info" / "METADATA"
        metadata.write_text(metadata.read_text().replace("2.13.0+xpu", "2.14.0"))
    after = make(base, "torch")
    assert after.left_alone == {"torch": "2.14.0"}
    assert after.python != before.python


def test_a_requirement_that_pip_cannot_install_is_named(base: Path, packages: Path) -> None:
    wheel(packages, "einops", "1.2")
    with pytest.raises(PatchforgeError, match=r"cannot install comfy-aimdo==9[\s\S]*ERROR"):
        make(base, "einops\ncomfy-aimdo==9\n")
    cache = base.parents[2] / "cache"
    assert not list(cache.rglob("patchforge-environment.json"))


def test_what_needs_another_torch_is_refused(base: Path, packages: Path) -> None:
    wheel(packages, "newest", "1.0", requires="torch>=2.90")
    with pytest.raises(PatchforgeError, match=r"cannot install .*newest"):
        make(base, "newest")
    assert existing(base).packages["torch"] == "2.13.0+xpu"


def test_lean_leaves_out_the_companions_and_still_has_a_front_end(base: Path, packages: Path) -> None:
    wheel(packages, "einops", "1.2")
    lines = "comfyui-frontend-package==1.48.7\ncomfyui_workflow_templates==0.11\neinops\n"
    made = make(base, lines, lean=True)
    assert made.left_out == ("comfyui-frontend-package==1.48.7", "comfyui_workflow_templates==0.11")
    assert "comfyui-frontend-package" not in made.packages
    where = "from importlib.resources import files; print(files('comfyui_frontend_package') / 'static')"
    assert Path(says(made, where), "index.html").is_file()
    assert make(base, "einops", lean=True).left_out == ()
    with pytest.raises(PatchforgeError, match="comfyui"):
        make(base, lines)


def test_torch_companions(base: Path, packages: Path) -> None:
    wheel(packages, "torchvision", "0.28", requires="torch==2.99.0")
    wheel(packages, "torchaudio", "2.11", files={"torchaudio/lib/_torchaudio.so": "", "torchaudio/io.py": ""})
    lines = "torch\ntorchvision\ntorchaudio\n"
    with pytest.raises(PatchforgeError, match="has no torchvision and no torchaudio"):
        make(base, lines)
    made = make(base, lines, torch_companions=True)
    assert says(made, "import torchvision, torchaudio.io, torch; print(torch.version)") == "2.13.0+xpu"
    assert not list(made.python.parents[1].rglob("*.so"))
    install(base, packages / "torchvision-0.28-py3-none-any.whl")
    install(base, packages / "torchaudio-2.11-py3-none-any.whl")
    assert make(base, lines).left_alone == {"torch": "2.13.0+xpu", "torchaudio": "2.11", "torchvision": "0.28"}


def test_an_interpreter_as_it_is(base: Path, tmp_path: Path) -> None:
    environment = existing(base)
    assert (environment.python, environment.left_alone) == (base, {"torch": "2.13.0+xpu"})
    venv.create(tmp_path / "empty", with_pip=False, symlinks=True)
    with pytest.raises(PatchforgeError, match="has no torch"):
        existing(tmp_path / "empty" / "bin" / "python")
    with pytest.raises(PatchforgeError, match="is not there"):
        existing(tmp_path / "nothing")


def test_a_time_limit(base: Path, packages: Path) -> None:
    source = packages / "slow-1.0.tar.gz"
    folder = packages.parent / "slow-1.0"
    folder.mkdir()
    (folder / "setup.py").write_text("import time; time.sleep(600)\n")
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
    subprocess.run(["tar", "-czf", source, "-C", packages.parent, "slow-1.0"], check=True)
    with pytest.raises(PatchforgeError, match="took too long"):
        prepare(b"slow", base, base.parents[2] / "cache", tell=lambda _: None, timeout=0.5, building=True)


def _make_and_tell(base: Path, told: multiprocessing.SimpleQueue[str]) -> None:
    lines: list[str] = []
    prepare(b"einops", base, base.parents[2] / "cache", tell=lines.append, timeout=120)
    told.put(json.dumps(lines))


def test_two_processes_make_it_once(base: Path, packages: Path) -> None:
    wheel(packages, "einops", "1.2")
    context = multiprocessing.get_context("fork")
    told: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    both = [context.Process(target=_make_and_tell, args=(base, told)) for _ in range(2)]
    for process in both:
        process.start()
    lines = [json.loads(told.get()) for _ in both]
    for process in both:
        process.join()
    assert sum(bool(line) for line in lines) == 1
