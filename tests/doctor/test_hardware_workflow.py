"""The workflow for self-hosted runners keeps to what makes it safe to have one."""

from __future__ import annotations

import re

from tests.support import ROOT

WORKFLOW = (ROOT / ".github" / "workflows" / "hardware.yml").read_text("utf-8")


def block(key: str) -> str:
    """The lines below a key of the top level."""
    match = re.search(rf"^{key}:\n((?:  .*\n|\n)+)", WORKFLOW, re.MULTILINE)
    assert match, key
    return match[1]


def test_it_is_started_by_hand_only() -> None:
    assert re.findall(r"^  (\w+):", block("on"), re.MULTILINE) == ["workflow_dispatch"]


def test_it_may_read_and_nothing_else() -> None:
    assert block("permissions").split() == ["contents:", "read"]
    assert WORKFLOW.count("permissions:") == 1


def test_actions_are_pinned_by_commit() -> None:
    uses = re.findall(r"uses: (.*)", WORKFLOW)
    assert uses
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use) for use in uses)


def test_no_input_is_pasted_into_a_script() -> None:
    scripts = re.findall(r"^( +)run: \|\n((?:\1 +.*\n|\n)+)", WORKFLOW, re.MULTILINE)
    assert len(scripts) == 4
    assert not any("${{" in script for _, script in scripts)
