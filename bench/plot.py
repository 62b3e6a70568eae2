"""An SVG of small panels: figures over the depth of a chain or the size of a memory, ceilings as dashed lines. Needs nothing."""

import math
from html import escape

COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 340, 230
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 58, 18, 46, 36
HEAD = 92

STYLE = """
text { font-family: "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; fill: #333; font-size: 11px }
.title { font-size: 19px; font-weight: 600 } .sub { fill: #777; font-size: 12px }
.name { font-size: 13px; font-weight: 600 } .unit, .tick { fill: #888 }
.grid { stroke: #e6e6e6; stroke-width: 1 } .axis { stroke: #bbb; stroke-width: 1 }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round } .dashed { stroke-dasharray: 5 4; stroke-width: 1.6 }
"""


def nice_step(largest, steps=4):
    """1, 2 or 5 times a power of ten, so that about `steps` of them reach the largest value."""
    rough = max(largest, 1e-9) / steps
    power = 10 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def short(value):
    for limit, suffix in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"


class Panel:
    """series: (colour, dashed, [(depth, value), ...]) each; logarithmic: of values above 0, over powers of ten."""

    def __init__(self, title, unit, depths, series, logarithmic=False):
        self.title, self.unit, self.depths, self.series = title, unit, depths, series
        found = [value for _, _, points in series for _, value in points] or [1]
        self._least = 10 ** math.floor(math.log10(min(found))) if logarithmic else 0
        if logarithmic:
            self._top = max(10 ** math.ceil(math.log10(max(found)) - 1e-9), self._least * 10)
            self._ticks = [self._least * 10 ** power for power in range(round(math.log10(self._top / self._least)) + 1)]
        else:
            step = nice_step(max(found))
            self._top = step * math.ceil(max(found) / step * 1.0001)
            self._ticks = [step * count for count in range(round(self._top / step) + 1)]

    def _x(self, depth):
        first, last = math.log10(self.depths[0]), math.log10(self.depths[-1])
        share = (math.log10(depth) - first) / (last - first) if last > first else 0.5
        return MARGIN_LEFT + share * (PANEL_WIDTH - MARGIN_LEFT - MARGIN_RIGHT)

    def _y(self, value):
        share = math.log(value / self._least) / math.log(self._top / self._least) if self._least else value / self._top
        return MARGIN_TOP + (1 - share) * (PANEL_HEIGHT - MARGIN_TOP - MARGIN_BOTTOM)

    def _axes(self):
        left, right, bottom = MARGIN_LEFT, PANEL_WIDTH - MARGIN_RIGHT, self._y(self._ticks[0])
        for value in self._ticks:
            kind = "grid" if value > self._ticks[0] else "axis"
            yield f'<line class="{kind}" x1="{left}" x2="{right}" y1="{self._y(value):.1f}" y2="{self._y(value):.1f}"/>'
            yield f'<text class="tick" x="{left - 7}" y="{self._y(value) + 4:.1f}" text-anchor="end">{short(value)}</text>'
        for depth in self.depths:
            yield f'<line class="axis" x1="{self._x(depth):.1f}" x2="{self._x(depth):.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            yield f'<text class="tick" x="{self._x(depth):.1f}" y="{bottom + 17}" text-anchor="middle">{depth}</text>'

    def _lines(self):
        for colour, dashed, points in self.series:
            if not points:
                continue
            if len(points) == 1 and dashed:  # one value for all depths
                points = [(self.depths[0], points[0][1]), (self.depths[-1], points[0][1])]
            path = " ".join(f"{self._x(depth):.1f},{self._y(value):.1f}" for depth, value in points)
            yield f'<polyline class="line{" dashed" if dashed else ""}" stroke="{colour}" points="{path}"/>'
            for depth, value in [] if dashed else points:
                yield f'<circle cx="{self._x(depth):.1f}" cy="{self._y(value):.1f}" r="3.2" fill="{colour}"/>'

    def svg(self, left, top):
        yield f'<g transform="translate({left},{top})">'
        yield f'<text class="name" x="{MARGIN_LEFT}" y="18">{escape(self.title)}</text>'
        yield f'<text class="unit" x="{MARGIN_LEFT}" y="34">{escape(self.unit)}</text>'
        yield from self._axes()
        yield from self._lines()
        yield "</g>"


def legend(entries, left, top):
    for colour, dashed, text in entries:
        kind = "line dashed" if dashed else "line"
        yield f'<line class="{kind}" stroke="{colour}" x1="{left}" x2="{left + 28}" y1="{top - 4}" y2="{top - 4}"/>'
        yield f'<text x="{left + 35}" y="{top}" style="font-size:12px">{escape(text)}</text>'
        left += 55 + 6.6 * len(text)


def page(title, subtitle, entries, panels):
    """entries: (colour, dashed, text) of the legend."""
    rows = math.ceil(len(panels) / COLUMNS)
    width, height = COLUMNS * PANEL_WIDTH + 20, HEAD + rows * PANEL_HEIGHT + 10
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
             f"<style>{STYLE}</style>", f'<rect width="{width}" height="{height}" fill="#fff"/>',
             f'<text class="title" x="24" y="34">{escape(title)}</text>',
             f'<text class="sub" x="24" y="54">{escape(subtitle)}</text>']
    lines += legend(entries, 24, 78)
    for number, panel in enumerate(panels):
        lines += panel.svg(10 + number % COLUMNS * PANEL_WIDTH, HEAD + number // COLUMNS * PANEL_HEIGHT)
    return "\n".join([*lines, "</svg>", ""])
