"""What an Ollama says: /api/version and /api/ps (docs/api.md of ollama/ollama)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TypedDict

from patchforge.operate.asking import Unusable, amount, document, label, name_of
from patchforge.operate.metrics import Sample

_MOST_MODELS = 100


class _Version(TypedDict):
    version: str


class _Placed(TypedDict, total=False):
    size_vram: int  #: left out for none
    expires_at: str


class _Model(_Placed):
    name: str
    size: int


class _Loaded(TypedDict):
    models: list[_Model] | None


class WatchedOllama:
    """One Ollama at an address."""

    prefix = "ollama"

    def __init__(self, url: str, seconds: float = 5.0) -> None:
        self.url, self.server, self._seconds = url, name_of(url), seconds

    def look(self) -> list[Sample]:
        version = document(f"{self.url}/api/version", _Version, self._seconds)
        models = document(f"{self.url}/api/ps", _Loaded, self._seconds)["models"] or []
        samples = [
            Sample("ollama_info", 1, (self.server, label(version["version"]))),
            Sample("ollama_models_loaded", len(models), (self.server,)),
        ]
        for name, model in {label(model["name"]): model for model in models[:_MOST_MODELS]}.items():
            labels = self.server, name
            size, vram = amount(model["size"]), amount(model.get("size_vram", 0))
            if vram > size:
                raise Unusable("unexpected", said=f"{name} has more on the GPU than it takes")
            samples += [
                Sample("ollama_model_size_bytes", size, labels),
                Sample("ollama_model_vram_bytes", vram, labels),
                Sample("ollama_model_cpu_ratio", 1 - vram / size if size else 0.0, labels),
            ]
            if (expires := _time(model.get("expires_at", ""))) is not None:
                samples.append(Sample("ollama_model_expires_timestamp_seconds", expires, labels))
        return samples


def _time(text: str) -> float | None:
    """Seconds since 1970; None for what is not a time, and for a model that stays for ever (a year far away)."""
    known = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if not known:
        return None
    try:
        when = datetime.fromisoformat(known[1] + known[2])
        return when.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None
