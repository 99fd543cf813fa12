"""How far the alarms of ``patchforge bench`` can be trusted, measured on a machine that does nothing else.

``python -m benchmarks.alarms v0.33.0 --upstream CLONE --no-venv --python PYTHON`` prints how often, of ``--runs``:

- a workflow that is counted again has another exact figure (none may);
- one copy, one wait or one allocation that is put behind a random module of the models is found (all are to be);
- a case of torch that is timed against itself, in turns, is called slower or faster (1 in 100 may be);
- the same case is called slower when it takes 5 % longer (95 of 100 are to be).

Each comparison is made as ``bench`` makes it: pairs in turns, a warm-up, the same statistics. ``--part`` chooses the
first two or the last two. Exit status 1 where a figure is missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchforge import pipeline, progress
from patchforge.bench import probe, statistics, torch_cases
from patchforge.bench.model import CPU, PATCHED, Case
from patchforge.bench.suites import WorkflowCase
from patchforge.bench.workflows import Running, WorkflowSide
from patchforge.cli import parser
from patchforge.commands import test as trials
from patchforge.commands.bench.run import release_of
from patchforge.commands.common import make_engine
from patchforge.trial.model import Device, TrialSide, TrialVerdict
from patchforge.trial.runner import Trees
from patchforge.trial.server import devices
from patchforge.trial.server.supervisor import temporary_folder
from patchforge.trial.workflows.library import load

_TOLD = 10  #: each of so many runs is told
SLOWER = Path(__file__).with_name("slower_probe.py")
#: What is put in, and whether it is to be found. A CPU has nothing to wait for.
EXTRA = ("copy", "wait", "allocation")
#: A node pack that does one thing more behind the module that it is told: its number in a prompt.
PACK = """
import torch
from aiohttp import web
from comfy import model_management
from server import PromptServer

STATE = {"what": "", "at": 0, "seen": 0}
HELD = []


def extra(what):
    if what == "copy":
        HELD[0].copy_(HELD[1])
    elif what == "wait":
        getattr(torch, HELD[0].device.type).synchronize()
    elif what == "allocation":
        torch.empty(1000, device=HELD[0].device)


def behind(module, inputs, output):
    STATE["seen"] += 1
    if STATE["seen"] == STATE["at"]:
        extra(STATE["what"])


torch.nn.modules.module.register_module_forward_hook(behind)


async def post(request):
    seen = STATE["seen"]
    if not HELD:
        HELD.extend(torch.zeros(16, device=model_management.get_torch_device()) for _ in range(2))
    STATE.update({"seen": 0, **await request.json()})
    return web.json_response({"seen": seen})


PromptServer.instance.routes.post("/alarms")(post)
NODE_CLASS_MAPPINGS = {}
"""


def told(port: int, **state: Any) -> int:
    """Says what the next prompt does more; how many modules the last one had."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/alarms", json.dumps(state), {"Content-Type": "application/json"})
    return int(json.load(connection.getresponse())["seen"])


def figures(case: Case) -> dict[str, dict[str, int]]:
    if case.verdict is not TrialVerdict.FRESH:
        raise RuntimeError(f"{case.name} is {case.verdict}: {case.reason}")
    return {part: counts.figures() for part, counts in case.counts.items()}


def exact(side: WorkflowSide, measured: WorkflowCase, runs: int) -> dict[str, Any]:
    """The workflow counted again and again, as it is and with something more."""
    chance = random.Random(20_261_129)
    pack = side.tree / "custom_nodes" / "alarms"
    pack.mkdir()
    (pack / "__init__.py").write_text(PACK)
    with Running(side) as runner:
        port = runner.server.client.port

        def count(what: str = "", at: int = 0) -> dict[str, dict[str, int]]:
            told(port, what=what, at=at)
            return figures(runner.counted(measured, runner.executions.get(measured.name)))

        count()  # the first run of a server is compared with a second, of another seed
        usual = count()
        modules = told(port, what="", at=0)
        same = sum(count() != usual for _ in steps("the same again", runs))
        kinds = [what for what in EXTRA if side.device.kind != CPU or what != "wait"]
        detected = {
            f"one {what} more": sum(
                count(what, chance.randint(1, modules)) != usual for _ in steps(f"one {what} more", runs)
            )
            for what in kinds
        }
    compared = sum(map(len, usual.values()))
    return {"figures": compared, "modules": modules, "runs": runs, "other figures": same, "found": detected}


def timed(side: torch_cases.TorchSide, case: str, runs: int, pairs: int) -> dict[str, Any]:
    """The case against itself, and against one that takes 5 % longer."""
    suite = next(known.suite for known in probe.CASES if known.name == case)
    with ExitStack() as stack:
        first, second, slower = (
            stack.enter_context(torch_cases.TorchProbe(each))
            for each in (
                side,
                replace(side, log=side.log.with_name("again.log")),
                replace(side, log=side.log.with_name("slower.log"), program=SLOWER),
            )
        )
        empty = Case(suite, case, "it", TrialVerdict.FRESH, "")

        def ratio(other: torch_cases.TorchProbe) -> statistics.TimeRatio:
            before, after = torch_cases.timed([(first, empty), (other, empty)], case, pairs)
            if before.times is None or after.times is None:
                raise RuntimeError(f"{case} has no times: {before.not_measured}")
            return statistics.paired(before.times.seconds, after.times.seconds)

        same = [ratio(second) for _ in steps("timed against itself", runs)]
        slow = [ratio(slower) for _ in steps("timed against one that takes 5 % longer", runs)]
    medians = sorted(compared.ratio.median for compared in slow)
    return {
        "runs": runs,
        "pairs": pairs,
        "false alarms": sum(compared.slower or compared.faster for compared in same),
        "slowdowns found": sum(compared.slower for compared in slow),
        "slowdown measured": round(medians[len(medians) // 2], 4),
    }


def steps(what: str, runs: int) -> Iterator[int]:
    for number in range(runs):
        progress.step(f"{what}, from {number - number % _TOLD} of {runs} on")
        yield number


def missed(result: dict[str, Any]) -> list[str]:
    """What is not as it is to be."""
    said = []
    if counted := result.get("exact"):
        said += ["exact figures differ"] if counted["other figures"] else []
        said += [f"{what} is not always found" for what, times in counted["found"].items() if times < counted["runs"]]
    if times := result.get("timed"):
        said += ["more than 1 % false alarms"] if times["false alarms"] > 0.01 * times["runs"] else []
        said += ["less than 95 % of slowdowns found"] if times["slowdowns found"] < 0.95 * times["runs"] else []
    return said


def main(words: Sequence[str]) -> int:
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--runs", type=int, default=100)
    own.add_argument("--part", choices=["exact", "timed", "both"], default="both")
    own.add_argument("--case", default="residual-block-float32", help="of the suites of torch")
    own.epilog = "everything else is an argument of `patchforge bench`: the release, --device, --workflow, --pairs"
    mine, rest = own.parse_known_args(words)
    options = parser().parse_args(["bench", "run", *rest])
    device = devices.choose(options.device, Path(options.python))
    workflow = load()[options.workflow[0] if options.workflow else "txt2img"]
    result: dict[str, Any] = {"device": str(device), "case": mine.case, "workflow": workflow.name}
    begin = time.monotonic()
    with ExitStack() as stack, progress.shown(sys.stderr), temporary_folder("patchforge-alarms-") as scratch:
        patched = pipeline.convert(make_engine(options), *release_of(options, stack))
        environment = trials.environment_of(options, device, patched, progress.step)
        if mine.part != "timed":
            made = trials.generated_models(environment, progress.step, [*workflow.weights, *workflow.inputs])
            tree = Trees(patched, made, scratch, progress.step)[TrialSide.PATCHED]
            side = WorkflowSide(PATCHED, tree, device, environment, scratch / "log", options.timeout, trials.STARTING)
            result["exact"] = exact(side, WorkflowCase("workflows", workflow), mine.runs)
        if mine.part != "exact":
            of_torch = Device(CPU) if device.emulated else device
            alone = torch_cases.TorchSide("it", of_torch, of_torch, environment.python, scratch / "it.log", 300)
            result["timed"] = timed(alone, mine.case, mine.runs, options.pairs or 16)
    result |= {"seconds": round(time.monotonic() - begin), "missed": missed(result)}
    print(json.dumps(result, indent=1))
    return bool(result["missed"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
