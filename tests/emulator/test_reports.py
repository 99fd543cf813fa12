"""What becomes of the faults that users report, in releases of five eras, on upstream's tree and on the patched one."""

from __future__ import annotations

import pytest

from emulator import build
from tests.releases import NEEDED, Record, run_in, write_release

pytestmark = [
    *NEEDED,
    pytest.mark.skipif(build.missing() is not None, reason=f"no emulated XPU: {build.missing()}"),
]
ERAS = ("v0.0.4", "v0.3.10", "v0.12.0", "v0.22.0", "v0.33.0")
NEEDS_IPEX = "v0.0.4"  #: upstream's tree does not start on torch's own XPU
TEXTS = ("level zero", "pi", "ipex", "onednn", "lost", "other")
MEMORY = TEXTS[:4]


@pytest.fixture(scope="module", params=ERAS)
def patched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Record:
    tree = write_release(request.param, "patched", tmp_path_factory.mktemp(request.param) / "tree")
    return {"release": request.param, **run_in(tree, "run_reports.py", devices="lunar-lake+b580")}


@pytest.fixture(scope="module")
def upstream(patched: Record, tmp_path_factory: pytest.TempPathFactory) -> Record | None:
    """The same of upstream's tree; None where that does not start."""
    release = patched["release"]
    if release == NEEDS_IPEX:
        return None
    tree = write_release(release, "upstream", tmp_path_factory.mktemp(release) / "upstream")
    return run_in(tree, "run_reports.py", devices="lunar-lake+b580")


@pytest.fixture(scope="module", params=ERAS)
def starts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """How upstream's tree ("upstream") and the patched one start: on the emulated XPU, and with torch as it is."""
    found = {}
    for side in ("upstream", "patched"):
        tree = write_release(request.param, side, tmp_path_factory.mktemp(request.param) / side)
        found[side] = run_in(tree, "run_start.py", "torch", devices="")
        found[side] |= run_in(tree, "run_start.py", "operators", options="missing=_upsample_bicubic2d_aa")
    return found


def test_a_torch_that_cannot_use_the_intel_gpu_is_named_with_the_cure(starts: dict[str, Record]) -> None:
    before, after = starts["upstream"], starts["patched"]
    assert "NVIDIA driver" in before["cuda"]["error"]
    assert "stopped" not in before["cpu"]
    assert "device" not in before["cpu"], "upstream ends with an AssertionError of torch.cuda"
    cure = "install PyTorch's XPU wheel"
    assert "built for CUDA 12.8" in after["cuda"]["stopped"]
    assert cure in after["cuda"]["stopped"]
    assert after["cpu"]["device"] == "cpu"
    assert cure in after["cpu"]["logged"]
    for torch in ("cpu", "cuda"):
        assert cure in after[f"{torch}, forced"]["stopped"], "an XPU that cannot be had stops the start"
        assert cure in after[f"{torch}, help"]["said"]
    assert "Chosen: cpu, because" in after["cpu, help"]["said"]
    assert "Chosen: nothing, because the start would stop" in after["cuda, help"]["said"]


def test_an_operator_that_the_device_lacks_is_computed(starts: dict[str, Record]) -> None:
    assert starts["upstream"]["resize"] == "NotImplementedError"
    assert starts["patched"]["resize"] == "computed"


def test_products_that_are_wrong_without_an_error_are_told(starts: dict[str, Record]) -> None:
    assert starts["upstream"]["help"] == ""
    said = starts["patched"]["help"]
    assert "xpu:0 fp16: wrong results (linear all zero); update the driver, or start with --xpu-precision" in said


def test_fused_attention_is_not_called_where_it_is_known_to_fail(patched: Record, upstream: Record | None) -> None:
    found = patched["attention"]
    assert found["met"] == []
    assert found["off"] < 2e-3
    if upstream is not None:
        before = upstream["attention"]
        assert before["met"] == ["device lost", "nan rows"]
        assert found["bits"] == before["bits"], "a mask of rank 2 changes no bit"
        assert found["off"] <= 1.1 * before["off"], "the math back end is as exact as the fused kernel"


def test_every_layers_out_of_memory_is_recovered_from(patched: Record, upstream: Record | None) -> None:
    found = patched["recovery"]
    assert {found["vae"][text] for text in MEMORY} == {"tiled"}
    assert [found["upscale"][text] for text in TEXTS] == [3, 3, 3, 2, 1, 1]
    assert [found["interpolation"][text] for text in TEXTS] in ([4, 4, 4, 2, 1, 1], [None] * 6)
    assert [found["load"][text] for text in TEXTS] == [True] * 4 + [False] * 2
    if upstream is not None:
        before = upstream["recovery"]
        assert all("RuntimeError" in before["vae"][text] for text in TEXTS)
        assert {before["upscale"][text] for text in TEXTS} == {1}
        assert all(found["vae"][text] == before["vae"][text] for text in ("lost", "other"))


def test_a_card_comes_before_an_integrated_gpu_in_every_thread(patched: Record, upstream: Record | None) -> None:
    assert patched["devices"] == {"start": "xpu:1", "prompts": "xpu:1"}
    assert upstream is None or upstream["devices"] == {"start": "xpu:0", "prompts": "xpu:0"}


def test_a_lost_device_is_told(patched: Record, upstream: Record | None) -> None:
    assert patched["lost"] == {"survived": True, "told": True}
    assert upstream is None or upstream["lost"]["told"] is False


def test_a_checkpoint_is_recomputed_as_it_was_computed(patched: Record) -> None:
    assert patched["checkpoint"] == "ok"


def test_bf16_is_for_devices_that_have_it(patched: Record, upstream: Record | None) -> None:
    assert patched["bf16"] == "no bf16"
    assert upstream is None or upstream["bf16"] == "bf16"
