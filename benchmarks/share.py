"""Jobs in turns of a picture and an answer on a card with room for one of the two, with the arbiter and without.

    PATCHFORGE_UPSTREAM=ComfyUI.git PATCHFORGE_PACKS=packs python benchmarks/share.py --jobs 200

    python benchmarks/share.py --jobs 200 --miniature

A real ComfyUI on the emulated XPU, and SmolLM2-135M on the CPU behind a stand-in for Ollama's API; Ollama's own program
is not at hand. What is told: how many ran out of memory, went to the CPU or were broken off, and how long hand-overs
took from when one side rested to when its memory was seen free; and how long ComfyUI alone takes to give its own back.
With ``--miniature`` a stand-in for ComfyUI too, which unloads at once: what is left is the arbiter's own time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ollama

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patchforge.arbiter.turns import CardSide, Policy
from patchforge.trial.workflows.library import load
from tests.arbiter import real
from tests.arbiter.real import Real
from tests.arbiter.world import world


def played(machine: Real, jobs: int, *, direct: bool) -> dict[str, Any]:
    """Two users at once, each with half of the jobs."""
    address = f"http://127.0.0.1:{machine.direct[CardSide.OLLAMA]}" if direct else machine.asked
    ended: Counter[str] = Counter()
    seconds: dict[str, list[float]] = {"picture": [], "answer": []}
    before = (machine.ollama.on_cpu, machine.ollama.broken_off, sum(machine.ollama.loads.values()))

    def pictures() -> None:
        client = machine.client(direct=direct)
        for number in range(jobs // 2):
            graph = copy.deepcopy(dict(load("txt2img")["txt2img"].graph))
            graph["5"]["inputs"]["seed"] = number
            began = time.monotonic()
            done = client.run(graph, 600)
            seconds["picture"].append(time.monotonic() - began)
            kind = done.failure.kind if done.failure else ""
            ended[f"picture {done.ending}{f' ({kind})' if kind else ''}"] += 1

    def answers() -> None:
        client = ollama.Client(host=address, timeout=600)
        for number in range(jobs // 2):
            began = time.monotonic()
            try:
                options = {"num_predict": 12, "seed": number}
                reason = client.generate("smollm2:135m", "Name a place.", options=options).done_reason
            except (ollama.ResponseError, ConnectionError) as error:
                reason = type(error).__name__
            seconds["answer"].append(time.monotonic() - began)
            ended[f"answer {reason}"] += 1

    began = time.monotonic()
    threads = [threading.Thread(target=pictures), threading.Thread(target=answers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "ended": dict(ended),
        "on the CPU": machine.ollama.on_cpu - before[0],
        "broken off": machine.ollama.broken_off - before[1],
        "loads of the language model": sum(machine.ollama.loads.values()) - before[2],
        "seconds in all": round(time.monotonic() - began, 1),
        "median seconds": {name: round(statistics.median(times), 2) for name, times in seconds.items() if times},
    }


def alone(machine: Real, times: int = 5) -> float:
    """Median seconds that ComfyUI takes from ``POST /free`` to the memory, without the arbiter."""
    client, times_seen = machine.client(direct=True), []
    for number in range(times):
        graph = copy.deepcopy(dict(load("txt2img")["txt2img"].graph))
        graph["5"]["inputs"]["seed"] = 10**6 + number
        client.run(graph, 600)
        held = client.system_stats()["devices"][0]["torch_vram_total"]
        began = time.monotonic()
        client.free()
        while client.system_stats()["devices"][0]["torch_vram_total"] > held / 2 and time.monotonic() - began < 60:
            time.sleep(0.01)
        times_seen.append(time.monotonic() - began)
    return round(statistics.median(times_seen), 2)


def handovers(said: list[str]) -> dict[str, Any]:
    """Out of the arbiter's own lines."""
    phases: dict[str, list[float]] = {}
    for line in said:
        if " came back" in line:
            phases.setdefault(line.partition(" for ")[2].partition(" in ")[0], []).append(
                float(line.partition(" in ")[2].partition(" s;")[0])
            )
    return {
        f"to {to}": {
            "count": len(times),
            "median": round(statistics.median(times), 2),
            "p95": round(sorted(times)[int(len(times) * 0.95)], 2),
            "most": max(times),
            "over 1 s": sum(seconds > 1 for seconds in times),
        }
        for to, times in phases.items()
        if times
    }


async def miniature(top: Path, jobs: int, policy: Policy) -> dict[str, Any]:
    """Both are stand-ins that compute nothing."""
    async with world(top, policy) as machine:
        began = time.monotonic()

        async def pictures() -> list[str]:
            return [await machine.draw() for _ in range(jobs // 2)]

        async def answers() -> list[str]:
            return [(await machine.ask())["done_reason"] for _ in range(jobs // 2)]

        ended = Counter(word for words in await asyncio.gather(pictures(), answers()) for word in words)
        return {
            "ended": dict(ended),
            "out of memory": machine.comfyui.out_of_memory,
            "on the CPU": machine.ollama.on_cpu,
            "broken off": machine.ollama.broken_off,
            "seconds in all": round(time.monotonic() - began, 1),
            "hand-overs": handovers(machine.said),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--policy", choices=list(Policy), default=Policy.FAIR)
    parser.add_argument("--direct", type=int, default=40, metavar="N", help="so many jobs without the arbiter")
    parser.add_argument("--miniature", action="store_true", help="without a real ComfyUI and a real model")
    options = parser.parse_args()
    if options.miniature:
        with tempfile.TemporaryDirectory() as top, contextlib.redirect_stdout(sys.stderr):
            told = asyncio.run(miniature(Path(top), options.jobs, Policy(options.policy)))
        json.dump(told, sys.stdout, indent=1)
        print()
        return
    with (
        tempfile.TemporaryDirectory() as top,
        real.running(Path(top), Policy(options.policy), model=1450 * real.MIB) as machine,
    ):
        with_it = {**played(machine, options.jobs, direct=False), "hand-overs": handovers(machine.said)}
        unseen = sum("is not seen free" in line for line in machine.said)
        client = ollama.Client(host=machine.asked)
        client.generate("smollm2:135m", keep_alive=0)
        own = alone(machine)
        without = played(machine, options.direct, direct=True) if options.direct else {}
    told = {"with": {**with_it, "not seen free": unseen}, "without": without, "ComfyUI unloads by itself in": own}
    json.dump(told, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
