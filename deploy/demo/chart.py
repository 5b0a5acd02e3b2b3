"""The curves: each hospital alone against all together, on patients of every kind. As SVG and, for where that cannot be
shown, as PNG; the same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from deploy.demo.report import TOGETHER

WIDTH, HEIGHT = 760, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 236, 56, 44
_LEAST, _MOST = 0.4, 1.0
# distinguishable without colour: the line together is thick, the others are dashed, and each is named at its end
_TOGETHER, _ALONE, _INK, _FAINT = "#1f7a5c", ("#b4552d", "#8a6d1f", "#6b5b95"), "#24292f", "#d0d7de"
TITLE = "Together the model learns what no hospital can learn alone"
AXIS = "AUC on patients of all three kinds, round by round"

Curves = Mapping[str, Sequence[float]]


def svg(tested: Curves, names: Mapping[str, str]) -> str:
    """The chart; `names` says what to call each hospital. It brings its own background, so that it reads anywhere."""
    rounds = max((len(curve) for curve in tested.values()), default=1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" aria-labelledby="curves-title curves-text">',
        f'<title id="curves-title">{escape(TITLE)}</title>',
        f'<desc id="curves-text">{escape(describe(tested, names))}</desc>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
        f'<text x="{_LEFT - 32}" y="26" font-size="16" font-weight="600" fill="{_INK}">{escape(TITLE)}</text>',
        f'<text x="{_LEFT - 32}" y="45" fill="#57606a">{escape(AXIS)}</text>',
    ]
    for value in _ticks():
        y = _y(value)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_FAINT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#57606a">{value:.1f}</text>')
    for number in range(rounds):
        label = "untrained" if number == 0 else f"round {number}"
        x, y = _x(number, rounds), HEIGHT - _BOTTOM + 20
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="#57606a">{label}</text>')
    for name, curve, colour, label_y in _lines(tested):
        points = " ".join(f"{_x(number, rounds):.1f},{_y(value):.1f}" for number, value in enumerate(curve))
        how = 'stroke-width="3.5"' if name == TOGETHER else 'stroke-width="2" stroke-dasharray="6 4"'
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" {how} stroke-linejoin="round"/>')
        last = len(curve) - 1
        parts.append(f'<circle cx="{_x(last, rounds):.1f}" cy="{_y(curve[-1]):.1f}" r="4" fill="{colour}"/>')
        weight = ' font-weight="600"' if name == TOGETHER else ""
        parts.append(
            f'<text x="{_x(last, rounds) + 12:.1f}" y="{label_y + 4:.1f}" fill="{colour}"{weight}>'
            f"{escape(_label(name, names))} {curve[-1]:.2f}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def describe(tested: Curves, names: Mapping[str, str]) -> str:
    """The chart in words, for who cannot see it."""
    ends = (f"{_label(name, names)} from {curve[0]:.2f} to {curve[-1]:.2f}" for name, curve in tested.items() if curve)
    return "; ".join(ends)


def write_png(path: Path, tested: Curves, names: Mapping[str, str], *, scale: int = 2) -> Path:
    """The same chart as pixels, twice as fine."""
    image = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), "#ffffff")
    pen = ImageDraw.Draw(image)
    small, large = (ImageFont.load_default(size=size * scale) for size in (13, 16))
    rounds = max((len(curve) for curve in tested.values()), default=1)

    def at(x: float, y: float) -> tuple[float, float]:
        return x * scale, y * scale

    pen.text(at(_LEFT - 32, 12), TITLE, fill=_INK, font=large)
    pen.text(at(_LEFT - 32, 34), AXIS, fill="#57606a", font=small)
    for value in _ticks():
        pen.line([at(_LEFT, _y(value)), at(WIDTH - _RIGHT, _y(value))], fill=_FAINT, width=scale)
        pen.text(at(_LEFT - 8, _y(value)), f"{value:.1f}", fill="#57606a", font=small, anchor="rm")
    for number in range(rounds):
        label = "untrained" if number == 0 else f"round {number}"
        pen.text(at(_x(number, rounds), HEIGHT - _BOTTOM + 16), label, fill="#57606a", font=small, anchor="mm")
    for name, curve, colour, label_y in _lines(tested):
        points = [at(_x(number, rounds), _y(value)) for number, value in enumerate(curve)]
        pen.line(points, fill=colour, width=(4 if name == TOGETHER else 2) * scale, joint="curve")
        x, y = points[-1]
        pen.ellipse([x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale], fill=colour)
        text = f"{_label(name, names)} {curve[-1]:.2f}"
        pen.text((x + 12 * scale, label_y * scale), text, fill=colour, font=small, anchor="lm")
    image.save(path, "PNG", optimize=True)
    return path


def _lines(tested: Curves) -> list[tuple[str, Sequence[float], str, float]]:
    """(name, curve, colour, height of its label): labels are kept 18 pixels apart, from the top down."""
    colours = iter(_ALONE * len(tested))
    drawn = [(name, curve, _TOGETHER if name == TOGETHER else next(colours)) for name, curve in tested.items() if curve]
    placed, lowest = {}, 0.0
    for name, curve, _ in sorted(drawn, key=lambda line: -line[1][-1]):
        lowest = placed[name] = max(_y(curve[-1]), lowest + 18)
    return [(name, curve, colour, placed[name]) for name, curve, colour in drawn]


def _label(name: str, names: Mapping[str, str]) -> str:
    return "together" if name == TOGETHER else f"{names.get(name, name)} alone"


def _ticks() -> list[float]:
    return [round(_LEAST + step / 10, 1) for step in range(round((_MOST - _LEAST) * 10) + 1)]


def _x(number: int, rounds: int) -> float:
    return _LEFT + 24 + number * (WIDTH - _LEFT - _RIGHT - 48) / max(rounds - 1, 1)


def _y(value: float) -> float:
    return _TOP + 8 + (_MOST - min(max(value, _LEAST), _MOST)) / (_MOST - _LEAST) * (HEIGHT - _TOP - _BOTTOM - 8)
