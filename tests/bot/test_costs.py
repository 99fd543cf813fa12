"""What a release costs in exact counts, in the bot's pull request: counted once, told, and needed by nothing."""

from __future__ import annotations

from typing import Any

from patchforge.bench import costs
from patchforge.bench.model import FORMAT, UPSTREAM, Benchmark
from tests.bench.examples import DECODER, SAMPLER, benchmark, case, counts
from tests.bot.test_bot_rules import again, tool
from tests.bot.world import BASE, FIRST, World, git

FILE = f"generated/costs/comfyui/{FIRST}.json"


def kept(release: str, *, waits: int = 165, models: int = 1, upstream: bool = True, **changes: Any) -> Benchmark:
    """Patched, it waits more than upstream does."""
    parts = {SAMPLER: counts(synchronisations={"asked for": waits}, models=models), DECODER: counts()}
    plain = {SAMPLER: counts(synchronisations={"asked for": 1}, models=1), DECODER: counts()}
    cases = [*([case(side=UPSTREAM, parts=plain)] if upstream else []), case(parts=parts)]
    return costs.recorded(benchmark(*cases, release=release, **changes))


def counting(counted: Benchmark) -> dict[str, bytes]:
    """A patchforge whose bench counts that, of the manifest that is there, and says how often it was asked."""
    text = f"""
import hashlib, json, pathlib, sys
if sys.argv[2] == "run":
    assert "--baseline" in sys.argv and sys.argv[-1].endswith("-costs-{FIRST}")
    print("count", file=open({{asked!r}}, "a"))
else:
    text = {FORMAT.dump(counted).decode()!r}
    manifest = pathlib.Path("generated/comfyui/{FIRST}/manifest.json").read_bytes()
    file = pathlib.Path({FILE!r})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace("d" * 64, hashlib.sha256(manifest).hexdigest()))
"""
    return tool("bench", text)


def committed(world: World, counted: Benchmark, *before: Benchmark) -> None:
    files = counting(counted)
    text = files["patchforge/commands/bench.py"].decode().replace("{asked!r}", repr(str(world.folder / "asked")))
    files |= {f"generated/costs/comfyui/{kept_before.release}.json": FORMAT.dump(kept_before) for kept_before in before}
    world.commit("main", {**files, "patchforge/commands/bench.py": text.encode()})


def test_what_a_release_costs_is_told_and_counted_once(world: World) -> None:
    committed(world, kept(FIRST, models=3), kept(BASE))
    world.release(FIRST)
    world.bot("--test")
    body = world.pull(1)["body"]
    assert "- exact costs: done" in body
    assert "| `txt2img` | 216 | 16 | 173 | 420 | 1.0 MiB |" in body
    assert "| `txt2img` | `wait, asked for` | 2 | 166 | load-synchronize |" in body
    assert "| `txt2img` | `models` | 2 | 4 | **none that is known** |" in body
    assert f"What it costs otherwise than {BASE}, whose figures are **old**, counted with other patches" in body
    assert body.count("| `txt2img` | `models` | 2 | 4 |") == 2
    assert body.count("`wait, asked for`") == 1
    assert FILE in git(world.ours, "ls-tree", "-r", "--name-only", f"patchforge/comfyui-{FIRST}")
    again(world, "--test")
    world.bot()
    assert "| `txt2img` | 216 | 16 | 173 | 420 | 1.0 MiB |" in world.pull(1)["body"]
    assert (world.folder / "asked").read_text() == "count\n"


def test_counts_of_other_patches_are_made_again(world: World) -> None:
    committed(world, kept(FIRST))
    world.release(FIRST)
    world.bot("--test")
    world.release(FIRST, {"comfy/new.py": b"x = 1\n"})
    world.bot("--test")
    assert (world.folder / "asked").read_text() == "count\n" * 2
    assert "nothing is known of the version before" in world.pull(1)["body"]


def test_costs_that_cannot_be_counted_keep_nothing_back(world: World) -> None:
    world.commit("main", tool("bench", "sys_exit = __import__('sys').exit(1)\n"))
    world.release(FIRST)
    world.bot("--test")
    pull = world.pull(1)
    assert pull["draft"] is False
    assert "- exact costs: not counted; " in pull["body"]
    assert "## What it costs" not in pull["body"]
    again(world, "--test")


def test_without_tests_nothing_is_counted(world: World) -> None:
    committed(world, kept(FIRST))
    world.release(FIRST)
    world.bot()
    assert not (world.folder / "asked").exists()
    assert "- exact costs: not run" in world.pull(1)["body"]


def test_strange_names_and_other_conditions_are_told(world: World) -> None:
    strange = case(parts={SAMPLER: counts(synchronisations={"@someone | <b>": 1})})
    recorded = costs.recorded(benchmark(case(side=UPSTREAM), strange, release=FIRST))
    committed(world, recorded, kept(BASE, versions={"torch": "2.12.0"}))
    world.release(FIRST)
    world.bot("--test")
    body = world.pull(1)["body"]
    assert "`wait, @someone \\| <b>`" in body
    assert "Not compared: these benchmarks cannot be compared: they are of another torch: 2.12.0, 2.13.0." in body


def test_a_release_without_upstream_beside_it(world: World) -> None:
    committed(world, kept(FIRST, upstream=False))
    world.release(FIRST)
    world.bot("--test")
    assert "nothing of upstream's own tree was right on this device" in world.pull(1)["body"]
