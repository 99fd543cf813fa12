"""Starts a release's own server on a free loopback port, under a supervisor, and always stops it."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from patchforge import bounded, processes, web
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.trial.model import OWN_PACK
from patchforge.trial.server.client import HOST, Client
from patchforge.trial.server.environment import COMPANIONS, Environment
from patchforge.trial.server.log import ServerLog
from patchforge.trial.server.supervisor import Supervised

PACK = Path(__file__).parent / "pack"
_ATTEMPTS = 3  # a port that was free may be taken before the server has it
_LAST_LINES = 25
_BROKEN = 20  # errors in a row while it starts are no coincidence
_TAKEN = re.compile(r"Errno (98|48)\b|already in use")
_ALWAYS = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


class ComfyuiServer:
    """The server of ``tree`` while the block runs.

    ``variables`` are added to what drivers and torch read of this process's environment, ``arguments`` to the command
    line as they are; ``timeout`` is how many seconds a start may take. ``log`` gets everything the server prints.
    ``remove`` are folders that the supervisor removes if this process is killed. Raises CheckFailed with the last log
    lines if the server does not start.
    """

    client: Client

    def __init__(
        self,
        tree: Path,
        environment: Environment,
        *,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        log: Path,
        timeout: float,
        remove: Sequence[Path] = (),
    ) -> None:
        self.tree, self.environment, self.arguments = tree.absolute(), environment, tuple(arguments)
        self.variables, self.log, self.timeout, self.remove = dict(variables or {}), log, timeout, tuple(remove)
        self.printed = ServerLog(log)
        self._supervised: Supervised | None = None
        self._output: IO[bytes] | None = None

    def __enter__(self) -> Self:
        deadline = time.monotonic() + self.timeout
        for left in reversed(range(_ATTEMPTS)):
            try:
                self._start(deadline)
            except BaseException as error:
                self.stop()
                if left and isinstance(error, CheckFailed) and _TAKEN.search(str(error)):
                    continue
                raise
            break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the server's process is there."""
        return self._supervised is not None and self._supervised.status is None

    @property
    def pid(self) -> int:
        """The server's process; 0 when it was not started."""
        return self._supervised.pid if self._supervised else 0

    def log_lines(self, since: int = 0) -> tuple[str, ...]:
        """What the server has printed last, after that byte of its log."""
        return self.printed.lines(since)

    def stop(self) -> None:
        """Ends the server and all its children; nothing happens the second time."""
        if self._supervised:
            self._supervised.stop()
            self._supervised = None
        if self._output:
            self._output.close()
            self._output = None

    def command(self, port: int) -> list[str]:
        """The command line, with those of our flags that the release has."""
        has = flags(self.tree)
        own = ["--listen", HOST, "--port", str(port)]
        own += [flag for flag in ("--disable-auto-launch", "--disable-api-nodes") if flag in has]
        if "--front-end-root" in has and self._without_front_end():
            own += ["--front-end-root", str(_empty_front_end(self.tree))]
        return [str(self.environment.python), "main.py", *own, *self.arguments]

    def _without_front_end(self) -> bool:
        requirements = self.tree / "requirements.txt"
        wanted = COMPANIONS[0] in bounded.head(requirements)
        return wanted and COMPANIONS[0] not in self.environment.packages

    def _start(self, deadline: float) -> None:
        port = _free_port()
        inherited = processes.environment(allow=processes.HARDWARE)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._output = self.log.open("wb")
        self._supervised = Supervised(
            self.command(port),
            remove=self.remove,
            cwd=self.tree,
            variables=inherited | _ALWAYS | self.variables,
            output=self._output,
        )
        self.client = Client(port, alive=lambda: self.alive, log=self.printed)
        broken = 0
        while time.monotonic() < deadline:
            if not self.alive:
                raise self._failed("the server ended before it was ready")
            status = _status(port)
            if status == http.client.OK:
                return
            broken += status >= http.client.INTERNAL_SERVER_ERROR
            if broken > _BROKEN:
                raise self._failed(f"the server answers /system_stats with an error, status {status}")
            time.sleep(0.1)
        raise self._failed(f"the server was not ready after {self.timeout:g} s")

    def _failed(self, problem: str) -> PatchforgeError:
        lines = "\n".join(["", *self.log_lines()[-_LAST_LINES:]])
        return CheckFailed(
            problem, expected="an answer to /system_stats", found=f"in its log{lines}", do=f"read {self.log}"
        )


def flags(tree: Path) -> frozenset[str]:
    """The flags that a release's command line has, ours of a patched one among them."""
    files = (tree / "comfy" / "cli_args.py", *sorted((tree / "comfy" / "patchforge_xpu").glob("*.py")))
    text = "".join(map(bounded.head, files))
    return frozenset(re.findall(r"""["'](--[a-z0-9][a-z0-9-]*)["']""", text))


def link_models(weights: Path, tree: Path) -> None:
    """Puts generated files (``models/...`` and ``input/...`` in ``weights``) and the trial pack into a tree.

    Models are linked. Inputs are copied: newer releases refuse a link that leads out of the folder. What the tree has
    already is replaced.
    """
    for source in sorted(weights.rglob("*")):
        at = source.relative_to(weights)
        if at.parts[0] in {"models", "input"} and source.is_file():
            target = tree / at
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            if at.parts[0] == "models":
                target.symlink_to(source.absolute())
            else:
                shutil.copyfile(source, target)
    pack = tree / "custom_nodes" / OWN_PACK
    shutil.rmtree(pack, ignore_errors=True)
    shutil.copytree(PACK, pack, ignore=shutil.ignore_patterns("__pycache__"))


def _empty_front_end(tree: Path) -> Path:
    folder = tree / ".patchforge-front-end"
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text("<!doctype html><title>no front end</title>\n")
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _status(port: int) -> int:
    """The status that /system_stats answers with; 0 for something that is not HTTP."""
    try:
        limits = web.Limits(1 << 20, 5.0, redirects=0, patient=True)
        with web.opened(f"http://{HOST}:{port}/system_stats", limits=limits) as answer:
            return answer.status
    except PatchforgeError:
        return 0
