"""Git: our own repository, cloned into a temporary folder, its branches, commits and pushes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from patchforge.bot.model import Branch
from patchforge.bot.token import Token, refuse_secrets
from patchforge.errors import CheckFailed, PatchforgeError, TryAgain
from patchforge.git.command import run_git

#: GitHub commits as this one when it rebases a branch.
_GITHUB = "noreply@github.com"
#: git says "get" after it. It reads one line of the pipe, byte by byte, so that the next try finds its own.
_HELPER = """!f() { test "$1" = get && read -r secret < /dev/fd/FD &&
 printf 'username=x-access-token\\npassword=%s\\n' "$secret"; }; f"""
#: The user's own programs for passwords are not asked.
_ASK_NOBODY = {"GIT_ASKPASS": "", "SSH_ASKPASS": ""}
_REDIRECTED = re.compile(r"unable to update url base from redirection|returned error: 30\d", re.IGNORECASE)


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
        """Clones ``base`` and every branch. PatchforgeError for a remote with a password in it, or in plain HTTP."""
        self._token = token or Token()
        refuse_secrets(remote, self._token)
        self.remote, self.base, self.folder = remote, base, folder
        self._author, self._step = author or Author(), step
        what = ("--no-tags", "--no-checkout", "--branch", base)
        self._remotely("clone", *what, "--", remote, str(folder), inside=False, tries=3)
        self._git("reset", "--quiet", "--hard")
        self.head = self._git("rev-parse", "HEAD").strip()
        self.writes = 0

    def branches(self, prefix: str) -> dict[str, Branch]:
        """The remote's branches whose names begin with ``prefix``."""
        place = f"refs/remotes/origin/{prefix}*"
        names = self._git("for-each-ref", "--format=%(refname:strip=3) %(objectname)", place).splitlines()
        return {name: self._branch(name, tip) for name, _, tip in (line.partition(" ") for line in names)}

    def file(self, branch: str, path: str) -> bytes:
        """A text of the remote's branch; b"" where there is none."""
        tip = f"refs/remotes/origin/{branch}"
        if not self._git("for-each-ref", tip) or not self._git("ls-tree", "--name-only", tip, "--", path):
            return b""
        return self._git("show", f"{tip}:{path}").encode()

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
        strange = [
            path for path in changed if not any(path == allowed or path.startswith(allowed) for allowed in paths)
        ]
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
        return self._remotely("ls-remote", "origin", f"refs/heads/{branch}", tries=3).partition("\t")[0].strip()

    def _update(self, branch: str, commit: str, expected: str, refspec: str) -> None:
        verb = "push" if commit else "delete"
        self._step(f"before: {verb} {branch}")
        self.writes += 1
        try:
            self._remotely("push", f"--force-with-lease=refs/heads/{branch}:{expected}", "origin", refspec)
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

    def hidden(self, text: str) -> str:
        """``text`` without the token."""
        return self._token.hidden(text)

    def _git(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """A command that stays on this machine, without the token."""
        return run_git(*arguments, folder=self.folder, environment=environment, hide=self.hidden)

    def _remotely(self, *arguments: str, inside: bool = True, tries: int = 1) -> str:
        """A command that asks the remote, which gets the token if it asks for one. No redirect is followed."""
        folder = self.folder if inside else None
        with self._secret(tries) as (settings, handed_on):
            try:
                return run_git(
                    *arguments,
                    folder=folder,
                    environment=_ASK_NOBODY,
                    settings=settings,
                    hide=self.hidden,
                    tries=tries,
                    pass_fds=handed_on,
                )
            except PatchforgeError as error:
                if _REDIRECTED.search(error.found):
                    problem = "the remote leads to another address, and the token is not sent there"
                    do = "if the repository was renamed, name its new address: --repository or --remote"
                    raise PatchforgeError(problem, found=error.found, do=do) from error
                raise

    @contextmanager
    def _secret(self, tries: int) -> Iterator[tuple[list[tuple[str, str]], list[int]]]:
        """Settings by which git reads the token from a pipe, once for each try, when this remote's host asks for it.

        So it stands on no command line and in no environment, and no other host is given it.
        """
        address = urlsplit(self.remote)
        settings = [("http.followRedirects", "false"), ("credential.helper", "")]
        if not self._token.text or address.scheme.lower() not in ("http", "https"):
            yield settings, []
            return
        origin = f"credential.{address.scheme}://{address.netloc}"
        reads, writes = os.pipe()
        try:
            os.write(writes, f"{self._token.text}\n".encode() * tries)
            os.close(writes)
            helper = _HELPER.replace("FD", str(reads))
            yield [*settings, (f"{origin}.helper", helper)], [reads]
        finally:
            os.close(reads)
