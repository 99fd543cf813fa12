"""The static proof: what it accepts, and above all what it does not."""
# ruff: noqa: E501 - code as one string is easier to compare

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge.errors import CheckFailed
from patchforge.proof.differences import Replaced, Replacement, StaticProof
from patchforge.proof.static import prove

IMPORT = "from comfy import patchforge_xpu\n"
STREAM = Replacement("a.py", "torch.xpu.current_stream()", "torch.xpu.current_stream(device)")


def checked(upstream: str, patched: str, *replacements: Replacement) -> StaticProof:
    return prove("a.py", textwrap.dedent(upstream), IMPORT + textwrap.dedent(patched), replacements)


def refused(upstream: str, patched: str, match: str = "", *replacements: Replacement) -> CheckFailed:
    with pytest.raises(CheckFailed, match=match or None) as error:
        checked(upstream, patched, *replacements)
    assert str(error.value).startswith("a.py:")
    return error.value


UPSTREAM = '''
def free(dev):
    """Free memory."""
    if is_intel_xpu():
        total = torch.xpu.get_device_properties(dev).total_memory
        free_xpu = total - reserved(dev)
        return free_xpu
    elif dev.type == "mps":
        return 1
    else:
        with torch.cuda.device(dev):
            torch.cuda.synchronize()
        return torch.cuda.mem_get_info(dev)[0]
'''

#: (name, upstream, patched, rules) of every form that is accepted
ACCEPTED = [
    (
        "refinement",
        UPSTREAM,
        UPSTREAM.replace(
            "        return free_xpu\n",
            "        free_xpu = patchforge_xpu.free_memory(dev, free_xpu, total)\n        return free_xpu\n",
        ),
        ["refinement"],
    ),
    (
        "two refinements",
        "x = 1\ny = 2\n",
        "x = 1\nx = patchforge_xpu.f(x)\nx = patchforge_xpu.g(0, x)\ny = 2\n",
        ["refinement", "refinement"],
    ),
    ("attribute refined", "self.m = 1\n", "self.m = 1\nself.m = patchforge_xpu.f(self.m)\n", ["refinement"]),
    (
        "handler",
        "try:\n    run()\nexcept mm.OOM as e:\n    tile()\n",
        "try:\n    run()\nexcept patchforge_xpu.oom_types(mm.OOM) as e:\n    tile()\n",
        ["wrap"],
    ),
    (
        "wrap in the test of an arm",
        "if a():\n    x()\nelif is_intel_xpu():\n    y()\nelse:\n    z()\n",
        "if a():\n    x()\nelif patchforge_xpu.asked(is_intel_xpu(), dev):\n    y()\nelse:\n    z()\n",
        ["wrap"],
    ),
    (
        "operand",
        "if is_intel_xpu() and not args.off:\n    m = opt(m.eval(), inplace=True)\n",
        "if is_intel_xpu() and not args.off and patchforge_xpu.usable(globals(), m):\n    m = patchforge_xpu.o(opt)(m.eval(), inplace=True)\n",
        ["operand", "wrap"],
    ),
    ("operand of a single test", "if a:\n    b()\n", "if a and patchforge_xpu.f():\n    b()\n", ["operand"]),
    ("operand of or", "x = a or b\n", "x = a or b or (is_intel_xpu() and patchforge_xpu.f())\n", ["operand"]),
    ("operand binds to the last", "x = a or b\n", "x = a or b and patchforge_xpu.f()\n", ["operand"]),
    (
        "operand and wrap at once",
        "x = a and b\n",
        "x = patchforge_xpu.f(a) and b and patchforge_xpu.g()\n",
        ["operand", "wrap"],
    ),
    ("wrapped operand", "x = a and b\n", "x = a and patchforge_xpu.f(b)\n", ["wrap"]),
    (
        "wrap in a return",
        "def f(d):\n    if is_intel_xpu():\n        return False\n",
        "def f(d):\n    if is_intel_xpu():\n        return patchforge_xpu.non_blocking(False, d)\n",
        ["wrap"],
    ),
    ("nested wraps", "x = a(1)\n", "x = patchforge_xpu.f(patchforge_xpu.g(a(1)), 2)\n", ["wrap", "wrap"]),
    (
        "generator",
        "def stream(device):\n    if device is None:\n        yield\n        return\n    yield 1\n",
        'def stream(device):\n    if device.type == "xpu":\n        with patchforge_xpu.device_context(device):\n            yield\n        return\n    if device is None:\n        yield\n        return\n    yield 1\n',
        ["branch"],
    ),
    (
        "further arm before an else",
        "if is_device_cuda(d):\n    torch.cuda.synchronize()\nelse:\n    x()\n",
        "if is_device_cuda(d):\n    torch.cuda.synchronize()\nelif patchforge_xpu.is_xpu(d):\n    patchforge_xpu.synchronize(d)\nelse:\n    x()\n",
        ["branch"],
    ),
    (
        "further arm at the end",
        "if a:\n    x()\n",
        "if a:\n    x()\nelif patchforge_xpu.is_xpu(d):\n    patchforge_xpu.synchronize(d)\n",
        ["branch"],
    ),
    (
        "arm before all others",
        "if a:\n    x()\nelif b:\n    y()\nz()\n",
        "if patchforge_xpu.is_xpu(d):\n    patchforge_xpu.g(d)\nelif a:\n    x()\nelif b:\n    y()\nz()\n",
        ["branch"],
    ),
    (
        "wrapped callee of a statement",
        "if is_intel_xpu():\n    torch.xpu.synchronize()\n    torch.xpu.empty_cache()\n",
        "if is_intel_xpu():\n    patchforge_xpu.survive(torch.xpu.synchronize)()\n    torch.xpu.empty_cache()\n",
        ["wrap"],
    ),
    (
        "inserted call of what a hook returns",
        "if is_intel_xpu():\n    torch.xpu.empty_cache()\n",
        "if is_intel_xpu():\n    patchforge_xpu.survive(torch.xpu.synchronize)()\n    torch.xpu.empty_cache()\n",
        ["statement"],
    ),
    (
        "inserted although upstream's next statement would fit",
        "torch.xpu.synchronize()\nx()\n",
        "patchforge_xpu.survive(torch.xpu.synchronize)()\ntorch.xpu.synchronize()\nx()\n",
        ["statement"],
    ),
    (
        "branch",
        "def f():\n    global cpu_state\n    x()\n",
        "def f():\n    global cpu_state\n    if cpu_state == CPUState.GPU and not directml_enabled and patchforge_xpu.no_accelerator():\n        cpu_state = CPUState.CPU\n    x()\n",
        ["branch"],
    ),
    (
        "branch that returns a constant",
        "def is_oom(e):\n    return False\n",
        "def is_oom(e):\n    if is_intel_xpu() and patchforge_xpu.is_oom(e):\n        return True\n    return False\n",
        ["branch"],
    ),
    (
        "XPU arm without a hook",
        "def f(d):\n    if is_nvidia():\n        return True\n    return 1\n",
        "def f(d):\n    if is_intel_xpu():\n        return False\n    if is_nvidia():\n        return True\n    return 1\n",
        ["branch"],
    ),
    (
        "branch before an upstream arm with the same test",
        "if is_intel_xpu():\n    x = a()\n",
        "if is_intel_xpu():\n    x = patchforge_xpu.f()\nif is_intel_xpu():\n    x = a()\n",
        ["branch"],
    ),
    (
        "operand of a branch that could be ours",
        "def f():\n    if a:\n        return True\n    return 1\n",
        "def f():\n    if a and patchforge_xpu.g():\n        return True\n    return 1\n",
        ["operand"],
    ),
    (
        "nested branch",
        "x = 1\n",
        "x = 1\nif is_intel_xpu():\n    if patchforge_xpu.f():\n        x = patchforge_xpu.g()\n    else:\n        pass\n",
        ["branch"],
    ),
]


@pytest.mark.parametrize(("name", "upstream", "patched", "rules"), ACCEPTED, ids=[case[0] for case in ACCEPTED])
def test_every_form_of_ours_is_taken_out(name: str, upstream: str, patched: str, rules: list[str]) -> None:
    proof = checked(upstream, patched)
    assert [removal.rule for removal in proof.stripped if removal.rule != "import"] == rules
    lines = (IMPORT + patched).splitlines()
    for removal in proof.stripped:
        assert removal.text.removesuffix(" …") in lines[removal.line - 1]
    assert proof.hooks == patched.count("patchforge_xpu.")


@pytest.mark.parametrize(("name", "upstream", "patched", "rules"), ACCEPTED, ids=[case[0] for case in ACCEPTED])
def test_no_statement_of_upstream_may_be_missing_or_new(
    name: str, upstream: str, patched: str, rules: list[str]
) -> None:
    """Each accepted case, with a line of another vendor's put before, behind and into it on one side only."""
    for old, new in ((upstream + "cuda()\n", patched), (upstream, patched + "cuda()\n")):
        refused(old, new)
    refused("cuda()\n" + upstream, patched)
    refused(upstream, "cuda()\n" + patched)
    assert checked(upstream + "cuda()\n", patched + "cuda()\n").hooks == patched.count("patchforge_xpu.")


def test_nothing_changed() -> None:
    proof = prove("a.py", UPSTREAM, "# a comment of ours\n" + UPSTREAM)
    assert proof == StaticProof("a.py", 0, (), ())


@pytest.mark.parametrize(
    "statement",
    [
        "import comfy.patchforge_xpu as patchforge_xpu",
        "from . import patchforge_xpu",
        "from comfy import patchforge_xpu",
    ],
)
def test_imports(statement: str) -> None:
    proof = prove("a.py", "import os\nx = a\n", f"import os\n{statement}\nx = patchforge_xpu.f(a)\n")
    assert [removal.rule for removal in proof.stripped] == ["import", "wrap"]


def test_an_import_in_the_same_function() -> None:
    upstream = "def f(a):\n    return a\n"
    prove("a.py", upstream, "def f(a):\n    from comfy import patchforge_xpu\n    return patchforge_xpu.f(a)\n")


MUTATIONS = [
    ("CUDA arm altered", "torch.cuda.mem_get_info(dev)[0]", "torch.cuda.mem_get_info(dev)[1]"),
    ("CUDA call swapped", "torch.cuda.synchronize()", "torch.cuda.empty_cache()"),
    ("statement deleted", "            torch.cuda.synchronize()\n", "            pass\n"),
    ("constant of another type", "return 1\n", "return True\n"),
    ("arm deleted", '    elif dev.type == "mps":\n        return 1\n', ""),
    ("arm's test altered", '"mps"', '"cuda"'),
    ("test negated", "if is_intel_xpu()", "if not is_intel_xpu()"),
    ("operand of ours that is not a hook", "if is_intel_xpu()", "if is_intel_xpu() and ready"),
    ("statement added", "        return 1\n", "        log()\n        return 1\n"),
    ("statement added in the XPU arm", "        return free_xpu\n", "        free_xpu = 0\n        return free_xpu\n"),
    ("return of upstream's arm changed", "return free_xpu", "return False"),
    ("docstring", "Free memory.", "Free memory!"),
    ("argument", "def free(dev)", "def free(dev=None)"),
    ("decorator", "def free", "@patchforge_xpu.hook\ndef free"),
    ("with bound", "torch.cuda.device(dev):", "torch.cuda.device(dev) as d:"),
    ("operator", "total - reserved", "total + reserved"),
    ("reordered", "        total = torch.xpu.get_device_properties(dev).total_memory\n        free_xpu = total - reserved(dev)\n", "        free_xpu = total - reserved(dev)\n        total = torch.xpu.get_device_properties(dev).total_memory\n"),
    ("hook of another module", "reserved(dev)", "other.f(reserved(dev))"),
    ("wrap that passes another value", "reserved(dev)", "patchforge_xpu.f(dev, reserved(dev))"),
    ("wrap without arguments", "reserved(dev)", "patchforge_xpu.f()"),
    ("wrap that unpacks", "reserved(dev)", "patchforge_xpu.f(*reserved(dev))"),
    ("replaced by a hook", "torch.cuda.synchronize()", "patchforge_xpu.synchronize()"),
    ("wrapped by a with", "            torch.cuda.synchronize()", "            with patchforge_xpu.c():\n                torch.cuda.synchronize()"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new"), MUTATIONS, ids=[case[0] for case in MUTATIONS])
def test_what_is_no_hook_is_refused(name: str, old: str, new: str) -> None:
    assert UPSTREAM.count(old) == 1
    error = refused(UPSTREAM, UPSTREAM.replace(old, new))
    line = int(str(error).split(":")[1])
    assert abs(line - 1 - UPSTREAM[: UPSTREAM.index(old)].count("\n") - 1) <= 4
    assert error.expected
    assert error.found


GENERATOR = "def f(d):\n    x = 1\n    yield x\n"
INSERTIONS = [
    ("x = 1\n", "x = 1\nif fast:\n    x = patchforge_xpu.f(x)\n", "must ask a hook or for an Intel XPU"),
    ("x = 1\n", "x = 1\nif not is_intel_xpu():\n    x = patchforge_xpu.f(x)\n", "must ask a hook or for an Intel XPU"),
    ("x = 1\n", "x = 1\nif is_intel_xpu() or is_nvidia():\n    x = patchforge_xpu.f(x)\n", "must ask a hook"),
    ("x = 1\n", "x = 1\nif cuda() and patchforge_xpu.f():\n    x = patchforge_xpu.f(x)\n", "calls something before"),
    ("x = 1\n", "x = 1\nif (y := 1) and patchforge_xpu.f():\n    pass\n", "calls something before"),
    ("x = 1\n", "x = 1\nif patchforge_xpu.f():\n    x = 2\n", "neither upstream's nor a hook"),
    ("x = 1\n", "x = 1\nif patchforge_xpu.f():\n    torch.cuda.empty_cache()\n", "neither upstream's nor a hook"),
    ("x = 1\n", "x = 1\nif is_intel_xpu():\n    cpu_state = CPUState.CPU\n", "neither upstream's nor a hook"),
    ("x = 1\n", "x = 1\nif patchforge_xpu.f():\n    cpu_state = CPUState.GPU\n", "neither upstream's nor a hook"),
    ("x = 1\n", "x = 1\nif patchforge_xpu.f():\n    raise ValueError\n", "neither upstream's nor a hook"),
    ("x = 1\n", "x = 1\nif patchforge_xpu.f():\n    import os\n", "import of more than"),
    ("x = 1\n", "x = 1\nx = patchforge_xpu.f(y)\n", "must refine its own target"),
    ("x = 1\n", "x = 1\nx = y = patchforge_xpu.f(x)\n", "must refine its own target"),
    ("x = 1\n", "x = 1\nx += patchforge_xpu.f(x)\n", "neither upstream's nor a hook"),
    ("x = 1\n", "x = 1\nx = patchforge_xpu.f(x, cuda())\n", "must refine|calls something"),
    ("x = 1\n", "x = 1\npatchforge_xpu.f(cuda())\n", "calls something before an XPU"),
    ("x = 1\n", "x = 1\npatchforge_xpu.f(y := 2)\n", "calls something before an XPU"),
    ("x = 1\n", "x = 1\npatchforge_xpu = None\n", "neither upstream's nor a hook|must refine"),
    ("x = 1\n", "x = 1\nfrom comfy import patchforge_xpu, os\n", "import of more than"),
    ("x = 1\n", "x = 1\nfrom comfy import patchforge_xpu as x\n", "import of more than"),
    ("x = 1\n", "x = 1\ndef patchforge_xpu(): pass\n", "neither upstream's nor a hook"),
    ("x = 1\n", "x = 1\nfor _ in patchforge_xpu.f():\n    pass\n", "neither upstream's nor a hook"),
    ("x = 1\n", "x = 1\nwith patchforge_xpu.f():\n    pass\n", "neither upstream's nor a hook"),
    ("x = 1\n", "x = 1\nif is_intel_xpu():\n    with torch.cuda.f():\n        pass\n", "must enter a hook"),
    ("x = 1\n", "x = 1\nif is_intel_xpu():\n    with patchforge_xpu.f() as x:\n        pass\n", "must enter a hook"),
    ("x = a\n", "x = a and torch.cuda.f(patchforge_xpu.g())\n", ""),
    ("x = a\n", "x = a and patchforge_xpu.g(cuda())\n", "added operand calls something"),
    ("x = a\n", "x = a or patchforge_xpu.g(y := 1)\n", "added operand calls something"),
    ("x = a\n", "x = patchforge_xpu.f(a, cuda())\n", "calls something before an XPU"),
    ("x = a\n", "x = patchforge_xpu.f(b)\n", ""),
    ("x = a and b\n", "x = a and patchforge_xpu.g()\n", ""),
    ("def f():\n    return x\n", "def f():\n    if patchforge_xpu.g():\n        return cuda()\n    return x\n", "inserted return must give"),
    ("def f():\n    return x\n", "def f():\n    x = patchforge_xpu.f(x)\n    return x\n", "makes x local"),
    ("def f():\n    return x\n", "def f():\n    if is_intel_xpu():\n        x = patchforge_xpu.f()\n    return x\n", "makes x local"),
    ("def f(d):\n    return d\n", 'def f(d):\n    if d.type == "xpu":\n        with patchforge_xpu.c(d):\n            yield\n        return\n    return d\n', "makes a generator"),
    (GENERATOR, 'def f(d):\n    if d.type == "cuda":\n        with patchforge_xpu.c(d):\n            yield\n        return\n    x = 1\n    yield x\n', "must ask a hook"),
    (GENERATOR, 'def f(d):\n    if d.type == "xpu":\n        yield\n        return\n    x = 1\n    yield x\n', "neither upstream's nor a hook"),
    (GENERATOR, 'def f(d):\n    if d.type == "xpu":\n        with patchforge_xpu.c(d):\n            yield cuda()\n    x = 1\n    yield x\n', "neither upstream's nor a hook"),
    ("def f():\n    'doc'\n    return 1\n", "def f():\n    patchforge_xpu.g()\n    'doc'\n    return 1\n", "before a docstring"),
    ("if a:\n    x()\nelif b:\n    y()\n", "if a:\n    x()\nelif cuda() and patchforge_xpu.g():\n    patchforge_xpu.h()\nelif b:\n    y()\n", "calls something before"),
    ("if a:\n    x()\nelse:\n    y()\n", "if a:\n    x()\nelif patchforge_xpu.g():\n    patchforge_xpu.h()\n", "gone"),
    ("if is_intel_xpu():\n    return_(1)\n", "if is_intel_xpu():\n    return_(2)\n", ""),
]  # fmt: skip


@pytest.mark.parametrize(("upstream", "patched", "match"), INSERTIONS)
def test_what_may_not_be_inserted(upstream: str, patched: str, match: str) -> None:
    refused(upstream, patched, match)


def test_a_hook_needs_its_import() -> None:
    for patched in (
        "x = patchforge_xpu.f(a)\n",
        f"x = patchforge_xpu.f(a)\n{IMPORT}",
        f"if is_intel_xpu():\n    {IMPORT}x = patchforge_xpu.f(a)\n",
    ):
        with pytest.raises(CheckFailed, match="used before it is imported"):
            prove("a.py", "x = a\n", patched)
    with pytest.raises(CheckFailed, match="used before it is imported"):
        prove("a.py", "def f():\n    pass\nx = a\n", f"def f():\n    {IMPORT}    pass\nx = patchforge_xpu.f(a)\n")


def test_a_module_keeps_its_docstring_and_future_imports() -> None:
    for first in ('"""Doc."""\n', "from __future__ import annotations\n"):
        with pytest.raises(CheckFailed, match="nothing may stand before"):
            prove("a.py", first + "x = 1\n", IMPORT + first + "x = 1\n")
        prove("a.py", first + "x = 1\n", first + IMPORT + "x = 1\n")


ARMS = [
    ("if is_intel_xpu():\n    return {}\n", True),
    ("if x:\n    pass\nelif is_device_xpu(d):\n    return {}\n", True),
    ('if d.type == "xpu":\n    for a in b:\n        return {}\n', True),
    ("if a and is_intel_xpu():\n    return {}\n", True),
    ("if is_intel_xpu() or is_device_xpu(d):\n    return {}\n", True),
    ("if is_intel_xpu() or is_nvidia():\n    return {}\n", False),
    ("if not is_intel_xpu():\n    return {}\n", False),
    ("if is_intel_xpu():\n    pass\nelse:\n    return {}\n", False),
    ('if d.type != "xpu":\n    return {}\n', False),
    ('if d.type == "cuda":\n    return {}\n', False),
    ("return {}\n", False),
]


@pytest.mark.parametrize(("arm", "good"), ARMS)
def test_replacements_are_declared_and_stand_in_an_xpu_arm(arm: str, good: bool) -> None:
    body = "def f(device):\n" + textwrap.indent(arm, "    ")
    upstream, patched = body.format(STREAM.before), body.format(STREAM.after)
    if good:
        proof = checked(upstream, patched, STREAM)
        assert [(pair.before, pair.after) for pair in proof.replaced] == [(STREAM.before, STREAM.after)]
        assert isinstance(proof.replaced[0], Replaced)
    else:
        refused(upstream, patched, "outside an XPU arm", STREAM)
    refused(upstream, patched, "")
    refused(upstream, patched, "", Replacement("b.py", STREAM.before, STREAM.after))
    refused(upstream, patched.replace("(device)\n", "(other)\n"), "", STREAM)


def test_a_replacement_that_is_no_expression() -> None:
    refused("x = 1\n", "x = 1\n", "is not an expression", Replacement("a.py", "x =", "y"))


def test_a_replacement_by_a_hook() -> None:
    declared = Replacement("a.py", "a.b()", "patchforge_xpu.f(c)")
    proof = checked(
        "if is_intel_xpu():\n    x = a.b()\n", "if is_intel_xpu():\n    x = patchforge_xpu.f(c)\n", declared
    )
    assert len(proof.replaced) == 1


def test_the_message_names_file_line_and_both_fragments() -> None:
    error = refused(UPSTREAM, UPSTREAM.replace("torch.cuda.synchronize()", "torch.cuda.empty_cache()"))
    assert str(error).startswith("a.py:13: ")
    assert "torch.cuda.synchronize" in error.expected
    assert "line 12" in error.expected
    assert "torch.cuda.empty_cache" in error.found
    assert "line 13" in error.found


@pytest.mark.parametrize(
    ("upstream", "patched"), [("x = (\n", "x = 1\n"), ("x = 1\n", "x = 1\ny = )\n"), ("x = 1\n", "\x00")]
)
def test_syntax_errors_are_told(upstream: str, patched: str) -> None:
    with pytest.raises(CheckFailed, match=r"a.py:\d+: (not Python|cannot be read)"):
        prove("a.py", upstream, patched)


def test_undecodable_bytes_are_told() -> None:
    with pytest.raises(CheckFailed, match=r"a.py:1: cannot be read|not Python"):
        prove("a.py", b"x = '\xff'\n", b"x = 1\n")


def test_bytes_with_byte_order_mark_and_crlf() -> None:
    upstream = "\ufeffx = 'é'\r\ny = (a,\r\n     b)\r\n".encode()
    patched = upstream.replace(b"\r\ny", b"\r\nfrom comfy import patchforge_xpu\r\ny").replace(
        b"b)", b"patchforge_xpu.f(b))"
    )
    assert prove("a.py", upstream, patched).hooks == 1
    with pytest.raises(CheckFailed):
        prove("a.py", upstream, patched.replace(b"(a", b"(c"))


def test_a_form_feed_is_no_line_end() -> None:
    upstream = "x = 1\n\x0c\ny = '\u2028'\nz = a\n"
    assert prove("a.py", upstream, upstream.replace("z = a", IMPORT + "z = patchforge_xpu.f(a)")).hooks == 1
    with pytest.raises(CheckFailed, match=r"a\.py:5"):
        prove("a.py", upstream, upstream.replace("z = a", IMPORT + "z = b"))


def test_upstream_without_hooks_only() -> None:
    with pytest.raises(CheckFailed, match="mentions patchforge_xpu already"):
        prove("a.py", IMPORT, IMPORT)


@pytest.mark.parametrize(
    ("upstream", "old", "new"),
    [
        ("x = " + "a." * 900 + "b\n", "b\n", "c\n"),
        ("x = " + "+".join(["a"] * 900) + "\n", "x = a", "x = b"),
        ("x = " + "f(" * 60 + "a" + ")" * 60 + "\n", "(a)", "(b)"),
        ("if a:\n    b()\n" + "elif a:\n    b()\n" * 700 + "else:\n    c()\n", "c()", "d()"),
        ("".join(" " * n + "if a:\n" for n in range(90)) + " " * 90 + "b()\n", "b()", "c()"),
    ],
    ids=["attributes", "terms", "calls", "arms", "blocks"],
)
def test_deep_nesting(upstream: str, old: str, new: str) -> None:
    assert upstream.count(old) == 1
    refused(upstream, upstream.replace(old, new))
    if old in {"b()", "c()"}:
        assert checked(upstream, upstream.replace(old, f"patchforge_xpu.f({old})")).hooks == 1
    added = "z = patchforge_xpu.f(z)\n"
    assert checked("z = 1\n" + upstream, "z = 1\n" + added + upstream).hooks == 1


def test_nesting_beyond_python_is_told() -> None:
    with pytest.raises(CheckFailed, match=r"a.py:\d+: "):
        prove("a.py", "x = 1\n", "x = " + "(" * 5000 + ")" * 5000)
    prove_deep = "x = " + "-" * 100_000 + "1\n"
    with pytest.raises(CheckFailed, match=r"a.py:\d+: "):
        prove("a.py", prove_deep, prove_deep)


def test_nested_branches_are_not_tried_again_and_again() -> None:
    deep = "".join(" " * n + "if is_intel_xpu():\n" for n in range(80)) + " " * 80 + "pass\n"
    proof = checked(deep, deep.replace("pass", "patchforge_xpu.f()\n" + " " * 80 + "pass"))
    assert proof.hooks == 1, "trying every branch again would take 2**80 steps and never come here"


NAMES = st.sampled_from(["a", "b.c", "1", "f(x)", "not d", "'s'"])


@st.composite
def blocks(draw: st.DrawFn, depth: int = 0) -> list[str]:
    """A block of upstream's own statements."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 4 if depth < 3 else 1))
        name = draw(NAMES)
        if kind < 2:
            lines.append(f"{'x = ' if kind else ''}{name}")
        else:
            inner = ["    " + line for line in draw(blocks(depth + 1))]
            lines += [("if is_intel_xpu():", f"if {name}:", f"while {name}:")[kind - 2], *inner]
    return lines


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


@given(blocks(), st.data())
def test_inserted_hooks_are_found_and_any_other_line_is_refused(lines: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(lines) - 1))
    ours = data.draw(
        st.sampled_from(
            ["patchforge_xpu.f()", "x = patchforge_xpu.f(x)", "if patchforge_xpu.g(): x = patchforge_xpu.f()"]
        )
    )
    theirs = data.draw(st.sampled_from(["new()", "x = other", "if is_nvidia(): x = patchforge_xpu.f()", "del x"]))
    upstream = "\n".join(["start = 0", *lines, ""])
    for line in (ours, theirs):
        patched = "\n".join(["start = 0", *lines[:at], _indent(lines[at]) + line, *lines[at:], ""])
        if line is ours:
            assert checked(upstream, patched).hooks == ours.count("patchforge_xpu")
        else:
            refused(upstream, patched)


def test_two_thousand_lines() -> None:
    upstream = "".join(UPSTREAM.replace("free", f"free_{number}") for number in range(160))
    patched = IMPORT + upstream.replace("return 1\n", "return patchforge_xpu.f(1)\n")
    assert prove("a.py", upstream, patched).hooks == 160
