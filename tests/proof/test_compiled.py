"""torch.compile makes the same graphs of a patched release's models as of upstream's, with no break for a hook."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.releases import NEEDED, run_in, write_release

pytestmark = NEEDED

FLAGS = ("--cpu", "--use-pytorch-cross-attention")


@pytest.mark.parametrize("version", ["v0.3.47", "v0.3.77", "v0.12.0", "v0.21.0", "v0.25.0", "v0.32.0"])
def test_hooks_do_not_change_what_is_compiled(version: str, tmp_path: Path) -> None:
    by_side = {
        side: run_in(write_release(version, side, tmp_path / side), "run_compiled.py", *FLAGS)
        for side in ("upstream", "patched")
    }
    assert {side: (answers["device"], answers["hooks"]) for side, answers in by_side.items()} == {
        "upstream": ("cpu", False),
        "patched": ("cpu", True),
    }
    assert by_side["patched"]["models"] == by_side["upstream"]["models"]
    for model in by_side["patched"]["models"].values():
        assert (model["graphs"], model["breaks"]) == (1, [])
        assert len(model["operators"][0]) > 100
