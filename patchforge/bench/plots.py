"""Plots as SVG that stands in a page: text is text, and takes the page's colour, light or dark."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patchforge.bench.statistics import Interval

_INK = "#010203"  # stands for the colour of the page's text; no plot has it otherwise
_SIDES = ("#3b82c4", "#d9822b", "#5aa469", "#a66bbe", "#c0504d", "#8c8c8c")
_VERDICTS = {"slower": "#cf222e", "faster": "#1a7f37", "": "#808080"}
_ROW, _WIDTH, _MARGIN = 0.26, 5.2, 0.6  # inches: on a telephone, letters are as large as those of the page
_OWN = ("patched", "torch")  # what is drawn where nothing else is said
_SPREAD = 40  # times: with more, the axis is logarithmic
_LONG = 2.2  # a ratio beyond is drawn at the edge


@dataclass(frozen=True, slots=True)
class Bar:
    """One value with its interval. ``verdict``: slower, faster, or ""."""

    case: str
    side: str
    value: Interval
    verdict: str


def bars(drawn: Sequence[Bar]) -> str:
    """Seconds of cases, one bar for each side."""
    cases = list(dict.fromkeys(bar.case for bar in drawn))
    sides = list(dict.fromkeys(bar.side for bar in drawn))
    unit, factor = ("s", 1.0) if max(bar.value.median for bar in drawn) >= 1 else ("ms", 1e3)
    figure, axes = _begin(len(cases) * (len(sides) + 0.6))
    for index, side in enumerate(sides):
        own = [bar for bar in drawn if bar.side == side]
        at = [cases.index(bar.case) * (len(sides) + 0.6) + index for bar in own]
        values = [bar.value.median * factor for bar in own]
        error = [
            [(bar.value.median - bar.value.low) * factor for bar in own],
            [(bar.value.high - bar.value.median) * factor for bar in own],
        ]
        colour = _SIDES[index % len(_SIDES)]
        axes.barh(
            at, values, height=0.9, color=colour, xerr=error, ecolor=_INK, error_kw={"elinewidth": 0.8}, label=side
        )
        for place, value, bar in zip(at, values, own, strict=True):
            _label(axes, bar.value.high * factor, place, f"{value:.3g}")
    middles = [index * (len(sides) + 0.6) + (len(sides) - 1) / 2 for index in range(len(cases))]
    axes.set_yticks(middles, cases)
    least, most = (pick(bar.value.median for bar in drawn) * factor for pick in (min, max))
    if most > _SPREAD * least > 0:
        axes.set_xscale("log")
        axes.set_xlabel(f"{unit}, logarithmic")
        axes.set_xlim(least / 3, most * 3)
    else:
        axes.set_xlabel(unit)
        axes.set_xlim(0, max(bar.value.high for bar in drawn) * factor * 1.12)
    if len(sides) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(sides), frameon=False)
    return _end(figure, axes)


def ratios(drawn: Sequence[Bar], large: float) -> str:
    """Times by others with their intervals, a line at 1, and the band in which nothing is an alarm."""
    figure, axes = _begin(len(drawn))
    axes.axvspan(1 - large, 1 + large, color="#8888", alpha=0.25, linewidth=0)
    axes.axvline(1, color=_INK, linewidth=0.8)
    for place, bar in enumerate(drawn):
        value = bar.value
        middle = min(value.median, _LONG)
        error = [[middle - min(value.low, middle)], [max(min(value.high, _LONG), middle) - middle]]
        mark = "o" if middle == value.median else ">"  # beyond the edge
        axes.errorbar([middle], [place], xerr=error, fmt=mark, color=_VERDICTS[bar.verdict], markersize=6, capsize=3)
        said = f"{value.median:.3f}{f', {bar.verdict}' if bar.verdict else ''}"
        _label(axes, 1, place, said, in_axes=True)
    axes.set_yticks(range(len(drawn)), [_called(bar) for bar in drawn])
    low = min(0.9, *(bar.value.low for bar in drawn))
    high = max(1.1, *(min(bar.value.high, _LONG) for bar in drawn))
    axes.set_xlim(low - 0.02, high + 0.02)
    return _end(figure, axes)


def _begin(lines: float) -> tuple[Any, Any]:
    from matplotlib import rcParams  # noqa: PLC0415 - the extra ``benchmark``, and slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK)
    rcParams.update({**ink, "svg.fonttype": "none", "svg.hashsalt": "patchforge", "font.size": 9})
    figure = Figure(figsize=(_WIDTH, _MARGIN + _ROW * max(lines, 1)), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.invert_yaxis()
    axes.set_ymargin(0.5 / max(lines, 1))
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    return figure, axes


def _called(bar: Bar) -> str:
    return bar.case if bar.side in _OWN else f"{bar.case}, {bar.side.removeprefix(f'{_OWN[0]}, ')}"


def _label(axes: Any, x: float, y: float, text: str, *, in_axes: bool = False) -> None:
    """At a place of the data, or with ``x`` as a part of the axes' width: where nothing is drawn."""
    place = axes.get_yaxis_transform() if in_axes else axes.transData
    axes.annotate(text, (x, y), xycoords=place, xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)


def _end(figure: Any, axes: Any) -> str:
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#8886", linewidth=0.5)
    axes.set_axisbelow(True)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    drawn = out.getvalue()
    return drawn[drawn.index("<svg") :].replace(_INK, "currentColor")
