"""Ends a command, and removes folders, when the process that wanted them ends in any way, kill -9 included.

Run as ``python supervisor.py --remove DIR ... -- COMMAND ...`` with a pipe as standard input. A byte on it ends the
command and keeps the folders. Its end (the other process is gone) or SIGTERM ends the command and removes them; there
may be no command. Standard output is one line, the command's process id. The command has a process group of its own,
which gets SIGTERM, then SIGKILL. On Linux it also dies with the supervisor, and what its children started in other
groups is killed, too. Exit status: the command's, or 0 when it was ended here. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

GRACE = 5.0  #: seconds between SIGTERM and SIGKILL
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAPBSET_DROP = 24
#: What lets root's processes read the memory and the environment of others: CAP_SYS_MODULE, CAP_SYS_RAWIO,
#: CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON and CAP_BPF. Where there are none of these, nothing happens.
_NOT_HANDED_ON = (16, 17, 19, 21, 38, 39)
_LINUX = sys.platform == "linux"


class Supervised:
    """A command under a supervisor. ``output`` gets what it writes; ``pid`` is its process id and group."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        remove: Sequence[Path] = (),
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
    ) -> None:
        from patchforge import processes  # noqa: PLC0415 - as a script, this file is by itself

        removals = [word for folder in remove for word in ("--remove", str(folder.absolute()))]
        self._supervisor = processes.start(
            [sys.executable, "-I", "-S", __file__, *removals, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=cwd,
            env=variables if variables is not None else processes.environment(),
            start_new_session=True,
        )
        first = self._supervisor.stdout.readline() if self._supervisor.stdout else b""
        self.pid = int(first) if first.strip() else 0

    @property
    def status(self) -> int | None:
        """The exit status when the command has ended."""
        return self._supervisor.poll()

    def wait(self, seconds: float) -> int | None:
        """The exit status; None when the command has not ended within ``seconds``."""
        with suppress(subprocess.TimeoutExpired):
            return self._supervisor.wait(seconds)
        return None

    def stop(self) -> None:
        """Ends the command and all that it started; folders are kept."""
        with suppress(OSError):
            os.write(self._supervisor.stdin.fileno(), b"s")  # type: ignore[union-attr]
        try:
            self._supervisor.wait(GRACE + 10)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        if self.pid:
            _signal_group(self.pid, signal.SIGKILL)  # the supervisor may have been killed
        for pipe in (self._supervisor.stdin, self._supervisor.stdout):
            if pipe:
                pipe.close()


@contextmanager
def temporary_folder(prefix: str = "patchforge-") -> Iterator[Path]:
    """A folder that is gone afterwards, also when this process is killed."""
    folder = Path(tempfile.gettempdir(), f"{prefix}{os.getpid()}-{time.monotonic_ns():x}")
    supervised = Supervised([], remove=[folder])
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        _remove(folder)
        supervised.stop()


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with(supervisor: int) -> Callable[[], None]:
    def prepare() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for capability in _NOT_HANDED_ON:
            _prctl(_PR_CAPBSET_DROP, capability)
        if os.getppid() != supervisor:  # it died before it could be asked
            os._exit(1)

    return prepare


def _signal_group(group: int, number: int) -> bool:
    """False when the group is empty."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says PermissionError of zombies
        return False
    return True


def _end_group(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + GRACE
    _signal_group(process.pid, signal.SIGTERM)
    while time.monotonic() < deadline:
        if process.poll() is not None:
            _reap()
        if not _signal_group(process.pid, 0):
            break
        time.sleep(0.02)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    _end_orphans()


def _reap() -> None:
    """Takes note of adopted children that have ended; until then they count as members of their group."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_orphans() -> None:
    """Kills what the command left in groups of their own: as a subreaper, the supervisor is their parent now."""
    while _LINUX and (orphans := _children()):
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    own = str(os.getpid())
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            if entry.read_text(errors="replace").rpartition(")")[2].split()[1] == own:
                children.append(int(entry.parent.name))
    return children


def _remove(folder: Path) -> None:
    """Removes a folder, also while something is still being written there."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _told_to_end(process: subprocess.Popen[bytes] | None, asked: threading.Event) -> bool | None:
    """Waits. None when the command ended by itself, True to keep the folders, False to remove them."""
    while True:
        if asked.is_set():
            return False
        if process is not None and process.poll() is not None:
            return None
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable:
            return bool(os.read(0, 1))


def main(arguments: Sequence[str]) -> int:
    at = arguments.index("--")
    folders = [Path(word) for word in arguments[:at] if word != "--remove"]
    command = list(arguments[at + 1 :])
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    process = None
    if command:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - this process has one thread
        )
    os.write(1, f"{process.pid if process else os.getpid()}\n".encode())
    keep = _told_to_end(process, asked)
    if process is not None:
        _end_group(process)
    if keep is False:
        for folder in folders:
            _remove(folder)
    return process.returncode if process is not None and keep is None else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
