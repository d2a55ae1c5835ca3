"""Small plots as inline SVG; colours come from the page's style sheet, so they follow light and dark."""

import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 340, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 30, 38


class Point(NamedTuple):
    """One method in a scatter plot; `kind` is a CSS class, `told` what its tooltip calls it (else `label`)."""

    x: float
    y: float
    label: str
    kind: str
    told: str = ""


class Axis(NamedTuple):
    """A data range mapped to [low, high] pixels."""

    ticks: list[float]
    place: Callable[[float], float]


def axis(values: Sequence[float], low: float, high: float, log: bool) -> Axis:
    """Ticks and the map from values to pixels; a linear axis starts at zero where that wastes little."""
    first, last = min(values), max(values)
    if log:
        first, last = math.log10(first), math.log10(last)
        pad = max((last - first) * 0.06, 0.04)
        first, last = first - pad, last + pad
        ticks = _log_ticks(first, last)
    else:
        pad = (last - first) * 0.06 or abs(last) * 0.1 or 1.0
        zero = 0 <= first <= 0.5 * last
        first, last = 0.0 if zero else first - pad, last + pad
        ticks = _linear_ticks(first, last)

    def place(value: float) -> float:
        at = math.log10(value) if log else value
        return low + (at - first) / (last - first) * (high - low)

    return Axis(ticks, place)


def scatter(points: Sequence[Point], title: str, x_label: str, log_y: bool = False, height: int = HEIGHT) -> str:
    """Labelled points over a logarithmic x axis; points that cannot be placed (x <= 0) are left out."""
    points = [p for p in points if p.x > 0 and (p.y > 0 or not log_y)]
    if not points:
        return ""
    x = axis([p.x for p in points], LEFT, WIDTH - RIGHT, True)
    y = axis([p.y for p in points], height - BOTTOM, TOP, log_y)
    placed = [(x.place(p.x), y.place(p.y), p) for p in points]
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py, _ in placed]
    parts = []
    for px, py, point in placed:
        parts.append(
            f'<circle class="{point.kind}" cx="{px:.1f}" cy="{py:.1f}" r="4.5">'
            f"<title>{html.escape(f'{point.told or point.label}: {point.x:.4g}, {point.y:.4g}')}</title></circle>"
        )
        parts.append(_label(px, py, point, taken, height))
    return _frame(title, x_label, x, y, "".join(parts), height)


def curve(rows: Sequence[tuple[float, float]], title: str, x_label: str, log_y: bool, kind: str) -> str:
    """One training curve: every value faintly, a running mean on top."""
    rows = [(a, b) for a, b in rows if math.isfinite(b) and (b > 0 or not log_y)]
    if len(rows) < 2:
        return ""
    smooth = _smooth([b for _, b in rows])
    x = axis([a for a, _ in rows], LEFT, WIDTH - RIGHT, False)
    y = axis([b for _, b in rows], HEIGHT - BOTTOM, TOP, log_y)
    raw = _path([(x.place(a), y.place(b)) for a, b in rows])
    mean = _path([(x.place(a), y.place(b)) for (a, _), b in zip(rows, smooth, strict=True)])
    body = f'<path class="raw {kind}" d="{raw}"/><path class="{kind}" d="{mean}"/>'
    return _frame(title, x_label, x, y, body)


def line(points: Sequence[tuple[float, float]], title: str, x_label: str, mark: float, kind: str) -> str:
    """Points joined in the order of x; those at x = `mark` are filled."""
    points = sorted(point for point in points if all(map(math.isfinite, point)))
    if len(points) < 2:
        return ""
    x = axis([a for a, _ in points], LEFT, WIDTH - RIGHT, False)
    y = axis([b for _, b in points], HEIGHT - BOTTOM, TOP, False)
    body = f'<path class="{kind}" d="{_path([(x.place(a), y.place(b)) for a, b in points])}"/>'
    for a, b in points:
        at = f'cx="{x.place(a):.1f}" cy="{y.place(b):.1f}" r="{5.5 if a == mark else 3}"'
        body += f'<circle class="{kind}" {at}><title>{a:.4g}: {b:.4g}</title></circle>'
    return _frame(title, x_label, x, y, body)


def _frame(title: str, x_label: str, x: Axis, y: Axis, body: str, height: int = HEIGHT) -> str:
    parts = [f'<text class="title" x="{LEFT}" y="16">{html.escape(title)}</text>']
    floor = height - BOTTOM
    for tick in y.ticks:
        at = y.place(tick)
        parts.append(f'<line class="gridline" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in x.ticks:
        at = x.place(tick)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{floor + 16}" text-anchor="middle">{tick:.6g}</text>')
    parts.append(f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{height - 4}" text-anchor="middle">{html.escape(x_label)}</text>')
    size = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}"'
    return f"<svg {size}>{''.join(parts)}{body}</svg>"


Box = tuple[float, float, float, float]


def _label(px: float, py: float, point: Point, taken: list[Box], height: int) -> str:
    """The point's name where it covers nothing yet; left out (the title tells it) where there is no room."""
    width = 6.4 * len(point.label)
    spots = [(dx, dy) for dy in (3.5, -8, 15, -17, 24) for dx in (8, -8 - width, -width / 2)]
    for dx, dy in spots:
        if dy == 3.5 and dx == -width / 2:
            continue  # on top of its own point
        box = (px + dx, py + dy - 9, px + dx + width, py + dy + 2)
        inside = box[0] >= LEFT - 4 and box[2] <= WIDTH - 5 and box[1] >= TOP - 10 and box[3] <= height - BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return f'<text class="label" x="{box[0]:.1f}" y="{py + dy:.1f}">{html.escape(point.label)}</text>'
    return ""


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _log_ticks(first: float, last: float) -> list[float]:
    """1, 2, 5 in every decade, thinned until at most six are left."""
    decades = range(math.floor(first), math.ceil(last) + 1)
    steps: tuple[float, ...]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**d for d in decades for m in steps if first <= math.log10(m * 10.0**d) <= last]
        if len(ticks) <= 6:
            break
    return ticks if len(ticks) > 1 else _linear_ticks(10**first, 10**last)


def _linear_ticks(first: float, last: float, count: int = 5) -> list[float]:
    raw = (last - first) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    start = math.ceil(first / step - 1e-9)
    return [i * step for i in range(start, math.floor(last / step + 1e-9) + 1) if i * step >= first]


def _smooth(values: Sequence[float]) -> list[float]:
    """Running mean over a fiftieth of the curve."""
    keep = 1 - 1 / max(1.0, len(values) / 50)
    out, mean = [], values[0]
    for value in values:
        mean = keep * mean + (1 - keep) * value
        out.append(mean)
    return out


def _path(points: Sequence[tuple[float, float]]) -> str:
    stride = max(1, len(points) // 400)
    kept = [*points[::stride], points[-1]]
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in kept)
