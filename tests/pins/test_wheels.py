"""Which wheel of an index is taken, and how little of it is read."""

from __future__ import annotations

import hashlib

import pytest

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import trusted
from patchforge.pins.requirements import parse
from patchforge.pins.wheels import Wheel, Wheels, requires
from tests.pins.conftest import Server, wheel_of

LINUX = "manylinux_2_28_x86_64"


def best(server: Server, text: str, *indexes: str, python: str = "3.12") -> Wheel | None:
    return Wheels([f"{server.address}/{each}" for each in indexes or ("simple",)], python).best(parse(text))


def found(server: Server, text: str, *indexes: str, python: str = "3.12") -> str:
    wheel = best(server, text, *indexes, python=python)
    return wheel.file if wheel else ""


@pytest.mark.parametrize("style", ["html", "json"])
def test_a_wheel_for_the_platform_is_preferred_and_others_are_not_seen(server: Server, style: str) -> None:
    for tag in ("py3-none-any", f"cp312-abi3-{LINUX}", "cp312-abi3-win_amd64", f"cp311-cp311-{LINUX}", "cp39-abi3-any"):
        server.add("simple", f"kit-1.0-{tag}.whl", b"x", style=style)
    server.add("simple", "kit-2.0.tar.gz", b"x", style=style)
    server.add("simple", "kit-2.0-cp312-cp312-macosx_11_0_arm64.whl", b"x", style=style)
    assert found(server, "kit") == f"kit-1.0-cp312-abi3-{LINUX}.whl"
    assert found(server, "kit", python="3.13") == f"kit-1.0-cp312-abi3-{LINUX}.whl"
    assert found(server, "kit", python="3.11") == f"kit-1.0-cp311-cp311-{LINUX}.whl"
    assert found(server, "kit", python="3.10") == "kit-1.0-py3-none-any.whl"


def test_versions(server: Server) -> None:
    for version in ("0.9", "1.2", "1.10", "2.0rc1"):
        server.add("simple", f"kit-{version}-py3-none-any.whl", b"x")
    server.add("simple", "kit-1.11-py3-none-any.whl", b"x", data_yanked="broken")
    assert found(server, "kit") == "kit-1.10-py3-none-any.whl"
    assert found(server, "kit<1.5") == "kit-1.2-py3-none-any.whl"
    assert found(server, "kit==2.0rc1") == "kit-2.0rc1-py3-none-any.whl"
    assert found(server, "kit==1.11") == "kit-1.11-py3-none-any.whl"  # asked for by its very version
    assert found(server, "kit>=1.11,<2") == ""
    assert found(server, "kit==3") == ""
    assert found(server, "absent") == ""


def test_a_local_version_is_another_version(server: Server) -> None:
    server.add("simple", f"torch-2.14.0-cp312-cp312-{LINUX}.whl", b"x")
    server.add("xpu", f"torch-2.14.0+xpu-cp312-cp312-{LINUX}.whl", b"x")
    assert found(server, "torch==2.14.0+xpu") == ""
    assert found(server, "torch==2.14.0+xpu", "xpu", "simple") == f"torch-2.14.0+xpu-cp312-cp312-{LINUX}.whl"


def test_of_one_file_in_two_indexes_the_first_is_taken(server: Server) -> None:
    server.add("one", "kit-1.0-py3-none-any.whl", b"1")
    server.add("two", "kit-1.0-py3-none-any.whl", b"2")
    for first, second in (("one", "two"), ("two", "one")):
        wheel = best(server, "kit", first, second)
        assert wheel is not None
        assert f"/{first}/" in wheel.url


@pytest.mark.parametrize("key", ["data_core_metadata", "data_dist_info_metadata"])
def test_metadata_beside_the_wheel_is_read_and_the_wheel_is_not(server: Server, key: str) -> None:
    path = server.add("simple", "kit-1.0-py3-none-any.whl", b"never read", **{key: "true"})
    server.pages[f"{path}.metadata"] = ("text/plain", b"Name: kit\nVersion: 1.0\nRequires-Dist: b>=2\n")
    wheel = best(server, "kit")
    assert wheel is not None
    assert requires(wheel) == ["b>=2"]
    assert server.sent(path) == 0


def test_metadata_in_a_large_wheel_is_read_in_pieces(server: Server) -> None:
    data = wheel_of("kit", "1.0", ("b>=2", "c; extra == 'x'"), padding=4 << 20)
    path = server.add("simple", "kit-1.0-py3-none-any.whl", data)
    wheel = best(server, "kit")
    assert wheel is not None
    assert requires(wheel) == ["b>=2", 'c; extra == "x"'] or requires(wheel) == ["b>=2", "c; extra == 'x'"]
    assert server.sent(path) < len(data) / 4


def test_a_server_without_ranges(server: Server) -> None:
    server.ranges = False
    server.add("simple", "kit-1.0-py3-none-any.whl", wheel_of("kit", "1.0", ("b",), padding=200_000))
    wheel = best(server, "kit")
    assert wheel is not None
    assert requires(wheel) == ["b"]


@pytest.mark.parametrize("data", [b"", b"no archive at all", b"PK\x03\x04 cut short"], ids=["empty", "text", "cut"])
def test_what_is_no_wheel(server: Server, data: bytes) -> None:
    server.add("simple", "kit-1.0-py3-none-any.whl", data)
    wheel = best(server, "kit")
    assert wheel is not None
    with pytest.raises(PatchforgeError, match="cannot be read"):
        requires(wheel)


def test_a_wheel_that_is_another(server: Server) -> None:
    server.add("simple", "kit-1.0-py3-none-any.whl", wheel_of("kit", "1.1"))
    wheel = best(server, "kit")
    assert wheel is not None
    with pytest.raises(CheckFailed, match="describes itself as another"):
        requires(wheel)


def test_the_hash_is_the_indexes_or_else_computed(server: Server) -> None:
    data = wheel_of("kit", "1.0")
    path = server.add("simple", "kit-1.0-py3-none-any.whl", data)
    stated = best(server, "kit")
    assert stated is not None
    assert stated.hash() == (trusted(hashlib.sha256(data).hexdigest()), "index")
    assert server.sent(path) == 0
    server.add("bare", "kit-1.0-py3-none-any.whl", data, sha256="")
    silent = best(server, "kit", "bare")
    assert silent is not None
    assert silent.hash() == (stated.hash()[0], "computed")


def test_a_mirrors_address_is_not_recorded(server: Server) -> None:
    server.add("simple", "kit-1.0+xpu-py3-none-any.whl", b"x")
    wheel = best(server, "kit")
    assert wheel is not None
    assert wheel.lasting_url(("files.pythonhosted.org",)) == ""
    host = server.address.removeprefix("http://")
    assert wheel.lasting_url((host,)) == f"{server.address}/files/simple/kit-1.0%2Bxpu-py3-none-any.whl"
