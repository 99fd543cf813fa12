"""What a Prometheus answers to the queries of the panels."""

from __future__ import annotations

import math
import urllib.parse
from dataclasses import dataclass
from typing import Any, TypedDict

from patchforge.operate.asking import Unusable, document, label

_MOST_SERIES = 200


class _Series(TypedDict):
    metric: dict[str, str]
    values: list[Any]


class _Result(TypedDict):
    resultType: str
    result: list[_Series]


class _Answer(TypedDict):
    status: str
    data: _Result


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its labels, and pairs of seconds since 1970 and value; values that are not numbers are left out."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        return self.points[-1][1]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One Prometheus at an address."""

    url: str
    seconds: float = 5.0

    def range(self, expr: str, begin: float, end: float, step: float) -> list[Line]:
        """The series of a query, those with a value; Unusable when there is no answer."""
        asked = urllib.parse.urlencode({"query": expr, "start": begin, "end": end, "step": step})
        answer = document(f"{self.url}/api/v1/query_range?{asked}", _Answer, self.seconds)
        if answer["status"] != "success":
            raise Unusable("unexpected", said=answer["status"])
        lines = (
            Line({label(name): label(value) for name, value in series["metric"].items()}, _points(series["values"]))
            for series in answer["data"]["result"][:_MOST_SERIES]
        )
        return [line for line in lines if line.points]


def _points(values: list[Any]) -> tuple[tuple[float, float], ...]:
    points = []
    for pair in values:
        try:
            when, value = float(pair[0]), float(pair[1])
        except (TypeError, ValueError, IndexError, KeyError):
            raise Unusable("unexpected", said="a value that is none") from None
        if math.isfinite(value):
            points.append((when, value))
    return tuple(points)
