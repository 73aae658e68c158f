"""Bar charts as SVG, written by hand: what four small plots need is less than what a library brings."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_BAR, _GAP, _LEFT, _LENGTH, _HEAD = 18, 12, 170, 420, 52
_COLOURS = ("#2b6cb0", "#dd8452", "#55a868", "#8172b2")


def bars(title: str, values: Mapping[str, Mapping[str, float]]) -> str:
    """Horizontal bars from zero, each with its number.

    Args:
        title: What the numbers are, and their unit.
        values: For each group of bars, the value of each series; all groups have the same series.
    """
    series = list(next(iter(values.values())))
    scale = _LENGTH / max(value for group in values.values() for value in group.values())
    lines, y = [], _HEAD
    for group, found in values.items():
        middle = y + len(found) * _BAR / 2 + 4
        lines.append(_text(_LEFT - 10, middle, group, anchor="end"))
        for number, value in enumerate(found.values()):
            colour = _COLOURS[number % len(_COLOURS)]
            size = f'width="{value * scale:.1f}" height="{_BAR - 2}"'
            lines.append(f'<rect x="{_LEFT}" y="{y}" {size} fill="{colour}"/>')
            lines.append(_text(_LEFT + value * scale + 6, y + _BAR - 6, f"{value:.2f}"))
            y += _BAR
        y += _GAP
    for number, name in enumerate(series if len(series) > 1 else []):
        x = _LEFT + 110 * number
        colour = _COLOURS[number % len(_COLOURS)]
        lines.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{colour}"/>')
        lines.append(_text(x + 17, 40, name))
    width = _LEFT + _LENGTH + 70
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" font-size="12"'
    background = f'<rect width="{width}" height="{y}" fill="white"/>'
    body = [background, _text(10, 18, title, weight="bold"), *lines]
    return "\n".join([f'{head} font-family="sans-serif">', *body, "</svg>", ""])


def _text(x: float, y: float, said: str, anchor: str = "start", weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(said)}</text>'
