"""The sessions: which there are for a device and a side, and that all that they name exists."""

from __future__ import annotations

import pytest

from emulator import presets
from patchforge.trial.model import Device, TrialSide
from patchforge.trial.verdicts import plan
from patchforge.trial.verdicts.checks import TESTS
from patchforge.trial.verdicts.plan import REFERENCE, SESSIONS, Session
from patchforge.trial.workflows.library import load

EMULATED = Device("xpu", "b580", "rng=cpu")


def names(device: Device, side: TrialSide, *wanted: str) -> list[str]:
    return [session.name for session in plan.sessions(device, side, wanted)]


@pytest.mark.parametrize("session", [REFERENCE, *SESSIONS], ids=lambda session: session.name)
def test_all_tests_of_a_session_exist(session: Session) -> None:
    assert session.tests
    assert set(session.tests) <= {"workflows", *TESTS, *load()}


def test_every_test_is_in_a_session() -> None:
    assert TESTS.keys() - {"loads"} <= {name for session in SESSIONS for name in session.tests}  # loads: of node packs


def test_names_are_unique() -> None:
    listed = [session.name for session in (REFERENCE, *SESSIONS)]
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_the_emulator_knows_a_sessions_device(session: Session) -> None:
    device = session.device(EMULATED)
    assert presets.devices(device.emulated)
    assert presets.parse_options(device.options).same_random_numbers


def test_what_needs_an_emulated_device_is_left_out_on_a_real_one() -> None:
    real, emulated = names(Device("xpu"), TrialSide.PATCHED), names(EMULATED, TrialSide.PATCHED)
    assert emulated == [session.name for session in SESSIONS]
    assert set(emulated) - set(real) == {session.name for session in SESSIONS if session.emulated_only}
    assert "workflows" in real


def test_upstream_is_compared_where_the_patches_are_to_make_a_difference() -> None:
    assert names(EMULATED, TrialSide.UPSTREAM) == [
        session.name for session in SESSIONS if TrialSide.UPSTREAM in session.sides
    ]
    assert names(Device("cuda"), TrialSide.UPSTREAM) == ["workflows"]


def test_sessions_by_name_keep_their_order() -> None:
    assert names(EMULATED, TrialSide.PATCHED, "small-memory", "workflows") == ["workflows", "small-memory"]
    assert names(Device("xpu"), TrialSide.PATCHED, "small-memory") == []


def test_a_session_changes_an_emulated_device_only() -> None:
    session = Session("one", "One", ("api",), emulated="two", options=("memory=1G", "cuda=declared"))
    assert session.device(EMULATED) == Device("xpu", "two", "rng=cpu;memory=1G;cuda=declared")
    assert session.device(Device("xpu")) == Device("xpu")
    assert Session("two", "Two", ("api",)).device(EMULATED) == EMULATED


@pytest.mark.parametrize(
    ("name", "device", "fused"),
    [
        ("workflows", Device("xpu", "b580"), True),
        ("workflows", Device("xpu"), False),
        ("workflows", Device("cpu"), False),
        ("defaults", Device("xpu", "b580"), False),
    ],
)
def test_torch_decides_on_attention_only_where_all_workflows_are_compared_as_bits(
    name: str, device: Device, fused: bool
) -> None:
    (session,) = [session for session in plan.SESSIONS if session.name == name]
    assert ("--xpu-attention=fused" in plan.flags(session, TrialSide.PATCHED, device)) is fused


def test_flags_of_the_patched_tree_and_of_cuda() -> None:
    session = Session("one", "One", (), ("--a",), patched_flags=("--b",))
    assert plan.flags(session, TrialSide.PATCHED, Device("cuda")) == ("--a", "--b", "--disable-cuda-malloc")
    assert plan.flags(session, TrialSide.UPSTREAM, Device("xpu")) == ("--a",)
