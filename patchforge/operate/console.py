"""A page that shows the panels without Grafana: HTML and SVG, made here, without a script."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from patchforge import templating
from patchforge.operate.asking import Unusable
from patchforge.operate.panels import NUMBERS, PANELS, Panel, Query, Shape, Unit, rows
from patchforge.operate.prometheus import Line, Prometheus

HOURS = {"1": "hour", "6": "6 hours", "24": "day", "168": "week"}
_USUAL = "6"
_POINTS = 180
_SERIES = 8  #: that are drawn in one panel
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 480, 170, 52, 18, 8
_STEPS = (1, 2, 2.5, 5, 10)
_AT_ONCE = 6  #: queries
_TIMES = ((86400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True)
class Curve:
    """A series as it is drawn: its number (of a colour), name, last value, and paths or bands of SVG.

    ``mood``: the class of its colour, where its value is good (yes), bad (no) or to be looked at (soon).
    """

    number: int
    name: str
    last: str
    paths: tuple[str, ...] = ()
    mood: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """One panel as the page has it."""

    panel: Panel
    curves: tuple[Curve, ...] = ()
    marks: tuple[tuple[float, str], ...] = ()  #: of the scale: height, text
    times: tuple[tuple[float, str], ...] = ()
    more: int = 0  #: series that are not drawn
    total: int = 0  #: of an alarm: what its values come to
    error: str = ""


def page(prometheus: Prometheus | None, asked: Mapping[str, str], now: float | None = None) -> bytes:
    """The page for the hours that are asked for; it says so where there is no Prometheus or no answer."""
    hours = asked.get("hours", _USUAL)
    hours = hours if hours in HOURS else _USUAL
    end = time.time() if now is None else now
    pictures: dict[str, Picture] = {}
    if prometheus is not None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            drawn = pool.map(lambda panel: picture(prometheus, panel, float(hours) * 3600, end), PANELS)
            pictures = {made.panel.name: made for made in drawn}
    template = templating.environment("operate", autoescape=True).get_template("console.html.j2")
    text = template.render(
        rows=[(title, [pictures.get(panel.name, Picture(panel)) for panel in panels]) for title, panels in rows()],
        prometheus=prometheus,
        errors=sorted({made.error for made in pictures.values() if made.error}),
        hours=hours,
        HOURS=HOURS,
        when=datetime.fromtimestamp(end).astimezone().strftime("%d %B %Y, %H:%M:%S"),
        box=f"0 0 {_WIDTH} {_HEIGHT}",
        left=_LEFT,
        right=_WIDTH,
        floor=_HEIGHT - _BOTTOM,
        NUMBERS=NUMBERS,
        ALARM=Shape.ALARM,
    )
    return text.encode()


def picture(prometheus: Prometheus, panel: Panel, seconds: float, end: float) -> Picture:
    """A panel of the last ``seconds``."""
    step = max(seconds / _POINTS, 1.0)
    try:
        lines = [
            (query, line) for query in panel.queries for line in prometheus.range(query.expr, end - seconds, end, step)
        ]
    except Unusable as error:
        return Picture(panel, error=f"Prometheus at {prometheus.url} cannot be used: {error}")
    if panel.shape in NUMBERS:
        lines = [(query, line) for query, line in lines if line.points[-1][0] > end - 2 * step - 60]
        curves = [
            Curve(0, legend(query, line), value(line.last, panel.unit), mood=_mood(panel, line))
            for query, line in lines
        ]
        curves.sort(key=lambda curve: curve.mood == "soon")  # what is critical is not among what is left out
        total = int(sum(line.last for _, line in lines)) if panel.shape is Shape.ALARM else 0
        return Picture(panel, tuple(curves[:_SERIES]), more=max(0, len(curves) - _SERIES), total=total)
    return _drawn(panel, lines, seconds, end, step)


def _mood(panel: Panel, line: Line) -> str:
    if panel.shape is Shape.STATE:
        return "yes" if line.last == 1 else "no"
    if panel.shape is Shape.ALARM:
        return "soon" if line.labels.get("severity") == "warning" else "no"
    return ""


def _drawn(panel: Panel, lines: Sequence[tuple[Query, Line]], seconds: float, end: float, step: float) -> Picture:
    drawn = lines[:_SERIES]
    stacked = list(_stacked([line for _, line in drawn])) if panel.shape is Shape.STACK else None
    tops = (
        [top for band in stacked for _, _, top in band] if stacked else [v for _, line in drawn for _, v in line.points]
    )
    ticks = scale(max([*tops, 0.0]), panel)
    most = ticks[-1]

    def x(when: float) -> float:
        return round(_LEFT + (when - (end - seconds)) / seconds * (_WIDTH - _LEFT - 4), 1)

    def y(height: float) -> float:
        return round(_HEIGHT - _BOTTOM - max(0.0, min(height / most, 1.0)) * (_HEIGHT - _BOTTOM - _TOP), 1)

    curves = []
    for number, (query, line) in enumerate(drawn):
        paths = []
        if stacked:
            for run in _runs(stacked[number], step):
                there = [f"{x(when)},{y(top)}" for when, _, top in run]
                back = [f"{x(when)},{y(low)}" for when, low, _ in reversed(run)]
                paths.append("M" + "L".join([*there, *back]) + "Z")
        else:
            for run in _runs([(when, 0.0, v) for when, v in line.points], step):
                points = [f"{x(when)},{y(v)}" for when, _, v in run]
                paths.append("M" + "L".join(points if len(points) > 1 else [*points, points[0]]))
        curves.append(Curve(number, legend(query, line), value(line.last, panel.unit), tuple(paths)))
    marks = tuple((y(tick), value(tick, panel.unit)) for tick in ticks)
    times = tuple((x(when), text) for when, text in _times(end - seconds, end))
    return Picture(panel, tuple(curves), marks, times, max(0, len(lines) - _SERIES))


_Band = tuple[float, float, float]  # when, lower and upper edge


def _stacked(lines: Sequence[Line]) -> Iterator[list[_Band]]:
    """Each series on top of those before it."""
    floor: dict[float, float] = {}
    for line in lines:
        band = []
        for when, height in line.points:
            low = floor.get(when, 0.0)
            floor[when] = low + max(height, 0.0)
            band.append((when, low, floor[when]))
        yield band


def _runs(points: Sequence[_Band], step: float) -> Iterator[list[_Band]]:
    """What belongs together: where nothing was told for a while, nothing is drawn."""
    run: list[_Band] = []
    for point in points:
        if run and point[0] - run[-1][0] > 1.5 * step:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def scale(most: float, panel: Panel) -> list[float]:
    """Three to six round values from 0 to the top."""
    if panel.most is not None:
        return [panel.most * part / 4 for part in range(5)]
    if most <= 0:
        return [0.0, 1.0]
    unit = 1024.0 ** int(math.log(most, 1024)) if panel.unit is Unit.BYTES and most >= 1024 else 1.0
    if panel.unit is Unit.SECONDS:
        unit = next((float(size) for size, _ in _TIMES if most >= 2 * size), 1.0)
    rough = most / unit / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * 0.999)
    return [index * step * unit for index in range(math.ceil(most / unit / step * 0.999) + 1)]


def value(number: float, unit: Unit) -> str:
    """A value for people."""
    if unit is Unit.YES:
        return "yes" if number == 1 else "no"
    if unit is Unit.SHARE:
        return f"{number * 100:.3g} %"
    if unit is Unit.BYTES:
        return _scaled(number, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    if unit is Unit.HERTZ:
        return _scaled(number, 1000, ("Hz", "kHz", "MHz", "GHz"))
    if unit is Unit.SECONDS:
        for size, name in _TIMES:
            if abs(number) >= 2 * size:
                return f"{number / size:.3g} {name}"
        return f"{number:.3g} s"
    suffix = {Unit.WATTS: " W", Unit.CELSIUS: " °C", Unit.PER_HOUR: "/h"}.get(unit, "")
    return f"{number:.6g}{suffix}" if abs(number) >= 1000 else f"{number:.3g}{suffix}"


def _scaled(number: float, base: int, names: Sequence[str]) -> str:
    for name in names[:-1]:
        if abs(number) < base:
            return f"{number:.3g} {name}"
        number /= base
    return f"{number:.3g} {names[-1]}"


def legend(query: Query, line: Line) -> str:
    """How a series is called."""
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: line.labels.get(match[1], ""), query.legend)
    return " ".join(text.split())


def _times(begin: float, end: float) -> Iterator[tuple[float, str]]:
    """Some round times of the day, as the machine's clock shows them."""
    span = end - begin
    every = next(seconds for seconds in (600, 3600, 4 * 3600, 86400) if span / seconds <= 8)
    offset = datetime.fromtimestamp(begin).astimezone().utcoffset()
    shift = offset.total_seconds() if offset else 0.0
    first = math.ceil((begin + shift) / every) * every - shift
    for index in range(int((end - first) // every) + 1):
        when = first + index * every
        if when - begin > span / 20 and end - when > span / 20:
            moment = datetime.fromtimestamp(when).astimezone()
            yield when, moment.strftime("%d %b" if every == 86400 else "%H:%M")
