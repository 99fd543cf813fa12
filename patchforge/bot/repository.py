"""Git: our own repository, cloned into a temporary folder, its branches, commits and pushes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from patchforge.bot.token import Token
from patchforge.bot.words import Branch
from patchforge.errors import CheckFailed, PatchforgeError, TryAgain
from patchforge.sources.command import run_git
from patchforge.web import refuse_secret

#: GitHub commits as this one when it rebases a branch.
_GITHUB = "noreply@github.com"


@dataclass(frozen=True, slots=True)
class Author:
    """Who the bot commits as."""

    name: str = "patchforge"
    email: str = "patchforge@users.noreply.github.com"


class Repository:
    """A clone of our own repository. ``folder`` holds the base branch; commits are made there and pushed."""

    def __init__(
        self,
        remote: str,
        base: str,
        folder: Path,
        *,
        token: Token | None = None,
        author: Author | None = None,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Clones ``base`` and every branch. PatchforgeError for a remote with a password in it."""
        refuse_secret(remote)
        self.remote, self.base, self.folder = remote, base, folder
        self._token, self._author, self._step = token or Token(), author or Author(), step
        self._git("clone", "--quiet", "--no-tags", "--branch", base, "--", remote, str(folder), inside=False, tries=3)
        self.head = self._git("rev-parse", "HEAD").strip()
        self.writes = 0

    def branches(self, prefix: str) -> dict[str, Branch]:
        """The remote's branches whose names begin with ``prefix``."""
        place = f"refs/remotes/origin/{prefix}*"
        names = self._git("for-each-ref", "--format=%(refname:strip=3) %(objectname)", place).splitlines()
        return {name: self._branch(name, tip) for name, _, tip in (line.partition(" ") for line in names)}

    def commit(self, paths: Sequence[str], message: str, date: str) -> str:
        """Commits what changed below ``paths`` and returns the new commit, or the old one when nothing did.

        Same content, same base branch: same commit. ``date`` is ISO 8601.
        """
        present = [path for path in paths if (self.folder / path).exists()]
        if present:
            self._git("add", "--all", "--", *present)
        if self._git("diff", "--cached", "--name-only"):
            person = {"NAME": self._author.name, "EMAIL": self._author.email, "DATE": date}
            who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in person.items()}
            self._git("commit", "--quiet", "--no-verify", "--message", message, environment=who)
        return self._git("rev-parse", "HEAD").strip()

    def reset(self) -> None:
        """Makes the folder the base branch again."""
        self._git("reset", "--quiet", "--hard", self.head)
        self._git("clean", "--quiet", "-ffdx")

    def only(self, paths: Sequence[str]) -> None:
        """CheckFailed when anything else than ``paths`` was changed or left behind in the folder."""
        lines = self._git("status", "--porcelain", "-z", "--untracked-files=all").split("\0")
        changed = sorted({line[3:] for line in lines if line})
        strange = [path for path in changed if not any(path == one or path.startswith(one) for one in paths)]
        if strange:
            problem = "a step changed what is not its business"
            raise CheckFailed(problem, expected=", ".join(paths), found=", ".join(strange[:8]))

    def change(self, commit: str) -> str:
        """Digest of what differs between a commit and where it left the base branch; "" for nothing."""
        start = self._git("merge-base", self.head, commit).strip()
        changed = self._git("diff", "--raw", "--no-abbrev", "--no-renames", "-z", start, commit).split("\0")
        pairs = sorted(zip(changed[1::2], changed[0::2], strict=False))
        lines = [f"{path}\t{' '.join((*raw.split()[1:2], *raw.split()[3:4]))}" for path, raw in pairs]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest() if lines else ""

    def push(self, branch: str, commit: str, expected: str) -> None:
        """Puts a commit on the remote's branch, if that still is at ``expected`` ("": does not exist).

        TryAgain when somebody was faster.
        """
        self._update(branch, commit, expected, f"{commit}:refs/heads/{branch}")

    def delete(self, branch: str, expected: str) -> None:
        """Deletes the remote's branch, if it still is at ``expected``."""
        self._update(branch, "", expected, f":refs/heads/{branch}")

    def tip(self, branch: str) -> str:
        """Where the remote's branch is now; "" when there is none."""
        return self._git("ls-remote", "origin", f"refs/heads/{branch}", tries=3).partition("\t")[0].strip()

    def _update(self, branch: str, commit: str, expected: str, refspec: str) -> None:
        verb = "push" if commit else "delete"
        self._step(f"before: {verb} {branch}")
        self.writes += 1
        try:
            self._git("push", "--quiet", f"--force-with-lease=refs/heads/{branch}:{expected}", "origin", refspec)
        except PatchforgeError as error:
            now = self.tip(branch)
            if now != commit:
                raise self._not_pushed(branch, expected, now, error) from error
        self._step(f"after: {verb} {branch}")

    @staticmethod
    def _not_pushed(branch: str, expected: str, now: str, error: PatchforgeError) -> PatchforgeError:
        if now == expected:
            return error
        return TryAgain(
            f"{branch} moved while this ran",
            expected=expected or "no such branch",
            found=now or "no such branch",
            do="run this again; what is there now is left alone",
        )

    def _branch(self, name: str, tip: str) -> Branch:
        log = self._git("log", "--format=%an%x00%ae%x00%ce", f"{self.head}..{tip}").splitlines()
        people = [line.split("\0") for line in log]
        ours = {self._author.email, _GITHUB}
        others = [who for who, wrote, committed in people if wrote != self._author.email or committed not in ours]
        return Branch(name, tip, self.change(tip), others[0] if others else "")

    def _git(
        self, *arguments: str, inside: bool = True, tries: int = 1, environment: Mapping[str, str] | None = None
    ) -> str:
        settings = {**self._secret(), **(environment or {})}
        folder = self.folder if inside else None
        return run_git(*arguments, folder=folder, environment=settings, hide=self._token.hidden, tries=tries)

    def _secret(self) -> dict[str, str]:
        """The token as a header for this remote's host alone; in the environment, which no list of processes shows."""
        address = urlsplit(self.remote)
        if not self._token.text or address.scheme not in ("http", "https"):
            return {}
        key = f"http.{address.scheme}://{address.netloc}/.extraHeader"
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": key,
            "GIT_CONFIG_VALUE_0": f"Authorization: {self._token.basic}",
        }
