"""In which Python a server runs: with real processes, and with trees that are like Linux's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from patchforge.operate import served

needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").is_file(), reason="needs Linux's /proc")
_LISTEN = "import socket\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)\ninput()"


@contextmanager
def listening(*command: str | Path, **more: str) -> Iterator[str]:
    """The address of a process that listens."""
    process = subprocess.Popen(
        [*command, "-c", _LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **more}
    )
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.communicate("\n")


def environment_in(folder: Path) -> Path:
    """An environment of its own, as venv makes it: a link is all that tells it from the Python that it is of."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.symlink_to(os.path.realpath(sys.executable))
    (folder / "pyvenv.cfg").write_text(f"home = {Path(os.path.realpath(sys.executable)).parent}\n")
    return python


@needs_proc
def test_the_environment_that_a_process_was_started_in(tmp_path: Path) -> None:
    python = environment_in(tmp_path / "one")
    with listening(python, ONEAPI_DEVICE_SELECTOR="level_zero:1") as url:
        server = served.of(url)
    assert (server.python, server.why) == (str(python), "")
    assert server.environment["ONEAPI_DEVICE_SELECTOR"] == "level_zero:1"
    with listening("env", f"PATH={python.parent}:/usr/bin:/bin", "python") as url:
        assert served.of(url.replace("127.0.0.1", "localhost")).python == str(python)


@needs_proc
def test_where_it_cannot_be_told_it_says_why() -> None:
    with listening(sys.executable) as url:
        pass
    assert "no process" in served.of(url).why
    assert "another machine" in served.of("http://192.0.2.1:8188").why


def machine(proc: Path, exe: str, called: str) -> Path:
    """A process 7 that listens on port 8188."""
    (proc / "net").mkdir(parents=True)
    row = "   0: 0100007F:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100\n"
    (proc / "net" / "tcp").write_text(f"  sl  local_address rem_address   st\n{row}")
    (proc / "7" / "fd").mkdir(parents=True)
    (proc / "7" / "fd" / "3").symlink_to("socket:[4242]")
    (proc / "7" / "exe").symlink_to(exe)
    (proc / "7" / "cwd").symlink_to("/")
    (proc / "7" / "cmdline").write_text(f"{called}\0main.py\0")
    (proc / "7" / "environ").write_text("PATH=/usr/bin\0")
    return proc


def test_what_is_no_python_is_never_run(tmp_path: Path) -> None:
    """A forwarder in front of a container, or nginx."""
    proc = machine(tmp_path, "/bin/sh", "/bin/sh")
    assert served.of("http://127.0.0.1:8188", proc).python == ""
    assert "process 7" in served.of("http://127.0.0.1:8188", proc).why


def test_a_process_of_another_user_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root would run what that user put in the place of a Python."""
    python = os.path.realpath(sys.executable)
    proc = machine(tmp_path, python, python)
    assert served.of("http://127.0.0.1:8188", proc).python == python
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert served.of("http://127.0.0.1:8188", proc).python == ""
    assert "not this user's" in served.of("http://127.0.0.1:8188", proc).why
