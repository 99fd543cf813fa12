"""CUDA by other names than ``torch.cuda`` and ``"cuda"``: texts, attributes, other parts of torch, NVIDIA's tools.

One table says what is recognised and what somebody should do about it. Nothing of it is edited.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from patchforge.effort import spend
from patchforge.engine.syntax import dotted, last_name
from patchforge.nodes.code import Code
from patchforge.nodes.known import NEEDLESS, TWINS

#: What the text prefilter looks for, beside "cuda".
NEEDLES = rb"[Cc][Uu][Dd][Aa]|[Cc][Uu][Dd][Nn][Nn]|nccl|NCCL|nvidia-smi|nvml|NVML|nvtx|NVIDIA_|CUBLAS_"


@dataclass(frozen=True, slots=True)
class Other:
    """What a name or a text is, and what to do. ``stays``: left, and ``suggestion`` says why."""

    named: re.Pattern[str]  #: the whole of it
    suggestion: str
    stays: bool = False
    runs_on_xpu: bool = False


_FUNCTIONS = "|".join(sorted({*TWINS, *(name.partition(".")[0] for name in NEEDLESS)}))
_LIBRARIES = "cuda|cudart|cublas|cudnn|cufft|nvrtc|nvcuda|nvml|nvidia-ml"
_INSTEAD = "CUDA by its name alone: write out torch.cuda, then patchforge converts it"
_COLUMN = "a column of torch's profiler, which reads it as the device's"
_TYPE = "a type of CUDA's tensors: use the device in use, as in x.to(device) or torch.set_default_device"
_TWIN = "XPU's twin of CUDA_VISIBLE_DEVICES is ZE_AFFINITY_MASK; others have none"
_TOOL = "asks NVIDIA's tool: torch.xpu.mem_get_info or xpu-smi know of an XPU"
_LIBRARY = "a library of CUDA's, which is not there on an XPU"
_DRIVER = "asks NVIDIA's driver, which is not there: torch.xpu.mem_get_info knows of an XPU's memory"


def _person(named: str, advice: str) -> Other:
    return Other(re.compile(named, re.DOTALL), advice)


def _left(named: str, reason: str, *, runs_on_xpu: bool = True) -> Other:
    return Other(re.compile(named, re.DOTALL), reason, stays=True, runs_on_xpu=runs_on_xpu)


#: Texts. The first that fits is it.
TEXTS = (
    _person(r"torch\.cuda\.\w*(Tensor|Storage)", _TYPE),
    _person(r"torch\.cuda(\.\w+)*|torch\.version\.cuda|torch\.backends\.(cuda|cudnn)(\.\w+)*", _INSTEAD),
    _person(rf"cuda\.({_FUNCTIONS})", _INSTEAD),
    _person(r"cudagraphs", "CUDA graphs: leave this back end out on an XPU"),
    _person(r"(\S*[\\/])?nvidia-smi(\.exe)?(\s+-.*)?", _TOOL),
    _left(r"(CUBLAS|CUDNN|CUSOLVER|CUFFT)_STATUS_\w+", "an error of CUDA's libraries, which no XPU raises"),
    _left(r"(CUBLAS|CUBLASLT|CUDNN|TORCH_CUDNN|NVIDIA_TF32)_[A-Z0-9_]+", "read by CUDA's libraries alone"),
    _left(r"TORCH_CUDA_ARCH_LIST", "read where kernels for CUDA are built, and nowhere else"),
    _left(r"(TORCH_)?NCCL_[A-Z0-9_]+", "between processes; nodes run in one"),
    _person(r"[A-Z_]*(CUDA|NVIDIA)_[A-Z0-9_]+(=.*)?", _TWIN),
    _person(rf"(\S*[\\/])?(lib)?({_LIBRARIES})[\w-]*(\.so[\d.]*|\.dll|\.dylib)", _LIBRARY),
    _left(r"(self_)?cuda_(time|memory)\w*", _COLUMN),
)

#: Other parts of torch.
NAMES = (
    _person(r"(.*\.)?ProfilerActivity\.CUDA", "add ProfilerActivity.XPU where only an XPU is there"),
    _person(r".*\.SDPBackend\.CUDNN_ATTENTION", "cuDNN's attention: give it with another beside it, which an XPU has"),
    _person(r"torch\.cudnn_\w+", "an operator of cuDNN: call torch's own on an XPU"),
    _left(r"torch\.has_(cuda|cudnn)", "says how torch was built", runs_on_xpu=False),
    _left(r"torch\.distributed\..*", "between processes; nodes run in one"),
    _left(r"torch\.(\w+\.)*cudagraph_mark_step_begin", "marks steps for CUDA graphs, and does nothing without them"),
    _person(r"torch\.(_C|_\w+)\..*", "inside of torch, and for CUDA alone: leave it out on an XPU, or find its twin"),
    _person(r"torch\..*\.emit_nvtx", "marks for CUDA's profiler: leave it out on an XPU"),
)

_STAR = "from … import * does not say what this is: import torch and write out torch.cuda, then patchforge converts it"
_HANDLE = "the handle of a CUDA stream, for a CUDA kernel: an XPU's stream has sycl_queue"
_CODE_IN_TEXT = "code in a text"
_TABLE = "dict(cuda=…)"

#: What is asked of an object, and what calls are given, as the site's text has them.
ASKED = (
    _person(r"\.cuda_stream", _HANDLE),
    _person(r"\.cuda[A-Z]\w*\(\)", "a function of CUDA's library: an XPU has none of its"),
    _left(r"\.(self_)?cuda_(time|memory)\w*", _COLUMN),
    _person(r"….cuda\.\w+", _INSTEAD),
    _person(r"cuda\.\w+ of \*", _STAR),
    _person(r"\w+\(.*'cuda'\)|vars\(…\)\['cuda'\]", _INSTEAD),
    _person(r"use_cuda=", "an option of torch's for CUDA: see what it takes for an XPU"),
    _person(_CODE_IN_TEXT, "what names CUDA in code in a text is converted by hand"),
    _person(re.escape(_TABLE), "a table of devices: add an entry for xpu"),
    _person(r"b'cuda.*'", "say what this device is on an XPU"),
    _person(r"(nvml|NVML)\w*|pynvml|py3nvml|nvidia_smi", _DRIVER),
    _person(r"(CUDA|Cuda)(:.*)?", 'a device in capitals: see what is said where the device is an "XPU"'),
)

_QUICK = re.compile(r"cuda|cu(blas|dnn|fft)|nv(idia|rtc|ml)|nccl", re.IGNORECASE)
_MENTIONS = re.compile(r"cuda|cudnn|nccl|nvtx|nvml", re.IGNORECASE)
_RUNTIME = re.compile(r"cuda[A-Z]\w*")  #: functions of CUDA's runtime library
_NVML = re.compile(r"nvml[A-Z]\w*|NVML\w+")
_NVML_MODULES = frozenset(("pynvml", "py3nvml", "nvidia_smi"))
_OF_PROFILER = re.compile(r"(self_)?cuda_(time|memory)\w*")
_CAPITALS = re.compile(r"(CUDA|Cuda)(:.*)?")
_OTHERS = re.compile(r"provider|backend|engine|label|vendor|brand", re.IGNORECASE)  #: what has names of its own
_RUNS_TEXT = frozenset(("eval", "exec", "compile"))
_CODE = re.compile(r"\.cuda\b|[\"']cuda[\"':]")
_BY_NAME = frozenset(("getattr", "setattr"))
_CALLERS = frozenset(("methodcaller", "attrgetter"))
_MODULES = re.compile(
    r"amp|nvtx|memory|random|graphs?|ipc_collect|get_device_capability|CUDAGraph|Out\w+Error|\w+Tensor"
)
_LONGEST = 100_000


def suggestion(text: str) -> Other:
    """What is known of a site's text; of an unknown part of torch only that a person must look."""
    spend(1 + len(text) // 64)
    known = (other for table in (ASKED, TEXTS, NAMES) for other in table if other.named.fullmatch(text))
    return next(known, Other(re.compile(""), "say what this means on an XPU"))


def in_text(node: ast.Constant, code: Code) -> str:
    """What a text is that is no device string; "" where it names nothing."""
    value = node.value
    if isinstance(value, bytes):
        return repr(value) if re.fullmatch(rb"cuda(:\d+)?", value) else ""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return ""
    spend(1 + len(value) // 64)
    if not _QUICK.search(value):
        return ""
    if value == "cuda":
        return _by_its_name(node, code)
    if value == ".cuda" and _call_of(node, code) == "import_module":
        return "torch.cuda"
    if _CAPITALS.fullmatch(value):
        return value if _is_device(node, code) else ""
    if any(other.named.fullmatch(value) for other in TEXTS):
        return value
    return _CODE_IN_TEXT if _is_code(node, value, code) else ""


def in_formatted(first: str) -> str:
    """What a text is that begins with ``first`` and goes on with values."""
    name, _, rest = first.strip().partition(" ")
    if (name.endswith("nvidia-smi") and rest.lstrip()[:1] in ("", "-")) or re.match(r"(CUDA|NVIDIA)_[A-Z_]+=", name):
        return name
    return "torch.cuda" if re.match(r"torch\.cuda\b", name) else ""


def of_torch(full: str) -> str:
    """A dotted name in torch that is about CUDA, but for what ``devices.about`` knows."""
    return full if _MENTIONS.search(full) else ""


def of_object(node: ast.Attribute, code: Code) -> str:
    """What is asked of something that need not be torch's."""
    if node.attr == "cuda_stream" or _OF_PROFILER.fullmatch(node.attr):
        return f".{node.attr}"
    if _NVML.fullmatch(node.attr):
        return node.attr
    above = code.parent(node)
    if _RUNTIME.fullmatch(node.attr) and isinstance(above, ast.Call) and above.func is node:
        return f".{node.attr}()"
    if node.attr == "cuda" and isinstance(above, ast.Attribute):
        owner = node.value
        plain = isinstance(owner, (ast.Name, ast.Attribute))
        imported = dotted(owner).partition(".")[0] in code.imported or code.name(owner) != dotted(owner)
        if not imported and (not plain or above.attr in TWINS or _MODULES.fullmatch(above.attr)):
            return f"….cuda.{above.attr}"
    return ""


def of_name(node: ast.Name, code: Code) -> str:
    """A name by itself: NVIDIA's library for its driver, or what ``from torch import *`` is thought to bring."""
    above = code.parent(node)
    if _NVML.fullmatch(node.id) or (node.id in _NVML_MODULES and not isinstance(above, ast.Attribute)):
        return node.id
    stars = code.once("stars", lambda: _stars(code))
    if "torch" in stars and node.id == "cuda" and isinstance(above, ast.Attribute) and not code.binds(node.id):
        return f"cuda.{above.attr} of *"
    called = isinstance(above, ast.Call) and above.func is node
    if "torch.cuda" in stars and called and node.id in TWINS and not code.binds(node.id):
        return f"cuda.{node.id} of *"
    return ""


def of_keywords(call: ast.Call, of_torch: bool) -> Iterator[tuple[ast.expr, str]]:  # noqa: FBT001
    """The values of keywords that name CUDA, and what they are."""
    name = last_name(call)
    for keyword in call.keywords:
        word = keyword.arg or ""
        if name == "dict" and word == "cuda":
            yield keyword.value, _TABLE
        elif name in ("dict", "update") and any(other.named.fullmatch(word) for other in TEXTS):
            yield keyword.value, word
        elif of_torch and word == "use_cuda":
            yield keyword.value, "use_cuda="


def _by_its_name(node: ast.Constant, code: Code) -> str:
    """``getattr(torch, "cuda").is_available()``, ``setattr(torch, "cuda", …)``, ``vars(torch)["cuda"]``."""
    call = code.parent(node)
    if isinstance(call, ast.Subscript) and call.slice is node:
        owner = call.value
        attributes = isinstance(owner, ast.Attribute) and owner.attr == "__dict__"
        asked = isinstance(owner, ast.Call) and last_name(owner) in ("vars", "globals", "locals")
        return "vars(…)['cuda']" if attributes or asked else ""
    name = _call_of(node, code)
    if name in _CALLERS:
        return f"{name}('cuda')"
    if name not in _BY_NAME or not isinstance(call, ast.Call) or call.args[1:2] != [node]:
        return ""
    above = code.parent(call)
    used = isinstance(above, (ast.Attribute, ast.Subscript)) or (isinstance(above, ast.Call) and above.func is call)
    return f"{name}(…, 'cuda')" if used or name == "setattr" else ""


def _call_of(node: ast.expr, code: Code) -> str:
    """The name of the call that an expression is an argument of."""
    call = code.parent(node)
    return last_name(call) if isinstance(call, ast.Call) and node in call.args else ""


def _is_device(node: ast.expr, code: Code) -> bool:
    """Whether a word in capitals is a device: it is compared with one, or handed on as one."""
    for parent, child in code.above(node):
        if isinstance(parent, ast.Attribute):
            return parent.attr in ("lower", "casefold")
        if isinstance(parent, ast.Compare):
            return not any(_OTHERS.search(code.said(part)) for part in (parent.left, *parent.comparators))
        if isinstance(parent, ast.match_case):
            return True
        if isinstance(parent, ast.keyword):
            return parent.arg in ("device", "map_location")
        if isinstance(parent, ast.Call):
            return child in parent.args and (last_name(parent) in ("device", "to", "startswith"))
        if isinstance(parent, (ast.stmt, ast.Dict)):
            return False
    return False


def _is_code(node: ast.Constant, value: str, code: Code) -> bool:
    """Whether a text is code that is run, and that names CUDA."""
    if not _CODE.search(value):
        return False
    if _call_of(node, code) in _RUNS_TEXT:
        return True
    before = code.parent(node)
    at = before.elts.index(node) if isinstance(before, (ast.List, ast.Tuple)) else 0
    flag = before.elts[at - 1] if at and isinstance(before, (ast.List, ast.Tuple)) else None
    return isinstance(flag, ast.Constant) and flag.value == "-c"


def _stars(code: Code) -> frozenset[str]:
    """The modules all of whose names are imported."""
    froms = (node for node in code.nodes if isinstance(node, ast.ImportFrom) and not node.level)
    return frozenset(node.module or "" for node in froms if any(alias.name == "*" for alias in node.names))
