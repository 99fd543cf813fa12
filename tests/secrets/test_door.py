"""Every child process goes through one door, and gets an allow-list of the environment."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge import processes
from tests.support import ROOT

#: Modules that may do more, and why.
EXCEPTIONS = {
    "patchforge/processes.py": "the door",
    "patchforge/trial/server/supervisor.py": "a script too; hands on the environment that it was given",
    "patchforge/proof/probe.py": "a script that forks, in a process with the allow-list",
    "patchforge/proof/argument_block.py": "runs main.py's block, which sets the environment, in that process",
    "patchforge/proof/fake_torch.py": "a script that puts a fake in the place of check_output",
    "patchforge/engine/convert.py": "forks workers of our own code, which start nothing",
    "patchforge/commands/packs/check.py": "forks workers of our own code, which start nothing",
    "patchforge/commands/doctor.py": "looks at the variables that a report shows",
    "patchforge/commands/validate.py": "the same, for doctor's examination",
    "patchforge/bot/token.py": "looks for the token in every variable, to take it out",
    # git's own environment
    "patchforge/git/command.py": "git",
    "patchforge/git/gitpython.py": "git, by GitPython",
    # the emulator is for our own tests, and is not installed
    "emulator/__init__.py": "the base of what a trial, which passes its own, or a test hands on",
    "emulator/build.py": "the compiler",
    "emulator/second_torch.py": "runs our tests",
    "emulator/worker.py": "runs our tests",
}
STARTS = {
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "fork", "forkpty", "startfile", "posix_spawn", "posix_spawnp", "spawn*", "exec*"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "pty": {"spawn", "fork"},
    "multiprocessing": {"*"},
    "webbrowser": {"*"},
    "concurrent.futures": {"ProcessPoolExecutor"},
    "_posixsubprocess": {"*"},
}
READS = {"get", "pop", "setdefault", "__contains__"}


def starts(module: str, name: str) -> bool:
    return any(
        name == start or (start.endswith("*") and name.startswith(start[:-1])) for start in STARTS.get(module, ())
    )


def faults(code: str) -> Iterator[str]:
    """Where a module starts a process by itself, or hands on the environment as a whole."""
    tree = ast.parse(code)
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name] = alias.name
                if "*" in STARTS.get(alias.name.partition(".")[0], ()):
                    yield f"{node.lineno}: import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if starts(node.module, alias.name) or "*" in STARTS.get(node.module, ()) or alias.name == "*":
                    yield f"{node.lineno}: from {node.module} import {alias.name}"
                if (node.module, alias.name) in {("os", "environ"), ("os", "environb")}:
                    yield f"{node.lineno}: from os import {alias.name}"
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from (f"{node.lineno}: {said}" for said in _attribute(node, known, parents))


def _attribute(node: ast.Attribute, known: dict[str, str], parents: dict[int, ast.AST]) -> Iterator[str]:
    module = known.get(ast.unparse(node.value), ast.unparse(node.value))
    annotation = isinstance(parents.get(id(node)), ast.Subscript)  # Popen[str]
    if starts(module, node.attr) and not annotation:
        yield f"{module}.{node.attr}"
    if module == "os" and node.attr in {"environ", "environb"}:
        above = parents[id(node)]
        reads = isinstance(above, ast.Attribute) and above.attr in READS
        reads |= isinstance(above, ast.Subscript) and above.value is node
        reads |= isinstance(above, ast.Compare) and node in above.comparators
        if not reads:
            yield f"os.{node.attr} as a whole"


MODULES = sorted(
    path.relative_to(ROOT).as_posix() for top in ("patchforge", "emulator") for path in (ROOT / top).rglob("*.py")
)


def test_nothing_but_the_door_starts_processes() -> None:
    by_module = {name: list(faults((ROOT / name).read_text("utf-8"))) for name in MODULES if name not in EXCEPTIONS}
    assert {name: said for name, said in by_module.items() if said} == {}


def test_transforms_and_what_they_add_start_nothing() -> None:
    by_path = {path: list(faults(path.read_text("utf-8"))) for path in (ROOT / "transforms").rglob("*.py")}
    assert {path: said for path, said in by_path.items() if said} == {}


def test_exceptions_are_needed_and_there() -> None:
    assert EXCEPTIONS.keys() <= set(MODULES)


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nsubprocess.run(['x'])",
        "import subprocess as s\ns.Popen(['x'])",
        "from subprocess import run",
        "from subprocess import check_output as c",
        "from subprocess import *",
        "import subprocess\nstart = subprocess.Popen\nstart(['x'])",
        "import os\nos.system('x')",
        "import os\nos.execve('x', [], {})",
        "import os\nos.spawnlp(0, 'x')",
        "import os\nos.posix_spawn('x', [], {})",
        "from os import popen",
        "import asyncio\nasyncio.create_subprocess_exec('x')",
        "import multiprocessing",
        "from concurrent.futures import ProcessPoolExecutor",
        "import webbrowser",
        "import pty\npty.spawn('x')",
        "import os\nenv = {**os.environ}",
        "import os\nenv = dict(os.environ)",
        "import os\nenv = os.environ.copy()",
        "import os\nenv = os.environ | {}",
        "import os\nf(os.environ)",
        "import os\nfor name, value in os.environ.items(): pass",
        "from os import environ",
        "import os as o\nf(o.environ)",
        "import os\nf(os.environb)",
        "import os\n'{HOME}'.format(**os.environ)",
    ],
)
def test_a_second_door_is_seen(code: str) -> None:
    assert list(faults(code))


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.environ.get('HOME')",
        "import os\nos.environ['HOME']",
        "import os\n'HOME' in os.environ",
        "import subprocess\ndef f(one: subprocess.Popen[str]) -> None: ...",
        "from concurrent.futures import ThreadPoolExecutor",
    ],
)
def test_what_only_looks_is_let_be(code: str) -> None:
    assert not list(faults(code))


SECRETS = {
    **dict.fromkeys(("GH_TOKEN", "GITHUB_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CIVITAI_API_KEY"), "hunter2"),
    **dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "OPENAI_API_KEY"), "hunter2"),
    **dict.fromkeys(("ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "NPM_TOKEN", "FOO"), "hunter2"),
    **dict.fromkeys(("SSH_AUTH_SOCK", "GPG_AGENT_INFO", "CREDENTIALS_DIRECTORY", "NIX_CONFIG", "NETRC"), "hunter2"),
    **dict.fromkeys(("DATABASE_URL", "PGPASSWORD", "KUBECONFIG", "GOOGLE_APPLICATION_CREDENTIALS"), "hunter2"),
    **dict.fromkeys(("NVIDIA_API_KEY", "CUDA_LICENSE_KEY", "SYCL_TOKEN", "TORCH_HUB_PASSWORD", "ZE_AUTH"), "hunter2"),
    **dict.fromkeys(("ONEAPI_CREDENTIALS", "OMP_SECRET", "PYTORCH_ACCESS_TOKEN", "UR_SESSION_COOKIE"), "hunter2"),
    **dict.fromkeys(("GIT_CONFIG_VALUE_0", "GIT_ASKPASS", "GIT_SSH_COMMAND", "PYTHONSTARTUP", "BASH_ENV"), "hunter2"),
    **dict.fromkeys(("LD_PRELOAD", "PYTHONPATH", "path", "HOMEX", "LC_all", "PIP_PASSWORD"), "hunter2"),
    "PIP_INDEX_URL": "https://someone:hunter2@index.example.org/simple",
    "PIP_EXTRA_INDEX_URL": "https://a.example.org https://hunter2@b.example.org/simple",
    "HTTPS_PROXY": "http://someone:hunter2@proxy.example.org:3128",
    "http_proxy": "someone:hunter2@proxy.example.org:3128",
    "CUDA_MODULE_LOADING": "https://x:hunter2@example.org",
    "LD_LIBRARY_PATH": "https://hunter2@example.org",
}


@pytest.mark.parametrize("allow", [(), processes.HARDWARE, processes.PIP, processes.NIX, processes.NETWORK])
def test_no_secret_is_on_the_list(allow: frozenset[str]) -> None:
    assert processes.environment(allow=allow, inherited={**SECRETS, "PATH": "/bin"}) == {"PATH": "/bin"}


def test_what_children_need_is_on_it() -> None:
    base = {"PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "LC_TIME": "C", "LANG": "C", "TMPDIR": "/tmp"}
    hardware = {
        "ZE_AFFINITY_MASK": "0",
        "ONEAPI_DEVICE_SELECTOR": "level_zero:gpu",
        "CUDA_VISIBLE_DEVICES": "0",
        "PYTORCH_CUDA_ALLOC_CONF": "backend:native",
        "UR_L0_ENABLE_RELAXED_ALLOCATION_LIMITS": "1",
        "OverrideDefaultFP64Settings": "1",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NIX_LD_LIBRARY_PATH": "/run/lib",
    }
    everything = {**base, **hardware, **SECRETS}
    assert processes.environment(inherited=everything) == base
    assert processes.environment(allow=processes.HARDWARE, inherited=everything) == base | hardware
    assert processes.environment({"A": "1", "PATH": "/x"}, inherited=base) == {**base, "A": "1", "PATH": "/x"}


def test_pip_alone_gets_the_password_of_its_index() -> None:
    given = processes.environment(allow=processes.PIP, inherited=SECRETS, passwords=True)
    assert {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTPS_PROXY", "http_proxy"} <= given.keys()
    assert given.keys() & {"PIP_PASSWORD", "GH_TOKEN", "FOO", "LD_PRELOAD"} == set()


def test_a_child_reads_nothing_unless_it_is_given_something(tmp_path: Path) -> None:
    assert processes.run(["cat"], capture_output=True, timeout=10).stdout == b""
    assert processes.run(["cat"], input=b"given", capture_output=True).stdout == b"given"
