"""``patchforge packs track``: which packs' branches have moved on from their pins."""

from __future__ import annotations

import argparse

from patchforge import resources
from patchforge.bot.follow import Followed, FollowState, follow
from patchforge.commands.common import show_json, table
from patchforge.errors import Exit


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when a pack cannot be followed; 75 when something did not answer."""
    packs = list(follow(resources.path("upstream")))
    if options.json:
        show_json("packs-track", {"nodes": [pack.as_data() for pack in packs]})
    elif packs:
        table([_row(pack) for pack in packs])
    states = {pack.state for pack in packs}
    return Exit.AGAIN if FollowState.AGAIN in states else Exit.FAILED if FollowState.WRONG in states else Exit.OK


def _row(pack: Followed) -> tuple[str, str, str, str]:
    new = f"{pack.pinned[:12] or 'not pinned'} → {pack.commit[:12]} {pack.date[:10]}"
    return pack.state.value, pack.name, pack.follows, new if pack.state is FollowState.NEW else pack.why
