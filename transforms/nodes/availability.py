"""Code that runs only where CUDA is, or refuses to run elsewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence

from patchforge.effort import walk
from patchforge.engine.syntax import dotted, is_and, last_name, parameters
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import (
    Behind,
    Gate,
    Operands,
    asks,
    behind,
    counts_mps,
    decisions,
    flag,
    harmless,
    preceding,
    question,
    requested,
    says,
    widened,
)
from patchforge.nodes.cuts import cut_names
from patchforge.nodes.libraries import flows
from patchforge.nodes.shapes import below, call_of, device_of, for_any_gpu, kernels, keyword_of, leaves, only_cuda
from patchforge.nodes.suits import is_comfys
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person

_MOVES = frozenset(("non_blocking", "pin_memory"))  #: keywords that mean the same to every accelerator
_DEVICE = re.compile(r"(^|\.)(\w*device\w*|dev)$", re.IGNORECASE)


class Availability(Pattern):
    """A test for CUDA in front of code that would run on an XPU as well, once its devices are converted.

    The test takes XPUs in when everything behind it is converted, be it the body or what follows a way out. So does a
    test that raises, as XPUs were refused before, and the answer to a wish for the GPU. An answer with a name is followed
    to its uses. Where CUDA's kernels stand behind it, the test stays.
    """

    id = "pack-availability"
    aliases = ("T19",)
    title = "tests for CUDA in front of other code"
    after = ("pack-own-question",)
    examples = (
        PackExample(
            "work on the device",
            """\
            import torch
            if torch.cuda.is_available():
                net.cuda()
                for part in parts:
                    part.to("cuda")
            """,
            """\
            import torch
            if torch.cuda.is_available() or _patchforge_xpu():
                net.to(_patchforge_device())
                for part in parts:
                    part.to(_patchforge_device())
            """,
        ),
        PackExample(
            "a refusal",
            'import torch\nif gpu and not torch.cuda.is_available():\n    raise RuntimeError("no GPU")\n',
            'import torch\nif gpu and not (torch.cuda.is_available() or _patchforge_xpu()):\n    raise RuntimeError("no GPU")\n',
        ),
        PackExample(
            "a refusal before CUDA's processes",
            "import torch\n\ndef f():\n    assert torch.cuda.is_available()\n    dist.init_process_group(backend='NCCL')\n",
        ),
        PackExample(
            "a refusal of CUDA by name",
            "import torch\ndef f(x, d):\n    if d == 'cuda' and not torch.cuda.is_available():\n        raise RuntimeError('no CUDA')\n    return x.to(d)\n",
        ),
        PackExample(
            "before another operand",
            "import torch\ntorch.cuda.is_available() and torch.cuda.empty_cache()\n",
            "import torch\n(torch.cuda.is_available() or _patchforge_xpu()) and _patchforge_gpu().empty_cache()\n",
        ),
        PackExample(
            "CUDA's kernels behind it",
            "import torch\nif torch.cuda.is_available():\n    import flash_attn\n    x = x.cuda()\n    y = flash_attn.run(x)\n",
        ),
        PackExample(
            "a way out",
            'import torch\n\ndef device():\n    if not torch.cuda.is_available():\n        return "cpu"\n    return "cuda"\n',
            'import torch\n\ndef device():\n    if not (torch.cuda.is_available() or _patchforge_xpu()):\n        return "cpu"\n    return _patchforge_device()\n',
        ),
        PackExample(
            "beside what only CUDA has",
            "import torch\nself.bf16 = torch.cuda.is_available() and capability[0] >= 8\n",
        ),
        PackExample(
            "a way out before kernels",
            "import torch\n\ndef f():\n    if not torch.cuda.is_available():\n        return False\n    import flash_attn\n    return torch.zeros(1, device='cuda')\n",
        ),
        PackExample(
            "a trial of CUDA alone",
            "import torch\n\ndef f():\n    if not torch.cuda.is_available():\n        return True\n    return fine(torch.zeros(1, device='cuda'))\n",
        ),
        PackExample(
            "a wish for the GPU",
            "import torch\n\ndef f(x, use_gpu):\n    use_gpu = use_gpu and torch.cuda.is_available()\n    x = x.to('cuda' if use_gpu else 'cpu')\n    return trim(x) if use_gpu else x\n",
            "import torch\n\ndef f(x, use_gpu):\n    use_gpu = use_gpu and (torch.cuda.is_available() or _patchforge_xpu())\n    x = x.to(_patchforge_device() if use_gpu else 'cpu')\n    return trim(x) if use_gpu else x\n",
        ),
        PackExample(
            "passed on within the file",
            "import torch\n\ndef g(x, gpu):\n    return x.cuda() if gpu else x\n\ndef f(x, use_gpu):\n    on = bool(use_gpu and torch.cuda.is_available())\n    return g(x, on)\n",
            "import torch\n\ndef g(x, gpu):\n    return x.to(_patchforge_device()) if gpu else x\n\ndef f(x, use_gpu):\n    on = bool(use_gpu and (torch.cuda.is_available() or _patchforge_xpu()))\n    return g(x, on)\n",
        ),
        PackExample(
            "kept by an object, and by the module",
            """\
            import torch
            HAS = torch.cuda.is_available()

            class A:
                def __init__(self):
                    self.gpu = bool(torch.cuda.is_available())
                    print(self.gpu)

                def free(self):
                    if HAS:
                        torch.cuda.empty_cache()

                def move(self, x):
                    return x.to("cuda") if self.gpu else x
            """,
            """\
            import torch
            HAS = torch.cuda.is_available() or _patchforge_xpu()

            class A:
                def __init__(self):
                    self.gpu = bool(torch.cuda.is_available() or _patchforge_xpu())
                    print(self.gpu)

                def free(self):
                    if HAS:
                        _patchforge_gpu().empty_cache()

                def move(self, x):
                    return x.to(_patchforge_device()) if self.gpu else x
            """,
        ),
        PackExample(
            "kept by an object, for kernels",
            "import torch\n\nclass A:\n    def __init__(self):\n        self.use_flash = torch.cuda.is_available()\n\n    def f(self, q):\n        return flash_attn(q) if self.use_flash else plain(q)\n",
        ),
        PackExample(
            "a device with a name",
            "import torch\nx = x.to(device if torch.cuda.is_available() else 'cpu')\n",
            "import torch\nx = x.to(_patchforge_choice(device) if torch.cuda.is_available() or _patchforge_xpu() else 'cpu')\n",
        ),
        PackExample(
            "back to the CPU from a device that may be an XPU",
            "import torch\ndevice = get_torch_device()\nif not torch.cuda.is_available():\n    device = 'cpu'\n",
            "import torch\ndevice = get_torch_device()\nif not (torch.cuda.is_available() or _patchforge_xpu()):\n    device = 'cpu'\n",
        ),
        PackExample(
            "what torch.cuda may lack",
            """\
            import torch
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                collect = getattr(torch.cuda, "ipc_collect", None)
                if callable(collect):
                    collect()
            """,
            """\
            import torch
            if torch.cuda.is_available() or _patchforge_xpu():
                _patchforge_gpu().empty_cache()
                collect = getattr(_patchforge_gpu(), "ipc_collect", None)
                if callable(collect):
                    collect()
            """,
        ),
        PackExample(
            "ComfyUI's own device, or the CPU",
            "import torch\nif not torch.cuda.is_available():\n    d = 'cpu'\nelse:\n    d = mm.get_torch_device()\n",
            "import torch\nif not (torch.cuda.is_available() or _patchforge_xpu()):\n    d = 'cpu'\nelse:\n    d = mm.get_torch_device()\n",
        ),
        PackExample(
            "how a tensor is moved",
            "import torch\nx = x.to(device, non_blocking=torch.cuda.is_available())\n",
            "import torch\nx = x.to(device, non_blocking=torch.cuda.is_available() or _patchforge_xpu())\n",
        ),
        PackExample("only a message", "import torch\nif torch.cuda.is_available():\n    print('CUDA is there')\n"),
        PackExample(
            "elsewhere a checkpoint is read to the CPU",
            "import torch\nif torch.cuda.is_available():\n    w = torch.load(f)\nelse:\n    w = torch.load(f, map_location='cpu')\n",
        ),
        PackExample(
            "a way back to the CPU",
            "import torch\nif not torch.cuda.is_available():\n    device = 'cpu'\n",
            person=True,
        ),
        PackExample(
            "a way back to the CPU, that asks for the device first",
            "import torch\n\ndef f(wish):\n    device = pick(wish)\n    if device.startswith('cuda') and not torch.cuda.is_available():\n        print('no CUDA')\n        return 'cpu'\n    return device\n",
            "import torch\n\ndef f(wish):\n    device = pick(wish)\n    device = _patchforge_choice(device)\n    if device.startswith('cuda') and not (torch.cuda.is_available() or _patchforge_xpu()):\n        print('no CUDA')\n        return 'cpu'\n    return device\n",
        ),
        PackExample(
            "a way back from a device that the object keeps",
            """\
            import torch

            class A:
                def __init__(self, config):
                    self.device = config.device
                    if not torch.cuda.is_available():
                        if torch.backends.mps.is_available():
                            self.device = "mps"
                        else:
                            self.device = "cpu"
            """,
            """\
            import torch

            class A:
                def __init__(self, config):
                    self.device = _patchforge_choice(config.device)
                    if not (torch.cuda.is_available() or _patchforge_xpu()):
                        if torch.backends.mps.is_available():
                            self.device = "mps"
                        else:
                            self.device = "cpu"
            """,
        ),
        PackExample(
            "torch's own attention, and layers on any GPU",
            "import torch\nattn = 'sdpa' if torch.cuda.is_available() else 'eager'\nmodel = Llama(n_gpu_layers=-1 if torch.cuda.is_available() else 0)\n",
            "import torch\nattn = 'sdpa' if torch.cuda.is_available() or _patchforge_xpu() else 'eager'\nmodel = Llama(n_gpu_layers=-1 if torch.cuda.is_available() or _patchforge_xpu() else 0)\n",
        ),
        PackExample(
            "a way back to the CPU, from a parameter",
            """\
            import torch

            def load(net, device="cuda"):
                if device == "cuda" and not torch.cuda.is_available():
                    device = "cpu"
                return net.to(device)

            load(net)
            """,
            """\
            import torch

            def load(net, device=_patchforge_device()):
                device = _patchforge_choice(device)
                if device == "cuda" and not (torch.cuda.is_available() or _patchforge_xpu()):
                    device = "cpu"
                return net.to(device)

            load(net)
            """,
        ),
        PackExample(
            "an answer that goes elsewhere", "import torch\nself.gpu = torch.cuda.is_available()\n", person=True
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """Only the gate knows."""
        return None

    def verdict_on_test(
        self, site: Site, code: Code, pack: PackFacts, verdicts: Mapping[Site, Verdict]
    ) -> Verdict | None:
        """A call of ``is_available`` that no arm was added for."""
        return by_what_it_decides(site, code, pack, verdicts) if site.kind is Kind.AVAILABLE else None


def by_what_it_decides(site: Site, code: Code, pack: PackFacts, verdicts: Mapping[Site, Verdict]) -> Verdict:
    """The verdict on a call that asks for CUDA, by what its answer decides."""
    call = call_of(site, code)
    if call is None:
        return person([site], "ask torch.xpu.is_available as well")
    gates = decisions(call, code, pack)
    kept = _of_flag(call, code, pack)
    arms = behind(gates, (site, *kept), pack.sites, verdicts, code)
    if arms.kernels(code) or _beside_kernels(gates[0][0] if gates else call, code):
        return _before_kernels(site, gates, pack, code)
    if not gates:
        keyword, _ = keyword_of(call, code)
        return _widened(site, code) if keyword in _MOVES else person([site], _advice(call, code))
    if any(not positive and _says_yes(gate) for gate, positive in gates):
        return left([site], "without CUDA the answer is yes already")
    if only_cuda(arms.near, code):
        return person([site], "something here is named after CUDA: see whether an XPU may have it")
    if all(_takes_xpus(gate, positive, arms, call, code) for gate, positive in gates):
        return _taken_in(site, gates[0][0], code, kept)
    return _mapped(site, gates, arms, pack, code) or _stays(site, gates[0], arms, code)


def _mapped(
    site: Site, gates: Sequence[tuple[Gate, bool]], arms: Behind, pack: PackFacts, code: Code
) -> Verdict | None:
    """``if …not torch.cuda.is_available(): device = "cpu"``: before it, a "cuda" is taken for the XPU."""
    gate, positive = gates[0]
    name = _sent_back(gate, code) if isinstance(gate, ast.If) and not positive and not arms.open else ""
    if name.rpartition(".")[2] in cut_names(code):
        return None
    if not name or not isinstance(gate, ast.If) or len(gates) > 1 or not _bound_before(name, gate, code):
        return None
    scope = code.scope(gate)
    if any(key == name for where, key in flows(code, pack.foreign).keys if where is scope):
        return None
    if "." in name:  # the object's other methods may ask, too
        scope = next((parent for parent, _ in code.above(gate) if isinstance(parent, ast.ClassDef)), scope)
    asking = [other for other in below(scope, pack.sites, code) if asks(other, code)]
    if "." in name:
        asking = [
            other for other in asking if any(dotted(part) == name for part in walk(question(other, code) or other.node))
        ]
    here = [other for other in asking if code.holds(gate.test, other.node)]
    before = code.before(gate, [f"{name} = _patchforge_choice({name})"])
    given = [
        statement.value
        for statement in preceding(gate, code)
        if isinstance(statement, ast.Assign) and dotted(statement.targets[0]) == name
    ]
    mapped = code.around(given[-1], "_patchforge_choice(", ")") if "." in name else (before,)
    apart = [other for other in asking if other not in here]
    return converted(
        [site, *here],
        *mapped,
        *widened(site, code),
        together=apart,
        otherwise="a device that may be an XPU is asked for CUDA alone",
    )


def _sent_back(gate: ast.If, code: Code) -> str:
    """The name, or the attribute of ``self``, that is given the CPU and nothing else, or for which "cpu" is returned."""
    names = {_named_cpu(statement, gate, code) for statement in _last(gate.body)} if not gate.orelse else set[str]()
    return names.pop() if len(names) == 1 else ""


def _last(body: Sequence[ast.stmt]) -> Iterator[ast.stmt | None]:
    """What a block does but tell, under whatever tests; None where it does several things."""
    rest = [statement for statement in body if not says(statement)]
    if len(rest) != 1:
        yield None
    elif isinstance(branch := rest[0], ast.If):
        yield from _last(branch.body)
        yield from _last(branch.orelse) if branch.orelse else [None]
    else:
        yield rest[0]


def _named_cpu(part: ast.stmt | None, gate: ast.If, code: Code) -> str:
    if not isinstance(part, (ast.Assign, ast.Return)) or part.value is None:
        return ""
    value = part.value
    if isinstance(value, ast.Call) and last_name(value) == "device" and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, ast.Constant) or value.value not in ("cpu", "mps"):
        return ""
    if isinstance(part, ast.Return):
        return _first_asked(gate.test, code)
    target = part.targets[0] if len(part.targets) == 1 else None
    kept = isinstance(target, ast.Name) or (isinstance(target, ast.Attribute) and dotted(target).startswith("self."))
    return dotted(target) if target is not None and kept else ""


def _first_asked(test: ast.expr, code: Code) -> str:
    """The name of ``name == "cuda" and …``, which is asked before all else."""
    first = test.values[0] if is_and(test) else test
    asked = first.left if isinstance(first, ast.Compare) else first.func if isinstance(first, ast.Call) else None
    owner = asked.value if isinstance(asked, ast.Attribute) and asked.attr == "startswith" else asked
    return owner.id if isinstance(owner, ast.Name) and "cuda" in code.said(first) else ""


def _bound_before(name: str, gate: ast.If, code: Code) -> bool:
    """Whether a name has a value there, and a line may stand before the test."""
    above = code.parent(gate)
    if (isinstance(above, ast.If) and code.field(gate) == "orelse" and len(above.orelse) == 1) or not code.own_lines(
        gate
    ):
        return False
    scope = code.scope(gate)
    if name in parameters(scope):
        return True
    own = any(isinstance(use.ctx, ast.Store) and code.scope(use) is scope for use in code.named(name, scope))
    if "." not in name and not own:
        return False  # another scope's, which an assignment here would hide
    if _first_asked(gate.test, code) == name:
        return True
    before = preceding(gate, code)
    return any(
        isinstance(statement, ast.Assign) and any(dotted(target) == name for target in statement.targets)
        for statement in before
    )


def _before_kernels(site: Site, gates: Sequence[tuple[Gate, bool]], pack: PackFacts, code: Code) -> Verdict:
    """A device that is chosen among flags for kernels is no reason to leave an XPU to the CPU in silence."""
    chosen = [
        part for gate, _ in gates if isinstance(gate, ast.If) for part in gate.body if isinstance(part, ast.Assign)
    ]
    if any(
        literal.kind is Kind.LITERAL and device_of(part.value, code) is literal.node
        for part in chosen
        for literal in below(part, pack.sites, code)
    ):
        return person([site], "an arm for XPUs with their device, and without what is for CUDA's kernels")
    return left([site], "CUDA's kernels or settings stand behind it")


def _beside_kernels(asked: ast.AST | Operands, code: Code) -> bool:
    """``torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)``, or an argument of such a call."""
    if isinstance(asked, Operands):
        return kernels([asked.node], code)
    beside = code.parent(asked)
    parts = [beside.func] if isinstance(beside, ast.Call) else [beside] if isinstance(beside, ast.BoolOp) else []
    return kernels(parts, code)


def _says_yes(gate: Gate) -> bool:
    """``if not torch.cuda.is_available(): return True``: what follows is a trial of CUDA alone."""
    last = gate.body[-1] if isinstance(gate, ast.If) else None
    return isinstance(last, ast.Return) and isinstance(last.value, ast.Constant) and last.value.value is True


def _takes_xpus(gate: Gate, positive: bool, arms: Behind, call: ast.Call, code: Code) -> bool:  # noqa: FBT001
    if isinstance(gate, ast.Assert) or (isinstance(gate, ast.If) and isinstance(gate.body[-1], ast.Raise)):
        refuses = positive is isinstance(gate, ast.Assert)
        return refuses and not arms.open and not arms.beside and not only_cuda(arms.guarded, code)
    if arms.open or arms.beside or kernels(arms.guarded, code):
        return False
    if arms.converted or counts_mps(call, code) or requested(call, code):
        return True
    if arms.guarded and (all(map(is_comfys, arms.guarded)) or (positive and all(map(harmless, arms.guarded)))):
        return True
    if positive and isinstance(gate, ast.IfExp) and for_any_gpu(gate, code):
        return True
    return _names_device(gate, code) if positive else _back_to_cpu(gate, code)


def _widened(site: Site, code: Code) -> Verdict:
    return converted([site], *widened(site, code))


def _of_flag(call: ast.Call, code: Code, pack: PackFacts) -> tuple[Site, ...]:
    """What else a flag is given by such calls, and where it is read as ``self.is_cuda``; nothing where there is none."""
    kept = flag(call, code, pack)
    if kept is None:
        return ()
    reads = {id(read) for read in kept.reads}
    answers = [
        other for answer in kept.answers for other in below(answer, pack.sites, code) if other.kind is Kind.AVAILABLE
    ]
    return (*answers, *(other for other in pack.sites if id(other.node) in reads))


def _taken_in(site: Site, gate: Gate, code: Code, kept: Sequence[Site] = ()) -> Verdict:
    asked = dict.fromkeys((site, *kept))
    splices = tuple(edit for place in asked if place.kind is not Kind.IS_CUDA for edit in widened(place, code))
    if isinstance(gate, ast.IfExp) and _names_device(gate, code):
        splices = (*splices, *code.around(gate.body, "_patchforge_choice(", ")"))
    return converted(asked, *splices)


def _names_device(gate: Gate, code: Code) -> bool:
    """``device if … else "cpu"``: the name may hold "cuda", so it is mapped."""
    if not isinstance(gate, ast.IfExp) or not isinstance(gate.body, (ast.Name, ast.Attribute)):
        return False
    return bool(_DEVICE.search(code.said(gate.body))) and _is_cpu(gate.orelse, code)


def _is_cpu(node: ast.expr, code: Code) -> bool:
    if isinstance(node, ast.Call) and code.name(node.func) == "torch.device" and len(node.args) == 1:
        node = node.args[0]
    return isinstance(node, ast.Constant) and node.value == "cpu"


def _back_to_cpu(gate: Gate, code: Code) -> bool:
    """``device = get_torch_device()``, and then ``if not …: device = "cpu"``."""
    before = preceding(gate, code) if isinstance(gate, ast.If) and len(gate.body) == 1 and not gate.orelse else []
    back = gate.body[0] if isinstance(gate, ast.If) else None
    first = before[-1] if before else None
    if not (isinstance(back, ast.Assign) and isinstance(first, ast.Assign) and _is_cpu(back.value, code)):
        return False
    same = [ast.dump(target) for target in back.targets] == [ast.dump(target) for target in first.targets]
    return same and is_comfys(first)


def _stays(site: Site, first: tuple[Gate, bool], arms: Behind, code: Code) -> Verdict:
    gate, positive = first
    if isinstance(gate, ast.If) and isinstance(gate.body[-1], ast.Raise) and arms.beside and not arms.open:
        return left([site], "refuses a device that asks for CUDA by name")
    if (arms.open and kernels(arms.guarded, code)) or only_cuda(arms.guarded, code):
        return left([site], "CUDA's kernels or settings stand behind it")
    if not positive and not arms.open:
        return person([site], _FALLBACK)
    if not arms.guarded or (not arms.open and not arms.beside):
        return _unnamed(site, gate)
    return person([site], f"decide about line {(*arms.open, *arms.beside)[0].line} first, then take XPUs in")


def _unnamed(site: Site, gate: Gate) -> Verdict:
    """Behind it stands nothing that names a device."""
    if isinstance(gate, ast.If) and all(map(says, gate.body)):
        return left([site], "only a message stands behind it")
    other = gate.orelse if isinstance(gate, ast.If) else []
    loads = [node for part in other for node in walk(part) if isinstance(node, ast.keyword)]
    if any(keyword.arg == "map_location" for keyword in loads):
        return left([site], "elsewhere a checkpoint is read to the CPU, which is right for an XPU")
    if isinstance(gate, ast.If) and leaves(gate.body):
        return person([site], "say what is returned on an XPU")
    return person([site], "take XPUs in, if what follows suits them")


def _advice(call: ast.Call, code: Code) -> str:
    parent = code.parent(call)
    if isinstance(parent, ast.Return):
        return "callers may choose CUDA kernels by this answer: look at them, then answer for XPUs too"
    return "follow the answer to its uses, then take XPUs in"


_FALLBACK = "a way back to the CPU: an XPU takes it; take XPUs in once the device before it can be one"
