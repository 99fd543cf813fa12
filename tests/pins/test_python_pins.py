"""Pins of the packages that belong to a release."""

from __future__ import annotations

import pytest

from patchforge.errors import PatchforgeError
from patchforge.pins import python
from patchforge.pins.pin_files import Versions, WheelPin
from patchforge.pins.tracked import Companions
from patchforge.pins.wheels import Wheels
from tests.pins.conftest import Server, wheel_of

COMPANIONS = Companions(title="", python="3.12", names=("loose",), elsewhere=("torch",))


def fill(server: Server) -> None:
    tag = "py3-none-any.whl"
    for version, part in (("0.1.0", "0.3.1"), ("0.2.0", "0.3.2")):
        needs = (f"parts-core=={part}", "numpy>=1", "torch==2.0", "other==9; sys_platform == 'win32'")
        server.add("simple", f"parts-{version}-{tag}", wheel_of("parts", version, needs))
        server.add("simple", f"parts_core-{part}-{tag}", wheel_of("parts_core", part))
    server.add("simple", f"loose-0.4.1-{tag}", wheel_of("loose", "0.4.1"))
    server.add("simple", f"loose-0.4.2-{tag}", wheel_of("loose", "0.4.2"))


def pins(server: Server, *releases: list[str], hosts: tuple[str, ...] = ()) -> dict[str, Versions]:
    wheels = Wheels([f"{server.address}/simple"], COMPANIONS.python)
    return python.pins(dict(enumerate(releases)), COMPANIONS, wheels, hosts)  # type: ignore[arg-type]


def test_what_releases_name_exactly_and_what_that_names(server: Server) -> None:
    fill(server)
    pinned = pins(server, ["parts==0.1.0", "loose", "numpy>=1"], ["parts==0.2.0", "loose", "torch"])
    assert {name: sorted(versions) for name, versions in pinned.items()} == {
        "parts": ["0.1.0", "0.2.0"],
        "parts-core": ["0.3.1", "0.3.2"],
        "loose": ["0.4.2"],
    }
    assert pinned["parts"]["0.2.0"] == WheelPin(
        file="parts-0.2.0-py3-none-any.whl",
        hash=pinned["parts"]["0.2.0"].hash,
        hash_source="index",
        python="py3",
        abi="none",
        platform="any",
        requires=("numpy>=1", "parts-core==0.3.2", "torch==2.0"),
    )


def test_an_address_that_lasts_is_recorded(server: Server) -> None:
    fill(server)
    pinned = pins(server, ["loose"], hosts=(server.address.removeprefix("http://"),))
    assert pinned["loose"]["0.4.2"].url == f"{server.address}/files/simple/loose-0.4.2-py3-none-any.whl"


def test_a_package_that_no_index_has(server: Server) -> None:
    fill(server)
    with pytest.raises(PatchforgeError, match=r"no wheel of parts==0\.9 is in the index"):
        pins(server, ["parts==0.9"])
