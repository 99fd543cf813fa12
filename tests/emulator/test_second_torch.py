"""The torch that the emulator is pinned to, and the check with another one, which is allowed to fail."""

from __future__ import annotations

import os
import sys

import pytest

from emulator import build, second_torch

VARIABLE = "PATCHFORGE_SECOND_TORCH_PYTHON"


def version(number: str, cuda: str = "None", xpu: str = "None") -> str:
    """The text of a torch/version.py."""
    return f"__version__ = '{number}'\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = None\nxpu = {xpu}\n"


def test_another_torch_is_refused_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(build.TORCH_VARIABLE, raising=False)
    assert build._unfit(version("2.13.1+cpu")) is None
    assert "for torch 2.13, and this is torch 2.14.0" in str(build._unfit(version("2.14.0")))
    assert "2.130.0" in str(build._unfit(version("2.130.0")))
    assert "unknown version" in str(build._unfit(""))
    assert "a CPU build is needed" in str(build._unfit(version("2.13.0+cu130", cuda="'13.0'")))
    monkeypatch.setenv(build.TORCH_VARIABLE, "any")
    assert build._unfit(version("2.14.0")) is None
    assert build._unfit(version("2.14.0+cu130", cuda="'13.0'")) is None
    assert "a CPU build is needed" in str(build._unfit(version("2.14.0+xpu", xpu="'20250301'")))


def test_the_check_says_why_it_cannot_run() -> None:
    status, told = second_torch.check("no-such-python")
    assert status == 2
    assert "no-such-python cannot be run" in told


@pytest.mark.skipif(build.missing() is not None, reason=f"no torch of the ordinary version: {build.missing()}")
def test_the_ordinary_torch_is_no_second_one() -> None:
    status, told = second_torch.check(sys.executable)
    assert status == 2
    assert "expected another than 2.13" in told


@pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no interpreter with another torch")
def test_another_torch() -> None:
    status, told = second_torch.check(os.environ[VARIABLE])
    if status == 1:
        pytest.xfail(told)
    assert status == 0, told
