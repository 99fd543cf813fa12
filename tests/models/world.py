"""A machine with ComfyUI, Ollama and Hugging Face's cache, and model files of a few bytes in them."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODEL = "application/vnd.ollama.image.model"


def gguf_bytes(architecture: str = "qwen3", *, words: int = 3, weights: bytes = b"\1" * 64, **more: int) -> bytes:
    """A GGUF file of one tensor, F32; as ggml/docs/gguf.md of ggml-org/ggml."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    keys = [text("general.architecture") + struct.pack("<I", 8) + text(architecture)]
    keys += [text("general.file_type") + struct.pack("<II", 4, more.pop("file_type", 0))]
    vocabulary = b"".join(text(f"w{number}") for number in range(words))
    keys += [text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, words) + vocabulary]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, len(weights) // 16, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys) + tensor
    return head + bytes(-len(head) % 32) + weights


def safetensors_bytes(weights: bytes = b"weights of a model" * 100) -> bytes:
    """A safetensors file of one tensor, U8; as safetensors/README.md of huggingface/safetensors."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(weights)], "data_offsets": [0, len(weights)]}}).encode()
    return struct.pack("<Q", len(header)) + header + weights


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Machine:
    """Its folders."""

    top: Path

    @property
    def comfyui(self) -> Path:
        return self.top / "ComfyUI"

    @property
    def ollama(self) -> Path:
        return self.top / "ollama"

    @property
    def hub(self) -> Path:
        return self.top / "hub"

    @property
    def store(self) -> Path:
        return self.top / "store"

    @property
    def words(self) -> list[str]:
        """The options that name them."""
        places = {"--comfyui": self.comfyui, "--ollama": self.ollama, "--hub": self.hub, "--store": self.store}
        return [word for name, path in places.items() for word in (name, str(path))]

    def model(self, path: str, data: bytes) -> Path:
        """A file of ComfyUI's."""
        file = self.comfyui / "models" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def pulled(self, name: str, *layers: tuple[str, bytes]) -> Path:
        """A model as ``ollama pull`` leaves it; its manifest."""
        listed = []
        for media, data in layers:
            blob = self.ollama / "blobs" / f"sha256-{digest(data)}"
            blob.write_bytes(data)
            listed.append({"mediaType": media, "digest": f"sha256:{digest(data)}", "size": len(data)})
        config = {"mediaType": "", "digest": "", "size": 0}
        return self.manifest(name, {"schemaVersion": 2, "config": config, "layers": listed})

    def manifest(self, name: str, document: Mapping[str, object] | bytes) -> Path:
        model, _, tag = name.partition(":")
        file = self.ollama / "manifests" / "registry.ollama.ai" / "library" / model / (tag or "latest")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return file

    def downloaded(self, repository: str, name: str, data: bytes) -> Path:
        """A file as huggingface_hub leaves it: a blob called by its SHA-256, and a link to it; the blob."""
        top = self.hub / f"models--{repository.replace('/', '--')}"
        blob = top / "blobs" / digest(data)
        link = top / "snapshots" / ("c" * 40) / name
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link.symlink_to(os.path.relpath(blob, link.parent))
        return blob

    def bytes_used(self) -> int:
        """Bytes of all files, each once."""
        files = {
            (path.lstat().st_ino, path.lstat().st_size)
            for path in self.top.rglob("*")
            if not path.is_symlink() and path.is_file()
        }
        return sum(size for _, size in files)


def machine(top: Path) -> Machine:
    """An empty one."""
    made = Machine(top)
    for folder in (made.comfyui / "models", made.ollama / "blobs", made.ollama / "manifests", made.hub):
        folder.mkdir(parents=True)
    return made


def content(top: Path) -> dict[str, bytes]:
    """What every name leads to."""
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}
