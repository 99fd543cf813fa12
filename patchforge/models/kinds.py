"""Whether a file holds weights, and is whole, as far as its form says without reading them.

GGUF, safetensors, checkpoints as torch saves them, pickles and ONNX. What is none of these, and what ends too early, is
Damaged: a page that a server sent in a model's place, a pointer of Git LFS, a download that broke off.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import IO, Any

from patchforge import bounded, documents
from patchforge.errors import Damaged
from patchforge.models import gguf

KINDS = "GGUF, safetensors, a checkpoint as torch saves it, a pickle or ONNX"
_DO = "fetch it again, or name another file"
_HEAD = 64
_TAIL = 16 << 20  #: bytes at a ZIP archive's end in which its directory is; one of 10,000 tensors has 1 MB
_HEADER = 100_000_000  #: bytes; safetensors' own bound (safetensors/src/tensor.rs, MAX_HEADER_SIZE)
#: What torch.save and torch.export.save write into their archives (caffe2/serialize/inline_container.h).
_OF_TORCH = re.compile(rb"/(data\.pkl|constants\.pkl|archive_format)")
_END_OF_ZIP = b"PK\5\6"
#: Torch's own number before 1.6 (torch/serialization.py, MAGIC_NUMBER), pickled.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_ONNX = re.compile(rb"\x08[\x01-\x3f][\x12\x1a\x22\x2a\x32\x3a\x42]")  #: ModelProto: ir_version, and its next field
_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS, which stands for the file",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"{": "JSON",
}


def need_model(path: Path) -> None:
    """Damaged unless a file is one of weights, and as long as it says; OSError where it cannot be read."""
    with bounded.opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(_HEAD)
        if not head:
            raise _other(path, "nothing: it is empty")
        if head.startswith(b"GGUF"):
            gguf.read(path)
        elif head.startswith(b"PK\3\4"):
            _need_torch(stream, path, size)
        elif head.startswith(_OLD_TORCH) or _ONNX.match(head):
            return
        elif _PICKLE.match(head):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b".":
                raise _other(path, "a pickle without its end")
        elif 2 <= (length := struct.unpack("<Q", head[:8].ljust(8, b"\xff"))[0]) <= _HEADER and head[8:9] == b"{":
            _need_safetensors(stream, path, size, length)
        else:
            raise _other(path, next((told for begin, told in _OTHERS.items() if _begins(head, begin)), "another kind"))


def _begins(head: bytes, begin: bytes) -> bool:
    return head.lstrip().lower().startswith(begin)


def _need_torch(stream: IO[bytes], path: Path, size: int) -> None:
    stream.seek(max(size - _TAIL, 0))
    tail = stream.read(_TAIL)
    if _END_OF_ZIP not in tail[-(1 << 16) - 22 :]:
        raise _other(path, "a ZIP archive without its end")
    if not _OF_TORCH.search(tail):
        raise _other(path, "a ZIP archive that torch has not written")


def _need_safetensors(stream: IO[bytes], path: Path, size: int, length: int) -> None:
    """Its header is JSON, and the last tensor ends where the file does (safetensors/src/tensor.rs, Metadata)."""
    stream.seek(8)
    header = stream.read(length)
    if len(header) < length:
        raise _other(path, "safetensors that ends within its header")
    tensors: dict[str, Any] = documents.parse_json(header, dict[str, Any], f"the header of {path}", do=_DO)
    end = 0
    for name, tensor in tensors.items():
        told = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if name != "__metadata__":
            if not isinstance(told, list) or len(told) != 2 or not all(type(place) is int for place in told):
                raise _other(path, f"a tensor without its place: {name[:80]!r}")
            end = max(end, told[1])
    if end != size - 8 - length:
        raise _other(path, f"{size} bytes where its header tells {end + 8 + length}")


def _other(path: Path, instead: str) -> Damaged:
    return Damaged(f"{path} is not a whole file of a model", expected=KINDS, found=instead, do=_DO)
