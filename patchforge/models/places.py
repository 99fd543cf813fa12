"""Where model files are: the folders of ComfyUI, Ollama and Hugging Face's cache, and the store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchforge import documents
from patchforge.errors import Damaged, PatchforgeError
from patchforge.paths import need_folder

VARIABLE = "PATCHFORGE_MODELS"
EXTRA = "extra_model_paths.yaml"
#: ComfyUI's folders of one kind; the first is what the kind is called (folder_paths.py).
_LEGACY = {"clip": "text_encoders", "unet": "diffusion_models"}
_MOST = 1 << 20  #: bytes of extra_model_paths.yaml


@dataclass(frozen=True, slots=True)
class Places:
    """``comfyui``: folders, each with its kind, such as ``text_encoders``; ``tops``: what was named for them.

    None and nothing: the program has none. ``absent``: folders that an ``extra_model_paths.yaml`` names, and what is in
    them is not known.
    """

    store: Path
    comfyui: tuple[tuple[str, Path], ...] = ()
    ollama: Path | None = None
    hub: Path | None = None
    tops: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()

    def folder(self, kind: str) -> Path:
        """ComfyUI's first folder of a kind. PatchforgeError where there is none."""
        wanted = _LEGACY.get(kind, kind)
        known = [path for name, path in self.comfyui if name == wanted]
        if known:
            return next((path for path in known if path.name == wanted), known[0])
        kinds = ", ".join(sorted({name for name, _ in self.comfyui})) or "no folder of ComfyUI's"
        raise PatchforgeError(
            f"ComfyUI has no folder for {kind}", expected=kinds, do="name ComfyUI's folder with --comfyui DIR"
        )


def store_place() -> Path:
    """Where the store is unless it is named: PATCHFORGE_MODELS, or else the user's folder of data for patchforge."""
    import platformdirs  # noqa: PLC0415 - keeps start-up light

    return Path(os.environ.get(VARIABLE) or platformdirs.user_data_path("patchforge") / "models").expanduser()


def known(
    comfyui: Sequence[str] = (),
    *,
    ollama: str | None = None,
    hub: str | None = None,
    store: str | None = None,
) -> Places:
    """The folders that are named, and those that Ollama and Hugging Face use here where they are there.

    PatchforgeError for a folder that is named and not there, Damaged for an unusable ``extra_model_paths.yaml``.
    """
    folders: dict[Path, str] = {}
    absent: dict[Path, None] = {}
    for named in comfyui:
        for kind, path in _of_comfyui(Path(named).expanduser()):
            if kind:
                folders.setdefault(path, kind)
            else:
                absent[path] = None
    return Places(
        Path(store).expanduser() if store else store_place(),
        tuple((kind, path) for path, kind in folders.items()),
        _given(ollama) or _first("OLLAMA_MODELS", Path("~/.ollama/models"), Path("/usr/share/ollama/.ollama/models")),
        _given(hub) or _hub(),
        tuple(path if (path := Path(named).expanduser()).is_dir() else path.parent for named in comfyui),
        tuple(absent),
    )


def _given(named: str | None) -> Path | None:
    if named is None:
        return None
    need_folder(path := Path(named).expanduser())
    return path


def _first(variable: str, *usual: Path) -> Path | None:
    if told := os.environ.get(variable):
        return Path(told) if Path(told).is_dir() else None
    return next((path for place in usual if (path := place.expanduser()).is_dir()), None)


def _hub() -> Path | None:
    """As huggingface_hub/constants.py: HF_HUB_CACHE, or ``hub`` in HF_HOME or in the user's cache."""
    if told := os.environ.get("HF_HUB_CACHE"):
        return _first("HF_HUB_CACHE") if Path(told).is_dir() else None
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return path if (path := Path(home, "hub").expanduser()).is_dir() else None


def _of_comfyui(top: Path) -> Iterator[tuple[str, Path]]:
    """The folders of a ComfyUI, of a folder ``models``, or of an ``extra_model_paths.yaml``, by kind; "": not there."""
    if top.is_file() and top.suffix in {".yaml", ".yml"}:
        yield from _extra(top)
        return
    need_folder(top, "ComfyUI's folder, its models folder or an extra_model_paths.yaml")
    models = top / "models"
    for path in sorted((models if models.is_dir() else top).iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield _LEGACY.get(path.name, path.name), path
    if (top / EXTRA).is_file():
        yield from _extra(top / EXTRA)


def _extra(file: Path) -> Iterator[tuple[str, Path]]:
    """Folders that an ``extra_model_paths.yaml`` names, read as ComfyUI's extra_config.py does.

    One that is not there is passed over where others of its table are, as the example lists more than anybody has.
    Where none is, ``base_path``, or else each, has no kind: its disk may not be mounted.
    """
    import yaml  # noqa: PLC0415 - keeps start-up light

    do = "correct the file; ComfyUI's extra_model_paths.yaml.example shows its form"
    try:
        document = yaml.safe_load(documents.read_bytes(file, most=_MOST))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Damaged(f"{file} is not YAML", found=" ".join(str(error).split())[:200], do=do) from None
    if not isinstance(document, dict | None):
        raise _odd(file, "tables of folders", document, do)
    for name, table in (document or {}).items():
        if not isinstance(table, dict | None):
            raise _odd(file, f"{name}: folders, by kind", table, do)
        for key, value in (table or {}).items():
            wanted = bool if key == "is_default" else str
            if not isinstance(value, wanted):
                raise _odd(file, f"{name}.{key}: {'true or false' if wanted is bool else 'text'}", value, do)
            if "\0" in str(value):
                raise _odd(file, f"{name}.{key}: paths, without the character NUL", value, do)
        base = _path((table or {}).get("base_path", ""), file.parent)
        there, missing = False, list[Path]()  #: whether any is there, and those that are not
        for kind, listed in (table or {}).items():
            if kind in {"base_path", "is_default"}:
                continue
            for text in listed.splitlines():
                path = _path(text.strip(), base)
                if text.strip() and path == Path(path.anchor):
                    raise _odd(file, f"{name}.{kind}: a folder of models, and not all of the file system", text, do)
                if text.strip() and path.is_dir():
                    there = True
                    yield _LEGACY.get(str(kind), str(kind)), path
                elif text.strip():
                    missing.append(path)
        named = bool((table or {}).get("base_path"))
        yield from (("", path) for path in _absent(base, missing, there=there, named=named))


def _absent(base: Path, missing: Sequence[Path], *, there: bool, named: bool) -> Iterator[Path]:
    """What a table names and is nowhere: its base, with nothing of it there, and each folder outside of that."""
    inside = [path for path in missing if path.is_relative_to(base)]
    if (named and not base.is_dir()) or (inside and not there):
        yield base
    yield from (path for path in missing if path not in inside)


def _odd(file: Path, expected: str, value: object, do: str) -> Damaged:
    return Damaged(f"{file} is not what it should be", expected=expected, found=repr(value)[:80], do=do)


def _path(text: str, base: Path) -> Path:
    return Path(os.path.normpath(base / os.path.expandvars(Path(text).expanduser() if text else "")))
