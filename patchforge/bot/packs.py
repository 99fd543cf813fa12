"""A run for node packs: look, convert each whose branch has moved on, plan, do."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from patchforge import caches
from patchforge.bot import bodies, preparation, repinning
from patchforge.bot.follow import Followed, FollowState, follow
from patchforge.bot.model import Proposal, Reported
from patchforge.bot.plan import PACKS, RemoteState, plan_packs
from patchforge.bot.run import BotRun, RunOutcome
from patchforge.errors import CheckFailed, PatchforgeError, TryAgain
from patchforge.pins.tracked import TrackedRepository, load_nodes

_PROJECT = "nodes"
_WRONG = {"moved": "it cannot be followed", "pin": "it cannot be pinned", "proof": "a check failed"}


class PackRun(BotRun):
    """One run, for every pack or for those that ``settings.packs`` names."""

    def run(self) -> RunOutcome:
        upstream = self.repository.folder / "upstream"
        packs = {pack.name: pack for pack in load_nodes(upstream)}
        followed = list(follow(upstream, self.settings.packs))
        again = [(pack.name, pack.why) for pack in followed if pack.state is FollowState.AGAIN]
        made: list[Proposal | Reported] = []
        for pack in followed:
            try:
                made += self._look(packs[pack.name], pack)
            except TryAgain as error:
                again.append((pack.name, str(error)))
            finally:
                self.repository.reset()
        wanted = [proposal for proposal in made if isinstance(proposal, Proposal)]
        problems = [report for report in made if isinstance(report, Reported)]
        remote = self.remote(_PROJECT, PACKS, self.open_pulls(PACKS), [proposal.branch for proposal in wanted])
        plan = plan_packs(remote, wanted, self._over(packs, followed, remote), problems, self.settings.rules)
        if self.is_real:
            self.carry_out(plan)
        passed = [(pack.name, pack.why) for pack in followed if pack.state in {FollowState.WAITS, FollowState.WRONG}]
        discovered = {"nodes": [pack.as_data() for pack in followed]}
        return self.outcome(discovered, [*passed, *again], plan, problems, again=bool(again))

    def _look(self, pack: TrackedRepository, followed: Followed) -> list[Proposal | Reported]:
        """What is to be proposed or reported of a pack, if anything."""
        if followed.state is FollowState.WRONG:
            return [_problem(pack, "moved", followed.why)]
        if followed.state is not FollowState.NEW:
            return []
        with tempfile.TemporaryDirectory(prefix="patchforge-pack-") as scratch:
            checkout = repinning.check_out(pack, Path(scratch))
            try:
                return [self._want(pack, followed.commit, checkout)]
            except TryAgain:
                raise
            except PatchforgeError as error:
                text = str(error).replace(str(checkout), pack.url).replace(str(caches.place()), "CACHE")
                about = "proof" if isinstance(error, CheckFailed) else "pin"
                return [_problem(pack, about, text.replace(str(self.repository.folder), "."), followed.commit)]

    def _want(self, pack: TrackedRepository, commit: str, checkout: Path) -> Proposal:
        """Makes the pin, the patch and the Nix expressions in our repository's folder, and commits them."""
        folder, branch = self.repository.folder, PACKS + pack.name
        made = repinning.repin(pack, commit, folder, checkout)
        nix = preparation.run_step(preparation.NIX, folder, self.repository.hidden)
        paths = (f"generated/nodes/{pack.name}/", "generated/nix/", "upstream/pins/nodes.json", "flake.nix")
        self.repository.only(paths)
        title = f"Update node pack {pack.name}"
        why = f"Made by patchforge alone: upstream commit {commit}."
        ours = self.repository.commit(paths, f"{title}\n\n{why}\n", made.date)
        change, offer = self.repository.change(ours), bodies.offer(commit, made.patches)
        said = {"project": _PROJECT, "name": pack.name, "commit": commit, "change": change, "offer": offer}
        body = bodies.marked(bodies.pack_body(pack, made, [nix]), **said)
        draft = nix.outcome == "failed" or not made.is_sound
        return Proposal(pack.name, branch, ours, change, offer, title, body, draft)

    def _over(
        self, packs: Mapping[str, TrackedRepository], followed: Sequence[Followed], remote: RemoteState
    ) -> dict[str, str]:
        """Why nothing is to be proposed, by pack: also of one that is not declared any more, when all are looked at."""
        names = {branch.removeprefix(PACKS) for branch in (*remote.branches, *(pull.branch for pull in remote.pulls))}
        names |= {str(issue.marker.get("name", "")) for issue in remote.issues}
        gone = set[str]() if self.settings.packs else names - packs.keys()
        told = {
            FollowState.PINNED: "the base branch has its newest commit",
            FollowState.WAITS: "no newer commit is old enough",
        }
        over = {pack.name: told[pack.state] for pack in followed if pack.state in told}
        return over | dict.fromkeys(sorted(gone), "it is not tracked any more")


def _problem(pack: TrackedRepository, about: str, text: str, commit: str = "") -> Reported:
    body = bodies.pack_problem(pack, about, text, commit)
    marked = bodies.marked(body, about=about, name=pack.name, project=_PROJECT)
    return Reported(about, pack.name, f"Node pack {pack.name}: {_WRONG[about]}", marked)
