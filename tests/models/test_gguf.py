"""The head of a GGUF file: read as the format says, and nothing of it believed beyond bounds."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge.errors import Damaged
from patchforge.models import gguf
from tests.models.world import gguf_bytes


def test_a_head(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(gguf_bytes("qwen3", file_type=15))
    head = gguf.read(tmp_path / "x")
    assert (head.architecture, head.file_type, head.parameters) == ("qwen3", "Q4_K_M", 16)


def test_as_the_library_reads_it(tmp_path: Path) -> None:
    library = pytest.importorskip("gguf", reason="PyPI's gguf is not installed")
    writer = library.GGUFWriter(tmp_path / "x", "llama")
    writer.add_file_type(3)
    writer.add_context_length(2048)
    writer.add_rope_freq_base(10000.5)
    writer.add_token_list(["a", "b"])
    writer.add_token_scores([0.5, 1.5])
    writer.add_bool("general.odd", True)
    numpy = pytest.importorskip("numpy")
    writer.add_tensor("one", numpy.zeros((3, 5), numpy.float32))
    writer.add_tensor("two", numpy.zeros((7,), numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    head, reader = gguf.read(tmp_path / "x"), library.GGUFReader(tmp_path / "x")
    plain = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert head.values == {key: value for key, value in plain.items() if not isinstance(value, list)}
    assert head.parameters == sum(int(tensor.n_elements) for tensor in reader.tensors) == 22


def test_sizes_are_those_of_the_library() -> None:
    library = pytest.importorskip("gguf", reason="PyPI's gguf is not installed")
    known = {int(kind): size for kind, size in library.GGML_QUANT_SIZES.items()}
    assert {kind: known.get(kind) for kind in gguf.BLOCKS} == gguf.BLOCKS


def test_a_file_that_ends_within_its_tensors(tmp_path: Path) -> None:
    data = gguf_bytes()
    (tmp_path / "x").write_bytes(data)
    gguf.read(tmp_path / "x")
    (tmp_path / "x").write_bytes(data[:-1])
    with pytest.raises(Damaged, match=f"tensors end at {len(data)}"):
        gguf.read(tmp_path / "x")


@pytest.mark.parametrize(
    ("data", "instead"),
    [
        (b"", "its end"),
        (b"safetensors", "another kind"),
        (b"GGUF" + struct.pack("<I", 1), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "keys"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63), "more than"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"a", 99), "type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 9, 1), "array of type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 0, 2**63), "array of"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 2**31), "dimensions"),
    ],
)
def test_what_is_none(data: bytes, instead: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(Damaged) as error:
        gguf.read(tmp_path / "x")
    assert instead in error.value.found


@given(data=st.binary(max_size=200), cut=st.integers(0, 250))
def test_whatever_stands_there_ends(data: bytes, cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    path.write_bytes(gguf_bytes()[:cut] + data)
    try:
        gguf.read(path)
    except Damaged as error:
        assert "GGUF" in str(error)  # noqa: PT017
