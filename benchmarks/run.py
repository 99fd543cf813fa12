"""``make bench``: patchforge beside LibCST's own codemod runner and ast-grep, in one run on one machine.

PATCHFORGE_UPSTREAM names a clone of ComfyUI; without it the miniature release of the tests stands in, and only what
makes sense there is measured. PATCHFORGE_PACKS names a folder of custom-node packs to check, if there is one, and
PATCHFORGE_TARBALL a .tar.gz as GitHub makes them, to hash beside Nix, and PATCHFORGE_COMFYUI_PYTHON an interpreter with
a release's requirements, for what hooks cost in a sampling step. Every figure is the wall time of whole commands,
interpreter start included; the median is shown. Results go to standard output and, as JSON with the facts of the
machine, to build/benchmark.json.

Exit status: 0, also when a target is missed (the table says so); 1 when a command fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MINIATURE = ROOT / "tests" / "miniatures" / "v0.33.0"
PATCHFORGE = (sys.executable, "-m", "patchforge")
_LIBCST = "LibCST codemod CLI, no-op, 2 jobs"
_CHECKED = "checked: compiles, static proof"
_PACKAGES = ("patchforge", "libcst", "ast-grep-py", "pygit2", "GitPython", "isal")


@dataclass(frozen=True)
class CommandRun:
    """What one run of a command took, in seconds."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Figure:
    """One line of the table: the runs, and the most seconds that are wanted (0: nothing is)."""

    name: str
    runs: list[CommandRun]
    target: float = 0.0

    @property
    def median(self) -> float:
        """Median wall time in seconds."""
        return statistics.median(run.wall for run in self.runs)

    @property
    def processor(self) -> float:
        """Median processor time in seconds, all processes together; steadier than wall time on a busy machine."""
        return statistics.median(run.processor for run in self.runs)

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        return "" if not self.target else f"{'met' if self.median <= self.target else 'MISSED'}, ≤ {self.target:g} s"


@dataclass(frozen=True)
class Bench:
    """Where things are, and how often to run each."""

    release: str
    clone: Path | None
    scratch: Path
    runs: int

    def timed(
        self, command: Sequence[str], *, says: str = "", cache: Path | None = None, status: int = 0
    ) -> CommandRun:
        """What a command takes. RuntimeError with its last words when it fails or does not say ``says``."""
        environment = {**os.environ, "PATCHFORGE_CACHE": str(cache or self.scratch / "cache"), "NO_COLOR": "1"}
        environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]), **_nix(self.scratch)}
        used = _used()
        start = time.perf_counter()
        done = subprocess.run(
            [*command], cwd=self.scratch, env=environment, capture_output=True, text=True, check=False
        )
        run = CommandRun(time.perf_counter() - start, _used() - used)
        if done.returncode != status or says not in done.stdout + done.stderr:
            last = done.stdout[-800:] + done.stderr[-2000:]
            raise RuntimeError(f"exit status {done.returncode} from {' '.join(command)}, {says!r} expected\n{last}")
        return run

    def repeated(self, command: Sequence[str], *, says: str = "", cache: Path | None = None) -> list[CommandRun]:
        """The command, as often as asked."""
        return [self.timed(command, says=says, cache=cache) for _ in range(self.runs)]

    @property
    def source(self) -> list[str]:
        """How ``patchforge apply`` is told what to read."""
        return [self.release, "--upstream", str(self.clone)] if self.clone else ["--from", str(MINIATURE)]


def _used() -> float:
    """Processor seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def start_up(bench: Bench) -> Figure:
    """``patchforge --help``."""
    return Figure("patchforge --help", bench.repeated([*PATCHFORGE, "--help"], says="apply"), 0.15)


def apply_cold(bench: Bench) -> Figure:
    """One release, with every check, nothing remembered."""
    command = [*PATCHFORGE, "apply", *bench.source, "--no-cache", "--dry-run"]
    return Figure("patchforge apply, cold", bench.repeated(command, says=_CHECKED), 2.0 if bench.clone else 0.0)


def apply_warm(bench: Bench) -> Figure:
    """The same with a filled cache."""
    command = [*PATCHFORGE, "apply", *bench.source, "--dry-run"]
    bench.timed(command)
    return Figure("patchforge apply, warm", bench.repeated(command, says=_CHECKED))


def libcst_codemod(bench: Bench, tree: Path) -> Figure:
    """LibCST's command line with a codemod that does nothing, over the whole tree."""
    (bench.scratch / ".libcst.codemod.yaml").write_text("modules: []\nformatter: ['cat']\n")
    options = ["codemod", "-x", "noop_codemod.Noop", "--jobs", "2", "--hide-progress", "--no-format"]
    files = sum(1 for _ in tree.rglob("*.py"))
    command = [sys.executable, "-m", "libcst.tool", *options, str(tree)]
    return Figure(_LIBCST, bench.repeated(command, says=f"Finished codemodding {files} files"))


def ast_grep(bench: Bench, tree: Path) -> Figure:
    """One rule of ast-grep over the whole tree."""
    return Figure(
        "ast-grep-py, torch.cuda.$NAME", bench.repeated([sys.executable, str(HERE / "ast_grep_rule.py"), str(tree)])
    )


def replay(bench: Bench) -> Iterator[Figure]:
    """All releases: the first time with a new cache, then with a full one."""
    from patchforge.project import load_project, release_index  # noqa: PLC0415

    command = [*PATCHFORGE, "replay", "--upstream", str(bench.clone)]
    cache, says = bench.scratch / "replay", f"\n{len(release_index(load_project()))} releases\n"
    yield Figure("patchforge replay, all releases, cold", [bench.timed(command, says=says, cache=cache)], 60.0)
    yield Figure("patchforge replay, all releases, warm", bench.repeated(command, says=says, cache=cache), 5.0)


def git_reading(bench: Bench) -> Iterator[Figure]:
    """Every Python file of one release read from git objects: our reader, and libgit2's."""
    if bench.clone is None:
        return
    for name, module in (("patchforge", "patchforge"), ("pygit2", "pygit2")):
        if importlib.util.find_spec(module):
            command = [sys.executable, str(HERE / "read_git.py"), name, str(bench.clone), bench.release]
            yield Figure(f"read one release from git, {name}", bench.repeated(command))


def packs(bench: Bench, folder: Path) -> Iterator[Figure]:
    """All packs of a folder: what is CUDA only in them, beside a search of their lines for the word."""
    binaries = sorted(str(path) for path in folder.iterdir() if path.is_dir())
    command, cache = [*PATCHFORGE, "packs", "check", *binaries], bench.scratch / "packs"
    cold = bench.timed(command, cache=cache, status=1)
    yield Figure(f"patchforge packs check, {len(binaries)} packs, cold", [cold], 90.0)
    warm = [bench.timed(command, cache=cache, status=1) for _ in range(bench.runs)]
    yield Figure(f"patchforge packs check, {len(binaries)} packs, warm", warm, 10.0)
    yield Figure("grep -rn cuda, the same files", bench.repeated(["grep", "-rn", "--include=*.py", "cuda", *binaries]))


def hashing(bench: Bench, tarball: Path) -> Iterator[Figure]:
    """A tarball hashed while it streams, beside Nix, which needs it unpacked. In turns: all see the same machine."""
    tree, again = bench.scratch / "unpacked", bench.scratch / "unpacked again"
    unpack = ["tar", "-xzf", str(tarball), "--strip-components=1", "-C"]
    nix = ["nix", "--extra-experimental-features", "nix-command", "hash", "path"]
    tree.mkdir()
    subprocess.run([*unpack, str(tree)], check=True)
    named = subprocess.run(f"gzip -dc '{tarball}' | git get-tar-commit-id", shell=True, capture_output=True, check=True)
    commit = named.stdout.decode().strip()
    environment = {**os.environ, **_nix(bench.scratch)}
    printed = subprocess.run([*nix, str(tree)], env=environment, capture_output=True, text=True, check=True).stdout
    both = f"{shlex.join([*unpack, str(again)])} && {shlex.join([*nix, str(again)])}"
    commands = {
        "patchforge prefetch, a tarball": [*PATCHFORGE, "prefetch", "owner/repo", commit, "--from", str(tarball)],
        "nix hash path, the same unpacked": [*nix, str(tree)],
        "tar -xzf and nix hash path": ["sh", "-c", both],
    }
    read: dict[str, list[Path]] = {}
    if hasattr(os, "posix_fadvise"):  # Linux
        read = dict(zip(commands, ([tarball], [path for path in tree.rglob("*") if path.is_file()]), strict=False))
    runs: defaultdict[str, list[CommandRun]] = defaultdict(list)
    for _ in range(bench.runs):
        shutil.rmtree(again, ignore_errors=True)
        again.mkdir()
        for name, command in commands.items():
            runs[name].append(bench.timed(command, says=printed.strip()))
        for name, files in read.items():
            forget(files)
            runs[f"{name}, from the disk"].append(bench.timed(commands[name], says=printed.strip()))
    yield from (Figure(name, each) for name, each in runs.items())


def sampling(bench: Bench, python: str) -> Iterator[Figure]:
    """Processor seconds of one step of an SDXL-size UNet that computes nothing: upstream's tree and the patched one.

    In turns, each in a process of its own; on other devices, and where the hooks take tensors for an XPU's.
    """
    upstream, patched = bench.scratch / "step upstream", bench.scratch / "step patched"
    shutil.copytree(bench.scratch / "tree", upstream)
    bench.timed([*PATCHFORGE, "apply", *bench.source, "--to", str(patched)])
    runs: defaultdict[str, list[CommandRun]] = defaultdict(list)
    made: dict[str, int] = {}
    for _ in range(bench.runs):
        for way in ("other", "xpu"):
            for name, tree in (("upstream", upstream), ("patched", patched)):
                command = [python, str(HERE / "sampling_step.py"), way]
                done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise RuntimeError(f"{' '.join(command)} in {name}: {done.stderr[-2000:]}")
                calls, seconds = map(float, done.stdout.splitlines()[-2:])
                line = f"one step, {'an XPU' if way == 'xpu' else 'other devices'}, {name}"
                runs[line].append(CommandRun(seconds, seconds))
                made[line] = int(calls)
    for line, count in made.items():
        print(f"{line}: {count:,} calls of functions", flush=True)
    yield from (Figure(name, each) for name, each in runs.items())


def forget(files: Sequence[Path]) -> None:
    """Takes files out of the system's cache; what is known of their names and sizes stays there."""
    os.sync()
    for file in files:
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _nix(scratch: Path) -> dict[str, str]:
    """A store of its own, so that nobody's is needed."""
    folders = {"STORE_DIR": "store", "STATE_DIR": "state", "LOG_DIR": "log", "LOCALSTATE_DIR": "lv", "CONF_DIR": "etc"}
    return {f"NIX_{name}": str(scratch / "nix" / folder) for name, folder in folders.items()} | {"NIX_REMOTE": ""}


def whole_tree(bench: Bench) -> Path:
    """The release's files in a folder, for the tools that need one."""
    tree = bench.scratch / "tree"
    if bench.clone is None:
        shutil.copytree(MINIATURE, tree)
        return tree
    from patchforge.atomic import write_tree  # noqa: PLC0415
    from patchforge.sources import open_upstream  # noqa: PLC0415

    with open_upstream(str(bench.clone)) as upstream:
        source = upstream.tree(upstream.resolve(bench.release))
        write_tree(tree, {path: source.read(path) for path in source.entries() if path.endswith(".py")})
    return tree


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure, in the order of the table."""
    bench.timed([*PATCHFORGE, "apply", *bench.source, "--no-cache", "--dry-run"])  # byte code and the disk's cache
    yield start_up(bench)
    yield apply_cold(bench)
    yield apply_warm(bench)
    tree = whole_tree(bench)
    yield libcst_codemod(bench, tree)
    if importlib.util.find_spec("ast_grep_py"):
        yield ast_grep(bench, tree)
    yield from git_reading(bench)
    if bench.clone:
        yield from replay(bench)
    if bench.clone and (python := os.environ.get("PATCHFORGE_COMFYUI_PYTHON")):
        yield from sampling(bench, python)
    if folder := os.environ.get("PATCHFORGE_PACKS"):
        yield from packs(bench, Path(folder))
    if tarball := os.environ.get("PATCHFORGE_TARBALL"):
        yield from hashing(bench, Path(tarball).resolve())


def machine() -> dict[str, object]:
    """The facts that a figure depends on. No names of machines or users."""
    packages: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "git": subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.split()[2],
        "load before": round(os.getloadavg()[0], 2),
        "packages": packages,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def show(figures: Sequence[Figure]) -> None:
    """The table, and how many times faster than LibCST's command line one release is."""
    print(f"\n{'seconds':48}{'median':>8} {'least':>8} {'most':>8} {'cpu':>8} {'runs':>5}  target")
    for figure in figures:
        walls = [run.wall for run in figure.runs]
        numbers = f"{figure.median:8.3f} {min(walls):8.3f} {max(walls):8.3f} {figure.processor:8.3f} {len(walls):5}"
        print(f"{figure.name:48}{numbers}  {figure.verdict}".rstrip())
    by_name = {figure.name: figure.median for figure in figures}
    for way in ("other devices", "an XPU"):
        if (upstream := by_name.get(f"one step, {way}, upstream")) is not None:
            print(
                f"\none step of SDXL's size, {way}: {by_name[f'one step, {way}, patched'] / upstream:.3f} of upstream's"
            )
    print(
        f"\none release, cold, is {speed_up(figures):.1f} times faster than LibCST's no-op "
        "(wanted: 15 or more, on a real release)"
    )


def speed_up(figures: Sequence[Figure]) -> float:
    """LibCST's no-op over a whole tree, in units of a cold ``patchforge apply``."""
    by_name = {figure.name: figure.median for figure in figures}
    return by_name[_LIBCST] / by_name["patchforge apply, cold"]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for caches and trees, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="patchforge-bench-") as folder:
        yield Path(folder)


def main() -> int:
    """Measures, prints and writes."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--release", default="v0.32.0", metavar="VERSION", help="default: v0.32.0")
    options.add_argument(
        "--runs", type=int, default=5, metavar="N", help="runs of each command (default: 5; a cold replay is run once)"
    )
    options.add_argument(
        "--json",
        type=Path,
        default=ROOT / "build" / "benchmark.json",
        metavar="FILE",
        help="default: build/benchmark.json",
    )
    chosen = options.parse_args()
    clone = os.environ.get("PATCHFORGE_UPSTREAM")
    facts = machine()
    print(f"{facts['cores']} cores, {facts['processor']}, Python {facts['python']}, load {facts['load before']}")
    if clone:
        print(f"ComfyUI {chosen.release}")
    else:
        print(
            "PATCHFORGE_UPSTREAM names no clone: measured on the miniature release, "
            "so nothing here tells about a real one"
        )
    with scratch_folder() as scratch:
        figures: list[Figure] = []
        bench = Bench(chosen.release, Path(clone).resolve() if clone else None, scratch, chosen.runs)
        try:
            for figure in measure(bench):
                figures.append(figure)
                print(f"  {figure.name}: {figure.median:.3f} s", flush=True)
        except RuntimeError as error:
            print(f"benchmarks/run.py: {error}", file=sys.stderr)
            return 1
    show(figures)
    result = {
        "machine": facts,
        "release": chosen.release if clone else "miniature",
        "figures": [{**asdict(figure), "median": figure.median, "processor": figure.processor} for figure in figures],
        "times faster than LibCST": speed_up(figures),
    }
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {os.path.relpath(chosen.json)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
