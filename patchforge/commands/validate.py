"""``patchforge validate``: whether an update may stay."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from patchforge import processes, progress
from patchforge.commands.common import show_json, table
from patchforge.commands.doctor import judge
from patchforge.doctor import variables
from patchforge.doctor.facts import Facts, InterpreterFacts
from patchforge.doctor.interpreter import question
from patchforge.doctor.machine import examine
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import line
from patchforge.faults import told
from patchforge.operate import records, served, validation
from patchforge.operate.asking import Unusable, checked, name_of
from patchforge.operate.comfyui import WatchedComfyUI
from patchforge.operate.health import Look
from patchforge.operate.validation import Check, Good, Measured
from patchforge.paths import not_there

_DEEP = 60.0
_ROLLBACK = 1800.0  #: seconds
_OF_A_SHELL = ";&|<>()"


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when the update may stay, 1 when not, also when it was taken back; 69 when that cannot be told."""
    if options.rollback and not options.rollback_command:
        raise PatchforgeError(
            "--rollback needs --rollback-command",
            expected="what goes back, such as 'nixos-rebuild switch --rollback'",
            do="name it",
        )
    way_back = _words(options.rollback_command) if options.rollback_command else []
    if options.python and not processes.program(options.python) and not Path(options.python).is_file():
        raise not_there(Path(options.python), "the Python that ComfyUI runs in, for --python")
    look = Look(checked(options.url), timeout=_DEEP, allow_cpu=options.allow_cpu)
    name = name_of(look.url)
    state = Path(options.state) if options.state else None
    if state:
        records.check(state, "validation", name)
    checks, measured = _checks(options, look, state, name)
    ok = validation.passed(checks)
    failed = any(check.ok is False for check in checks)
    unkept = _kept(state, name, checks, measured, ok=ok) if ok or failed else None
    back = _back(options, way_back, checks) if failed else ""
    made = all(check.ok is not None for check in checks)
    status = Exit.FAILED if failed else Exit.OK if made else Exit.UNCHECKED
    _show(options, checks, back, status, ok=ok)
    if unkept is not None:
        raise unkept
    return status


def _checks(
    options: argparse.Namespace, look: Look, state: Path | None, name: str
) -> tuple[list[Check], Measured | None]:
    """Doctor first, though it is asked after the server; what needs one that is ready is left out where none is."""
    progress.step(f"waiting up to {options.timeout:g} s (--timeout) for ComfyUI to be ready at {look.url}")
    is_ready = validation.ready(look, options.timeout)
    if not is_ready.ok:
        return [_doctor(options.python, look.url, is_ready, None), is_ready], None
    progress.step("sampling")
    sampled = validation.deep(look)
    progress.step("examining the machine, and the torch that ComfyUI runs with")
    checks = [_doctor(options.python, look.url, is_ready, sampled), is_ready, sampled]
    if not sampled.ok or not options.runs:
        return checks, None
    progress.step(f"sampling {options.runs} times more, for the times")
    check, measured = validation.measure(look, options.runs, validation.load(state, name))
    return [*checks, check], measured


def _doctor(python: str | None, url: str, is_ready: Check, sampled: Check | None) -> Check:
    """What doctor says of the Python that ComfyUI runs in; ``ok`` None where that cannot be asked.

    ``python`` is the one that is named. Another one's torch, or the lack of one, says nothing of the update.
    """
    server = served.Server(python, os.environ) if python else served.of(url)
    if not server.python:
        return _unasked(f"which Python ComfyUI runs in cannot be told: {server.why}")
    try:
        heard = question(server.python, server.environment)
    except PatchforgeError as error:
        why = f"{error.problem} ({error.found})"
        return Check("doctor", ok=False, reason=why) if is_ready.ok is False else _unasked(why)
    if is_ready.ok and (other := _another(heard, url)):
        return _unasked(other)
    facts = Facts(examine(Path("/"), os.environ), heard, variables.shown(server.environment), None)
    return validation.doctor(judge(facts), is_ready=is_ready.ok, samples=sampled.ok if sampled else None)


def _unasked(why: str) -> Check:
    return Check("doctor", ok=None, reason=f"{why}; name ComfyUI's own Python with --python")


def _another(heard: InterpreterFacts, url: str) -> str:
    """Why a Python is not the one that the server at ``url`` runs in; "" where nothing speaks against that."""
    if "torch" in heard.errors:
        return f"{heard.python} cannot import torch ({heard.errors['torch']}), and ComfyUI, which answers, can"
    try:
        system = WatchedComfyUI(url).stats()["system"]
    except Unusable:
        return ""
    torch: Mapping[str, object] = heard.answers.get("torch") or {}
    pairs = (
        ("Python", heard.answers.get("python"), system.get("python_version", "").partition(" ")[0]),
        ("torch", torch.get("version"), system.get("pytorch_version")),
    )
    return next(
        (
            f"{heard.python} has {what} {line(str(own))}, and ComfyUI runs with {line(str(its))}"
            for what, own, its in pairs
            if own and its and own != its
        ),
        "",
    )


def _kept(
    state: Path | None, name: str, checks: list[Check], measured: Measured | None, *, ok: bool
) -> Exception | None:
    """Records the result; why that failed, which must not keep anybody from going back."""
    if state is None:
        return None
    reason = next((f"{check.name}: {check.reason}" for check in checks if check.ok is False), "it may stay")
    ratio, regressed = (measured.ratio, measured.regressed) if measured else (None, False)
    now = records.now()
    record = records.ValidationRecord(name, ok, reason[:1000], ratio, regressed, now)
    try:
        records.write(state, "validation", name, record)
        if ok and measured:
            validation.save(state, name, Good(name, measured.device, measured.seconds, measured.operations, now))
    except (OSError, PatchforgeError) as error:
        return error
    return None


def _words(command: str) -> list[str]:
    """A program and its arguments. PatchforgeError where it is not there, or where only a shell would understand it."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=_OF_A_SHELL)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError as error:
        words, why = [], str(error)
    else:
        why = (
            "it is for a shell"
            if {"$", "`"} & set(command) or any(set(word) <= set(_OF_A_SHELL) for word in words)
            else ""
        )
    if why or not words:
        raise PatchforgeError(
            f"--rollback-command {command} cannot be run",
            expected="a program and its arguments; no shell reads them",
            found=why or "nothing",
            do="put it into a script, and name that",
        )
    if not processes.program(words[0]):
        raise PatchforgeError(
            f"{words[0]} is not there", expected="the program of --rollback-command", do="name it with its whole path"
        )
    return words


def _back(options: argparse.Namespace, way_back: list[str], checks: list[Check]) -> str:
    """What was done, or is to be done, about an update that does not pass."""
    if not options.rollback_command:
        if all(check.ok is not False or check.name == "doctor" for check in checks):
            return ""  # doctor says what to do
        return "go back to what you had, as with nixos-rebuild switch --rollback, or patchforge revert DIR"
    if not options.rollback:
        return f"to go back: {options.rollback_command}"
    progress.step(f"going back: {options.rollback_command}")
    try:
        done = processes.run(
            way_back,
            env=processes.environment(allow=processes.NIX),
            capture_output=True,
            text=True,
            timeout=_ROLLBACK,
        )
    except (OSError, ValueError, processes.TimeoutExpired) as error:
        return f"going back FAILED, {told(error).problem}: {options.rollback_command}"
    if done.returncode:
        last = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-5:])
        return f"going back FAILED, status {done.returncode}: {options.rollback_command}\n{last}"
    return f"went back: {options.rollback_command}"


def _show(options: argparse.Namespace, checks: list[Check], back: str, status: int, *, ok: bool) -> None:
    """``ok``: a sample was seen, and nothing speaks against the update."""
    says = {Exit.OK: "the update may stay", Exit.FAILED: "the update is to be taken back"}
    unmade = " and ".join(check.name for check in checks if check.ok is None)
    untold = (
        f"nothing speaks against the update; not made: {unmade}" if ok else "whether the update may stay cannot be told"
    )
    said = says.get(Exit(status), untold)
    if options.json:
        show_json("validate", {"ok": status == Exit.OK, "checks": [asdict(check) for check in checks], "back": back})
        return
    table(
        [
            ("ok" if check.ok else "not made" if check.ok is None else "failed", check.name, check.reason)
            for check in checks
        ]
    )
    print(said)
    if back:
        print(back)
