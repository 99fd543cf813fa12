"""``patchforge validate``: whether an update may stay."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from patchforge import processes, progress
from patchforge.commands.common import show_json, table
from patchforge.commands.doctor import judge
from patchforge.doctor import variables
from patchforge.doctor.facts import Facts, FactState
from patchforge.doctor.interpreter import question
from patchforge.doctor.machine import examine
from patchforge.errors import Exit, PatchforgeError
from patchforge.faults import told
from patchforge.operate import records, validation
from patchforge.operate.asking import checked, name_of
from patchforge.operate.health import Look
from patchforge.operate.validation import Check, Good, Measured
from patchforge.paths import need_folder

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
    state = Path(options.state) if options.state else None
    if state:
        need_folder(state)
    look = Look(checked(options.url), timeout=_DEEP, allow_cpu=options.allow_cpu)
    name = name_of(look.url)
    checks, measured = _checks(options, look, state, name)
    ok = validation.passed(checks)
    untold = not ok and all(check.ok is not False for check in checks)
    _keep(state, name, checks, measured, ok=ok, untold=untold)
    back = "" if ok or untold else _back(options, way_back)
    status = Exit.OK if ok else Exit.UNCHECKED if untold else Exit.FAILED
    _show(options, checks, back, status)
    return status


def _checks(
    options: argparse.Namespace, look: Look, state: Path | None, name: str
) -> tuple[list[Check], Measured | None]:
    """In this order; what needs a server that is ready is left out where there is none."""
    progress.step("examining the machine")
    checks = [_doctor(options.python or sys.executable)]
    progress.step("waiting for ComfyUI")
    checks.append(validation.ready(look, options.timeout))
    if not checks[-1].ok:
        return checks, None
    progress.step("sampling")
    check, _ = validation.deep(look)
    checks.append(check)
    if not check.ok or not options.runs:
        return checks, None
    check, measured = validation.measure(look, options.runs, validation.load(state, name))
    return [*checks, check], measured


def _doctor(python: str) -> Check:
    try:
        heard = question(python, os.environ)
    except PatchforgeError as error:
        if not Path(python).exists():
            raise
        return Check("doctor", ok=False, reason=f"{error.problem}: {error.found}")
    facts = Facts(examine(Path("/"), os.environ), heard, variables.shown(os.environ), None)
    wrong = [fact for fact in judge(facts) if fact.state is FactState.WRONG]
    reason = "; ".join(f"{fact.subject}: {fact.text}" for fact in wrong) or "nothing wrong"
    return Check("doctor", ok=not wrong, reason=reason)


def _keep(
    state: Path | None, name: str, checks: list[Check], measured: Measured | None, *, ok: bool, untold: bool
) -> None:
    if state is None or untold:
        return
    reason = next((f"{check.name}: {check.reason}" for check in checks if check.ok is False), "it may stay")
    ratio, regressed = (measured.ratio, measured.regressed) if measured else (None, False)
    now = records.now()
    records.write(state, "validation", name, records.ValidationRecord(name, ok, reason[:1000], ratio, regressed, now))
    if ok and measured:
        good = Good(name, measured.device, measured.seconds, measured.operations, now)
        validation.save(state, name, good)


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


def _back(options: argparse.Namespace, way_back: list[str]) -> str:
    """What was done, or is to be done, about an update that does not pass."""
    if not options.rollback_command:
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


def _show(options: argparse.Namespace, checks: list[Check], back: str, status: int) -> None:
    says = {Exit.OK: "the update may stay", Exit.FAILED: "the update is to be taken back"}
    said = says.get(Exit(status), "whether the update may stay cannot be told")
    if options.json:
        show_json("validate", {"ok": status == Exit.OK, "checks": [asdict(check) for check in checks], "back": back})
        return
    table(
        [
            ("ok" if check.ok else "not checked" if check.ok is None else "failed", check.name, check.reason)
            for check in checks
        ]
    )
    print(said)
    if back:
        print(back)
