"""What a command is at: soon on a terminal, written over there, and a line for what lasts elsewhere."""

import io
import time

import pytest

from patchforge import progress, terminal


class Screen(io.StringIO):
    def __init__(self, *, live: bool) -> None:
        super().__init__()
        self.live = live

    def isatty(self) -> bool:
        return self.live

    def fileno(self) -> int:
        return 2


def shown(screen: Screen, wanted: str) -> None:
    """Waits until something is on the screen; a test that hangs fails by its own end."""
    end = time.monotonic() + 20
    while wanted not in screen.getvalue() and time.monotonic() < end:
        time.sleep(0.02)
    assert wanted in screen.getvalue()


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((60, 20)))


def test_on_a_terminal_one_line_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(live=True)
    with progress.shown(screen):
        for item in progress.each([7], "converting \x1b[2J", 9):
            assert item == 7
            shown(screen, "converting \\x1b[2J ... 1 of 9 ")
        text = io.StringIO()
        terminal.Guarded(text).write("done\n")
        assert screen.getvalue().endswith("\r\033[K")
    assert "\n" not in screen.getvalue()
    assert all(len(part) < 70 for part in screen.getvalue().split("\r"))


@pytest.mark.parametrize("live", [False, True])
def test_elsewhere_what_lasts_has_a_line(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb" if live else "xterm")
    screen = Screen(live=live)
    with progress.shown(screen):
        progress.step("soon over")
        progress.step("converting", "1 of 9")
        shown(screen, "converting ...\n")
        progress.step("converting", "2 of 9")
        progress.step("")
    assert screen.getvalue() == "converting ...\n"


def test_without_anybody_nothing_is_said() -> None:
    progress.step("converting")
    progress.erase()
    with progress.shown(None):
        progress.step("converting")
    assert list(progress.each("ab", "reading", 2)) == ["a", "b"]
