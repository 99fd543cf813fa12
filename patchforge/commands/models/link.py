"""``patchforge models link``: one more name for a model, in ComfyUI's folders or in Ollama."""

from __future__ import annotations

import argparse

from patchforge.commands.models import shown
from patchforge.errors import Exit, PatchforgeError
from patchforge.models.hashing import Digests
from patchforge.models.store import ModelStore, into_comfyui, into_ollama, source_of
from patchforge.models.survey import taken


def run(options: argparse.Namespace) -> int:
    """Exit status 0: the name is there, or was."""
    program, _, name = options.target.partition(":")
    if program not in {"comfyui", "ollama"} or not name or name.startswith("/"):
        raise PatchforgeError(
            f"{options.target!r} is not a place for a model",
            expected="comfyui:FOLDER, comfyui:FOLDER/NAME or ollama:NAME",
            do="name one such as comfyui:text_encoders, or ollama:qwen3:4b",
        )
    places = shown.places(options)
    source = source_of(places, taken(places), options.model)
    digests = Digests()
    store = ModelStore(places, dry=options.dry_run, digests=digests)
    with store.locked():
        if program == "ollama":
            into_ollama(store, source, name, digests)
        else:
            kind, _, called = name.partition("/")
            into_comfyui(store, source, kind, called or source.called, digests, symlink=options.symlink)
    shown.result(store.result, dry=options.dry_run, json=options.json)
    return Exit.OK
