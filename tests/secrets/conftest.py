from __future__ import annotations

from tests.bot.conftest import built, world

__all__ = ["built", "world"]
