"""The door for files of ours that somebody may have damaged: JSON, TOML, tables and text, each read in one way.

A document that one command writes and another reads is a frozen dataclass with a ``Format``. ``Damaged`` (status 65)
names the file, what was expected and what was found. That a file is not there, or cannot be read, stays the OSError
that it is.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

from patchforge import bounded
from patchforge.errors import Damaged
from patchforge.faults import reason

if TYPE_CHECKING:
    import cattrs

_T = TypeVar("_T")

MOST = bounded.MOST
RESTORE = "restore the file, as with git checkout"
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  #: an escape of one half of a character, which the other should follow
_SHOWN = 6  #: faults of one document that are named

#: What a dataclass's field may say of itself as ``metadata``: it is left out where it is the default, or always.
OPTIONAL: Mapping[str, bool] = {"omit_if_default": True}
NOT_WRITTEN: Mapping[str, bool] = {"omit": True}


@dataclass(frozen=True, slots=True)
class Format(Generic[_T]):
    """How a document is written: as JSON of a frozen dataclass, with the number of its format.

    The number changes whenever a field does: no other field is taken, and none is guessed. ``fault`` says what is wrong
    between fields that are right each by itself; "" for nothing.
    """

    kind: type[_T]
    number: int
    fault: Callable[[_T], str] | None = None

    def read(self, path: Path, *, do: str = RESTORE) -> _T:
        """The document of a file. ``do``: what makes one of another format anew."""
        return self.parse(read_bytes(path), str(path), do=do)

    def parse(self, data: bytes, origin: str, *, do: str = RESTORE) -> _T:
        """``read`` of bytes that are there already; ``origin`` names them."""
        return self.checked(parse_json(data, dict[str, Any], origin, do=do), origin, do=do)

    def checked(self, document: Mapping[str, Any], origin: str, *, do: str = RESTORE) -> _T:
        """``parse`` of JSON that is read already."""
        self._check_number(document.get("format"), origin, do)
        value = structured({key: value for key, value in document.items() if key != "format"}, self.kind, origin, do=do)
        if self.fault and (found := self.fault(value)):
            raise Damaged(f"{origin} is not what it should be", found=found, do=do)
        return value

    def data(self, value: _T) -> dict[str, Any]:
        """The document as JSON's plain values."""
        return {"format": self.number, **_converter().unstructure(value, self.kind)}

    def dump(self, value: _T) -> bytes:
        """The document as a file."""
        return rendered(self.data(value))

    def _check_number(self, number: object, origin: str, do: str) -> None:
        if type(number) is int and number == self.number:
            return
        wanted = f"format {self.number}"
        if type(number) is int and number > self.number:
            newer = f"update patchforge; or {do}"
            raise Damaged(f"{origin} is of a newer patchforge", expected=wanted, found=f"format {number}", do=newer)
        if type(number) is int:
            raise Damaged(f"{origin} is of an older patchforge", expected=wanted, found=f"format {number}", do=do)
        problem = f"{origin} does not say which format it has"
        raise Damaged(problem, expected=f"$.format: {self.number}", found=shown(number), do=do)


def plain(value: Any) -> Any:
    """Dataclasses and enums in a value as JSON's plain values."""
    return _converter().unstructure(value)


def rendered(document: Mapping[str, Any]) -> bytes:
    """JSON as all documents of ours are written."""
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def read_bytes(path: Path, *, most: int = MOST) -> bytes:
    """The bytes of a regular file; Damaged for anything else at its place and for more than ``most`` bytes."""
    return bounded.file(path, most)


def read_text(path: Path, *, do: str = RESTORE) -> str:
    """The text of a file in UTF-8, with or without a byte order mark."""
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
        place = text.find("\0")
    except UnicodeDecodeError as error:
        text, place = "", error.start
    if place >= 0:
        raise Damaged(f"{path} is not text", expected="UTF-8", found=f"the byte {data[place]:#04x} at {place}", do=do)
    return text


def read_json(path: Path, kind: type[_T], *, do: str = RESTORE) -> _T:
    """The document of a file, of the type ``kind`` (a TypedDict, a dataclass, ``dict[str, int]``, …)."""
    return parse_json(read_bytes(path), kind, str(path), do=do)


def parse_json(data: bytes, kind: type[_T], origin: str, *, do: str = RESTORE) -> _T:
    """``read_json`` of bytes that are there already; ``origin`` names them.

    A lone surrogate, which is half a character, is none that could be written again.
    """
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_no_number)
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Damaged(
            f"{origin} is not JSON", expected="a JSON document in UTF-8", found=reason(error), do=do
        ) from None
    return structured(value, kind, origin, do=do)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        return tomllib.loads(read_text(path, do="correct the file"))
    except (ValueError, RecursionError) as error:
        raise Damaged(
            f"{path} is not TOML", expected="a TOML document in UTF-8", found=reason(error), do="correct the file"
        ) from None


def read_table(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The rows of a tab-separated file below its head, which names exactly ``columns``."""
    head, *lines = read_text(path).splitlines() or [""]
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, 2) if line.strip()]
    wrong = [number for number, row in rows if len(row) != len(columns)]
    if head.split("\t") != list(columns) or wrong:
        raise Damaged(
            f"{path} is not the table that it should be",
            expected="tab-separated columns " + ", ".join(columns),
            found=f"line {wrong[0]}: {lines[wrong[0] - 2][:200]!r}" if wrong else repr(head[:200]),
            do=RESTORE,
        )
    return [row for _, row in rows]


def structured(value: Any, kind: type[_T], origin: str, *, do: str = RESTORE) -> _T:
    """``value`` checked against ``kind``: no value is converted. More keys may be there, but not in a dataclass."""
    try:
        structured_value: _T = _converter().structure(value, kind)
    except RecursionError:
        raise Damaged(f"{origin} is nested too deeply", do=do) from None
    except Exception as error:  # noqa: BLE001 - cattrs raises whatever a value of another type leads to
        raise Damaged(f"{origin} is not what it should be", found=_faults(error), do=do) from None
    return structured_value


def shown(value: Any) -> str:
    """A value as a document writes it, in short."""
    words: dict[Any, str] = {True: "true", False: "false"}
    if value is None:
        return "nothing (null)"
    return words[value] if isinstance(value, bool) else repr(value)[:80]


def matching(pattern: str, what: str) -> Callable[[Any, Any], str]:
    """A hook for a text of one form."""

    def check(value: Any, _: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"expected {what}, found {shown(value)}")
        return value

    return check


def form(pattern: str, what: str) -> Callable[[Any], None]:
    """As ``matching``, for ``Annotated[str, …]``: what a field of a dataclass takes."""
    matched = matching(pattern, what)

    def check(value: Any) -> None:
        matched(value, str)

    return check


def between(least: float, most: float) -> Callable[[Any], None]:
    """For ``Annotated`` numbers: from ``least`` to ``most``, both included."""

    def check(value: Any) -> None:
        if not least <= value <= most:
            raise ValueError(f"expected a number from {least:g} to {most:g}, found {shown(value)}")

    return check


def filled(value: Any) -> None:
    """For ``Annotated`` lists: at least one."""
    if not value:
        raise ValueError("expected one value or more, found none")


def register(kind: Any, hook: Callable[[Any, Any], Any]) -> None:
    """How values of a type of its own, such as a NewType, are checked."""
    _HOOKS.append((kind, hook))
    _converter.cache_clear()


_LISTS: tuple[Any, ...] = (list, tuple)
_MAPPINGS: tuple[Any, ...] = (dict, Mapping)
_HOOKS: list[tuple[Any, Callable[[Any, Any], Any]]] = []


@cache
def _converter() -> cattrs.Converter:
    import cattrs  # noqa: PLC0415 - keeps start-up light

    converter = cattrs.Converter()
    for kind in (str, int, bool, float):
        converter.register_structure_hook(kind, _only(kind))
    converter.register_structure_hook(StrEnum, _word)
    for is_kind, structure in (
        (lambda kind: get_origin(kind) in _MAPPINGS or kind is dict, converter.gen_structure_mapping),
        (is_typeddict, converter.gen_structure_typeddict),
    ):
        converter.register_structure_hook_factory(is_kind, lambda kind, structure=structure: _named(structure(kind)))
    for kind, hook in _HOOKS:
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) in _LISTS, _sequence)
    converter.register_structure_hook_func(lambda kind: hasattr(kind, "__metadata__"), _annotated)
    converter.register_structure_hook_factory(is_dataclass, _reader)
    converter.register_unstructure_hook_factory(is_dataclass, _writer)
    return converter


def _reader(kind: type) -> Callable[[Any, Any], Any]:
    """How a dataclass is read: its own fields, and no others."""
    from cattrs.gen import make_dict_structure_fn, override  # noqa: PLC0415

    said: dict[str, Any] = {field.name: override(omit=True) for field in fields(kind) if field.metadata == NOT_WRITTEN}
    plain, whole = get_type_hints(kind), get_type_hints(kind, include_extras=True)  # cattrs sees the plain ones
    said |= {name: override(struct_hook=_as(hint)) for name, hint in whole.items() if hint != plain[name]}
    return _named(make_dict_structure_fn(kind, _converter(), _cattrs_forbid_extra_keys=True, **said))


def _as(hint: Any) -> Callable[[Any, Any], Any]:
    return lambda value, _: _converter().structure(value, hint)


def _annotated(value: Any, kind: Any) -> Any:
    """A value of the type in ``Annotated``, which every check of the annotation passes."""
    plain, *checks = get_args(kind)
    made = _converter().structure(value, plain)
    for check in checks:
        check(made)
    return made


def _writer(kind: type) -> Callable[[Any], dict[str, Any]]:
    from cattrs.gen import make_dict_unstructure_fn, override  # noqa: PLC0415

    said: dict[str, Any] = {field.name: override(**field.metadata) for field in fields(kind) if field.metadata}
    return make_dict_unstructure_fn(kind, _converter(), **said)


def _named(structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """For values of names: what has none is told as what it is."""

    def check(value: Any, kind: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"expected values with names, found {shown(value)}")
        return structure(value, kind)

    return check


def _word(value: Any, kind: type[StrEnum]) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"expected {', '.join(kind)}, found {shown(value)}") from None


def _sequence(value: Any, kind: Any) -> Any:
    """As cattrs does, but a text or an object is not a list, which is what a tuple is written as."""
    from cattrs import IterableValidationError, IterableValidationNote  # noqa: PLC0415

    if type(value) is not list:
        raise TypeError(f"expected a list, found {shown(value)}")
    inner = [arg for arg in get_args(kind) if arg is not ...]
    kinds = inner if len(inner) > 1 else inner * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"expected {len(kinds)} values, found {len(value)}")
    made, errors = [], list[Exception]()
    for index, (item, part) in enumerate(zip(value, kinds, strict=True)):
        try:
            made.append(_converter().structure(item, part))
        except Exception as error:  # noqa: BLE001 - told with its place, below
            error.add_note(IterableValidationNote(f"at {index}", index, part))
            errors.append(error)
    if errors:
        raise IterableValidationError("a list", errors, kind)
    return get_origin(kind)(made)


def _only(kind: type) -> Callable[[Any, Any], Any]:
    accepted = {int, float} if kind is float else {kind}
    what = {str: "a text", int: "a whole number", bool: "true or false", float: "a number"}[kind]

    def check(value: Any, _: Any) -> Any:
        if type(value) not in accepted:
            raise TypeError(f"expected {what}, found {shown(value)}")
        if kind is float and not _is_finite(value):
            raise ValueError(f"expected a finite number, found {shown(value)}")
        return value

    return check


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond all floats
        return False


def _faults(error: Exception) -> str:
    import cattrs  # noqa: PLC0415

    faults = (
        cattrs.transform_error(error, path="$", format_exception=_said)
        if isinstance(error, cattrs.BaseValidationError)
        else [reason(error)]
    )
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return "; ".join(text[:300] for text in faults[:_SHOWN]) + more


def _said(error: BaseException, kind: type | None) -> str:
    from cattrs.v import format_exception  # noqa: PLC0415

    text = str(error)
    if strange := getattr(error, "extra_fields", None):
        of = getattr(error, "cl", None)
        known = ", ".join(field.name for field in fields(of)) if is_dataclass(of) else ""
        return f"expected {f'no fields but {known}' if known else 'no more fields'}, found {', '.join(sorted(strange))}"
    return text if text.startswith("expected ") else format_exception(error, kind)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")
