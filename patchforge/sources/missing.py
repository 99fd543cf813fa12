"""The error that every step may meet when it reads a tree."""

from __future__ import annotations

from patchforge.errors import NotChecked


class MissingBlobError(NotChecked):
    """A file is listed and git lacks its content, as in a partial clone (``git clone --filter=blob:none``)."""

    def __init__(self, path: str, blob: str, *, origin: str = "", reason: str = "") -> None:
        self.path, self.blob = path, blob
        super().__init__(
            f"the content of {path} is missing" + (f" from {origin}" if origin else ""),
            expected=f"blob {blob}",
            found=reason or "no such object",
            do="use a complete clone (without --filter), or fetch the object into this one",
        )
