# ruff: noqa: E501 - miniatures are shown as they are
"""A file that nodes lead to is looked at, whatever a part of it is: what stays is the smallest part that is."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from patchforge.cli import parser
from patchforge.nodes.convert import Converted, convert
from patchforge.nodes.pack import Pack
from patchforge.pattern import Options
from patchforge.proof.packs.pairing import prove
from patchforge.vocabulary import Decision

INIT = "from .k import run\nNODE_CLASS_MAPPINGS = {}\n"
RUN = """

def run(x):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return x.to(device) if device == "cpu" else x.cuda()
"""

#: What else may stand in a node's file: the name of the file, and the text with its site (in line "HERE"), if any.
BESIDE = {
    "a compiler in a function": (
        "k.py",
        "def ext(x):\n    from torch.utils.cpp_extension import load\n    return load('k', ['k.cu']).f(x.cuda())  # HERE\n",
    ),
    "a compiler by another name": (
        "k.py",
        "from torch.utils.cpp_extension import load as build\ndef ext(x):\n    return build('k', ['k.cu']).f(x.cuda())  # HERE\n",
    ),
    "a compiler in a module": (
        "k.py",
        "from torch.utils import cpp_extension\ndef ext(x):\n    return cpp_extension.load('k', ['k.cu']).f(x.cuda())  # HERE\n",
    ),
    "a compiler in a method": (
        "k.py",
        "class Ext:\n    def ext(self, x):\n        from torch.utils.cpp_extension import load_inline\n        return load_inline('k').f(x.cuda())  # HERE\n\n    def move(self, x):\n        return x.cpu()\n",
    ),
    "a compiler in a statement": (
        "k.py",
        "if torch.cuda.is_available():  # HERE\n    from torch.utils.cpp_extension import load\n    ext = load('k', ['k.cu'])\n",
    ),
    "a kernel of CuPy": (
        "k.py",
        "def ext(x):\n    import cupy\n    return cupy.RawKernel(SOURCE, 'k')((1,), (1,), (x.cuda(),))  # HERE\n",
    ),
    "a kernel of Triton": (
        "k.py",
        "import triton\n@triton.jit\ndef kernel(x):\n    return x.cuda()  # HERE\n",
    ),
    "a kernel of Numba": (
        "k.py",
        "from numba import cuda\n@cuda.jit\ndef kernel(x):\n    return x.cuda()  # HERE\n",
    ),
    "quantisation": ("k.py", "import bitsandbytes as bnb\nq = bnb.nn.Linear8bitLt(1, 1)\n"),
    "a build of the pack": (
        "k.py",
        "def build():\n    from setuptools import setup\n    setup(name='k', gpus=torch.cuda.device_count())  # HERE\n",
    ),
    "what a script does": ("k.py", "if __name__ == '__main__':\n    net.cuda()  # HERE\n"),
    "an installer by name": ("install.py", ""),
    "an installer": (
        "install_k.py",
        "def fetch():\n    import subprocess\n    subprocess.run(['pip', 'install', 'a' if torch.cuda.is_available() else 'b'])  # HERE\n",
    ),
    "code for XPUs by name": ("xpu.py", ""),
    "code for XPUs": (
        "ipex_k.py",
        "def ext(x):\n    import intel_extension_for_pytorch as ipex\n    return ipex.f(x.cuda())  # HERE\n",
    ),
    "what code for XPUs puts in torch's place": (
        "ipex_k.py",
        "import intel_extension_for_pytorch\ndef ext(x):\n    return x\ntorch.Tensor.cuda = ext  # HERE\nold = torch.UntypedStorage.cuda  # HERE\n",
    ),
    "a library that was copied": ("mmcv/runner.py", ""),
    "operators that were copied": ("basicsr/ops/k.py", ""),
}


def converted(files: dict[str, str]) -> Converted:
    done = convert(Pack("p", Path("p"), {name: dedent(text).encode() for name, text in files.items()}), Options())
    assert not done.problems
    for change in done.changes:
        prove(change.path, change.before or b"", change.after)
    return done


@pytest.mark.parametrize("name", BESIDE)
def test_a_part_that_stays_hides_nothing_else(name: str) -> None:
    path, beside = BESIDE[name]
    text = "import torch\n" + beside + RUN
    module = path.removesuffix(".py").replace("/", ".")
    done = converted({"__init__.py": INIT.replace(".k ", f".{module} "), path: text})
    assert not done.skipped
    by_line: dict[str, set[Decision]] = {}
    for site in done.sites:
        by_line.setdefault(text.splitlines()[site.line - 1].strip(), set()).add(site.decision)
        assert site.reason or site.decision is Decision.CONVERTED
    here = {line: decided for line, decided in by_line.items() if line.endswith("# HERE")}
    assert len(here) == text.count("# HERE")
    assert all(decided == {Decision.LEFT} for decided in here.values())
    assert by_line['device = "cuda" if torch.cuda.is_available() else "cpu"'] == {Decision.CONVERTED}
    assert by_line['return x.to(device) if device == "cpu" else x.cuda()'] == {Decision.CONVERTED}


@pytest.mark.parametrize(
    "text",
    [
        # a function that builds, called by its name, and through another function
        "def _k():\n    from torch.utils.cpp_extension import load\n    return load('k', ['k.cu'])\n\ndef run(x):\n    if torch.cuda.is_available():\n        return _k().f(x.cuda())\n    return x\n",
        "def _k():\n    from torch.utils.cpp_extension import load\n    return load('k', ['k.cu'])\n\ndef fast(x):\n    return _k().f(x)\n\ndef run(x):\n    if torch.cuda.is_available():\n        return fast(x.cuda())\n    return x\n",
        # what is kept: by the module, by a name that is global, by an object
        "from torch.utils.cpp_extension import load\n_k = load('k', ['k.cu'])\n\ndef run(x):\n    return _k.f(x.cuda()) if torch.cuda.is_available() else x\n",
        "_k = None\n\ndef build():\n    global _k\n    from torch.utils.cpp_extension import load\n    _k = load('k', ['k.cu'])\n\ndef run(x):\n    if x.is_cuda:\n        x = x.cuda()\n        return _k.f(x)\n    return x\n",
        "class A:\n    def __init__(self):\n        from torch.utils.cpp_extension import load\n        self.k = load('k', ['k.cu'])\n\n    def run(self, x):\n        if torch.cuda.is_available():\n            return self.k.f(x.cuda())\n        return x\n",
        "class A:\n    def built(self):\n        from torch.utils.cpp_extension import load\n        return load('k', ['k.cu'])\n\n    def run(self, x):\n        if torch.cuda.is_available():\n            return self.built().f(x.cuda())\n        return x\n",
        # compiled by a mark
        "import triton\n\n@triton.jit\ndef add(x):\n    pass\n\ndef run(x):\n    if torch.cuda.is_available():\n        x = x.cuda()\n        add[(1,)](x)\n    return x\n",
        "from numba import cuda\n\n@cuda.jit\ndef add(x):\n    pass\n\ndef run(x):\n    if torch.cuda.is_available():\n        torch.cuda.empty_cache()\n        add[1, 1](x)\n    return x\n",
    ],
)
def test_a_test_for_cuda_that_leads_to_a_kernel_of_the_file_stays(text: str) -> None:
    """An XPU goes on without the kernel, as it did."""
    done = converted({"__init__.py": INIT, "k.py": "import torch\n\n" + text})
    asked = [site for site in done.sites if site.kind in ("torch.cuda.is_available", ".is_cuda")]
    assert asked
    assert all(site.decision is not Decision.CONVERTED for site in asked)
    after = done.changes[0].after.decode() if done.changes else ""
    assert "xpu.is_available() else" not in after.partition("def run")[2]
    assert "elif" not in after.partition("def run")[2]


def test_a_file_that_cannot_be_loaded_without_cuda_is_listed_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path / "cache"))
    pack = tmp_path / "pack"
    (pack / "tests").mkdir(parents=True)
    (pack / "__init__.py").write_text(INIT)
    (pack / "k.py").write_text("import torch\nimport cupy\n" + RUN)
    (pack / "tests" / "one.py").write_text("x.cuda()\ny.cuda()\nx.cuda()\n")
    (pack / "broken.py").write_text("def (:  # cuda\n")
    options = parser().parse_args(["packs", "check", str(pack)])
    assert options.run(options) == 1  # for the file that could not be read
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "0 can be converted, 0 for a person, 0 left on purpose, 6 sites and 1 file not looked at"
    cupy = "cannot be loaded without cupy, which is for CUDA only"
    assert f"pack/k.py:6: not looked at: {cupy} (and in line 7)" in said
    assert "pack/tests/one.py:1: not looked at: no node entry point leads to this file (and in lines 2, 3)" in said
    assert any(line.startswith("pack/broken.py:1: not looked at: ") for line in said)
    (pack / "broken.py").unlink()
    options = parser().parse_args(["packs", "apply", str(pack), "--out", str(tmp_path / "out")])
    assert options.run(options) == 0
    report = (tmp_path / "out" / "REPORT.md").read_text()
    assert f"## Sites in files that no rule looks at\n\n- 3: {cupy}\n  - `k.py`: 6, 7\n" in report
    capsys.readouterr()


def test_a_copy_of_a_library_is_known_by_what_it_says() -> None:
    lead = "from .mmcv.runner import run\nNODE_CLASS_MAPPINGS = {}\n"
    files = {"__init__.py": lead, "mmcv/runner.py": "import torch\n" + RUN, "mmcv/__init__.py": ""}
    assert len(converted(files).sites) == 3
    theirs = converted(files | {"mmcv/__init__.py": "# Copyright (c) OpenMMLab. All rights reserved.\n"})
    assert {(site.path, site.line) for site in theirs.skipped} == {("mmcv/runner.py", 5), ("mmcv/runner.py", 6)}


@pytest.mark.parametrize(
    "lead",
    [
        "from .k import run",
        "try: from .k import run\nexcept ImportError: pass",
        "import os; from . import k",
        "def lazy():\n    from .k import run\n    return run()",
        "def lazy(): from .k import run",
        "import importlib\nk = importlib.import_module('.k', __name__)",
        "import importlib\nk = importlib.import_module(f'{__name__}.k')",
        "from .k import (\n    run,  # what it does\n)",
        "from . import \\\n    k",
    ],
)
def test_however_a_file_is_imported_it_is_looked_at(lead: str) -> None:
    done = converted({"__init__.py": f"{lead}\nNODE_CLASS_MAPPINGS = {{}}\n", "k.py": "import torch\n" + RUN})
    assert not done.skipped
    assert len(done.sites) == 3
