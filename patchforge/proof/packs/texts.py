"""Formats of a stranger's texts: those that look into values, or make long texts, are refused."""

from __future__ import annotations

import re
import string

from patchforge.proof.packs.limits import NotEvaluable

_WIDE = re.compile(r"\d{3,}|\*")
_PERCENT = re.compile(r"%(?:\([^)]{0,100}\))?([^a-zA-Z%]*)")


def harmless_spec(spec: str) -> str:
    """A format that makes no long text. NotEvaluable for another."""
    if _WIDE.search(spec):
        raise NotEvaluable("a wide format")
    return spec


def harmless_format(text: str) -> None:
    """NotEvaluable for a text whose ``format`` looks into values or makes a long text."""
    for _, name, spec, _ in string.Formatter().parse(text):
        if (name and not name.isidentifier() and not name.isdecimal()) or "{" in (spec or ""):
            raise NotEvaluable("a format that looks into values")
        harmless_spec(spec or "")


def harmless_percent(text: str) -> None:
    """NotEvaluable for a text whose ``%`` makes a long text."""
    for spec in _PERCENT.findall(text):
        harmless_spec(spec)
