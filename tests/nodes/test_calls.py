"""Calls that are not what they look like: of classes and modules, and such as torch.xpu's twin does not take."""

from __future__ import annotations

import pytest

from patchforge.errors import CheckFailed
from patchforge.proof.packs.helpers import helpers
from patchforge.proof.packs.pairing import prove
from tests.nodes.test_cases import decided, edits

OURS = "".join(f"{helpers()[name]}\n" for name in ("_patchforge_xpu", "_patchforge_gpu", "_patchforge_device"))
PARTS = """\
import torch
import torch.nn as nn
import helpers
import pack.tools
from torch import Tensor
from torch.nn import Module as Base
from functools import partial
from .models import Net, moves

class Own(nn.Module):
    def up(self, x, xs, d):
        {}
"""


@pytest.mark.parametrize(
    "line",
    [
        "torch.Tensor.cuda(x)",
        "torch.Tensor.cuda(x, non_blocking=True)",
        "Tensor.cuda(x, 0)",
        "nn.Module.cuda(self)",
        "torch.nn.Linear.cuda(x, d)",
        "Base.cuda(self, 0)",
        "Net.cuda(x)",
        "Own.cuda(self)",
        "self.Net.cuda(x)",
        "type(x).cuda(x)",
        "x.__class__.cuda(x)",
        "self.__class__.cuda(self)",
        "super().cuda()",
        "super(Own, self).cuda(d)",
        "helpers.cuda(x)",
        "pack.tools.cuda(x)",
        "moves.cuda(x)",
        "moves.cuda()",
        "partial(torch.Tensor.cuda)(x)",
        "list(map(Tensor.cuda, xs))",
        "if torch.cuda.is_available(): moves.cuda()",
    ],
)
def test_what_is_no_method_of_an_object_is_not_converted(line: str) -> None:
    assert "to(" not in "".join(edits(PARTS.format(line)))


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("x.cuda(d)", "x.to(_patchforge_device(d))"),
        ("self.Net.cuda()", "self.Net.to(_patchforge_device())"),
        ("self.net.cuda(d)", "self.net.to(_patchforge_device(d))"),
        ("Net(x).cuda(d)", "Net(x).to(_patchforge_device(d))"),
        ("G.cuda(d)", "G.to(_patchforge_device(d))"),
        ("xs[0].cuda(torch.device('cuda', 1))", None),
        ("xs[0].cuda('cuda:1')", "xs[0].to(_patchforge_device(1))"),
    ],
)
def test_what_is_a_method_of_an_object_is(line: str, after: str | None) -> None:
    assert (after or "xs[0].to(_patchforge_device(torch.device(_patchforge_device(), 1)))") in edits(PARTS.format(line))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("torch.Tensor.cuda(x)", "torch.Tensor.to(_patchforge_device(x))"),
        ("Tensor.cuda(x, 0)", "Tensor.to(_patchforge_device(x), 0)"),
        ("nn.Module.cuda(self)", "nn.Module.to(_patchforge_device(self))"),
        ("Own.cuda(self)", "Own.to(_patchforge_device(self))"),
        ("type(x).cuda(x)", "type(x).to(_patchforge_device(x))"),
        ("super().cuda()", "super().to(_patchforge_device())"),
        ("self.__class__.cuda(self)", "self.__class__.to(_patchforge_device(self))"),
        ("helpers.cuda(x)", "helpers.to(_patchforge_device(x))"),
        ("moves.cuda()", "moves.to(_patchforge_device())"),
        ("pack.tools.cuda(x)", "pack.tools.to(_patchforge_device(x))"),
        ("[cls.cuda(x) for x in xs]", "[cls.to(_patchforge_device(x)) for x in xs]"),
        # what torch.xpu has not, or does not take
        ("torch.cuda.Event(True, True)", "_patchforge_gpu().Event(True, True)"),
        ("torch.cuda.Event(interprocess=True)", "_patchforge_gpu().Event(interprocess=True)"),
        ("torch.cuda.Event(**d)", "_patchforge_gpu().Event(**d)"),
        ("torch.cuda.memory_summary()", "_patchforge_gpu().memory_summary()"),
        ("torch.cuda.default_stream()", "_patchforge_gpu().default_stream()"),
    ],
)
def test_the_proof_refuses_them(before: str, after: str) -> None:
    head, _, tail = PARTS.partition("class Own")
    texts = (head + OURS + "class Own" + tail.format(line) for line in (before, after))
    with pytest.raises(CheckFailed):
        prove("nodes.py", *(text.encode() for text in texts))


@pytest.mark.parametrize(
    "line",
    [
        "torch.cuda.Event(interprocess=True)",
        "torch.cuda.Event(True, d)",
        "torch.cuda.Event(blocking=d)",
        "torch.cuda.Event(True, False, True)",
        "torch.cuda.Event(*xs)",
        "torch.cuda.Event(**d)",
        "torch.cuda.mem_get_info(0, 1)",
        "torch.cuda.Stream(0, 1, 2)",
        "torch.cuda.get_rng_state(place=0)",
        "e = torch.cuda.Event(); e.ipc_handle()",
        "s = torch.cuda.Stream(); run(s.cuda_stream)",
        "self.s = torch.cuda.current_stream(); run(self.s.cuda_stream)",
        "n = torch.cuda.memory_stats(0); print(n['num_ooms'])",
        "n = torch.cuda.memory_stats()['segment.all.current']",
        "major = torch.cuda.get_device_properties(0).major",
        "torch.cuda.default_stream().synchronize()",
        "torch.cuda.memory_summary()",
    ],
)
def test_what_an_xpu_does_not_take_is_for_a_person(line: str) -> None:
    assert "person" in decided(PARTS.format(line))
    assert "xpu" not in "".join(edits(PARTS.format(f"if torch.cuda.is_available(): {line}")))


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("torch.cuda.Event(True)", "_patchforge_gpu().Event(True)"),
        (
            "e = torch.cuda.Event(True, blocking=True)",
            "e = _patchforge_gpu().Event(True) if _patchforge_xpu() else torch.cuda.Event(True, blocking=True)",
        ),
        (
            "e = [torch.cuda.Event(blocking=False).record()]",
            "e = [(_patchforge_gpu().Event() if _patchforge_xpu() else torch.cuda.Event(blocking=False)).record()]",
        ),
        ("torch.cuda.Stream(0, priority=-1)", "_patchforge_gpu().Stream(0, priority=-1)"),
        ("n = torch.cuda.memory_stats().get('num_ooms', 0)", "n = _patchforge_gpu().memory_stats().get('num_ooms', 0)"),
        (
            "torch.cuda.set_per_process_memory_fraction(0.5, device=d)",
            "_patchforge_gpu().set_per_process_memory_fraction(0.5, device=d)",
        ),
    ],
)
def test_what_an_xpu_takes_is_converted(line: str, after: str) -> None:
    assert after in edits(PARTS.format(line))
