"""Locks of torch, made from indexes over real HTTP and from published hashes."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import trusted
from patchforge.pins import pin_files
from patchforge.pins.claims import WheelClaim
from patchforge.pins.pin_files import TorchLock
from patchforge.pins.torch import lock
from patchforge.pins.tracked import TrackedTorch
from patchforge.pins.wheels import Wheels
from tests.pins.conftest import Server, wheel_of

LINUX = "manylinux_2_28_x86_64"
TORCH = TrackedTorch(
    title="",
    indexes=("https://download.pytorch.org/whl/xpu", "https://download.pytorch.org/whl"),
    local="xpu",
    default="2.14.0",
    pythons=("3.12",),
    elsewhere=("sympy",),
    versions={"2.14.0": {"torchvision": "0.29.0", "torchaudio": "2.11.0"}},
)
INTEL = ("intel-sycl-rt==2026.1.0", "umf==1.1.0")


def fill(server: Server, abi: str = "cp312") -> None:
    """PyTorch's two indexes in HTML, the public one in JSON, as they are divided in life."""
    tag = f"{abi}-{abi}-{LINUX}"
    needs = (
        "triton-xpu==3.8.0; platform_system == 'Linux'",
        *INTEL,
        "sympy>=1.13",
        "nvidia-x==1; sys_platform == 'win32'",
    )
    server.add("xpu", f"torch-2.14.0+xpu-{tag}.whl", wheel_of("torch", "2.14.0+xpu", needs))
    server.add("xpu", f"torch-2.13.0+xpu-{tag}.whl", wheel_of("torch", "2.13.0+xpu"))
    server.add("xpu", f"torchvision-0.29.0+xpu-{tag}.whl", wheel_of("torchvision", "0.29.0+xpu", ("torch==2.14.0",)))
    server.add("xpu", f"torchaudio-2.11.0+xpu-{tag}.whl", wheel_of("torchaudio", "2.11.0+xpu"))
    server.add("whl", f"triton_xpu-3.8.0-{tag}.whl", wheel_of("triton_xpu", "3.8.0"))
    intel(server)


def intel(server: Server) -> None:
    for version in ("2026.1.0", "2026.2.0"):
        data = wheel_of("intel_sycl_rt", version, ("umf==1.*",))
        server.add("simple", f"intel_sycl_rt-{version}-py2.py3-none-{LINUX}.whl", data, style="json")
    for version in ("1.1.0", "1.2.0"):
        server.add("simple", f"umf-{version}-py2.py3-none-{LINUX}.whl", wheel_of("umf", version), style="json")


def locked(server: Server, *indexes: str, python: str = "3.12", claims: tuple[WheelClaim, ...] = ()) -> TorchLock:
    wheels = Wheels([f"{server.address}/{each}" for each in indexes], python)
    return lock("2.14.0", python, TORCH, wheels, claims=claims, hosts=(server.address.removeprefix("http://"),))


ONLINE = ("xpu", "whl", "simple")


def claim(file: str, data: bytes = b"claimed", abi: str = "cp312") -> WheelClaim:
    return WheelClaim("2.14.0", abi, file, trusted(hashlib.sha256(data + file.encode()).hexdigest()), "someone/flake")


CLAIMS = (
    claim(f"intel_sycl_rt-2026.1.0-py2.py3-none-{LINUX}.whl", abi="any"),
    claim(f"torch-2.14.0+xpu-cp312-cp312-{LINUX}.whl"),
    claim(f"torchvision-0.29.0+xpu-cp312-cp312-{LINUX}.whl"),
    claim(f"torchaudio-2.11.0+xpu-cp312-cp312-{LINUX}.whl"),
    claim(f"triton_xpu-3.8.0-cp312-cp312-{LINUX}.whl"),
)


@pytest.mark.parametrize("absent", [403, 404])
def test_a_whole_lock_from_the_indexes(server: Server, absent: int) -> None:
    """download.pytorch.org answers 403 for a package that it does not have."""
    server.absent = absent
    fill(server)
    locked_torch = locked(server, *ONLINE)
    assert replace(locked_torch, wheels=()) == TorchLock(
        "2.14.0", "cp312", complete=True, missing=(), unread=(), wheels=()
    )
    assert [f"{wheel.name} {wheel.version} {wheel.hash_source}" for wheel in locked_torch.wheels] == [
        "intel-sycl-rt 2026.1.0 index",
        "torch 2.14.0+xpu index",
        "torchaudio 2.11.0+xpu index",
        "torchvision 0.29.0+xpu index",
        "triton-xpu 3.8.0 index",
        "umf 1.1.0 index",
    ]
    torch = locked_torch.wheels[1]
    assert torch.requires == ("intel-sycl-rt==2026.1.0", "sympy>=1.13", "triton-xpu==3.8.0", "umf==1.1.0")
    assert torch.url == f"{server.address}/files/xpu/torch-2.14.0%2Bxpu-cp312-cp312-{LINUX}.whl"
    assert torch.hash == trusted(
        hashlib.sha256(server.pages[f"/files/xpu/{torch.file.replace('+', '%2B')}"][1]).hexdigest()
    )


def test_the_same_bytes_whatever_the_order_of_the_pages(server: Server) -> None:
    fill(server)
    first = pin_files.render("torch/x", {"": locked(server, *ONLINE)})
    for page, (kind, data) in server.pages.items():
        if kind == "text/html":
            server.pages[page] = (kind, b"\n".join(reversed(data.splitlines())))
    assert pin_files.render("torch/x", {"": locked(server, *ONLINE)}) == first


def test_a_wheel_without_hash_in_the_index_is_read_and_hashed(server: Server) -> None:
    fill(server)
    page, data = "/whl/triton-xpu/", server.pages["/whl/triton-xpu/"][1]
    server.pages[page] = ("text/html", data.partition(b"#sha256=")[0] + b'">x</a>')
    triton = next(wheel for wheel in locked(server, *ONLINE).wheels if wheel.name == "triton-xpu")
    assert triton.hash_source == "computed"
    assert triton.hash == trusted(hashlib.sha256(server.pages[f"/files/whl/{triton.file}"][1]).hexdigest())


def test_what_no_index_has_is_missing_and_named(server: Server) -> None:
    fill(server)
    del server.pages["/xpu/torchaudio/"], server.pages["/simple/umf/"]
    locked_torch = locked(server, *ONLINE)
    assert locked_torch.complete is False
    assert list(locked_torch.missing) == [
        "torchaudio==2.11.0+xpu for cp312",
        "umf==1.* for cp312",
        "umf==1.1.0 for cp312",
    ]
    assert all(wheel.hash.startswith("sha256-") for wheel in locked_torch.wheels)


def test_wheels_of_another_python_do_not_count(server: Server) -> None:
    fill(server, abi="cp311")
    with pytest.raises(PatchforgeError, match=r"nothing is known of torch 2\.14\.0 for Python 3\.12"):
        locked(server, *ONLINE)


def test_offline_the_published_hashes_serve(server: Server) -> None:
    intel(server)
    sycl = hashlib.sha256(server.pages[f"/files/simple/intel_sycl_rt-2026.1.0-py2.py3-none-{LINUX}.whl"][1]).hexdigest()
    right = WheelClaim("2.14.0", "any", CLAIMS[0].file, trusted(sycl), "someone/flake")
    locked_torch = locked(server, "simple", claims=(right, *CLAIMS[1:]))
    assert locked_torch.complete is True
    assert list(locked_torch.unread) == ["torch", "torchaudio", "torchvision", "triton-xpu"]
    by_name = {wheel.name: wheel for wheel in locked_torch.wheels}
    assert sorted(by_name) == ["intel-sycl-rt", "torch", "torchaudio", "torchvision", "triton-xpu", "umf"]
    assert by_name["intel-sycl-rt"].hash_source == "index"
    assert by_name["torch"].published_by == "someone/flake"
    assert by_name["torch"].url.startswith("https://download.pytorch.org/whl/xpu/torch-2.14.0%2Bxpu-cp312")
    assert by_name["triton-xpu"].url.startswith("https://download.pytorch.org/whl/triton_xpu-3.8.0-cp312")


def test_claims_of_another_python_or_torch_do_not_serve(server: Server) -> None:
    with pytest.raises(PatchforgeError, match="nothing is known"):
        locked(server, "simple", python="3.13", claims=CLAIMS)
    with pytest.raises(PatchforgeError, match="not declared"):
        lock("2.15.0", "3.12", TORCH, Wheels([], "3.12"), claims=CLAIMS)


def test_a_published_hash_that_the_index_contradicts(server: Server) -> None:
    fill(server)
    with pytest.raises(CheckFailed, match="is not the published one"):
        locked(server, *ONLINE, claims=CLAIMS)


def test_versions_that_do_not_belong_together(server: Server) -> None:
    fill(server)
    del server.pages["/xpu/torchvision/"]
    data = wheel_of("torchvision", "0.29.0+xpu", ("torch==2.13.0",))
    server.add("xpu", f"torchvision-0.29.0+xpu-cp312-cp312-{LINUX}.whl", data)
    with pytest.raises(CheckFailed, match="different versions of torch"):
        locked(server, *ONLINE)
