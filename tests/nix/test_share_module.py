"""``services.intel-xpu-share``: the arbiter's command line, limits by the kernel, and wrong configurations."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nix.sandbox import Miniature
from tests.nix.test_modules import evaluation, words

BOTH = "services.comfyui-xpu.enable = true; services.ollama-xpu.enable = true; services.intel-xpu-share.enable = true;"


@pytest.fixture(scope="module")
def units(mini: Miniature) -> dict[str, Any]:
    more = 'services.intel-xpu-share = { policy = "comfyui-first"; limits.ollama = "4GiB"; };'
    rest = (
        "lib.filterAttrs (name: _: lib.hasPrefix ''intel-xpu-'' name)"
        ' (lib.mapAttrs (_: unit: removeAttrs unit [ "path" ]) config.systemd.services)'
    )
    config = "{ imports = [ { %s } { %s } ]; }"
    return dict(mini.nix.evaluate(evaluation(mini, config % (BOTH, more), rest)))


def test_the_arbiter_asks_both_where_they_listen(units: dict[str, Any]) -> None:
    typed = words(units["intel-xpu-share"])
    given = dict(zip(typed[3::2], typed[4::2], strict=True))
    assert typed[0].endswith("/bin/patchforge")
    assert given == {
        "--policy": "comfyui-first",
        "--comfyui": "http://127.0.0.1:8188",
        "--ollama": "http://127.0.0.1:11434",
        "--listen-comfyui": "127.0.0.1:8288",
        "--listen-ollama": "127.0.0.1:11534",
        "--patience": "30",
    }


def test_a_limit_comes_and_goes_with_its_service(units: dict[str, Any]) -> None:
    assert sorted(units) == ["intel-xpu-limit-ollama", "intel-xpu-share"]
    unit = units["intel-xpu-limit-ollama"]
    assert words(unit)[1:] == ["arbiter", "limit", "ollama.service", "4GiB"]
    of = "ollama.service"
    assert (unit["unitConfig"]["PartOf"], unit["after"], unit["wantedBy"]) == (of, [of], [of])
    assert unit["serviceConfig"]["SuccessExitStatus"] == [69]


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        ("services.intel-xpu-share.enable = true; services.comfyui-xpu.enable = true;", "ollama-xpu.enable = true"),
        (f"{BOTH} services.intel-xpu-share.ports.ollama = 11434;", "must differ"),
        (
            f'{BOTH} services.ollama-xpu.server.host = "0.0.0.0"; services.ollama-xpu.network.trusted = true;',
            "others can reach",
        ),
    ],
)
def test_wrong_configurations(config: str, advice: str, mini: Miniature) -> None:
    rest = "map (x: x.message) (lib.filter (x: !x.assertion) config.assertions)"
    (failure,) = mini.nix.evaluate(evaluation(mini, f"{{ {config} }}", rest))
    assert failure.startswith("services.intel-xpu-share: ")
    assert advice in failure
