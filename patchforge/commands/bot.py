"""``patchforge bot``: proposes new versions as pull requests, and reports what a person must look at."""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import tempfile
import time
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from patchforge import progress, resources
from patchforge.bot.forge import API, Forge
from patchforge.bot.model import Action
from patchforge.bot.packs import PackRun
from patchforge.bot.plan import Rules
from patchforge.bot.releases import ReleaseRun
from patchforge.bot.repository import Repository
from patchforge.bot.run import BotSettings, RunOutcome, alone
from patchforge.bot.token import Token, find_token, seen_by_children
from patchforge.commands.common import make_engine, show_json, version_named
from patchforge.errors import PatchforgeError
from patchforge.escape import line
from patchforge.git.clone import is_url
from patchforge.git.command import run_git

_SERVER = "https://github.com"


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 or 3 while an issue says what a person must look at; 75 when it should be run again."""
    token = find_token(options.token_file)
    try:
        return _run(options, token)
    except PatchforgeError as error:
        problem, expected, found, do = map(token.hidden, (error.problem, error.expected, error.found, error.do))
        told = PatchforgeError(problem, expected=expected, found=found, do=do)
        told.status = error.status
        raise told from None


def _run(options: argparse.Namespace, token: Token) -> int:
    settings = _settings(options)
    offline = settings.dry_run and _is_offline(options, settings)
    if not offline and not settings.repository:
        raise PatchforgeError("no repository is named", expected="OWNER/NAME", do="--repository, or GITHUB_REPOSITORY")
    if not settings.dry_run and not token.text:
        raise PatchforgeError(
            "there is no token for GitHub",
            expected="GH_TOKEN, GITHUB_TOKEN, --token-file, or systemd's credential github-token",
            do="give one, or look only: --dry-run",
        )
    if options.test and (seen := seen_by_children(token)):
        raise PatchforgeError(
            "the release that --test runs could read the token",
            expected="a token that only patchforge holds",
            found="; ".join(seen),
            do="hand it over by a pipe, --token-file /dev/stdin, from a shell that does not export it",
        )
    begun = time.monotonic()
    forge = None if offline else Forge(token, api=os.environ.get("GITHUB_API_URL") or API)
    lock = nullcontext() if settings.dry_run else alone(settings.repository)
    with lock, tempfile.TemporaryDirectory(prefix="patchforge-bot-") as folder:
        remote = settings.remote or _ours(Path(folder) / "ours", settings.base)
        progress.step(f"cloning {token.hidden(remote)}")
        repository = Repository(remote, settings.base, Path(folder) / "repository", token=token)
        outcome = _kind(options, settings, repository, forge).run()
    if options.json:
        told = {**outcome.as_data(), "status": int(outcome.status), "seconds": round(time.monotonic() - begun, 1)}
        show_json("bot", token.hidden_in(told))
    else:
        with redirect_stdout(io.StringIO()) as said:
            _show(outcome, texts=settings.dry_run)
        print(token.hidden(said.getvalue()), end="")
    return outcome.status


def _kind(
    options: argparse.Namespace, settings: BotSettings, repository: Repository, forge: Forge | None
) -> PackRun | ReleaseRun:
    if options.packs is not None:
        return PackRun(settings, repository, forge)
    return ReleaseRun(settings, repository, forge, make_engine(options))


def _is_offline(options: argparse.Namespace, settings: BotSettings) -> bool:
    """Whether GitHub's API is left alone in a dry run: without a repository, and for releases with a clone."""
    if options.packs is not None or not settings.repository:
        return not settings.repository
    return settings.upstream is not None and not is_url(settings.upstream)


def _ours(folder: Path, base: str) -> str:
    """What a dry run proposes to where no repository is named.

    The checkout of patchforge that this is or that runs; else one made of what is installed, to which each release is
    new.
    """
    for checkout in (Path(), resources.repository()):
        if checkout and (checkout / ".git").exists() and (checkout / "upstream").is_dir():
            return str(checkout)
    shutil.copytree(resources.path("upstream"), folder / "upstream")
    run_git("init", "--quiet", "--initial-branch", base, str(folder))
    run_git("add", "--all", folder=folder)
    who = {f"GIT_{role}_{key}": "patchforge" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    run_git("commit", "--quiet", "--message", "What is installed", folder=folder, environment=who)
    return str(folder)


def _settings(options: argparse.Namespace) -> BotSettings:
    repository = options.repository or os.environ.get("GITHUB_REPOSITORY", "")
    if repository and not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise PatchforgeError(
            f"{repository!r} is not a repository", expected="OWNER/NAME", do="name one, such as --repository OWNER/NAME"
        )
    if options.packs is not None and (options.release or options.test):
        expected = "no VERSION and no --test, which are about releases"
        raise PatchforgeError("--nodes is about node packs", expected=expected, do="run patchforge bot twice")
    server = os.environ.get("GITHUB_SERVER_URL") or _SERVER
    return BotSettings(
        repository=repository,
        remote=options.remote or (f"{server}/{repository}.git" if repository else ""),
        base=options.base,
        upstream=options.upstream or os.environ.get("PATCHFORGE_UPSTREAM"),
        version=version_named(options.release) if options.release else None,
        packs=tuple(options.packs or ()),
        dry_run=options.dry_run,
        test=options.test,
        rules=Rules(options.max_open, options.recreate),
    )


def _show(outcome: RunOutcome, *, texts: bool) -> None:
    """The plan; with ``texts`` also the titles and bodies that GitHub would get."""
    for name, why in outcome.passed:
        print(f"passed over: {name}: {why}")
    for note in outcome.plan.notes:
        print(f"not done: {note}")
    for problem in outcome.problems:
        print(f"problem: {problem.title}")
    for action in outcome.plan.actions:
        target = f" #{action.number}" if action.number else f" {action.branch}" if action.branch else ""
        print(f"{'done' if outcome.done else 'would'}: {action.kind.value}{target} ({action.why})")
        if texts:
            _text(action)
    if outcome.again:
        print("not everything answered: run this again later")
    elif not outcome.plan.actions:
        print("up to date: nothing to do")


def _text(action: Action) -> None:
    if action.title:
        print(f"  title: {line(action.title)}")
    for splitline in (action.body or action.text).splitlines():
        print(f"  | {line(splitline)}".rstrip())
