"""The one door to git: every git of ours is started here, with the same environment and the same settings.

Neither the caller's GIT_* variables nor the settings of the machine and the user play a part, but for how the network
is reached (``_OF_USER``). A repository that is not ours is never opened itself: see patchforge/git/borrowed.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from patchforge import bounded, faults, processes
from patchforge.errors import NotChecked, PatchforgeError, TryAgain
from patchforge.git.address import LOOPBACK_HTTP, check_address, looks_like_address
from patchforge.processes import NETWORK, environment

#: Reading a repository fetches nothing. GIT_NO_LAZY_FETCH needs git 2.45; for older ones no transport is allowed.
OFFLINE = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
_PLAIN = {
    **OFFLINE,
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": ":",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
}
#: Nothing is started (hooks, monitors, pagers, signatures, collections), and nothing of a file's bytes is changed. An
#: index beside the objects (commit-graph, multi-pack-index) can say something else than the objects do.
_SETTINGS = (
    ("core.fsmonitor", "false"),
    ("core.hooksPath", os.devnull),
    ("core.attributesFile", os.devnull),
    ("core.excludesFile", os.devnull),
    ("core.autocrlf", "false"),
    ("core.safecrlf", "false"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.commitGraph", "false"),
    ("core.multiPackIndex", "false"),
    ("commit.gpgSign", "false"),
    ("tag.gpgSign", "false"),
    ("log.showSignature", "false"),
    ("gc.auto", "0"),
    ("gc.autoDetach", "false"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("diff.ignoreSubmodules", "all"),
    ("credential.helper", ""),
)
_SILENCE = 8  #: seconds until a host, its name, or the way to it has let git say or receive something
#: For the network: no questions over ssh, and an end to a host that sends less than 1,000 bytes a second.
_REACHING = (
    ("core.sshCommand", f"ssh -oBatchMode=yes -oConnectTimeout={_SILENCE}"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", str(_SILENCE)),
)
_REACHES = frozenset({"clone", "fetch", "ls-remote", "pull", "push"})
_LISTS = "ls-remote"  #: whose answer is short, and comes at once
#: What the user's and the machine's own settings may say: proxies, certificates, helpers for credentials, mirrors.
_OF_USER = re.compile(
    r"http\.(?:.+\.)?(?:proxy\w*|ssl\w+|schannel\w+|version|lowspeed\w+)|credential\..+|core\.sshcommand|ssh\.variant"
    r"|url\..+\.(?:push)?insteadof|safe\.directory",
    re.IGNORECASE | re.DOTALL,
)
_SECRET = re.compile(r"http\.(?:.+\.)?extraheader|credential\..+\.helper", re.IGNORECASE | re.DOTALL)
_TAKES_A_VALUE = frozenset({"-c", "-C", "--git-dir", "--work-tree"})
_PASSING = re.compile(
    r"could not resolve host|connection (?:timed out|reset|refused)|couldn't connect|early eof|timed out|rpc failed"
    r"|unexpected disconnect|the remote end hung up|http 5\d\d|error: 5\d\d|error: 429|ssl_error_syscall"
    r"|operation too slow|no answer within",
    re.IGNORECASE,
)
_PAUSE = 1.0
_ELSEWHERE = Path(Path().absolute().anchor)  #: a folder without a repository
_LONGEST = 3600.0  #: seconds after which a git cannot be well
_PROGRESS = re.compile(r"[^\r\n]*\r(?!\n)")  #: a line that the next one overwrites

Settings = Sequence[tuple[str, str]]


def is_passing(said: str) -> bool:
    """Whether git's words tell of the network or the other side's health, so that trying again may help."""
    return bool(_PASSING.search(said))


def verb_of(arguments: Sequence[str]) -> str:
    """The command among git's arguments, after the options that come before it."""
    left = iter(arguments)
    for word in left:
        if word in _TAKES_A_VALUE:
            next(left, None)
        elif not word.startswith("-"):
            return word
    return ""


def git_environment(
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    repository: Path | None = None,
    given: Mapping[str, str] | None = None,
    settings: Settings = (),
) -> dict[str, str]:
    """The whole environment of a git command.

    ``repository``: its git folder, which must be one of ours. ``given``: further variables; settings among them
    (GIT_CONFIG_COUNT, …) are added to ours. ``settings`` come last. With a secret header, or a helper that gives a
    secret, among them no redirect is followed and no helper of the user's is asked. PatchforgeError for an address that
    git is not to be given.
    """
    variables, more = _settings_in(given or {})
    more += settings
    reaching = verb_of(arguments) in _REACHES
    kept: dict[str, str] = {"GIT_CEILING_DIRECTORIES": str(folder.absolute().parent)} if folder else {}
    if repository:
        kept["GIT_DIR"] = str(repository)
    wanted = [
        *_SETTINGS,
        *(_network_settings(secret=any(_SECRET.fullmatch(key) for key, _ in more)) if reaching else ()),
    ]
    if reaching:
        kept |= {"GIT_ALLOW_PROTOCOL": _protocols(arguments, folder), "GIT_NO_LAZY_FETCH": "0"}
    return environment(
        {**_PLAIN, **kept, **variables, **_as_variables([*wanted, *more])},
        allow=[*NETWORK, "SSH_AUTH_SOCK"] if reaching else (),
    )


def start_git(
    *arguments: str, repository: Path, settings: Settings = (), stderr: int | IO[bytes] = -1
) -> subprocess.Popen[bytes]:
    """A running git that reads a repository of ours, with pipes to it. PatchforgeError when git is not installed."""
    try:
        return processes.start(
            ["git", *arguments],
            cwd=repository,
            env=git_environment(arguments, repository=repository, settings=settings),
            stdin=-1,
            stdout=-1,
            stderr=stderr,
        )
    except OSError as error:
        raise _absent(error) from error


def git_bytes(*arguments: str, repository: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """What a git that reads a repository of ours prints, as it is. PatchforgeError when git is not installed."""
    try:
        return processes.run(
            ["git", *arguments],
            cwd=repository,
            env=git_environment(arguments, repository=repository),
            input=given,
            capture_output=True,
            timeout=_LONGEST,
        )
    except OSError as error:
        raise _absent(error) from error


def _absent(error: OSError) -> NotChecked:
    missing = isinstance(error, FileNotFoundError) and error.filename == "git"
    return NotChecked(
        "git is not installed" if missing else "git cannot be run",
        expected="a git command on PATH",
        found="" if missing else faults.reason(error),
        do="install git; without it, name a folder (apply DIR --in-place) or files (apply --from ARCHIVE|DIR)",
    )


def git(
    *arguments: str,
    folder: Path | None = None,
    repository: Path | None = None,
    environment: Mapping[str, str] | None = None,
    settings: Settings = (),
    given: str = "",
    timeout: float | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """What became of a git command, which gets ``pass_fds``; status 124 after ``timeout`` seconds, and 128
    where ``folder`` is not there. NotChecked without git.

    Without ``folder`` it runs where no repository is, so that none is read by accident.
    """
    arguments = arguments if folder or repository else tuple(_from_anywhere(arguments))
    if any("\0" in word for word in arguments):
        raise PatchforgeError("a name in git cannot hold a zero byte", found=repr(arguments[-1]), do="write another")
    verb = verb_of(arguments)
    try:
        done = processes.run(
            ["git", *_talking(arguments, verb)],
            cwd=folder or repository or _ELSEWHERE,
            env=git_environment(arguments, folder=folder, repository=repository, given=environment, settings=settings),
            input=given.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=timeout or (_SILENCE if verb == _LISTS else _LONGEST),
            silence=_SILENCE if verb in _REACHES else None,
            pass_fds=pass_fds,
        )
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(arguments, 124, "", f"fatal: no answer within {error.timeout:g} seconds")
    except OSError as error:
        if error.filename != "git" and isinstance(error, FileNotFoundError):
            return subprocess.CompletedProcess(arguments, 128, "", f"fatal: there is no {error.filename}")
        raise _absent(error) from error
    said, told = done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "replace")
    return subprocess.CompletedProcess(arguments, done.returncode, said, _PROGRESS.sub("", told))


def run_git(
    *arguments: str,
    folder: Path | None = None,
    repository: Path | None = None,
    environment: Mapping[str, str] | None = None,
    settings: Settings = (),
    hide: Callable[[str], str] = str,
    tries: int = 1,
    pass_fds: Sequence[int] = (),
) -> str:
    """What git prints. ``tries``: how often to begin again when the network failed; TryAgain when it still fails.

    ``hide`` takes secrets out of git's words before they are shown.
    """
    begun = time.monotonic()
    for attempt in range(1, tries + 1):
        done = git(
            *arguments,
            folder=folder,
            repository=repository,
            environment=environment,
            settings=settings,
            pass_fds=pass_fds,
        )
        if done.returncode == 0:
            return done.stdout
        said = hide(done.stderr.strip())
        pause = _PAUSE * 2 ** (attempt - 1)
        if not is_passing(said) or time.monotonic() - begun + pause > _SILENCE / 2:
            break
        if attempt < tries:
            time.sleep(pause)
    verb = verb_of(arguments)
    if is_passing(said):
        raise TryAgain(f"git {verb} did not reach the server", found=said, do="run this again later")
    raise PatchforgeError(f"git {verb} failed", found=said or f"status {done.returncode}", do="read git's reason")


def watch_git(*arguments: str, folder: Path, hear: Callable[[str], None]) -> int:
    """Runs a git command and passes on each line of what it says of its progress; its exit status."""
    try:
        process = processes.start(
            ["git", *_talking(arguments, verb_of(arguments))],
            cwd=folder,
            env=git_environment(arguments, folder=folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise _absent(error) from error
    silent = threading.Event()

    def stop() -> None:
        silent.set()
        processes.end(process)

    watch = threading.Timer(_SILENCE, stop)
    watch.start()
    with process:
        try:
            for line in bounded.lines(process.stderr) if process.stderr else ():
                watch.cancel()
                hear(line.strip())
        except BaseException:
            processes.end(process)
            raise
        finally:
            watch.cancel()
    if silent.is_set():
        hear(f"fatal: no answer within {_SILENCE} seconds")
    return process.returncode


def _talking(arguments: Sequence[str], verb: str) -> list[str]:
    """The command so that it says nothing of its own, and shows what comes from the other side as it comes."""
    if verb not in _REACHES - {_LISTS}:
        return list(arguments)
    words = [word for word in arguments if word not in {"--quiet", "--progress"}]
    at = words.index(verb) + 1
    return [*words[:at], "--quiet", "--progress", *words[at:]]


def _from_anywhere(arguments: Sequence[str]) -> Iterator[str]:
    """The same command for another working folder: what comes after ``--`` and is not an address is a path."""
    after = False
    for word in arguments:
        is_path = after and not looks_like_address(word) and Path(word).exists()
        yield str(Path(word).absolute()) if is_path else word
        after = after or word == "--"


def _protocols(arguments: Sequence[str], folder: Path | None) -> str:
    """What git may speak; plain http only where this machine itself is asked."""
    named = [word for word in arguments if looks_like_address(word)]
    for word in named:
        check_address(word)
    if not named and folder:
        named = _origins(folder)
    plain = bool(named) and all(LOOPBACK_HTTP.match(word) for word in named)
    return "file:https:ssh" + (":http" if plain else "")


def _origins(folder: Path) -> list[str]:
    """The addresses in a repository of ours."""
    done = git("config", "--local", "-z", "--get-regexp", r"^remote\..*\.(push)?url$", folder=folder)
    return [pair.partition("\n")[2] for pair in done.stdout.split("\0") if pair]


def _network_settings(*, secret: bool) -> Iterator[tuple[str, str]]:
    """Settings for a command that reaches other machines. ``secret``: it sends one, which stays with its host."""
    yield from _REACHING
    for key, value in _user_settings():
        if not (secret and key.startswith("credential.")):
            yield key, value
    yield "http.followRedirects", "false" if secret else "initial"


def _user_settings() -> list[tuple[str, str]]:
    """Those of the user's and the machine's git that ``_OF_USER`` allows."""
    allow = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
    command = ["git", "config", "-z", "--includes", "--show-scope", "--list"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = processes.run(
            command, cwd=_ELSEWHERE, env=environment({"LC_ALL": "C"}, allow=allow), capture_output=True, timeout=60
        )
        words = done.stdout.decode("utf-8", "surrogateescape").split("\0")
        scoped = zip(words[::2], words[1::2], strict=False)
        pairs = [split_setting(text) for scope, text in scoped if scope in {"global", "system"}]
        return [pair for pair in pairs if _OF_USER.fullmatch(pair[0])]
    return []


def split_setting(text: str) -> tuple[str, str]:
    """Key and value as ``git config -z --list`` writes them; a key without a value means true."""
    key, newline, value = text.partition("\n")
    return key, value if newline else "true"


def _settings_in(given: Mapping[str, str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Variables without git's numbered settings, and those settings."""
    count = int(given.get("GIT_CONFIG_COUNT") or 0)
    pairs = [(given[f"GIT_CONFIG_KEY_{number}"], given[f"GIT_CONFIG_VALUE_{number}"]) for number in range(count)]
    numbered = re.compile(r"GIT_CONFIG_(?:COUNT|(?:KEY|VALUE)_\d+)")
    return {name: value for name, value in given.items() if not numbered.fullmatch(name)}, pairs


def _as_variables(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Settings as variables, which no list of processes shows."""
    pairs = list(settings)
    variables = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables
