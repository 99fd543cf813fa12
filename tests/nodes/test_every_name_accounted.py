"""No silent site: a search of the text that knows none of the rules, and each of its hits has a row, or a reason.

The search reads tokens and not the tree, so that it shares no mistake with the census. What it takes for no site is
said in ``_hits``: comments, documentation, wording, and names that a pack gives itself.
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
_DEVICE = re.compile(
    r"cuda(:(\d+|\{.*|%d)?)?|nccl|NCCL|CUDAExecutionProvider|CUDA_VISIBLE_DEVICES|PYTORCH_CUDA_ALLOC_CONF"
)
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


def _other_libraries(statements: Iterable[list[tokenize.TokenInfo]]) -> set[str]:
    """The names by which a file knows libraries whose own part is called cuda: ``import cupy as cp``."""
    names: set[str] = set()
    for tokens in statements:
        words = [token.string for token in tokens]
        if words[0] == "import" and words[1] in ("cupy", "numba") and len(words) in (2, 4):
            names.add(words[-1])
    return names


def _hits(path: str, text: str) -> Iterator[tuple[Hit, range]]:
    """What names a device, and the lines of its statement."""
    statements = list(_statements(text))
    own, imported, others = _own_names(statements), _imported(statements), _other_libraries(statements)
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
                theirs = dotted and tokens[at - 2].string in others
                if not (defined or flag or theirs or (not dotted and (keyword or token.string in own))):
                    yield Hit(path, token.start[0], token.string), lines
            elif token.type == tokenize.STRING and _names_device(token.string):
                yield Hit(path, token.start[0], token.string), lines
            elif token.type == _F_STRING and after is not None and re.match(r"cuda(:|$)", after.string):
                yield Hit(path, token.start[0], after.string), lines


def _names_device(literal: str) -> bool:
    match = _STRING.fullmatch(literal)
    assert match is not None, literal
    if "f" in match["prefix"].lower():
        return bool(re.match(r"cuda(:|$)", match["text"]))
    return bool(_DEVICE.fullmatch(match["text"]))


def silent(files: dict[str, bytes], rows: Iterable[DecidedSite], problems: Iterable[str] = ()) -> list[Hit]:
    """The hits without a row on their statement, in files that could be read."""
    unread, lines = set(problems), dict[str, set[int]]()
    for row in rows:
        lines.setdefault(row.path, set()).add(row.line)
    hits: list[Hit] = []
    for path, data in files.items():
        if path.endswith(".py") and path not in unread:
            text = re.sub(r"\r\n?", "\n", data.decode("utf-8-sig", errors="replace"))
            hits += [hit for hit, there in _hits(path, text) if lines.get(path, set()).isdisjoint(there)]
    return hits


MINIATURE = '''"""A pack for cuda and "cuda:0": documentation."""
import os
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
