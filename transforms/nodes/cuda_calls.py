"""Functions of torch.cuda that are called whatever the device is."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from patchforge.effort import walk
from patchforge.nodes.code import Code
from patchforge.nodes.known import LACKING, NEEDLESS, TWINS
from patchforge.nodes.openings import by_what_it_opens, opened
from patchforge.nodes.shapes import api, call_of, elsewhere_on_xpu, is_annotation
from patchforge.nodes.twins import misfit, read_of, takes, without_dropped
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person
from patchforge.vocabulary import Decision

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)
_CLASSES = frozenset(("Stream", "Event", "device", "device_of", "StreamContext"))


class CudaCalls(Pattern):
    """Without CUDA some do nothing or answer 0: memory is never freed, lists of devices are empty. Others raise.

    ``torch.cuda`` gives way to a function that returns ``torch.cuda`` itself, or ``torch.xpu`` where only that is there.
    What an XPU has no need of is skipped there. A call that asks for CUDA, by its value (``device_count() > 0``) or by
    raising in a ``try``, is converted with what it opens, as a test for CUDA is, or not at all.
    """

    id = "pack-cuda-calls"
    aliases = ("T4", "T4a", "T4b")
    title = "calls of torch.cuda"
    source = "https://docs.pytorch.org/docs/stable/xpu.html"
    after = ("*",)
    examples = (
        PackExample(
            "the cache", "import torch\ntorch.cuda.empty_cache()\n", "import torch\n_patchforge_gpu().empty_cache()\n"
        ),
        PackExample(
            "through an alias",
            "import torch.cuda as cuda\nn = cuda.device_count()\n",
            "import torch.cuda as cuda\nn = _patchforge_gpu().device_count()\n",
        ),
        PackExample("XPUs are seeded already", "import torch\ntorch.manual_seed(1)\ntorch.cuda.manual_seed_all(1)\n"),
        PackExample(
            "XPUs are seeded in the other arm alone",
            "import torch\nif where == 'cpu':\n    torch.manual_seed(1)\nelse:\n    torch.cuda.manual_seed(1)\n",
            "import torch\nif where == 'cpu':\n    torch.manual_seed(1)\nelse:\n    _patchforge_gpu().manual_seed(1)\n",
        ),
        PackExample(
            "memory",
            "import torch\nfree, total = torch.cuda.mem_get_info(device)\n",
            "import torch\nfree, total = _patchforge_gpu().mem_get_info(device)\n",
        ),
        PackExample(
            "a fork of the generators' state",
            "import torch\nwith torch.random.fork_rng(devices=[torch.cuda.current_device()]):\n    f()\n",
            "import torch\nwith torch.random.fork_rng(**({'device_type': 'xpu'} if _patchforge_xpu() else {}), devices=[_patchforge_gpu().current_device()]):\n    f()\n",
        ),
        PackExample(
            "no twin, and no need of one",
            "import torch\ntorch.cuda.ipc_collect()\n",
            "import torch\nif not _patchforge_xpu():\n    torch.cuda.ipc_collect()\n",
        ),
        PackExample(
            "marks for CUDA's profiler",
            "import torch\ntorch.cuda.nvtx.range_push('a')\n",
            "import torch\nif not _patchforge_xpu():\n    torch.cuda.nvtx.range_push('a')\n",
        ),
        PackExample(
            "no need of one, beside another statement",
            "import torch\nf(); torch.cuda.ipc_collect()\n",
            "import torch\nf(); None if _patchforge_xpu() else torch.cuda.ipc_collect()\n",
        ),
        PackExample(
            "an annotation of what only CUDA has",
            "import torch\ngraph: torch.cuda.CUDAGraph = None\n",
        ),
        PackExample(
            "the same class everywhere", "import torch\ntry:\n    f()\nexcept torch.cuda.OutOfMemoryError:\n    pass\n"
        ),
        PackExample(
            "a field that XPUs lack", "import torch\nold = torch.cuda.get_device_properties(0).major < 8\n", person=True
        ),
        PackExample(
            "a count in front of what suits an XPU",
            "import torch\ndevice = 'cuda' if torch.cuda.device_count() > 0 else 'cpu'\n",
            "import torch\ndevice = _patchforge_device() if _patchforge_gpu().device_count() > 0 else 'cpu'\n",
        ),
        PackExample(
            "a count in front of CUDA's kernels",
            "import torch\n\ndef f(q):\n    if torch.cuda.device_count() > 0:\n        return flash_attn(q)\n    return plain(q)\n",
        ),
        PackExample(
            "a trial whose answer leads to CUDA's kernels",
            """\
            import torch

            def has_cuda():
                try:
                    torch.cuda.init()
                    return True
                except Exception:
                    return False

            def quantised(net):
                if has_cuda():
                    import bitsandbytes
                    return bitsandbytes.of(net)
                return net
            """,
        ),
        PackExample(
            "a trial before a device that is only returned",
            "import torch\n\ndef name():\n    try:\n        torch.cuda.init()\n        return 'cuda'\n    except Exception:\n        return 'cpu'\n",
            person=True,
        ),
        PackExample(
            "what only CUDA's events are told",
            "import torch\nstart = torch.cuda.Event(enable_timing=True, blocking=True, interprocess=False)\nend = torch.cuda.Event(True, True)\n",
            "import torch\nstart = _patchforge_gpu().Event(enable_timing=True) if _patchforge_xpu() else torch.cuda.Event(enable_timing=True, blocking=True, interprocess=False)\nend = _patchforge_gpu().Event(True) if _patchforge_xpu() else torch.cuda.Event(True, True)\n",
        ),
        PackExample(
            "an event for other processes, and one with whatever options",
            "import torch\nstart = torch.cuda.Event(interprocess=True)\nend = torch.cuda.Event(**options)\n",
            person=True,
        ),
        PackExample(
            "a stream for a kernel",
            "import torch\nstream = torch.cuda.Stream(priority=-1)\nrun(stream.cuda_stream)\n",
            person=True,
        ),
        PackExample(
            "figures of memory",
            "import torch\nused = torch.cuda.memory_stats()['allocated_bytes.all.current']\n",
            "import torch\nused = _patchforge_gpu().memory_stats()['allocated_bytes.all.current']\n",
        ),
        PackExample(
            "figures of memory that an XPU has not",
            "import torch\nstats = torch.cuda.memory_stats()\nbad = stats['num_ooms']\n",
            person=True,
        ),
        PackExample(
            "capabilities are CUDA's", "import torch\nnew = torch.cuda.get_device_capability() >= (8, 0)\n", person=True
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """A function of ``torch.cuda``."""
        if site.kind is not Kind.API:
            return None
        if isinstance(site.node, ast.Call):
            return _forked(site, site.node, code)
        name, call = api(site), call_of(site, code)
        if name == "OutOfMemoryError":
            reason = "the same class as torch.OutOfMemoryError: it catches an XPU's too"
            return left([site], reason, runs_on_xpu=True)
        if is_annotation(site.node, code):
            return left([site], "an annotation", runs_on_xpu=True)
        if name in NEEDLESS and call is not None and isinstance(code.parent(call), ast.Expr):
            return converted([site], code.unless(code.statement(call), "_patchforge_xpu()"))
        if name in TWINS:
            return None if opened(site, code, pack.elsewhere) else _twin(site, name, call, code)
        return person([site], _advice(name)) if name else _bare(site, code)

    def verdict_on_test(
        self, site: Site, code: Code, pack: PackFacts, verdicts: Mapping[Site, Verdict]
    ) -> Verdict | None:
        """A function that asks for CUDA by its value or by an error: converted with what it opens, or not at all."""
        trail = opened(site, code, pack.elsewhere)
        if trail is None:
            return None
        then = _twin(site, api(site), call_of(site, code), code)
        if then.decision is not Decision.CONVERTED:
            return then
        return by_what_it_opens(site, trail, then, pack.sites, verdicts)


def _forked(site: Site, call: ast.Call, code: Code) -> Verdict:
    """``fork_rng`` keeps the state of CUDA's generators unless it is told of another kind of device."""
    more = "**({'device_type': 'xpu'} if _patchforge_xpu() else {})"
    if call.args:
        return converted([site], code.follow(call.args[-1], f", {more}"))
    first = code.offset(call.keywords[0].lineno, call.keywords[0].col_offset) if call.keywords else code.end(call) - 1
    return converted([site], code.splice(first, first, f"{more}, " if call.keywords else more))


def _twin(site: Site, name: str, call: ast.Call | None, code: Code) -> Verdict:
    """The backend in use takes the place of ``torch.cuda``."""
    if call is not None and getattr(code.parent(call), "attr", "") == "cuda_stream":
        return left([site], "the stream of a CUDA kernel")
    if call is None and name in _CLASSES:
        return person([site], f"accept torch.xpu.{name} as well")
    if name.startswith("manual_seed") and _seeded(site, code):
        return left([site], "torch.manual_seed beside it seeds XPUs too", runs_on_xpu=True)
    if reason := misfit(name, call, code):
        rest = without_dropped(name, call, code) if call is not None and not takes(name, call) else None
        if call is None or rest is None or read_of(call, code) & LACKING.get(name, frozenset()):
            return person([site], reason)
        return converted([site], *elsewhere_on_xpu(call, f"_patchforge_gpu().{name}({rest})", code))
    return converted([site], code.replace(site.node, f"_patchforge_gpu().{name}"))


def _seeded(site: Site, code: Code) -> bool:
    """Whether a call of ``torch.manual_seed`` in the function is made whenever the site is come to."""
    scope = code.scope(site.node)
    calls = code.once(("seeds", scope), lambda: [node for node in walk(scope) if _seeds(node, scope, code)])
    there = {(id(parent), code.field(child)) for parent, child in code.above(site.node)}
    return any(_ways(call, code) <= there for call in calls)


def _ways(node: ast.AST, code: Code) -> set[tuple[int, str]]:
    """The arms of branches and loops that a node stands in, within its function."""
    ways: set[tuple[int, str]] = set()
    for parent, child in code.above(node):
        if isinstance(parent, _FUNCTIONS):
            break
        if isinstance(parent, _BRANCHES) and (field := code.field(child)) not in ("test", "iter", "items"):
            ways.add((id(parent), field))
    return ways


def _seeds(node: ast.AST, scope: ast.AST, code: Code) -> bool:
    return isinstance(node, ast.Call) and code.name(node.func) == "torch.manual_seed" and code.scope(node) is scope


def _advice(name: str) -> str:
    if "capability" in name or name == "get_arch_list":
        return "capabilities are CUDA's: decide by dtype support or by trying"
    if name.endswith("Tensor"):
        return "make it with torch.empty(…, device=…), or ask for is_floating_point and device"
    return f"torch.xpu has no {name}: find another way on an XPU"


def _bare(site: Site, code: Code) -> Verdict:
    parent = code.parent(site.node)
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name):
        if parent.func.id == "getattr" and len(parent.args) == 3 and parent.args[0] is site.node:
            return converted([site], code.replace(site.node, "_patchforge_gpu()"))
        if parent.func.id in ("hasattr", "getattr"):
            return left([site], "only looked at", runs_on_xpu=True)
    return person([site], "use torch.xpu where torch.cuda is not available")
