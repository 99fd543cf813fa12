# ruff: noqa: E501 - miniatures are shown as they are
"""Calls of ``torch.cuda`` that ask for CUDA as ``is_available`` does: opened with what stands behind them, or not at all."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest

from tests.nodes.test_cases import NODE, done, edits

TORCH = NODE + "import torch\n\n"
KERNELS = {
    "flash": "from flash_attn import flash_attn_func\nreturn flash_attn_func(x)",
    "cupy": "import cupy\nreturn cupy.asarray(x)",
    "a quantiser": "import bitsandbytes as bnb\nreturn bnb.nn.Linear8bitLt(x)",
    "a function of the file": "return kernel(x)",
    "an extension": "from torch.utils import cpp_extension_of_ours\nreturn cpp_extension_of_ours.run(x)",
}
KERNEL = "\n\ndef kernel(x):\n    import nvdiffrast\n    return nvdiffrast.run(x)\n"
#: HERE is what runs where CUDA answers; x is what all others get.
PROBES = {
    "a count": "def f(x):\n    if torch.cuda.device_count() > 0:\n        HERE\n    return x\n",
    "a count by its truth": "def f(x):\n    if bool(torch.cuda.device_count()):\n        HERE\n    return x\n",
    "no count": "def f(x):\n    if not torch.cuda.device_count():\n        return x\n    HERE\n",
    "a count of none": "def f(x):\n    if torch.cuda.device_count() == 0:\n        return x\n    HERE\n",
    "a count with a name": "def f(x):\n    n = int(torch.cuda.device_count())\n    if n >= 1:\n        HERE\n    return x\n",
    "a loop": "def f(x):\n    for _ in range(torch.cuda.device_count()):\n        HERE\n    return x\n",
    "cases": "def f(x):\n    match torch.cuda.device_count():\n        case 0:\n            return x\n        case _:\n            HERE\n",
    "the device": "def f(x):\n    if torch.cuda.current_device() >= 0:\n        HERE\n    return x\n",
    "started": "def f(x):\n    if torch.cuda.is_initialized():\n        HERE\n    return x\n",
    "the function itself": "n = torch.cuda.device_count\n\ndef f(x):\n    if n():\n        HERE\n    return x\n",
    "a function": "def n():\n    return torch.cuda.device_count()\n\ndef f(x):\n    if n():\n        HERE\n    return x\n",
    "a name": (
        "def n():\n    return torch.cuda.get_device_name(0) if torch.cuda.device_count() else 'CPU'\n\n"
        "def f(x):\n    if n() != 'CPU':\n        HERE\n    return x\n"
    ),
    "an attribute": "class A:\n    gpu = torch.cuda.device_count() > 0\n\n    def f(self, x):\n        if self.gpu:\n            HERE\n        return x\n",
    "a property": (
        "class A:\n    @property\n    def gpu(self):\n        return torch.cuda.device_count() > 0\n\n"
        "    def f(self, x):\n        if self.gpu:\n            HERE\n        return x\n"
    ),
    "a trial": (
        "def gpu():\n    try:\n        torch.cuda.init()\n        return True\n    except Exception:\n        return False\n\n"
        "def f(x):\n    if gpu():\n        HERE\n    return x\n"
    ),
    "a trial with an else": (
        "def f(x):\n    try:\n        torch.cuda.synchronize()\n    except (RuntimeError, AssertionError):\n        return x\n"
        "    else:\n        HERE\n"
    ),
    "a way out of a trial": (
        "def f(x):\n    try:\n        torch.cuda.current_device()\n    except Exception:\n        return x\n    HERE\n"
    ),
    "a flag of a trial": (
        "def f(x):\n    ok = False\n    with contextlib.suppress(Exception):\n        torch.cuda.set_device(0)\n        ok = True\n"
        "    if ok:\n        HERE\n    return x\n"
    ),
    "what a trial gives": (
        "def free():\n    try:\n        free, _ = torch.cuda.mem_get_info()\n    except Exception:\n        return None\n    return free\n\n"
        "def f(x):\n    if free() is not None:\n        HERE\n    return x\n"
    ),
    "a tensor that is tried": (
        "def f(x):\n    try:\n        torch.zeros(1, device='cuda')\n        ok = True\n    except Exception:\n        ok = False\n"
        "    if ok:\n        HERE\n    return x\n"
    ),
    "a move that is tried": (
        "def gpu():\n    try:\n        torch.zeros(1).cuda()\n        return True\n    except Exception:\n        return False\n\n"
        "def f(x):\n    if gpu():\n        HERE\n    return x\n"
    ),
}  # fmt: skip


def written(probe: str, behind: str, more: str = "") -> str:
    """The probe with ``behind`` in its place."""
    line = next(line for line in probe.splitlines() if line.strip() == "HERE")
    return TORCH + probe.replace(line, indent(behind, line[: -len("HERE")])) + more


@pytest.mark.parametrize("behind", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_no_xpu_comes_to_what_is_for_cuda_alone(probe: str, behind: str) -> None:
    assert edits(written(probe, behind, KERNEL)) == []


@pytest.mark.parametrize("probe", [probe for probe in PROBES.values() if "match" not in probe])  # Python 3.10's
def test_what_suits_an_xpu_is_opened_with_its_test(probe: str) -> None:
    lines = edits(written(probe, 'return x.to("cuda")'))
    assert "return x.to(_patchforge_device())" in lines
    assert len(lines) > 1


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_what_a_person_must_look_at_keeps_its_test_closed(probe: str) -> None:
    """A device that nobody can follow stays, and so does the test in front of it: the way that works is kept."""
    result = done(written(probe, 'return theirs(x, "cuda")'))
    asked = [line for change in result.changes for line in change.after.decode().splitlines()]
    assert not any("_patchforge_gpu()." in line for line in asked if "get_device_name" not in line)
    assert any(str(row.decision) == "person" for row in result.sites)


def test_a_choice_that_offers_cuda_stays_with_its_test() -> None:
    text = 'def inputs():\n    return {"device": (["cuda", "cpu"] if torch.cuda.device_count() else ["cpu"],)}\n'
    assert edits(TORCH + text) == []


def test_a_device_by_its_name_alone_stays_with_the_trial() -> None:
    text = 'def ladder():\n    try:\n        torch.cuda.init()\n        return "cuda"\n    except Exception:\n        return "cpu"\n'
    result = done(TORCH + text)
    assert not result.changes
    assert {str(row.decision) for row in result.sites} == {"person"}


def test_an_answer_for_other_files_is_for_a_person() -> None:
    text = "def gpus():\n    return torch.cuda.device_count()\n"
    assert edits(TORCH + text) == ["return _patchforge_gpu().device_count()"]
    assert edits({"nodes.py": TORCH + text, "other.py": "from .nodes import gpus\nn = gpus()\n"}) == []


@pytest.mark.parametrize(
    "text",
    [
        "print(torch.cuda.device_count())\n",
        "free, _ = torch.cuda.mem_get_info()\nif free < 8e9:\n    x = x.half()\n",
        "try:\n    torch.cuda.synchronize()\n    torch.cuda.empty_cache()\nexcept Exception:\n    pass\n",
        "try:\n    name = torch.cuda.get_device_name(0)\nexcept Exception:\n    name = 'none'\nprint(name)\n",
        "for i in range(torch.cuda.device_count()):\n    print(torch.cuda.get_device_name(i))\n",
    ],
)
def test_what_is_only_told_or_tidied_is_converted(text: str) -> None:
    assert {str(row.decision) for row in done(TORCH + text).sites} == {"converted"}


@pytest.mark.parametrize(
    "text",
    [
        "n = 0\nif torch.cuda.is_available():\n    n = torch.cuda.device_count()\nif n:\n    import cupy\n",
        "n = torch.cuda.device_count() if torch.cuda.is_available() else 0\nif n > 0:\n    import cupy\n",
        "if torch.cuda.is_available():\n    d = 'cuda'\n    fast = True\nelse:\n    d = 'cpu'\n    fast = False\nif fast:\n    import cupy\n",
    ],
)  # fmt: skip
def test_an_arm_for_xpus_does_not_answer_for_cuda(text: str) -> None:
    inside = dedent(f"def f(x):\n{indent(text, '    ')}")
    assert edits(TORCH + inside) == []


@pytest.mark.parametrize(
    "asked", ["torch.version.cuda", "torch.version.cuda is not None", "torch.cuda.get_arch_list()"]
)
def test_how_torch_was_built_opens_nothing(asked: str) -> None:
    assert edits(f"{TORCH}def f(x):\n    if {asked}:\n        import cupy\n        return x\n    return x\n") == []
