"""Children in earnest: programs on PATH that write down all they can see, and a token that they do not find."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge import processes
from patchforge.bot import steps
from patchforge.bot.token import Token, find_token, seen_by_children
from patchforge.doctor.interpreter import question
from patchforge.errors import PatchforgeError
from patchforge.hashes import pypi
from patchforge.nix.options import options
from patchforge.patches import _check_with  # type: ignore[attr-defined]
from patchforge.project import root
from patchforge.trial import devices
from patchforge.trial.environment import Environment, existing
from patchforge.trial.guard import Guarded, temporary_folder
from patchforge.trial.server import Server
from patchforge.trial.words import Device
from tests.secrets.dump import SPY, program, spied
