"""What a GGUF file says of itself: its head, read within bounds and without its tensors.

PyPI's ``gguf`` maps the whole file, needs numpy and makes an object of each word of the vocabulary; a test compares
the two. The format: ggml/docs/gguf.md of ggml-org/ggml.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO

from patchforge import bounded
from patchforge.errors import Damaged

_MAGIC = b"GGUF"
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_KEYS, _TENSORS, _DIMENSIONS = 1 << 16, 1 << 17, 4
_KEPT = 1 << 16  #: bytes of a text that is kept; a longer one is passed over
_HEAD = 256 << 20  #: bytes in front of the tensors' data; a vocabulary of 256,000 words has 10 MB
_WORDS = 1 << 24  #: of a vocabulary
#: llama.cpp's names of ``general.file_type`` (include/llama.h, enum llama_ftype)
FILE_TYPES = {
    int(number): name
    for number, name in re.findall(
        r"(\d+)=(\w+)",
        "0=F32 1=F16 2=Q4_0 3=Q4_1 7=Q8_0 8=Q5_0 9=Q5_1 10=Q2_K 11=Q3_K_S 12=Q3_K_M 13=Q3_K_L 14=Q4_K_S 15=Q4_K_M "
        "16=Q5_K_S 17=Q5_K_M 18=Q6_K 19=IQ2_XXS 20=IQ2_XS 21=Q2_K_S 22=IQ3_XS 23=IQ3_XXS 24=IQ1_S 25=IQ4_NL "
        "26=IQ3_S 27=IQ3_M 28=IQ2_S 29=IQ2_M 30=IQ4_XS 31=IQ1_M 32=BF16 36=TQ1_0 37=TQ2_0 38=MXFP4_MOE",
    )
}
#: Numbers in a block of a tensor, and its bytes, by ggml's type (ggml/src/ggml-common.h of ggml-org/ggml).
BLOCKS = {
    int(kind): (int(numbers), int(size))
    for kind, numbers, size in re.findall(
        r"(\d+)=(\d+)/(\d+)",
        "0=1/4 1=1/2 2=32/18 3=32/20 6=32/22 7=32/24 8=32/34 10=256/84 11=256/110 12=256/144 13=256/176 14=256/210 "
        "15=256/292 16=256/66 17=256/74 18=256/98 19=256/50 20=32/18 21=256/110 22=256/82 23=256/136 24=1/1 25=1/2 "
        "26=1/4 27=1/8 28=1/8 29=256/56 30=1/2 34=256/54 35=256/66 39=32/17",
    )
}
_ALIGNMENT = 32  #: of the tensors' data, unless general.alignment tells another


@dataclass(frozen=True, slots=True)
class Head:
    """Plain values by key, arrays left out; ``parameters``: how many numbers all tensors have."""

    values: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    parameters: int = 0

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture", ""))

    @property
    def file_type(self) -> str:
        kind = self.values.get("general.file_type")
        return FILE_TYPES.get(kind, "unknown") if isinstance(kind, int) else "unknown"


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF does; OSError where it cannot be read."""
    with bounded.opened(path) as stream:
        return stream.read(4) == _MAGIC


def read(path: Path) -> Head:
    """The head of a GGUF file, versions 2 and 3; OSError where it cannot be read.

    Damaged for anything else, and for a file that ends before its tensors do.
    """
    with bounded.opened(path) as stream:
        return _HeadReader(stream, str(path), os.fstat(stream.fileno()).st_size).head()


class _HeadReader:
    def __init__(self, stream: IO[bytes], name: str, size: int) -> None:
        self._stream, self._name, self._size = stream, name, size
        self._end = 0  #: of the tensors' data, from its beginning

    def head(self) -> Head:
        if self._bytes(4) != _MAGIC:
            raise self._damaged("another kind of file")
        if (version := self._number("I")) not in (2, 3):
            raise self._damaged(f"version {version}")
        tensors, keys = self._number("Q"), self._number("Q")
        if tensors > _TENSORS or keys > _KEYS:
            raise self._damaged(f"{tensors} tensors and {keys} keys")
        values = {}
        for _ in range(keys):
            key, value = self._text(), self._value(self._number("I"))
            if value is not None:
                values[key] = value
        head = Head(values, sum(self._tensor() for _ in range(tensors)))
        self._need_whole(head.values.get("general.alignment", _ALIGNMENT))
        return head

    def _need_whole(self, alignment: object) -> None:
        """Damaged for a file that ends within its tensors."""
        if type(alignment) is not int or not 0 < alignment <= _HEAD:
            raise self._damaged(f"an alignment of {str(alignment)[:40]}")
        begin = -(-self._stream.tell() // alignment) * alignment
        if self._end and begin + self._end > self._size:
            raise self._damaged(f"{self._size} bytes where its tensors end at {begin + self._end}")

    def _tensor(self) -> int:
        self._text()
        count = self._number("I")
        if count > _DIMENSIONS:
            raise self._damaged(f"a tensor of {count} dimensions")
        count = prod(self._number("Q") for _ in range(count))
        kind, offset = self._number("I"), self._number("Q")
        each, size = BLOCKS.get(kind, (1, 0))
        self._end = max(self._end, offset + -(-count // each) * size)
        return count

    def _value(self, kind: int) -> str | int | float | bool | None:
        if kind == _TEXT:
            return self._text()
        if kind == _ARRAY:
            self._pass_array()
            return None
        if kind not in _PLAIN:
            raise self._damaged(f"a value of type {kind}")
        value: int | float | bool = struct.unpack(f"<{_PLAIN[kind]}", self._bytes(struct.calcsize(_PLAIN[kind])))[0]
        return value

    def _pass_array(self) -> None:
        kind, count = self._number("I"), self._number("Q")
        if count > _WORDS:
            raise self._damaged(f"an array of {count} values")
        if kind == _TEXT:
            for _ in range(count):
                self._skip(self._number("Q"))
        elif kind in _PLAIN:
            self._skip(count * struct.calcsize(_PLAIN[kind]))
        else:
            raise self._damaged(f"an array of type {kind}")

    def _text(self) -> str:
        size = self._number("Q")
        if size > _KEPT:
            self._skip(size)
            return ""
        return self._bytes(size).decode("utf-8", "replace")

    def _skip(self, size: int) -> None:
        if size > _HEAD or self._stream.seek(size, 1) > _HEAD:
            raise self._damaged(f"a head of more than {_HEAD >> 20} MiB")

    def _number(self, kind: str) -> int:
        return int(struct.unpack(f"<{kind}", self._bytes(struct.calcsize(f"<{kind}")))[0])

    def _bytes(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise self._damaged("its end, within the head")
        return data

    def _damaged(self, instead: str) -> Damaged:
        return Damaged(
            f"{self._name} is not a GGUF file",
            expected="GGUF, version 2 or 3",
            found=instead,
            do="name a file of a model in GGUF",
        )
