"""No silent site: a search of the text that knows none of the rules, and each of its hits has a row, or a reason.

The search reads tokens and not the tree, so that it shares no mistake with the census. What it takes for no site is
said in ``_hits`` and ``_reason``: comments, documentation, wording, other libraries, names of a pack's own.
"""

from __future__ import annotations

import io
import os
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchforge.nodes.convert import convert
from patchforge.nodes.pack import read_pack
from patchforge.pattern import Options
from patchforge.vocabulary import DecidedSite

CLONES = os.environ.get("PATCHFORGE_PACKS", "")

_NAMES = frozenset(("cuda", "cudnn", "is_cuda", "get_autocast_gpu_dtype"))
#: Whatever has one of these in it is asked for a reason.
_PART = re.compile(r"cuda|cudnn|nvml|nccl|nvtx", re.IGNORECASE)
_DEVICE = re.compile(
    r"[Cc]uda(:(\d+|\{.*|%d)?)?|CUDA(:\d+)?|nccl|NCCL|CUDAExecutionProvider"
    r"|[A-Z_]*(CUDA|CUBLAS|NCCL|NVIDIA)_[A-Z0-9_]+(=.*)?|cudagraphs|(\S*/)?nvidia-smi( -.*)?"
    r"|torch\.(backends\.)?(cuda|cudnn)(\.\w+)*|cuda\.is_available|(self_)?cuda_(time|memory)\w*"
    r"|(\S*/)?(lib)?(cuda|cudart|cudnn|cublas|nvidia-ml|nvml)[\w-]*\.(so|dll)\S*"
)
_CODE = re.compile(r"torch\.cuda\.\w+\(|\w\.cuda\(")  #: in a text that is run
_LABELS = re.compile(r"Cuda.*")  #: a device only where it is compared, or handed on as one
_BEGINS = re.compile(r"cuda(:|$)|nvidia-smi( -|$)|torch\.cuda\b|CUDA_[A-Z_]+=")
_OWN_PART = re.compile(r"self|cls|super")
_OF_OTHERS = re.compile(r"\w+_cuda")  #: what compiled extensions have
_STRING = re.compile(r"(?P<prefix>[a-zA-Z]*)(?P<quote>'''|\"\"\"|'|\")(?P<text>.*)(?P=quote)", re.DOTALL)
_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
_F_STRING = getattr(tokenize, "FSTRING_START", None)  #: since Python 3.12
_CLOSES = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True)
class Hit:
    path: str
    line: int
    text: str


def _statements(text: str) -> Iterator[list[tokenize.TokenInfo]]:
    """The tokens of each logical line."""
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
            if line:
                yield line
            line = []
        elif token.type not in _LAYOUT:
            line.append(token)


def _own_names(statements: Iterable[list[tokenize.TokenInfo]]) -> set[str]:
    """Plain names that a file binds itself: ``cuda = …``, ``def f(cuda)`` and ``import x as cuda``."""
    names: set[str] = set()
    for tokens in statements:
        if tokens[0].string in ("import", "from") and tokens[1].string != "torch":
            pairs = zip(tokens, [*tokens[1:], None], strict=True)
            ends = (token.string for token, after in pairs if after is None or after.string in (",", ")"))
            names |= set(ends) & _NAMES
        for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
            if token.string in _NAMES and (before is None or before.string != "."):
                bound = after is not None and after.string in ("=", ",", ")", "in", ":")
                if bound and tokens[0].string not in ("import", "from", "if", "elif", "return"):
                    names.add(token.string)
    return names


def _imported(statements: Iterable[list[tokenize.TokenInfo]]) -> set[str]:
    """What is imported from ``torch.cuda``, and ``torch.cuda`` itself under another name."""
    names: set[str] = set()
    for tokens in statements:
        words = [token.string for token in tokens if token.string not in ("(", ")")]
        text = " ".join(words)
        if match := re.fullmatch(r"from torch \. (?:backends \. )?cuda (?:\. \w+ )*import (.*)", text):
            names |= {part.split()[-1] for part in match[1].split(",") if part.strip()}
        elif match := re.fullmatch(
            r"(?:import torch \. (?:cuda|backends \. cudnn)|from torch import cuda) as (\w+)", text
        ):
            names.add(match[1])
    return names


def _bound_in(text: str) -> set[str]:
    """Longer names that a file binds, as variables, attributes, functions, classes, parameters or keywords."""
    names: set[str] = set()
    for tokens in _statements(text):
        for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
            if token.type == tokenize.NAME and _PART.search(token.string) and token.string not in _NAMES:
                defined = before is not None and before.string in ("def", "class", "as", "import", ",", "for", "global")
                bound = after is not None and after.string in ("=", ":", "in", ":=", "+=")
                listed = (
                    before is not None and before.string in ("(", ",", "*") and after and after.string in (",", ")")
                )
                unpacked = before is None and after is not None and after.string == ","
                if (defined or bound or listed or unpacked) and not (
                    before is not None and before.string == "." and not bound
                ):
                    names.add(token.string)
    return names


def _first_of_chain(tokens: list[tokenize.TokenInfo], at: int) -> str:
    """``torch`` for ``cuda`` in ``torch.a.cuda``; "" where the chain begins with a call or an index."""
    while at >= 2 and tokens[at - 1].string == ".":
        at -= 2
        if tokens[at].type != tokenize.NAME:
            return ""
    return tokens[at].string


def _from_torch(statements: Iterable[list[tokenize.TokenInfo]]) -> set[str]:
    """The names by which a file knows torch, and parts of it."""
    names = {"torch"}
    for tokens in statements:
        words = [token.string for token in tokens if token.string not in ("(", ")")]
        if words[0] == "import" and words[1] == "torch" and "as" in words:
            names.add(words[-1])
        elif words[0] == "from" and words[1] == "torch":
            rest = " ".join(words[words.index("import") + 1 :])
            names |= {part.split()[-1] for part in rest.split(",") if part.strip()}
    return names


def _other_libraries(statements: Iterable[list[tokenize.TokenInfo]]) -> set[str]:
    """The names by which a file knows libraries whose own part is called cuda: ``import cupy as cp``."""
    names: set[str] = set()
    for tokens in statements:
        words = [token.string for token in tokens]
        if words[0] == "import" and words[1] not in ("torch", "pynvml"):
            names |= {part.split()[-1].split(".")[0] for part in " ".join(words[1:]).replace(" . ", ".").split(",")}
        elif words[0] == "from" and words[1] not in ("torch", "pynvml"):
            plain = [word for word in words[words.index("import") + 1 :] if word not in ("(", ")")]
            names |= {part.split()[-1] for part in " ".join(plain).split(",") if part.strip()}
    return names


def _reason(tokens: list[tokenize.TokenInfo], at: int, longer: set[str], others: set[str], torchs: set[str]) -> str:
    """Why a longer name (``use_cuda``, ``cudaStream_t``) is no site; "" where there is no reason."""
    token, first = tokens[at], _first_of_chain(tokens, at)
    after = tokens[at + 1].string if at + 1 < len(tokens) else ""
    if first in torchs and at and tokens[at - 1].string == ".":
        return ""
    if first in others:
        return "another library's"
    if token.string in longer:
        return "a name of the pack's own"
    if after == "=" or (at and tokens[at - 1].string in ("def", "class")):
        return "a keyword or a definition"
    if not first and _OF_OTHERS.fullmatch(token.string):
        return "what a compiled extension has"
    if at and tokens[at - 1].string == "." and token.string.endswith("_cuda_engine"):
        return "TensorRT's"
    return "an attribute of the pack's own" if _OWN_PART.fullmatch(first) else ""


def _hits(path: str, text: str, longer: set[str]) -> Iterator[tuple[Hit, range]]:
    """What names a device, and the lines of its statement. ``longer``: see ``_bound_in``, of the pack."""
    statements = list(_statements(text))
    own, imported, others = _own_names(statements), _imported(statements), _other_libraries(statements)
    torchs = _from_torch(statements)
    for tokens in statements:
        lines = range(tokens[0].start[0], tokens[-1].end[0] + 1)
        if tokens[0].string in ("import", "from") or all(token.type == tokenize.STRING for token in tokens):
            continue  # what is imported is a site where it is used; documentation
        opened: list[int] = []
        for at, token in enumerate(tokens):
            before, after = tokens[at - 1] if at else None, tokens[at + 1] if at + 1 < len(tokens) else None
            if token.string in ("(", "[", "{"):
                opened.append(at)
            elif token.string in _CLOSES and opened:
                opened.pop()
            dotted = before is not None and before.string == "."
            keyword = opened and after is not None and after.string == "="
            defined = before is not None and before.string in ("def", "class")
            bound = defined or (after is not None and after.string == "=")
            if token.type == tokenize.NAME and token.string in imported and not dotted and not bound:
                yield Hit(path, token.start[0], token.string), lines
            elif token.type == tokenize.NAME and token.string in _NAMES:
                flag = tokens[0].string == "self" and dotted and at == 2 and bound  # ``self.is_cuda = …``
                theirs = dotted and tokens[at - 2].string in others - torchs
                table = keyword and tokens[opened[-1] - 1].string == "dict"
                if not (defined or flag or theirs or (not dotted and not table and (keyword or token.string in own))):
                    yield Hit(path, token.start[0], token.string), lines
            elif token.type == tokenize.NAME and _PART.search(token.string):
                named = keyword and tokens[opened[-1] - 1].string in ("dict", "update") and token.string.isupper()
                if named or not _reason(tokens, at, longer, others, torchs):
                    yield Hit(path, token.start[0], token.string), lines
            elif token.type == tokenize.STRING and _names_device(token.string, tokens, at):
                yield Hit(path, token.start[0], token.string), lines
            elif token.type == _F_STRING and after is not None and _BEGINS.match(after.string):
                yield Hit(path, token.start[0], after.string), lines


def _names_device(literal: str, tokens: list[tokenize.TokenInfo], at: int) -> bool:
    match = _STRING.fullmatch(literal)
    assert match is not None, literal
    text = match["text"]
    if "f" in match["prefix"].lower():
        return bool(_BEGINS.match(text))
    around = [token.string for token in (*tokens[max(at - 2, 0) : at], *tokens[at + 1 : at + 3])]
    if _LABELS.fullmatch(text):
        return not {"==", "!=", "case", "lower", "device"}.isdisjoint(around)
    if _CODE.search(text):
        return not {"exec", "eval", '"-c"', "'-c'"}.isdisjoint(around)
    return bool(_DEVICE.fullmatch(text))


def silent(files: dict[str, bytes], rows: Iterable[DecidedSite], problems: Iterable[str] = ()) -> list[Hit]:
    """The hits without a row on their statement, in files that could be read."""
    unread, lines = set(problems), dict[str, set[int]]()
    for row in rows:
        lines.setdefault(row.path, set()).add(row.line)
    texts = {
        path: re.sub(r"\r\n?", "\n", data.decode("utf-8-sig", errors="replace"))
        for path, data in files.items()
        if path.endswith(".py") and path not in unread
    }
    longer = {name for text in texts.values() if _PART.search(text) for name in _bound_in(text)}
    hits: list[Hit] = []
    for path, text in texts.items():
        if _PART.search(text) or "nvidia" in text.lower():
            hits += [hit for hit, there in _hits(path, text, longer) if lines.get(path, set()).isdisjoint(there)]
    return hits


MINIATURE = '''"""A pack for cuda and "cuda:0": documentation."""
import ctypes, importlib, os, subprocess, sys
import pynvml
import torch
import torch.backends.cudnn as cudnn
from torch.cuda import empty_cache, set_device as choose
from torch.cuda.amp import autocast

NODE_CLASS_MAPPINGS = {}
torch.backends.cudnn.benchmark = True
cudnn.deterministic = False
torch.backends.cuda.matmul.allow_tf32 = True
torch.cuda.is_available = lambda: False
torch.Tensor.cuda = None
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
keep = torch.nn.Module.cuda
moved = list(map(torch.Tensor.cuda, []))


class Node:
    """Takes "cuda"."""

    def __init__(self, device="cuda"):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.use_cuda = True
        self.cuda()

    def cuda(self):
        return self

    def run(self, x, cuda=False, index=0):
        fn = x.cuda
        if cuda and x.is_cuda and x.device.type == "cuda":
            print("needs cuda")  # cuda
        for one in ("cuda", f"cuda:{index}", "cuda:%d" % index, "cuda:" + str(index)):
            x = x.to(
                one,
            )
        with autocast(), torch.autocast("cuda"):
            torch.cuda.empty_cache()
            empty_cache()
            choose(0)
        raise RuntimeError(f"no cuda for {x} on cuda:0")


def more(session, backend="nccl", other="NCCL"):
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    limit = torch.get_autocast_gpu_dtype()
    version = torch.version.cuda
    x = x.type("torch.cuda.FloatTensor")
    torch.set_default_tensor_type("torch.cuda.FloatTensor")
    y = torch.cuda.FloatTensor(3)
    torch._C._cuda_clearCublasWorkspaces()
    handle = stream.cuda_stream
    kinds = [torch.profiler.ProfilerActivity.CUDA]
    model = torch.compile(session, backend="cudagraphs")
    importlib.import_module("torch.cuda").empty_cache()
    __import__("torch").cuda.empty_cache()
    sys.modules["torch.cuda"].empty_cache()
    vars(torch)["cuda"].empty_cache()
    subprocess.run(["nvidia-smi", "-q"])
    os.system(f"nvidia-smi -i {index}")
    pynvml.nvmlInit()
    os.environ["NVIDIA_VISIBLE_DEVICES"] = "0"
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    os.environ.update(CUDA_VISIBLE_DEVICES="0")
    library = ctypes.CDLL("libcudart.so.12")
    library.cudaDeviceSynchronize()
    torch._C._cuda_getCurrentRawStream = library
    torch._inductor.config.triton.cudagraph_trees = False
    back_ends = [torch.nn.attention.SDPBackend.CUDNN_ATTENTION]
    rows = table(sort_by="cuda_time_total")
    if device.upper() == "CUDA" or device == "Cuda":
        device = torch.device("CUDA")
    sizes = {"cuda": 1}, dict(cuda=1)
    match device.type:
        case "cuda":
            pass
    eval("torch.cuda.is_available()")
    use_cuda = 3
    print(use_cuda, "nvidia-smi was not found")
    return session(providers, limit, version, cuda=True), getattr(torch, "cuda")
'''


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], tuple[DecidedSite, ...]]:
    folder = tmp_path_factory.mktemp("pack")
    (folder / "__init__.py").write_text(MINIATURE, "utf-8")
    (folder / "other.py").write_text(MINIATURE.replace("NODE_CLASS_MAPPINGS", "NOTHING"), "utf-8")
    (folder / "windows.py").write_bytes(b"\xef\xbb\xbf" + MINIATURE.replace("\n", "\r\n").encode())
    pack = read_pack(folder)
    result = convert(pack, Options())
    assert not result.problems
    return pack.files, (*result.sites, *result.skipped)


def test_every_name_of_a_device_has_a_row(looked_at: tuple[dict[str, bytes], tuple[DecidedSite, ...]]) -> None:
    assert silent(*looked_at) == []


def test_a_row_that_is_missing_is_noticed(looked_at: tuple[dict[str, bytes], tuple[DecidedSite, ...]]) -> None:
    """The search sees every statement that falls silent."""
    files, rows = looked_at
    assert len({row.line for row in rows}) > 20
    for path, line in {(row.path, row.line) for row in rows}:
        rest = [row for row in rows if (row.path, row.line) != (path, line)]
        assert silent(files, rest), f"{path}:{line}: {MINIATURE.splitlines()[line - 1]}"


def test_what_another_library_calls_cuda_is_no_device() -> None:
    text = b"import pycuda.driver as cuda\nfrom other import (cuda as cudnn, View)\ncuda.init()\ncudnn.run()\n"
    kernels = b"import cupy as cp\nimport numba\nwith cp.cuda.Device(0):\n    numba.cuda.jit(f)\n"
    assert silent({"engine.py": text, "kernels.py": kernels}, ()) == []
    files = {"move.py": b"from torch import cuda\ncuda.empty_cache()\n"}
    assert [hit.line for hit in silent(files, ())] == [2]


def test_files_that_could_not_be_read_are_not_searched() -> None:
    files = dict.fromkeys(("one.py", "two.py", "three.py"), b"x.cuda()\n")
    assert [hit.path for hit in silent(files, (), (name for name in ("one.py", "two.py")))] == ["three.py"]


@pytest.mark.skipif(not CLONES, reason="PATCHFORGE_PACKS names a folder of packs")
@pytest.mark.parametrize("folder", sorted(Path(CLONES).iterdir()) if CLONES else [], ids=lambda folder: folder.name)
def test_no_pack_has_a_silent_site(folder: Path) -> None:
    pack = read_pack(folder)
    result = convert(pack, Options())
    missed = silent(pack.files, (*result.sites, *result.skipped), (problem.path for problem in result.problems))
    assert not missed, "\n".join(f"{hit.path}:{hit.line}: {hit.text}" for hit in missed)
