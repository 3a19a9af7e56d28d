"""Drawing one subject: parts on an index canvas, then colour, pattern, outline and light.

Every part of a subject gets its own number on an 8-bit canvas at SUPERSAMPLE times the final size. From
that one canvas follow the instance mask, the outlines (where the number changes), the pattern (computed in
the subject's own coordinates, so it moves with the subject) and the shading (the silhouette, blurred, is
taken for a height).
"""

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLE = 2
Colour = tuple[float, float, float]


@cache
def _circle(n: int) -> np.ndarray:
    angle = np.arange(n) * (2 * math.pi / n)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


@cache
def _spline(n: int, steps: int) -> np.ndarray:
    """Closed Catmull-Rom weights [n·steps, n]: n control points become n·steps points."""
    weights = np.zeros((n * steps, n))
    for i in range(n):
        for s in range(steps):
            t = s / steps
            basis = (
                (-t + 2 * t**2 - t**3) / 2,
                (2 - 5 * t**2 + 3 * t**3) / 2,
                (t + 4 * t**2 - 3 * t**3) / 2,
                (-(t**2) + t**3) / 2,
            )
            for k, weight in enumerate(basis):
                weights[i * steps + s, (i + k - 1) % n] += weight
    return weights


def lerp(low: float, high: float, t: float) -> float:
    """The value a share t of the way from low to high."""
    return low + (high - low) * t


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    return tuple(p + (q - p) * share for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1; above 1 lighter, towards white."""
    if factor <= 1:
        return tuple(c * factor for c in colour)  # type: ignore[return-value]
    return mix(colour, (255.0, 255.0, 255.0), factor - 1)


class Pen:
    """Draws a subject's parts in its own units: x right, y down, the body within about [-1, 1].

    `unit` is the length of 1 in canvas pixels, (cx, cy) the subject's centre on the canvas, `facing` -1
    mirrors it and `tilt` turns it, in radians.
    """

    def __init__(self, size: int, cx: float, cy: float, unit: float, facing: int, tilt: float):
        self.canvas = Image.new("L", (size, size), 0)
        self._draw = ImageDraw.Draw(self.canvas)
        cos, sin = math.cos(tilt) * unit, math.sin(tilt) * unit
        self.matrix = np.array([[cos * facing, sin * facing], [-sin, cos]])
        self.origin = np.array([cx, cy])
        self.unit = unit
        self.colours: list[Colour] = [(0.0, 0.0, 0.0)]
        self.patterned: list[bool] = [False]
        self.outline_of: list[int] = [0]
        self.keypoints: dict[str, tuple[float, float]] = {}
        self.anchors: dict[str, tuple[float, float, float]] = {}

    def _part(self, colour: Colour, pattern: bool, outline: bool) -> int:
        number = len(self.colours)
        self.colours.append(colour)
        self.patterned.append(pattern)
        # A part without outline takes the group of the part before it, so no edge shows between the two.
        self.outline_of.append(number if outline else self.outline_of[-1])
        return number

    def place(self, points: np.ndarray) -> np.ndarray:
        """Subject units [n, 2] → canvas pixels [n, 2]."""
        return points @ self.matrix + self.origin

    def poly(self, points, colour: Colour, *, pattern: bool = False, outline: bool = True) -> None:
        """A polygon through the points."""
        number = self._part(colour, pattern, outline)
        self._draw.polygon(self.place(np.asarray(points, float)).ravel().tolist(), fill=number)

    def smooth(self, points, colour: Colour, *, pattern: bool = False, outline: bool = True) -> None:
        """A closed smooth curve through the points."""
        points = np.asarray(points, float)
        self.poly(_spline(len(points), 6) @ points, colour, pattern=pattern, outline=outline)

    def blob(
        self, x, y, rx, ry, colour: Colour, *, turn=0.0, pattern: bool = False, outline: bool = True
    ) -> None:
        """An ellipse with radii rx, ry, turned by `turn` radians."""
        points = _circle(14 if max(rx, ry) * self.unit < 10 else 30) * (rx, ry)
        if turn:
            cos, sin = math.cos(turn), math.sin(turn)
            points = points @ np.array([[cos, sin], [-sin, cos]])
        self.poly(points + np.array([x, y]), colour, pattern=pattern, outline=outline)

    def stroke(self, points, width: float, colour: Colour, *, outline: bool = False) -> None:
        """An open line of a width in subject units, at least a final pixel wide, with round ends."""
        number = self._part(colour, False, outline)
        placed = self.place(np.asarray(points, float))
        pixels = max(SUPERSAMPLE, round(width * self.unit))
        self._draw.line(placed.ravel().tolist(), fill=number, width=pixels, joint="curve")
        if pixels > 3:
            r = pixels / 2
            for x, y in (placed[0], placed[-1]):
                self._draw.ellipse((x - r, y - r, x + r, y + r), fill=number)

    def eye(
        self, x, y, r, *, look: float = 0.0, iris: Colour = (36.0, 30.0, 38.0), white: bool = False
    ) -> None:
        """A dark eye with a glint; with `white`, an iris in a white eyeball."""
        if white:
            self.blob(x, y, r * 1.25, r, (250.0, 248.0, 244.0))
            self.blob(x + look * r * 0.35, y, r * 0.72, r * 0.78, iris, outline=False)
            self.blob(x + look * r * 0.35, y, r * 0.34, r * 0.38, (24.0, 20.0, 26.0), outline=False)
        else:
            self.blob(x, y, r, r * 1.15, iris, outline=False)
        self.blob(x + r * 0.3, y - r * 0.4, r * 0.32, r * 0.32, (255.0, 255.0, 255.0), outline=False)

    def point(self, name: str, x: float, y: float) -> None:
        """Remembers a keypoint, in final-image pixels."""
        px, py = self.place(np.array([[x, y]]))[0] / SUPERSAMPLE
        self.keypoints[name] = (float(px), float(py))

    def anchor(self, name: str, x: float, y: float, width: float) -> None:
        """Where an accessory sits, with the half-width it should have, in subject units."""
        self.anchors[name] = (x, y, width)

    def paint(self, picture: np.ndarray, light: float, pattern: str, second: Colour) -> np.ndarray:
        """Paints the subject on `picture` uint8 [S, S, 3] in place; returns its mask bool [S, S]."""
        index = np.asarray(self.canvas)
        mask = index > 0
        box = self.canvas.getbbox()
        if box is None:
            return mask
        x0, y0, x1, y1 = box
        part = index[y0:y1, x0:x1]
        inside = part > 0
        colours = np.asarray(self.colours, np.float32)
        colour = colours[part]
        if pattern != "plain":
            on = np.asarray(self.patterned)[part] & self._pattern(pattern, x0, y0, part.shape)
            colour[on] = np.asarray(second, np.float32)
        groups = np.asarray(self.outline_of, np.uint8)[part]
        colour[_edges(groups)] *= 0.62
        colour *= _relief(self.canvas, light)[y0:y1, x0:x1, None]
        np.clip(colour, 0, 255, out=colour)
        region = picture[y0:y1, x0:x1]
        region[inside] = colour[inside].astype(np.uint8)
        return mask

    def _pattern(self, pattern: str, x0: int, y0: int, shape: tuple[int, int]) -> np.ndarray:
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        x = np.arange(x0, x0 + shape[1], dtype=np.float32) - self.origin[0]
        y = np.arange(y0, y0 + shape[0], dtype=np.float32) - self.origin[1]
        u = x[None] * inverse[0, 0] + y[:, None] * inverse[1, 0]
        v = x[None] * inverse[0, 1] + y[:, None] * inverse[1, 1]
        if pattern == "striped":
            return np.sin(u * 12.0 + v * 3.0) > 0.15
        if pattern == "checkered":
            return (np.floor(u * 3.6).astype(np.int32) + np.floor(v * 3.6).astype(np.int32)) % 2 == 0
        row = np.floor(v * 3.2)
        du = (u * 3.2 + 0.5 * (row % 2)) % 1 - 0.5
        dv = (v * 3.2) % 1 - 0.5
        return du * du + dv * dv < 0.095


def _edges(groups: np.ndarray) -> np.ndarray:
    """Two canvas pixels (one final pixel) on either side of where the number changes, bool, same shape."""
    edge = np.zeros(groups.shape, bool)
    down = groups[1:] != groups[:-1]
    across = groups[:, 1:] != groups[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[0], edge[-1], edge[:, 0], edge[:, -1] = True, True, True, True
    return edge


def _relief(canvas: Image.Image, light: float) -> np.ndarray:
    """Brightness [S, S] of a body whose height is its blurred silhouette, lit from `light` and above."""
    size = canvas.size[0]
    low = canvas.point(_SOLID).resize((size // 4, size // 4), Image.Resampling.BOX)
    height = np.asarray(low.filter(ImageFilter.BoxBlur(5)), np.float32) / 255
    slope = np.zeros_like(height)
    slope[:, 1:-1] += (height[:, 2:] - height[:, :-2]) * (0.75 * light)
    slope[1:-1] += (height[2:] - height[:-2]) * -0.55
    bright = np.clip(1.03 - slope * 2.6, 0.62, 1.24)
    image = Image.fromarray(np.clip(bright * 128, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 128


_SOLID = [0] + [255] * 255
