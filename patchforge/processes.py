"""Child processes: what of this process's environment they get, and the one place where they are started.

A child gets an allow-list. Secrets of the user (tokens, passwords, keys, whatever they are called) are not on it, so
code of a release, a pack or a package that is installed cannot read them from its environment. Nor can it from ours:
before the first child starts, this process is closed to others of the same user (:func:`close`).

What a child says is read no further than a bound, and a child that is ended takes along what it started.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, Popen, SubprocessError, TimeoutExpired
from typing import IO, TYPE_CHECKING, Any

from patchforge.errors import Damaged, NotChecked

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = [
    "DEVNULL",
    "HARDWARE",
    "NETWORK",
    "NIX",
    "PIP",
    "PIPE",
    "STDOUT",
    "CompletedProcess",
    "Popen",
    "SubprocessError",
    "TimeoutExpired",
    "close",
    "command_of",
    "end",
    "environment",
    "how_ended",
    "need_posix",
    "program",
    "run",
    "start",
    "workers",
]

MOST = 256 << 20  #: bytes of what a child says
_BLOCK = 1 << 16
_LOOK = 0.2  #: seconds

#: Where programs, home, temporary files and locale are; what Windows needs to start a program at all.
_BASE = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TMPDIR",
        "TEMP",
        "TMP",
        "TERM",
        "COLUMNS",
        "LINES",
        "LANG",
        "LANGUAGE",
        "TZ",
        "NO_COLOR",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "USERPROFILE",
        "USERNAME",
        "APPDATA",
        "LOCALAPPDATA",
        "PROGRAMDATA",
        "PROGRAMFILES",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NIX_SSL_CERT_FILE",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "LOCPATH",
        "LOCALE_ARCHIVE",
    ]
)
_BASE_PATTERN = re.compile(
    "LC_(ALL|ADDRESS|COLLATE|CTYPE|IDENTIFICATION|MEASUREMENT|MESSAGES|MONETARY|NAME|NUMERIC|PAPER|TELEPHONE|TIME)"
)
#: What reaches the network through a proxy. An address with a password in it is left out.
NETWORK = frozenset(
    ["http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"]
)
#: Which index pip asks, and how it reaches it: for pip alone.
PIP = NETWORK | {
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_NO_INDEX",
    "PIP_FIND_LINKS",
    "PIP_TRUSTED_HOST",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_PROXY",
    "PIP_CONFIG_FILE",
    "PIP_CACHE_DIR",
    "PIP_NO_CACHE_DIR",
    "PIP_TIMEOUT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "PIP_KEYRING_PROVIDER",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
}
#: What drivers, torch and its libraries read, for processes that are to see a GPU. ``*``: names that begin so.
HARDWARE = frozenset(
    [
        "CUDA_*",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_TF32_OVERRIDE",
        "CUBLAS_WORKSPACE_CONFIG",
        "ZE_*",
        "ZES_*",
        "ZEL_*",
        "ZET_*",
        "ONEAPI_*",
        "SYCL_*",
        "UR_*",
        "CCL_*",
        "IGC_*",
        "NEO_*",
        "NEOReadDebugKeys",
        "OverrideDefaultFP64Settings",
        "OCL_ICD_*",
        "IPEX_*",
        "PYTORCH_*",
        "TORCH_*",
        "TORCHINDUCTOR_*",
        "TRITON_*",
        "HIP_*",
        "HSA_*",
        "ROCR_*",
        "ROCM_*",
        "MIOPEN_*",
        "OMP_*",
        "KMP_*",
        "MKL_*",
        "ONEDNN_*",
        "DNNL_*",
        "OPENBLAS_*",
        "NIX_LD",
        "NIX_LD_LIBRARY_PATH",
    ]
)
#: Where Nix keeps things. Not NIX_CONFIG, which may hold access tokens.
NIX = frozenset(
    [
        "NIX_PATH",
        "NIX_REMOTE",
        "NIX_STORE_DIR",
        "NIX_STATE_DIR",
        "NIX_LOG_DIR",
        "NIX_LOCALSTATE_DIR",
        "NIX_CONF_DIR",
        "NIX_USER_CONF_FILES",
        "NIX_PROFILES",
    ]
)
#: Lists of folders. One that is relative, or empty, is the current folder, which may be a stranger's.
_FOLDERS = frozenset(["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH"])
#: No name that only begins as an allowed one is let through when it says that it holds a secret.
_SECRETIVE = re.compile(r"KEY|TOKEN|SECRET|PASS|CRED|AUTH|COOKIE|SESSION", re.IGNORECASE)
_USERINFO = re.compile(r"://[^/?#\s]*@")
_PR_SET_DUMPABLE = 4


def environment(
    extra: Mapping[str, str] | None = None,
    *,
    allow: Iterable[str] = (),
    inherited: Mapping[str, str] | None = None,
    passwords: bool = False,
) -> dict[str, str]:
    """The environment of a child: the base, the variables named in ``allow``, and ``extra`` over both.

    A name in ``allow`` that ends in ``*`` stands for those that begin so, but for names like SYCL_API_KEY. A variable
    with a password in an address is left out, unless ``passwords``. ``inherited`` stands for this process's own.
    Where programs and libraries are looked for, only absolute folders stay.
    """
    named = _BASE | {name for name in allow if not name.endswith("*")}
    beginnings = tuple(name[:-1] for name in allow if name.endswith("*"))

    def is_allowed(name: str) -> bool:
        if name in named or _BASE_PATTERN.fullmatch(name):
            return True
        return bool(beginnings) and name.startswith(beginnings) and not _SECRETIVE.search(name)

    kept = {
        name: _absolute(value) if name in _FOLDERS else value
        for name, value in (os.environ if inherited is None else inherited).items()
        if is_allowed(name) and (passwords or not _has_password(name, value))
    }
    return {name: value for name, value in kept.items() if value or name not in _FOLDERS} | dict(extra or {})


def _absolute(folders: str) -> str:
    return os.pathsep.join(folder for folder in folders.split(os.pathsep) if os.path.isabs(folder))  # noqa: PTH117


def _has_password(name: str, value: str) -> bool:
    return bool(_USERINFO.search(value)) or (name in NETWORK and "@" in value)


def need_posix(what: str) -> None:
    """NotChecked on a system where no process can be forked, or ended with all that it started, such as Windows."""
    if not (hasattr(os, "fork") and hasattr(os, "killpg")):
        do = "run it there; on Windows, in WSL"
        raise NotChecked(f"{what} does not run on this system", expected="Linux or macOS", found=sys.platform, do=do)


@functools.cache
def close() -> None:
    """Closes this process to others of the same user: on Linux they can read neither its environment nor its memory.

    A process with CAP_SYS_PTRACE, CAP_PERFMON or CAP_SYS_ADMIN, such as root's, still can; ``supervisor.py``
    takes these from what it starts. Nothing happens on other systems, or the second time.
    """
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - keeps start-up light

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextmanager
def workers(count: int, prepare: Callable[..., None] | None = None, *arguments: object) -> Iterator[Executor]:
    """Processes of our own, each with ``prepare(*arguments)`` run first: forked on Linux, where that is safe and quick.

    Ctrl-C does not reach them: one that ends with a lock of theirs in its hand would leave the others, and us, waiting.
    It ends the block, which ends them at once.
    """
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 - keeps start-up light
    from multiprocessing import get_context  # noqa: PLC0415

    context = get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(count, context, _begin, (prepare, arguments))
    with pool:
        try:
            yield pool
        except KeyboardInterrupt:
            threading.excepthook = lambda _: (
                None
            )  # the pool's own thread finds its tasks cancelled and its workers gone
            _kill(pool)
            raise


_TO_END = 5.0  # seconds


def _kill(pool: Any) -> None:
    """Ends the workers of a ``ProcessPoolExecutor``, as its ``kill_workers()`` does from Python 3.14 on."""
    for process in list((pool._processes or {}).values()):  # noqa: SLF001
        process.kill()
    pool._call_queue._reader.close()  # noqa: SLF001 - or the thread that writes tasks waits for somebody to read them
    watching = pool._executor_manager_thread  # noqa: SLF001
    pool.shutdown(wait=False, cancel_futures=True)
    if watching:
        watching.join(_TO_END)  # one that closes things while Python ends would have it say so


def _begin(prepare: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if prepare:
        prepare(*arguments)


def program(name: str) -> str:
    """Where a program on PATH is; "" where there is none. Relative folders on PATH do not count."""
    file = f"{name}.exe" if os.name == "nt" else name
    places = (os.path.join(folder, file) for folder in os.get_exec_path() if os.path.isabs(folder))  # noqa: PTH117, PTH118
    return next((place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), "")  # noqa: PTH113


def command_of(command: Sequence[str | Path]) -> list[str | Path]:
    """A command as it is to be started. Windows would look for its program in the current folder first.

    FileNotFoundError there for a program that is not on PATH.
    """
    name = str(command[0])
    if os.name != "nt" or os.path.dirname(name):  # noqa: PTH120
        return list(command)
    if not (place := program(name)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return [place, *command[1:]]


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    most: int = MOST,
    silence: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """``subprocess.run`` for a child that gets ``env``, or :func:`environment`; without ``input`` it reads nothing.

    The status is not checked unless that is asked for. With ``capture_output``, Damaged for a child that says more than
    ``most`` bytes, and TimeoutExpired for one that says nothing for its first ``silence`` seconds.
    """
    if not options.pop("capture_output", False):
        if "input" not in options:
            options.setdefault("stdin", DEVNULL)
        options.setdefault("check", False)
        close()
        return subprocess.run(command_of(command), env=environment() if env is None else dict(env), **options)  # noqa: PLW1510
    timeout, check, given = (options.pop(name, None) for name in ("timeout", "check", "input"))
    text = options.pop("text", False)
    if given is not None:
        options["stdin"] = PIPE
    process = start(command, env=env, stdout=PIPE, stderr=PIPE, start_new_session=True, **options)
    said = [_Words(pipe, most) for pipe in (process.stdout, process.stderr) if pipe]
    try:
        _feed(process, given.encode() if isinstance(given, str) else given)
        _wait(process, said, timeout, silence)
    except BaseException:
        end(process)
        raise
    out, told = (stream.text() if text else bytes(stream.data) for stream in said)
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out, told)
    return CompletedProcess(command, process.returncode, out, told)


class _Words(threading.Thread):
    """Reads what a child says through a pipe, up to a bound; then the child finds the pipe closed."""

    def __init__(self, pipe: IO[bytes], most: int) -> None:
        super().__init__(daemon=True)
        self._pipe, self.most, self.data = pipe, most, bytearray()
        self.start()

    def run(self) -> None:
        with self._pipe, suppress(OSError, ValueError):
            while len(self.data) <= self.most and (block := os.read(self._pipe.fileno(), _BLOCK)):
                self.data += block

    def text(self) -> str:
        return io.TextIOWrapper(io.BytesIO(self.data), errors="replace").read()


def _feed(process: subprocess.Popen[Any], given: bytes | None) -> None:
    def write() -> None:
        with suppress(OSError, ValueError), process.stdin or io.BytesIO() as pipe:
            pipe.write(given or b"")

    if given is not None:
        threading.Thread(target=write, daemon=True).start()


def _wait(process: subprocess.Popen[Any], said: Sequence[_Words], timeout: float | None, silence: float | None) -> None:
    begun = time.monotonic()
    while process.poll() is None or any(stream.is_alive() for stream in said):
        for stream in said:
            stream.join(_LOOK)
        _check_bounds(process, said)
        if not any(stream.is_alive() for stream in said):
            with suppress(TimeoutExpired):
                process.wait(_LOOK)
        waited = time.monotonic() - begun
        for seconds in (timeout, None if any(stream.data for stream in said) else silence):
            if seconds is not None and waited > seconds:
                raise TimeoutExpired(process.args, seconds, *(bytes(stream.data) for stream in said))
    _check_bounds(process, said)  # it may have ended because nobody read any further


def _check_bounds(process: subprocess.Popen[Any], said: Sequence[_Words]) -> None:
    for stream in said:
        if len(stream.data) > stream.most:
            name = process.args if isinstance(process.args, str) else next(map(str, process.args))  # type: ignore[arg-type]
            raise Damaged(
                f"{Path(name).name} printed too much",
                expected=f"at most {stream.most} bytes",
                do="find out why it does; nothing of it was used",
            )


def end(process: subprocess.Popen[Any]) -> None:
    """Kills a child that :func:`run` started, or one that has a session of its own, with what it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def how_ended(status: int) -> str:
    """What to say of a child's status."""
    if status < 0:
        return f"was ended by signal {-status} ({signal.strsignal(-status)})"
    return f"ended with status {status}"


def start(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[Any]:
    """``subprocess.Popen`` for a child that gets ``env``, or :func:`environment`."""
    close()
    options.setdefault("stdin", DEVNULL)
    return subprocess.Popen(command_of(command), env=environment() if env is None else dict(env), **options)
