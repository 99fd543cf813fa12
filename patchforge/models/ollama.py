"""Ollama's folder of models: manifests that name blobs by their SHA-256.

As manifest/paths.go, manifest/manifest.go and types/model/name.go of ollama/ollama have it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from patchforge import documents
from patchforge.errors import Damaged, PatchforgeError
from patchforge.models.gguf import Head

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
MODEL, PROJECTOR = "application/vnd.ollama.image.model", "application/vnd.ollama.image.projector"
#: Layers that hold weights; the others are texts of a few kB.
WEIGHTS = (MODEL, PROJECTOR, "application/vnd.ollama.image.adapter", "application/vnd.ollama.image.tensor")
_CONFIG = "application/vnd.docker.container.image.v1+json"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LARGEST = 4 << 20  #: bytes of a manifest; one of a thousand tensors has 300 kB
_MOST = 10_000  #: manifests
_DIGEST = re.compile("sha256[:-]([0-9a-f]{64})")
_PART = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_DO = "pull or create the model again with Ollama, or remove it with ollama rm"


class _Layer(TypedDict):
    mediaType: str
    digest: str
    size: int


class _Document(TypedDict):
    layers: list[_Layer]
    config: _Layer


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob that a manifest names. ``digest``: 64 hex digits."""

    media: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class OllamaManifest:
    """A model as Ollama knows it; the configuration is the last of ``layers``."""

    name: str
    path: Path
    layers: tuple[Layer, ...]


def blob(folder: Path, digest: str) -> Path:
    """Where a blob is, in Ollama's folder of models."""
    return folder / "blobs" / f"sha256-{digest}"


def digest_of(name: str) -> str:
    """The digest that the name of a blob tells; "" for another name."""
    told = _DIGEST.fullmatch(name)
    return told[1] if told else ""


def parts_of(name: str) -> tuple[str, str, str, str]:
    """Host, namespace, model and tag of a name as people type it. PatchforgeError for one that Ollama does not take."""
    model, colon, tag = name.rpartition(":") if name.rfind(":") > name.rfind("/") else (name, "", "")
    if colon and not tag:
        model, tag = name, ""
    given = model.split("/")
    parts = ([HOST, NAMESPACE, ""][: 3 - len(given)] + given + [tag or TAG]) if len(given) <= 3 else []
    plain = len(parts) == 4 and all(_PART.fullmatch(part.replace(":", "_")) for part in parts)
    if not plain or "." in parts[1] or any(":" in part for part in parts[1:]):
        raise PatchforgeError(
            f"{name!r} is not a name of a model for Ollama",
            expected="MODEL[:TAG], letters, digits, dots, dashes and underscores, such as qwen3:4b",
            do="choose another name",
        )
    return parts[0], parts[1], parts[2], parts[3]


def shortest(parts: Sequence[str]) -> str:
    """The name that people type: without the host and the namespace that are usual."""
    host, namespace, model, tag = parts
    before = f"{host}/{namespace}/" if host.lower() != HOST else f"{namespace}/" if namespace != NAMESPACE else ""
    return f"{before}{model}:{tag}"


def manifests(folder: Path) -> Iterator[OllamaManifest | Damaged]:
    """Every manifest in Ollama's folder of models, sorted; Damaged for one that cannot be read. No link is followed."""
    top = folder / "manifests"
    for count, path in enumerate(_files(top, 4)):
        if count >= _MOST:
            yield Damaged(
                f"{top} has too many files",
                expected=f"at most {_MOST}",
                do="remove models that you do not need with ollama rm",
            )
            return
        if isinstance(path, Damaged):
            yield path
            continue
        try:
            yield read(path, shortest(path.relative_to(top).parts))
        except Damaged as error:
            yield error
        except OSError as error:
            yield Damaged(f"{path} cannot be read", found=error.strerror or "", do=_DO)


def _files(folder: Path, depth: int) -> Iterator[Path | Damaged]:
    """Files that are so many names below a folder; those of hidden names are others'. Damaged as ``manifests``."""
    try:
        inside = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield Damaged(f"{folder} cannot be read", found=error.strerror or "", do=_DO)
        return
    for entry in inside:
        if entry.name.startswith("."):
            continue
        if depth == 1 and not entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)
        elif depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), depth - 1)


def read(path: Path, name: str) -> OllamaManifest:
    """A manifest. Damaged for what is not one, or names something else than blobs."""
    document = documents.parse_json(documents.read_bytes(path, most=_LARGEST), _Document, str(path), do=_DO)
    told = [*document["layers"], document["config"]]
    layers = [Layer(layer["mediaType"], digest_of(layer["digest"]), layer["size"]) for layer in told if layer["digest"]]
    wrong = next((layer["digest"] for layer in told if layer["digest"] and not digest_of(layer["digest"])), None)
    if wrong is not None or any(layer.size < 0 for layer in layers):
        found_here = repr(wrong)[:80] if wrong is not None else "a size below 0"
        raise Damaged(f"{path} names no blob", expected="sha256: and 64 hex digits", found=found_here, do=_DO)
    return OllamaManifest(name, path, tuple(layers))


def configuration(head: Head) -> bytes:
    """The configuration of a model that is one GGUF file, as server/create.go writes it."""
    family = head.architecture
    told = {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": _count(head.parameters),
        "file_type": head.file_type,
        "architecture": "amd64",
        "os": "linux",
    }
    return _encoded(told)


def manifest(model: Layer, config_digest: str, config_size: int) -> bytes:
    """The manifest of such a model. Its template is that of the GGUF file, which Ollama uses since 0.30."""
    layers = [{"mediaType": model.media, "digest": f"sha256:{model.digest}", "size": model.size}]
    config = {"mediaType": _CONFIG, "digest": f"sha256:{config_digest}", "size": config_size}
    return _encoded({"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers})


def _encoded(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _count(parameters: int) -> str:
    """As HumanNumber of Ollama's format/format.go: 134515008 is 134.52M."""
    if parameters < 10**6:
        return f"{parameters / 1000:.0f}K" if parameters >= 1000 else str(parameters)
    size, letter, digits = (10**9, "B", 1) if parameters >= 10**9 else (10**6, "M", 2)
    return f"{parameters / size:.{0 if parameters % size == 0 else digits}f}{letter}"
