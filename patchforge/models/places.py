"""Where model files are: the folders of ComfyUI, Ollama and Hugging Face's cache, and the store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchforge import documents
from patchforge.errors import Damaged, PatchforgeError
from patchforge.paths import need_folder

VARIABLE = "PATCHFORGE_MODELS"
EXTRA = "extra_model_paths.yaml"
_ABSENT = f"{EXTRA} names folders there, and none is; is its disk mounted?"
#: Variables, each with the folder in what it names, and then the usual places: as envconfig/config.go of ollama/ollama
_OLLAMA = ({"OLLAMA_MODELS": ""}, ("~/.ollama/models", "/usr/share/ollama/.ollama/models"))
#: and src/huggingface_hub/constants.py of huggingface/huggingface_hub have them.
_HUB = (
    {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "", "HF_HOME": "hub"},
    ("$XDG_CACHE_HOME/huggingface/hub", "~/.cache/huggingface/hub"),
)
#: ComfyUI's folders of one kind; the first is what the kind is called (folder_paths.py).
_LEGACY = {"clip": "text_encoders", "unet": "diffusion_models"}
_MOST = 1 << 20  #: bytes of extra_model_paths.yaml


@dataclass(frozen=True, slots=True)
class Places:
    """``comfyui``: folders, each with its kind, such as ``text_encoders``; ``tops``: what was named for them.

    None and nothing: the program has none. ``absent``: folders that a variable or an ``extra_model_paths.yaml`` names,
    or that may not be looked at, each with why; what is in them is not known.
    """

    store: Path
    comfyui: tuple[tuple[str, Path], ...] = ()
    ollama: Path | None = None
    hub: Path | None = None
    tops: tuple[Path, ...] = ()
    absent: tuple[tuple[Path, str], ...] = ()

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

    PatchforgeError for a folder that is named here and not there, Damaged for an unusable ``extra_model_paths.yaml``.
    """
    folders: dict[Path, str] = {}
    absent: dict[Path, str] = {}
    for named in comfyui:
        for kind, path in _of_comfyui(Path(named).expanduser()):
            if kind:
                folders.setdefault(path, kind)
            else:
                absent[path] = _ABSENT
    return Places(
        Path(store).expanduser() if store else store_place(),
        tuple((kind, path) for path, kind in folders.items()),
        _given(ollama) or _used(*_OLLAMA, absent),
        _given(hub) or _used(*_HUB, absent),
        tuple(path if (path := Path(named).expanduser()).is_dir() else path.parent for named in comfyui),
        tuple(absent.items()),
    )


def _given(named: str | None) -> Path | None:
    if named is None:
        return None
    need_folder(path := Path(named).expanduser())
    return path


def _used(variables: Mapping[str, str], usual: Sequence[str], absent: dict[Path, str]) -> Path | None:
    """The folder of the first variable that is set, or the first usual one; what hides one goes into ``absent``."""
    told = next((variable for variable in variables if os.environ.get(variable)), "")
    if not told:
        return next((path for text in usual if _is_folder(path := _expanded(text), absent)), None)
    top = _expanded(os.environ[told])
    if not _is_folder(top, absent):
        absent.setdefault(top, f"{told} names it, and no folder is there: mount its disk, or unset the variable")
        return None
    return path if _is_folder(path := top / variables[told], absent) else None


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()


def _is_folder(path: Path, absent: dict[Path, str]) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        absent[path] = (error.strerror or "cannot be looked at").lower()
        return False


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
