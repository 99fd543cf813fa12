"""Every place that names a device, with the arm it stands in, and what is decided about it."""

from __future__ import annotations

from textwrap import dedent

import pytest

from patchforge.engine.blocks import SourceFile, UnreadableSource
from patchforge.engine.census import device_sites
from patchforge.engine.records import FileRecord, FoundPlace, RawSite
from patchforge.engine.sites import Leave, covering, decide, load_decisions
from patchforge.vocabulary import Decision, Outcome
from tests.support import ROOT


def sites(text: str) -> list[tuple[int, str, str, str, str]]:
    raw_sites = device_sites(SourceFile(dedent(text).encode()), {})
    return [(site.line, site.function, site.kind, site.text, site.guard) for site in raw_sites]


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        ("torch.cuda.empty_cache()", "cuda-api", "torch.cuda.empty_cache"),
        ("torch.xpu.synchronize()", "xpu-api", "torch.xpu.synchronize"),
        ("x = torch.backends.cudnn.benchmark", "cuda-backend", "torch.backends.cudnn.benchmark"),
        ("torch.backends.cuda.enable_math_sdp(True)", "cuda-backend", "torch.backends.cuda.enable_math_sdp"),
        ("x = torch.version.hip", "build-test", "torch.version.hip"),
        ("f(x, OOM_EXCEPTION)", "oom-type", "OOM_EXCEPTION"),
        ("ipex.optimize(m)", "ipex", "ipex.optimize"),
        ("f = m.is_nvidia()", "vendor-test", "is_nvidia"),
        ("f = is_device_xpu(d)", "xpu-test", "is_device_xpu"),
        ("f = is_device_npu(d)", "vendor-test", "is_device_npu"),
        ("f = mm.is_device_mps(d)", "vendor-test", "is_device_mps"),
        ("f = is_device_cpu(d)", "device-test", "is_device_cpu"),
        ("f = flash_attention_decode_is_available(d)", "kitchen-test", "flash_attention_decode_is_available"),
        ("f = x.is_cuda", "cuda-test", ".is_cuda"),
        ("x = torch.empty(3, pin_memory=True)", "pinning", "pin_memory="),
        ("loader(pin_memory=wanted())", "pinning", "pin_memory="),
        ("x.cuda()", "cuda-method", ".cuda()"),
        ("d = 'cuda:1'", "device-string", "cuda:1"),
        ("d = 'xpu'", "device-string", "xpu"),
        ("e['CUDA_VISIBLE_DEVICES'] = '0'", "environment", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_kinds(text: str, kind: str, shown: str) -> None:
    assert sites(text) == [(1, "<module>", kind, shown, "")]


@pytest.mark.parametrize(
    "text",
    [
        "f(pin_memory=False)",
        "f(pin_memory=None)",
        "is_available()",
        "x = 'a cuda card'",
        "OOM_EXCEPTION = E",
        'def f():\n    """cuda"""\n',
        "# torch.cuda\n",
        "x = barracuda",
    ],
)
def test_what_is_no_site(text: str) -> None:
    assert sites(text) == []


def test_aliases_are_resolved() -> None:
    text = "import torch.cuda as c\nfrom torch import cuda\nc.empty_cache()\ncuda.synchronize()\n"
    assert [(line, kind, shown) for line, _, kind, shown, _ in sites(text)] == [
        (3, "cuda-api", "torch.cuda.empty_cache"),
        (4, "cuda-api", "torch.cuda.synchronize"),
    ]


def test_arms_of_a_chain() -> None:
    text = """\
    def f():
        if is_intel_xpu():
            torch.xpu.empty_cache()
        elif is_amd():
            torch.cuda.ipc_collect()
        else:
            torch.cuda.empty_cache()
        torch.cuda.synchronize()
    """
    assert sites(text) == [
        (2, "f", "xpu-test", "is_intel_xpu", ""),
        (3, "f", "xpu-api", "torch.xpu.empty_cache", "xpu"),
        (4, "f", "vendor-test", "is_amd", "beside-xpu"),
        (5, "f", "cuda-api", "torch.cuda.ipc_collect", "beside-xpu"),
        (7, "f", "cuda-api", "torch.cuda.empty_cache", "beside-xpu"),
        (8, "f", "cuda-api", "torch.cuda.synchronize", ""),
    ]


def test_another_vendors_arm() -> None:
    assert [guard for *_, guard in sites("if is_nvidia():\n    torch.cuda.empty_cache()\n")] == ["", "vendor"]


def test_an_xpu_arm_that_returns_makes_the_rest_stand_beside_it() -> None:
    text = """\
    class A:
        def f(self):
            if is_intel_xpu():
                return False
            return torch.cuda.is_bf16_supported()
    """
    assert sites(text)[-1] == (5, "A.f", "cuda-api", "torch.cuda.is_bf16_supported", "beside-xpu")


@pytest.mark.parametrize("nothing", ["return False", "return None", "return", "return 0", "return ()"])
def test_an_xpu_arm_that_says_no_is_new_until_it_is_decided(nothing: str) -> None:
    text = f"def f(d):\n    if is_amd():\n        return True\n    elif is_device_xpu(d):\n        {nothing}\n"
    assert (5, "f", "xpu-refusal", nothing, "xpu") in sites(text)
    record = FileRecord((), (), device_sites(SourceFile(text.encode()), {}))
    refusal = next(site for site in decide({"a.py": record}, covering(())) if site.kind == "xpu-refusal")
    assert (refusal.decision, refusal.reason) == (Decision.PERSON, "new in upstream's XPU code")
    decided = decide({"a.py": record}, covering((Leave("seen", kind="xpu-refusal"),)))
    assert ("seen", Decision.LEFT) in {(site.reason, site.decision) for site in decided}


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    if is_intel_xpu():\n        return torch.xpu.memory_allocated()\n",
        "def f():\n    if not is_intel_xpu():\n        return False\n",
        "def f():\n    if is_nvidia():\n        return False\n",
    ],
)
def test_an_xpu_arm_that_does_something_and_other_arms_say_no_such_thing(text: str) -> None:
    assert all(kind != "xpu-refusal" for _, _, kind, *_ in sites(text))


def test_what_stands_behind_an_npus_test_is_that_vendors() -> None:
    assert [guard for *_, guard in sites("if is_device_npu(d):\n    x.to('cuda')\n")] == ["", "vendor"]
    assert [guard for *_, guard in sites("if x.is_cuda:\n    torch.cuda.x()\n")] == ["", "vendor"]
    assert [guard for *_, guard in sites("if is_device_cpu(d):\n    x.to('cuda')\n")] == ["", ""]


def test_an_xpu_arm_that_goes_on_does_not() -> None:
    assert sites("def f():\n    if is_intel_xpu():\n        pass\n    torch.cuda.x()\n")[1][4] == ""


def test_a_vendor_test_that_leaves_makes_the_rest_that_vendors() -> None:
    assert sites("def f():\n    if not is_nvidia():\n        return\n    torch.cuda.x()\n")[1][4] == "vendor"


def test_the_inner_function_names_the_site() -> None:
    assert sites("class A:\n    def f(self):\n        def g():\n            torch.cuda.x()\n")[0][1] == "A.f.g"


def test_decorators_and_defaults_are_seen() -> None:
    assert [site[3] for site in sites("@torch.cuda.amp\ndef f(d='cuda'):\n    pass\n")] == ["torch.cuda.amp", "cuda"]


def test_the_memo_does_not_mix_up_lines() -> None:
    memo: dict[tuple[object, ...], object] = {}
    first = device_sites(SourceFile(b"torch.cuda.x()\n"), memo)
    other = device_sites(SourceFile(b"\n\na = 1\ntorch.cuda.x()\n"), memo)
    assert ([site.line for site in first], [site.line for site in other]) == ([1], [4])


def test_a_syntax_that_python_does_not_know_cannot_be_counted() -> None:
    with pytest.raises(UnreadableSource):
        device_sites(SourceFile(b"torch.cuda.x(\n"), {})


def found(line: int, last_line: int, outcome: Outcome) -> FoundPlace:
    return FoundPlace("X1", outcome, line, last_line, "f")


def decision_of(site: RawSite, *claims: FoundPlace, leave: Leave | None = None) -> tuple[str, str]:
    [decided] = decide({"a.py": FileRecord(claims, (), (site,))}, covering((leave,) if leave else ()))
    return decided.decision, decided.rule or decided.reason


CUDA = RawSite(5, "f", "cuda-api", "torch.cuda.x", "")


def test_a_site_on_a_claimed_line_is_claimed() -> None:
    assert decision_of(CUDA, found(4, 6, Outcome.APPLIED)) == ("converted", "X1")
    assert decision_of(CUDA, found(5, 5, Outcome.UPSTREAM)) == ("converted", "X1")


def test_a_drift_claims_nothing() -> None:
    assert decision_of(CUDA, found(5, 5, Outcome.DRIFTED)) == ("person", "")
    assert decision_of(CUDA, found(6, 9, Outcome.APPLIED)) == ("person", "")


@pytest.mark.parametrize(
    "site",
    [
        RawSite(1, "f", "xpu-api", "torch.xpu.x", ""),
        RawSite(1, "f", "device-string", "xpu:0", ""),
        RawSite(1, "f", "cuda-api", "torch.cuda.x", "xpu"),
        RawSite(1, "f", "cuda-api", "torch.cuda.x", "beside-xpu"),
        RawSite(1, "f", "cuda-api", "torch.cuda.x", "vendor"),
    ],
)
def test_what_is_left_by_its_place(site: RawSite) -> None:
    decision, why = decision_of(site)
    assert decision == "left"
    assert why


@pytest.mark.parametrize(
    ("leave", "decision"),
    [
        (Leave("why", path="a.*"), "left"),
        (Leave("why", path="b.py"), "person"),
        (Leave("why", function="g"), "person"),
        (Leave("why", kind="cuda-*", text="torch.*"), "left"),
        (Leave("why", kind="cuda-*", text="torch.xpu.*"), "person"),
    ],
)
def test_a_decision_covers_what_all_its_globs_match(leave: Leave, decision: str) -> None:
    assert decision_of(CUDA, leave=leave)[0] == decision


def test_every_decision_of_the_project_has_a_reason() -> None:
    decisions = load_decisions(ROOT / "upstream" / "comfyui.sites.toml")
    assert decisions
    assert all(len(decision.why) > 10 for decision in decisions)
