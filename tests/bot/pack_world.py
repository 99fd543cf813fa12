"""Node packs for the bot's tests: repositories on disk in the place of GitHub's, declared and pinned in ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchforge.nodes.convert import convert
from patchforge.nodes.pack import read_pack
from patchforge.nodes.patched import PatchedPack
from patchforge.pattern import Options
from patchforge.pins import pin_files, repositories
from patchforge.pins.repositories import Clones
from patchforge.pins.tracked import load_repository
from tests.bot.world import World, bare, git, put

OLD = "2026-01-10T00:00:00Z"
KEPT, BOUND = "alpha", "beta"  #: a pack with a patch in our repository, and one whose licence forbids it
PINS = "upstream/pins/nodes.json"
NODES = b"""import torch


class Halve:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image.cuda() / 2,)
"""
FILES = {
    "__init__.py": b'from .nodes import Halve\n\nNODE_CLASS_MAPPINGS = {"Halve": Halve}\n',
    "nodes.py": NODES,
    "requirements.txt": b"numpy>=1\n",
    "LICENSE": b"Do as you like.\n",
}
#: Another place to convert, and one that a person must look at.
MORE = (
    NODES
    + b"""
    def other(self, image):
        torch.cuda.empty_cache()
        return torch.cuda.get_device_capability()
"""
)


def declaration(name: str, licence: str = "MIT", more: str = "") -> bytes:
    url = f"https://github.com/someone/{name}"
    text = f'name = "{name}"\ntitle = "Pack {name}"\nurl = "{url}"\nlicense = "{licence}"\ngroup = "samplers"\n'
    return f'{text}branch = "main"\nrequirements = "requirements.txt"\n{more}'.encode()


def build_packs(folder: Path, built: Path) -> None:
    """Two packs, and our repository as ``built`` has it, with both of them pinned and the first converted."""
    shutil.copytree(built / "ours.git", folder / "ours.git")
    files: dict[str, bytes] = {}
    pins = {}
    for name, licence in ((KEPT, "MIT"), (BOUND, "LicenseRef-bound")):
        target, scratch = bare(folder / "github" / "someone" / name), folder / name
        commit = put(target, FILES, date=OLD)
        git(folder, "clone", "--quiet", str(target), str(scratch))
        path = folder / "nodes" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(declaration(name, licence))
        files[f"upstream/nodes/{name}.toml"] = declaration(name, licence)
        pins[name] = repositories.pin(load_repository(path), Clones({name: str(scratch)}), {})
        if name == KEPT:
            made = PatchedPack(convert(read_pack(scratch), Options()), commit).files()
            files |= {f"generated/nodes/{name}/{each}": data for each, data in made.items()}
    files[PINS] = pin_files.render("nodes", pins)
    put(folder / "ours.git", files)


class PackWorld(World):
    """The bot's world, as far as packs need it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = self.folder / "gitconfig"
        settings.write_text(f'[url "{(self.folder / "github").as_uri()}/"]\n\tinsteadOf = https://github.com/\n')
        self.monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
        self.monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
        self.monkeypatch.setenv("PATCHFORGE_CACHE", str(self.folder / "cache"))

    def place(self, name: str) -> Path:
        return self.folder / "github" / "someone" / name

    def move_on(
        self, name: str, files: Mapping[str, bytes] | None = None, date: str = OLD, message: str = "a commit"
    ) -> str:
        """Somebody commits to a pack's branch."""
        return put(self.place(name), files or {"nodes.py": MORE}, date=date, message=message)

    def packs(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        return self.call("packs", "bot", *arguments)

    def pin(self, name: str, at: str = "main") -> dict[str, Any]:
        """A pack's pin on a branch of our repository."""
        pinned: dict[str, Any] = json.loads(git(self.ours, "show", f"{at}:{PINS}"))["pins"][name]
        return pinned

    def declare(self, name: str, **more: str) -> None:
        """Another pack, not pinned yet, of which no patch is kept."""
        shutil.copytree(self.place(BOUND), self.place(name))
        self.commit("main", {f"upstream/nodes/{name}.toml": declaration(name, **more)})
