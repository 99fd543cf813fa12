"""Code that asks whether a device is CUDA's."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from patchforge.engine.edits import Splice
from patchforge.engine.syntax import last_name
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import (
    Behind,
    Gate,
    asks,
    behind,
    counts_mps,
    decisions,
    question,
    says,
    widened,
)
from patchforge.nodes.cuts import cut_in, name_of
from patchforge.nodes.shapes import (
    KERNELS,
    below,
    body_of,
    device_text,
    formatted_device,
    kernels,
    leaves,
    names_implementations,
)
from patchforge.nodes.suits import refuses, suits, tidies_up
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person
from patchforge.vocabulary import Decision

_ADVICE = 'add XPUs where the answer means "on an accelerator"; leave it where it chooses a CUDA kernel'
_CUDA = re.compile("cuda", re.IGNORECASE)
_ERROR = re.compile(
    r"(^|[._])(e|err|error|exc|exception|msg|message|error_msg|err_msg|error_message|error_str)$|^str\((e|err|error|exc|exception)\)"
)


class DeviceComparison(Pattern):
    """``if device.type == "cuda"`` may ask "is it on an accelerator" or "does CUDA's kernel run here".

    Only the first may take XPUs in. It is taken for that where MPS counts too, or where all that follows suits an XPU:
    emptying a cache, synchronising, seeding, autocast, moving to the CPU, the choice of a device, or code whose every
    site is converted. All else is for a person.
    """

    id = "pack-device-comparison"
    aliases = ("T8",)
    title = "tests of a device"
    after = ("pack-half-precision",)
    examples = (
        PackExample(
            "providers by device",
            "providers = ['CUDAExecutionProvider', 'CPUExecutionProvider'] if d == 'cuda' else ['CPUExecutionProvider']\n",
            "providers = ['CUDAExecutionProvider', *([\"OpenVINOExecutionProvider\"] if _patchforge_xpu() else []), 'CPUExecutionProvider'] if d == 'cuda' or d == \"xpu\" else ['CPUExecutionProvider']\n",
        ),
        PackExample(
            "housekeeping",
            "import torch\nif device.type == 'cuda':\n    torch.cuda.empty_cache()\n",
            "import torch\nif device.type == 'cuda' or device.type == \"xpu\":\n    _patchforge_gpu().empty_cache()\n",
        ),
        PackExample(
            "the beginning of a string",
            'import torch\nif str(device).startswith("cuda"):\n    torch.cuda.synchronize()\n',
            'import torch\nif str(device).startswith(("cuda", "xpu")):\n    _patchforge_gpu().synchronize()\n',
        ),
        PackExample(
            "a tensor",
            "import torch\nif x.is_cuda:\n    torch.cuda.synchronize()\n",
            'import torch\nif x.is_cuda or getattr(x, "is_xpu", False):\n    _patchforge_gpu().synchronize()\n',
        ),
        PackExample(
            "MPS counts too",
            "for p in parts:\n    if p.is_cuda or p.is_mps:\n        release(p)\n    elif p.device.type in ['cuda', 'mps']:\n        keep(p)\n",
            "for p in parts:\n    if p.is_cuda or getattr(p, \"is_xpu\", False) or p.is_mps:\n        release(p)\n    elif p.device.type in ['cuda', \"xpu\", 'mps']:\n        keep(p)\n",
        ),
        PackExample(
            "to the CPU",
            "if x.is_cuda:\n    x = x.detach().cpu()\ny = (x.cpu() if x.device.type == 'cuda' else x).numpy()\n",
            'if x.is_cuda or getattr(x, "is_xpu", False):\n    x = x.detach().cpu()\ny = (x.cpu() if x.device.type == \'cuda\' or x.device.type == "xpu" else x).numpy()\n',
        ),
        PackExample(
            "a device",
            "def device(wish):\n    if wish == 'cuda':\n        return torch.device('cuda')\n    return 'cuda' if other.startswith('cuda') else 'cpu'\n",
            'def device(wish):\n    if wish == \'cuda\' or wish == "xpu":\n        return torch.device(_patchforge_device())\n    return _patchforge_device() if other.startswith(("cuda", "xpu")) else \'cpu\'\n',
        ),
        PackExample(
            "not there yet",
            "import torch\nif x.device != torch.device('cuda'):\n    x = x.to('cuda')\n",
            "import torch\nif x.device != torch.device(_patchforge_device()):\n    x = x.to(_patchforge_device())\n",
        ),
        PackExample(
            "handed on",
            "if device.startswith('cuda'):\n    print('as it is')\n    self.device = device\n",
            'if device.startswith(("cuda", "xpu")):\n    print(\'as it is\')\n    self.device = device\n',
        ),
        PackExample(
            "through a name",
            "import torch\n\ndef f(device):\n    on = device.type == 'cuda' and wish\n    if on:\n        torch.cuda.empty_cache()\n",
            "import torch\n\ndef f(device):\n    on = device.type == _patchforge_device() and wish\n    if on:\n        _patchforge_gpu().empty_cache()\n",
        ),
        PackExample(
            "through a name, as a value",
            "import torch\n\ndef f(x):\n    on = x.is_cuda\n    if on:\n        torch.cuda.empty_cache()\n",
            'import torch\n\ndef f(x):\n    on = getattr(x, "is_xpu", False) or x.is_cuda\n    if on:\n        _patchforge_gpu().empty_cache()\n',
        ),
        PackExample(
            "kept where it is",
            "import torch\ndef f(x, dev, off):\n    d = x.device if x.is_cuda else dev\n    store = torch.device('cpu') if off or dev.type != 'cuda' else dev\n    return d, store, torch.cuda.memory_allocated(d) if x.is_cuda else 0\n",
            'import torch\ndef f(x, dev, off):\n    d = x.device if x.is_cuda or getattr(x, "is_xpu", False) else dev\n    store = torch.device(\'cpu\') if off or dev.type != _patchforge_device() else dev\n    return d, store, _patchforge_gpu().memory_allocated(d) if x.is_cuda or getattr(x, "is_xpu", False) else 0\n',
        ),
        PackExample(
            "built as the devices are",
            "def run(self, x, i):\n    self.last_device = 'cuda:' + str(i)\n    if 'cuda:' + str(i) != self.last_device:\n        x = x.to('cuda:' + str(i + 1))\n",
            'def run(self, x, i):\n    self.last_device = (_patchforge_device() + ":") + str(i)\n    if (_patchforge_device() + ":") + str(i) != self.last_device:\n        x = x.to((_patchforge_device() + ":") + str(i + 1))\n',
        ),
        PackExample(
            "its index",
            "import torch\ndef f(x):\n    if x.is_cuda:\n        return torch.device(x.get_device())\n    return torch.device('cpu')\n",
            "import torch\ndef f(x):\n    if x.is_cuda or getattr(x, \"is_xpu\", False):\n        return torch.device(x.get_device())\n    return torch.device('cpu')\n",
        ),
        PackExample(
            "out of a list of devices",
            "import torch\ndef devices():\n    return [f'cuda:{i}' for i in range(torch.cuda.device_count())]\n\nfirst = [d for d in devices() if d.startswith('cuda')]\n",
            'import torch\ndef devices():\n    return [f\'{_patchforge_device()}:{i}\' for i in range(_patchforge_gpu().device_count())]\n\nfirst = [d for d in devices() if d.startswith(("cuda", "xpu"))]\n',
        ),
        PackExample(
            "pinned memory",
            "if x.device.type == 'cuda':\n    y = y.pin_memory().to(x.device, non_blocking=True)\nelse:\n    y = y.to(x.device)\n",
            "if x.device.type == 'cuda' or x.device.type == \"xpu\":\n    y = y.pin_memory().to(x.device, non_blocking=True)\nelse:\n    y = y.to(x.device)\n",
        ),
        PackExample(
            "autocast, or something else",
            "import torch\ndef f(self):\n    if self.device.type == 'cuda':\n        return torch.autocast('cuda', dtype=self.dtype)\n    elif self.device.type == 'mps':\n        return torch.inference_mode()\n",
            "import torch\ndef f(self):\n    if self.device.type == 'cuda' or self.device.type == \"xpu\":\n        return torch.autocast(_patchforge_device(), dtype=self.dtype)\n    elif self.device.type == 'mps':\n        return torch.inference_mode()\n",
        ),
        PackExample(
            "what is told of memory",
            "import torch\nif mm.get_torch_device().type == 'cuda':\n    used = torch.cuda.memory_allocated()\n    print(used)\nelse:\n    print('no figures')\n",
            "import torch\nif mm.get_torch_device().type == _patchforge_device():\n    used = _patchforge_gpu().memory_allocated()\n    print(used)\nelse:\n    print('no figures')\n",
        ),
        PackExample(
            "to the CPU, and a note of it",
            "if x.is_cuda:\n    x = x.cpu()\n    changed = True\n",
            'if x.is_cuda or getattr(x, "is_xpu", False):\n    x = x.cpu()\n    changed = True\n',
        ),
        PackExample(
            "what a model takes on the card",
            "def loaded(self):\n    return self.memory_size if str(self.device).startswith('cuda') else 0\n",
            'def loaded(self):\n    return self.memory_size if str(self.device).startswith(("cuda", "xpu")) else 0\n',
        ),
        PackExample(
            "a flag of its own",
            "import torch\nclass A:\n    def __init__(self):\n        self.is_cuda = torch.cuda.is_available()\n    def f(self, x):\n        return x.to('cuda') if self.is_cuda else x\n",
            "import torch\nclass A:\n    def __init__(self):\n        self.is_cuda = torch.cuda.is_available() or _patchforge_xpu()\n    def f(self, x):\n        return x.to(_patchforge_device()) if self.is_cuda else x\n",
        ),
        PackExample(
            "a flag of its own that goes elsewhere",
            "import torch\nclass A:\n    def __init__(self):\n        self.is_cuda = torch.cuda.is_available()\n    def f(self, x):\n        return tell(self.is_cuda, x.to('cuda') if self.is_cuda else x)\n",
            person=True,
        ),
        PackExample(
            "memory that is freed by the pack's own functions",
            "def load(self, device):\n    if device.startswith('cuda') and self.busy:\n        for key in list(self.cache):\n            self.offload(key)\n\ndef clear_others(self, device):\n    if not device.startswith('cuda'):\n        return 0\n    return self.drop()\n",
            'def load(self, device):\n    if device.startswith(("cuda", "xpu")) and self.busy:\n        for key in list(self.cache):\n            self.offload(key)\n\ndef clear_others(self, device):\n    if not device.startswith(("cuda", "xpu")):\n        return 0\n    return self.drop()\n',
        ),
        PackExample(
            "memory that is freed, and a size that is set",
            "if device == 'cuda':\n    self.offload()\n    self.batch = 64\n",
            person=True,
        ),
        PackExample(
            "ComfyUI's own device, and layers on any GPU",
            "def f(choice):\n    cache = mm.get_torch_device() if choice == 'cuda' else torch.device('cpu')\n    layers = load(n_gpu_layers=-1 if choice == 'cuda' else 0)\n",
            "def f(choice):\n    cache = mm.get_torch_device() if choice == 'cuda' or choice == \"xpu\" else torch.device('cpu')\n    layers = load(n_gpu_layers=-1 if choice == 'cuda' or choice == \"xpu\" else 0)\n",
        ),
        PackExample(
            "ComfyUI's own devices",
            "if device == 'cuda':\n    load = mm.get_torch_device()\n    keep = mm.intermediate_device()\nelse:\n    load = keep = torch.device('cpu')\n",
            "if device == 'cuda' or device == \"xpu\":\n    load = mm.get_torch_device()\n    keep = mm.intermediate_device()\nelse:\n    load = keep = torch.device('cpu')\n",
        ),
        PackExample(
            "of what is called",
            "import torch\nif next(net.parameters()).is_cuda:\n    torch.cuda.synchronize()\n",
            'import torch\nif getattr(next(net.parameters()), "is_xpu" if _patchforge_xpu() else "is_cuda"):\n    _patchforge_gpu().synchronize()\n',
        ),
        PackExample(
            "stored where it is, or on the CPU",
            "if off or self.device.type != 'cuda':\n    state['store'] = torch.device('cpu')\nelse:\n    state['store'] = self.device\n",
            "if off or self.device.type != _patchforge_device():\n    state['store'] = torch.device('cpu')\nelse:\n    state['store'] = self.device\n",
        ),
        PackExample(
            "a word in an error",
            "try:\n    f()\nexcept RuntimeError as e:\n    if 'cuda' in str(e).lower():\n        retry()\n",
        ),
        PackExample("only a message", "if device.type == 'cuda':\n    print('on CUDA')\nelse:\n    pass\n"),
        PackExample("handed on by its name", "options['device_map'] = {'': 0} if str(device) == 'cuda' else device\n"),
        PackExample(
            "kernels behind the other branch",
            "if self.device.type != 'cuda':\n    print('not quantized')\nelse:\n    model = bnb_linear(model)\n",
        ),
        PackExample(
            "kept for CUDA's kernels",
            "def flash_attn(self, q):\n    _, heads, is_cuda = *q.shape, q.is_cuda\n    return run(self.fast if is_cuda else self.plain)\n",
        ),
        PackExample("other code", "import torch\nif device == 'cuda':\n    batch = 64\n", person=True),
        PackExample(
            "a kernel for CUDA",
            "if q.device.type == 'cuda':\n    out = flash_attn_func(q, k, v)\nelse:\n    out = plain(q, k, v)\n",
        ),
        PackExample("a kernel's input", "assert x.is_cuda, 'the kernel wants CUDA'\nassert y.is_cuda == True\n"),
        PackExample(
            "a kernel's input, refused",
            "if not x.is_cuda or not y.is_cuda:\n    raise ValueError\nif x.is_cuda == False:\n    raise ValueError\n",
        ),
        PackExample(
            "a refusal in CUDA's name",
            "if x.device.type != 'cuda':\n    raise ValueError('not on a CUDA device')\n",
        ),
        PackExample("moved where it belongs", "if not x.is_cuda:\n    x = x.to(device, dtype=kind)\n"),
        PackExample("refused on CUDA alone", "if device == 'cuda' and other != device:\n    raise ValueError\n"),
        PackExample(
            "an index of a device",
            "if wish == 'cuda':\n    options['device'] = 0\nelif wish == 'cpu':\n    options['device'] = -1\n",
            "if wish == 'cuda' or wish == \"xpu\":\n    options['device'] = 0\nelif wish == 'cpu':\n    options['device'] = -1\n",
        ),
        PackExample(
            "a part of the name, as long as CUDA's",
            "import torch\ndef f(device, wish):\n    if device[0:4] != 'cuda':\n        raise ValueError('no GPU')\n    if wish[:4] == 'cuda':\n        torch.cuda.empty_cache()\n",
            person=True,
        ),
        PackExample(
            "the name before its index",
            "import torch\ndef f(device):\n    if device.split(':')[0] == 'cuda':\n        torch.cuda.empty_cache()\n",
            "import torch\ndef f(device):\n    if device.split(':')[0] == _patchforge_device():\n        _patchforge_gpu().empty_cache()\n",
        ),
        PackExample(
            "cut by its length",
            "if device.startswith('cuda') and ':' not in device:\n    device = f'cuda:{device[4:]}'\n",
            person=True,
        ),
        PackExample(
            "the other branch is for all",
            "def f(w):\n    if w.is_cuda:\n        buffer = make(w)\n    else:\n        buffer = zeros().to(w.device)\n",
        ),
        PackExample(
            "XPUs are seeded already",
            "import torch\ntorch.manual_seed(1)\nif device == 'cuda':\n    torch.cuda.manual_seed_all(1)\n",
        ),
        PackExample(
            "the name of an implementation",
            "if prefetch_mode == 'cuda':\n    start()\nassert impl in ['ref', 'cuda']\n",
        ),
        PackExample(
            "an implementation that moves to CUDA",
            "def f(x, mode):\n    if mode == 'cuda':\n        return x.cuda()\n    return x\n",
            person=True,
        ),
        PackExample("a checkpoint's own string", "if str(node['value']).startswith('cuda'):\n    node.copy()\n"),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """Only what can be told without knowing what follows."""
        if not asks(site, code):
            return None
        if site.kind is Kind.IS_CUDA and _own_flag(site.node, code):
            return person([site], "a flag of the pack's own: take XPUs in where it is set")
        if site.kind is Kind.LITERAL and _of_error(site, code):
            return left([site], "a word in the text of an error", runs_on_xpu=True)
        if site.kind is Kind.LITERAL and names_implementations(site.node, code):
            if _moves_there(site, code, pack):
                return person([site], "an implementation that moves to CUDA by name: say what it does on an XPU")
            return left([site], "the name of an implementation, not a device")
        for gate, positive in decisions(_question(site, code), code)[:1]:
            if isinstance(gate, ast.Assert):
                return left([site], "asserts the input of a CUDA kernel")
            kernel = (site.kind is Kind.IS_CUDA and not positive) or kernels([gate.test, *body_of(gate)], code)
            if isinstance(gate, ast.If) and refuses(gate.body) and kernel:
                return left([site], "refuses what a CUDA kernel cannot take")
        return None  # the gate decides

    def verdict_on_test(
        self, site: Site, code: Code, pack: PackFacts, verdicts: Mapping[Site, Verdict]
    ) -> Verdict | None:
        """Takes XPUs in where MPS counts too, or where what follows suits them."""
        if not asks(site, code):
            return None
        asked = _question(site, code)
        if (edit := _built(site, asked, code)) is not None:
            others = [other for other in pack.sites if other.kind is Kind.LITERAL and other.text.startswith("cuda:")]
            apart = [other for other in others if other is not site and not asks(other, code)]
            return converted([site], edit, together=apart, otherwise="a name that is built alike stays CUDA's")
        gates = decisions(asked, code)
        arms = behind([(gate, yes or _mends(gate)) for gate, yes in gates], [site], pack.sites, verdicts, code)
        if _cut_behind(asked, arms, code):
            return person([site], "behind it the device is cut by the length of CUDA's name")
        if gates and all(tidies_up(gate, positive, arms) for gate, positive in gates):
            return _taken_in(site, code)
        if gates and all(positive and _only_sets(gate, code) for gate, positive in gates):
            return left([site], "settings of CUDA's libraries, which an XPU does without", runs_on_xpu=True)
        if arms.kernels(code) or _leads_to_kernels(gates, asked, code):
            return left([site], "chooses what only CUDA has")
        if _itself(gates, asked):
            return left([site], "the other branch hands the device on as it is", runs_on_xpu=True)
        if counts_mps(asked, code) or (gates and all(suits(decided, arms, asked, code) for decided in gates)):
            return _taken_in(site, code)
        if not gates and _of_devices(asked, code, pack, verdicts):
            return _taken_in(site, code)
        if not gates:
            return person([site], _ADVICE)
        return _stays(gates[0], arms, site, code) or person([site], _ADVICE)


def _cut_behind(asked: ast.expr, arms: Behind, code: Code) -> bool:
    """``device[5:]`` behind ``device.startswith("cuda")``."""
    subjects = {name_of(part) for part in ast.walk(asked) if isinstance(part, (ast.Name, ast.Attribute, ast.Subscript))}
    return any(name and name in subjects for name in cut_in((*arms.near, *arms.guarded), code))


def _moves_there(site: Site, code: Code, pack: PackFacts) -> bool:
    """Whether something is moved to CUDA behind a question for an implementation, beside no kernel of CUDA's."""
    parts = [part for gate, positive in decisions(_question(site, code), code) if positive for part in body_of(gate)]
    inside = [other for part in parts for other in below(part, pack.sites, code)]
    moved = any(other.kind is Kind.METHOD or (other.kind is Kind.LITERAL and not asks(other, code)) for other in inside)
    return moved and not code.mentions(parts, KERNELS)


def _of_error(site: Site, code: Code) -> bool:
    """``"cuda" in str(e).lower()``."""
    asked = question(site, code)
    text = asked.comparators[0] if isinstance(asked, ast.Compare) and asked.left is site.node else None
    while (
        isinstance(text, ast.Call) and last_name(text) in ("lower", "casefold") and isinstance(text.func, ast.Attribute)
    ):
        text = text.func.value
    return text is not None and bool(_ERROR.search(code.said(text)))


def _leads_to_kernels(gates: list[tuple[Gate, bool]], asked: ast.expr, code: Code) -> bool:
    """An ``else`` behind a no that names CUDA's kernels; a value that is kept in a function that is named after them."""
    if not gates:
        function = code.function(asked).rpartition(".")[2]
        return isinstance(asked, ast.Attribute) and bool(KERNELS.search(function))
    no = [
        statement for gate, positive in gates if isinstance(gate, ast.If) and not positive for statement in gate.orelse
    ]
    return kernels(no, code)


def _only_sets(gate: Gate, code: Code) -> bool:
    """``torch.backends.cuda.matmul.allow_tf32 = True``, under whatever further tests, and nothing for all others."""
    if not isinstance(gate, ast.If) or gate.orelse:
        return False
    rest = [statement for statement in gate.body if not says(statement)]
    targets = [code.name(statement.targets[0]) if isinstance(statement, ast.Assign) else "" for statement in rest]
    inner = [isinstance(statement, ast.If) and _only_sets(statement, code) for statement in rest]
    return bool(rest) and all(
        name.startswith("torch.backends.") or sets for name, sets in zip(targets, inner, strict=True)
    )


def _question(site: Site, code: Code) -> ast.expr:
    return question(site, code) or site.node


def _taken_in(site: Site, code: Code) -> Verdict:
    splices = widened(site, code)
    return converted([site], *splices) if splices else person([site], _ADVICE)


def _built(site: Site, asked: ast.expr, code: Code) -> Splice | None:
    """``"cuda:" + str(i) != device`` or ``f"cuda:{i}" == device``: a name that is built as the devices are."""
    if not isinstance(asked, ast.Compare) or not isinstance(asked.ops[0], (ast.Eq, ast.NotEq)):
        return None
    whole = code.parent(site.node)
    if isinstance(site.node, ast.JoinedStr):
        return formatted_device(site.node, code) if whole is asked else None
    if not isinstance(whole, ast.BinOp) or not isinstance(whole.op, ast.Add) or site.text != "cuda:":
        return None
    return code.replace(site.node, device_text(site.text)) if code.parent(whole) is asked else None


def _own_flag(node: ast.expr, code: Code) -> bool:
    """``self.is_cuda`` where a method sets it: no tensor's."""
    owner = node.value if isinstance(node, ast.Attribute) else None
    return isinstance(owner, ast.Name) and owner.id in code.once("flags of is_cuda", lambda: _setting_is_cuda(code))


def _setting_is_cuda(code: Code) -> frozenset[str]:
    return frozenset(
        node.value.id
        for node in code.nodes
        if isinstance(node, ast.Attribute) and node.attr == "is_cuda" and isinstance(node.value, ast.Name)
        if isinstance(node.ctx, ast.Store)
    )


def _of_devices(asked: ast.expr, code: Code, pack: PackFacts, verdicts: Mapping[Site, Verdict]) -> bool:
    """``d for d in devices() if d.startswith("cuda")``, where the list was converted."""
    for parent, _ in code.above(asked):
        loops = getattr(parent, "generators", [parent] if isinstance(parent, ast.comprehension) else [])
        for loop in loops:
            target = loop.target
            if isinstance(target, ast.Name) and any(_is(part, target.id) for part in ast.walk(asked)):
                return _gives_devices(loop.iter, code, pack, verdicts)
        if isinstance(parent, ast.stmt):
            return False
    return False


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _gives_devices(listed: ast.expr, code: Code, pack: PackFacts, verdicts: Mapping[Site, Verdict]) -> bool:
    if isinstance(listed, ast.Call):
        return last_name(listed) in pack.devices
    if not isinstance(listed, ast.Name):
        return False
    stored = [use for use in code.named(listed.id, code.scope(listed)) if isinstance(use.ctx, ast.Store)]
    inside = [site for use in stored for site in below(code.statement(use), pack.sites, code)]
    named = [site for site in inside if site.kind is Kind.LITERAL and site.text.startswith("cuda:")]
    return bool(named) and all(site in verdicts and verdicts[site].decision is Decision.CONVERTED for site in named)


def _mends(gate: Gate) -> bool:
    """``if x.device.type != "cuda": x = x.cuda()``: what follows from a no is what an XPU must be able to run."""
    return isinstance(gate, ast.If) and not gate.orelse and not leaves(gate.body)


def _itself(gates: list[tuple[Gate, bool]], asked: ast.expr) -> bool:
    """``{"": 0} if str(device) == "cuda" else device``: an XPU is handed on by its name."""
    gate, positive = gates[0] if len(gates) == 1 else (None, False)
    if not isinstance(gate, ast.IfExp) or not positive or not isinstance(gate.orelse, ast.Name):
        return False
    return isinstance(gate.body, ast.Dict) and any(_is(part, gate.orelse.id) for part in ast.walk(asked))


def _moves(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Assign) else None
    return isinstance(value, ast.Call) and last_name(value) == "to"


def _stays(gate: tuple[Gate, bool], arms: Behind, site: Site, code: Code) -> Verdict | None:
    """What is left on purpose, once it is known that XPUs are not taken in."""
    branch, positive = gate
    if not isinstance(branch, ast.If):
        return None
    if not arms.open and all(
        says(statement) or isinstance(statement, ast.Pass) for statement in (*branch.body, *branch.orelse)
    ):
        return left([site], "only a message stands behind it", runs_on_xpu=True)
    if branch.orelse and site.kind is Kind.IS_CUDA:
        return left([site], "the other branch serves every other device")
    if refuses(branch.body) and (positive or code.mentions(branch.body, _CUDA)):
        reason = "refuses what is on CUDA" if positive else "refuses what is not on CUDA, in so many words"
        return left([site], reason)
    if not positive and site.kind is Kind.IS_CUDA and all(map(_moves, branch.body)):
        return left([site], "moves to a device, which changes nothing for what is there already")
    calls = [
        statement.value
        for statement in branch.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    ]
    seeds = len(calls) == len(branch.body) and all(last_name(call).startswith("manual_seed") for call in calls)
    if positive and seeds and not arms.open:
        return left([site], "seeds CUDA alone; torch.manual_seed beside it seeds XPUs too", runs_on_xpu=True)
    return None
