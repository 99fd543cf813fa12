"""What becomes of the faults that users report, in releases of five eras, on upstream's tree and on the patched one."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator import build
from tests.releases import NEEDED, Record, run_in, write_release

pytestmark = [
    *NEEDED,
    pytest.mark.skipif(build.missing() is not None, reason=f"no emulated XPU: {build.missing()}"),
]
ERAS = ("v0.0.4", "v0.3.10", "v0.12.0", "v0.22.0", "v0.33.0")
TEXTS = ("level zero", "pi", "ipex", "onednn", "lost", "other")
MEMORY = TEXTS[:4]


@pytest.fixture(scope="module", params=ERAS)
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """Both trees' answers; one after the other, since each takes a processor."""
    folder = tmp_path_factory.mktemp(request.param)
    found = {}
    for side in ("upstream", "patched"):
        tree: Path = write_release(request.param, side, folder / side)
        found[side] = run_in(tree, "run_reports.py", devices="lunar-lake+b580")
    return found


def test_fused_attention_is_not_called_where_it_is_known_to_fail(answers: dict[str, Record]) -> None:
    upstream, patched = (answers[side]["attention"] for side in ("upstream", "patched"))
    assert upstream["met"] == ["device lost", "nan rows"]
    assert patched["met"] == []
    assert patched["bits"] == upstream["bits"], "and the results are the same"


def test_every_layers_out_of_memory_is_recovered_from(answers: dict[str, Record]) -> None:
    upstream, patched = (answers[side]["recovery"] for side in ("upstream", "patched"))
    assert {patched["vae"][text] for text in MEMORY} == {"tiled"}
    assert [patched["upscale"][text] for text in TEXTS] == [3, 3, 3, 2, 1, 1]
    assert [patched["interpolation"][text] for text in TEXTS] in ([4, 4, 4, 2, 1, 1], [None] * 6)
    assert [patched["load"][text] for text in TEXTS] == [True] * 4 + [False] * 2
    assert all("RuntimeError" in upstream["vae"][text] for text in TEXTS)
    assert {upstream["upscale"][text] for text in TEXTS} == {1}
    for text in ("lost", "other"):
        assert patched["vae"][text] == upstream["vae"][text]


def test_a_card_comes_before_an_integrated_gpu_in_every_thread(answers: dict[str, Record]) -> None:
    assert answers["upstream"]["devices"] == {"start": "xpu:0", "prompts": "xpu:0"}
    assert answers["patched"]["devices"] == {"start": "xpu:1", "prompts": "xpu:1"}


def test_a_lost_device_is_told(answers: dict[str, Record]) -> None:
    assert answers["upstream"]["lost"]["told"] is False
    assert answers["patched"]["lost"] == {"survived": True, "told": True}


def test_a_checkpoint_is_recomputed_as_it_was_computed(answers: dict[str, Record]) -> None:
    assert answers["patched"]["checkpoint"] == answers["upstream"]["checkpoint"] == "ok"


def test_bf16_is_for_devices_that_have_it(answers: dict[str, Record]) -> None:
    assert answers["upstream"]["bf16"] == "bf16"
    assert answers["patched"]["bf16"] == "no bf16"
