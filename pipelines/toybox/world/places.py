"""The eight places, painted on a canvas with a horizon; light falls from `scene.light`'s side.

Each place is a function (draw, rng, size, light) → horizon height in canvas pixels; the sky's gradient
is laid before by `backdrop`.
"""

import math
from random import Random

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]

SKIES: dict[str, tuple[tuple[RGB, RGB], ...]] = {
    "beach": (
        ((98, 178, 230), (214, 238, 244)),
        ((250, 176, 120), (255, 226, 178)),
        ((120, 190, 226), (250, 236, 214)),
    ),
    "forest": (
        ((150, 200, 190), (222, 238, 206)),
        ((118, 168, 172), (206, 226, 190)),
        ((196, 206, 160), (244, 236, 196)),
    ),
    "snow": (
        ((150, 180, 214), (232, 240, 248)),
        ((186, 196, 222), (246, 236, 240)),
        ((118, 160, 204), (222, 236, 246)),
    ),
    "city at night": (
        ((22, 24, 58), (70, 58, 110)),
        ((16, 20, 48), (48, 64, 116)),
        ((34, 22, 58), (112, 60, 110)),
    ),
    "desert": (
        ((116, 184, 224), (252, 226, 176)),
        ((240, 158, 92), (255, 220, 150)),
        ((146, 196, 220), (250, 216, 166)),
    ),
    "room": (
        ((236, 220, 196), (226, 206, 180)),
        ((196, 214, 208), (184, 204, 198)),
        ((222, 200, 206), (212, 188, 196)),
        ((204, 206, 226), (194, 194, 216)),
    ),
    "space": (((10, 10, 30), (38, 24, 66)), ((8, 16, 36), (18, 48, 78)), ((20, 10, 36), (70, 26, 70))),
    "meadow": (
        ((110, 184, 236), (218, 240, 246)),
        ((128, 196, 232), (246, 244, 214)),
        ((160, 190, 236), (250, 226, 226)),
    ),
}


def backdrop(place: str, seed: int, light: float, size: int) -> tuple[Image.Image, float]:
    """The empty place as RGB [size, size] and its horizon's height in [0, 1] of the canvas (0 in space)."""
    rng = Random(seed)
    top, bottom = rng.choice(SKIES[place])
    steps = np.linspace(0, 1, size, dtype=np.float32)[:, None] ** 0.8
    column = np.asarray(top, np.float32) * (1 - steps) + np.asarray(bottom, np.float32) * steps
    image = Image.fromarray(np.repeat(column.astype(np.uint8)[:, None], size, 1))
    draw = ImageDraw.Draw(image)
    horizon = _PAINTERS[place](draw, rng, size, light)
    return image, horizon / size


def _tint(colour: RGB, factor: float) -> RGB:
    return tuple(max(0, min(255, round(c * factor))) for c in colour)  # type: ignore[return-value]


def _ridge(draw: ImageDraw.ImageDraw, rng: Random, size: int, y: float, height: float, colour: RGB) -> None:
    """A rolling skyline filled to the bottom."""
    a, b = rng.uniform(0, math.tau), rng.uniform(0, math.tau)
    f, g = rng.uniform(1.0, 2.2), rng.uniform(2.4, 4.0)
    points = []
    for k in range(25):
        x = k / 24
        points += [
            x * size,
            y
            - height
            * (0.6 * math.sin(f * math.tau * x * 0.7 + a) + 0.4 * math.sin(g * math.tau * x * 0.6 + b)),
        ]
    draw.polygon([*points, size, size, 0, size], fill=colour)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: RGB) -> None:
    draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _sun_x(rng: Random, size: int, light: float) -> float:
    return size * (0.5 + math.copysign(rng.uniform(0.26, 0.4), light))


def _clouds(draw: ImageDraw.ImageDraw, rng: Random, size: int, low: float, colour: RGB) -> None:
    for _ in range(rng.randrange(1, 4)):
        x, y, r = rng.uniform(0, size), rng.uniform(0.06, low) * size, rng.uniform(0.03, 0.055) * size
        for k in (-1.4, -0.5, 0.5, 1.3):
            _disc(draw, x + k * r, y + 0.25 * r * abs(k), r * (1.15 - 0.25 * abs(k)), colour)
        draw.rectangle((x - 1.9 * r, y + 0.3 * r, x + 1.9 * r, y + 0.95 * r), fill=colour)


def _beach(draw: ImageDraw.ImageDraw, rng: Random, size: int, light: float) -> float:
    horizon = size * rng.uniform(0.4, 0.5)
    _disc(draw, _sun_x(rng, size, light), size * rng.uniform(0.12, 0.24), size * 0.07, (255, 244, 206))
    _clouds(draw, rng, size, 0.26, (252, 252, 252))
    sea = rng.choice(((46, 140, 186), (38, 158, 176), (70, 150, 200)))
    draw.rectangle((0, horizon, size, size), fill=sea)
    for _ in range(6):
        x, y, w = (
            rng.uniform(-0.1, 0.9) * size,
            horizon + rng.uniform(0.02, 0.12) * size,
            rng.uniform(0.08, 0.2) * size,
        )
        draw.rectangle((x, y, x + w, y + size * 0.008), fill=_tint(sea, 1.35))
    shore = horizon + size * rng.uniform(0.13, 0.18)
    _ridge(draw, rng, size, shore, size * 0.016, (248, 246, 238))
    sand = rng.choice(((238, 212, 158), (244, 220, 172), (230, 200, 148)))
    _ridge(draw, rng, size, shore + size * 0.022, size * 0.014, sand)
    for _ in range(10):
        x, y = rng.uniform(0, size), rng.uniform(shore / size + 0.06, 1) * size
        _disc(draw, x, y, size * 0.006, _tint(sand, 0.86))
    if rng.random() < 0.6:
        _palm(draw, rng, size, size * (0.08 if light > 0 else 0.92), shore + size * 0.1)
    return shore


def _palm(draw: ImageDraw.ImageDraw, rng: Random, size: int, x: float, foot: float) -> None:
    tall, lean = size * rng.uniform(0.38, 0.5), size * rng.uniform(-0.06, 0.06)
    w = size * 0.016
    draw.polygon(
        (x - w, foot, x + w, foot, x + lean + w * 0.6, foot - tall, x + lean - w * 0.6, foot - tall),
        fill=(150, 108, 70),
    )
    for k in range(7):
        a = math.pi * (0.9 + 1.2 * k / 6)
        r = size * rng.uniform(0.13, 0.18)
        tx, ty = x + lean + math.cos(a) * r, foot - tall + math.sin(a) * r * 0.6 + size * 0.05
        draw.polygon(
            (
                x + lean,
                foot - tall - w,
                (x + lean + tx) / 2,
                foot - tall - size * 0.06,
                tx,
                ty,
                (x + lean + tx) / 2,
                foot - tall,
            ),
            fill=(62, 142, 84) if k % 2 else (48, 122, 74),
        )


def _fir(
    draw: ImageDraw.ImageDraw,
    x: float,
    foot: float,
    tall: float,
    colour: RGB,
    light: float,
    tip: RGB | None = None,
) -> None:
    draw.rectangle((x - tall * 0.05, foot - tall * 0.2, x + tall * 0.05, foot), fill=(104, 72, 54))
    for k in range(3):
        y, w = foot - tall * (0.15 + 0.25 * k), tall * (0.3 - 0.065 * k)
        apex = y - tall * 0.38
        draw.polygon((x - w, y, x + w, y, x, apex), fill=colour)
        draw.polygon((x, y, x + math.copysign(w, light), y, x, apex), fill=_tint(colour, 1.16))
        if tip:
            draw.polygon((x - w * 0.42, y - tall * 0.22, x + w * 0.42, y - tall * 0.22, x, apex), fill=tip)


def _forest(draw: ImageDraw.ImageDraw, rng: Random, size: int, light: float) -> float:
    horizon = size * rng.uniform(0.56, 0.64)
    green = rng.choice(((52, 112, 78), (64, 118, 70), (46, 104, 92)))
    for _ in range(7):
        _fir(
            draw,
            rng.uniform(0, size),
            horizon + size * 0.03,
            size * rng.uniform(0.3, 0.46),
            _tint(green, 1.42),
            light,
        )
    draw.rectangle((0, horizon, size, size), fill=_tint(green, 1.22))
    for k in range(5):
        x = size * (0.06 + 0.22 * k + rng.uniform(-0.07, 0.07))
        _fir(
            draw,
            x,
            horizon + size * rng.uniform(0.05, 0.1),
            size * rng.uniform(0.5, 0.66),
            _tint(green, rng.uniform(0.86, 1.06)),
            light,
        )
    _ridge(draw, rng, size, horizon + size * 0.12, size * 0.012, _tint(green, 1.34))
    for _ in range(8):
        x, y = rng.uniform(0, size), rng.uniform(horizon / size + 0.16, 0.99) * size
        draw.polygon((x, y, x + size * 0.012, y - size * 0.03, x + size * 0.024, y), fill=_tint(green, 1.04))
    return horizon + size * 0.1


def _snow(draw: ImageDraw.ImageDraw, rng: Random, size: int, light: float) -> float:
    horizon = size * rng.uniform(0.5, 0.58)
    _ridge(draw, rng, size, horizon - size * 0.1, size * 0.09, (190, 206, 226))
    for _ in range(5):
        _fir(
            draw,
            rng.uniform(0, size),
            horizon + size * 0.04,
            size * rng.uniform(0.22, 0.36),
            (82, 122, 124),
            light,
            (244, 248, 252),
        )
    _ridge(draw, rng, size, horizon + size * 0.03, size * 0.02, (226, 234, 244))
    _ridge(draw, rng, size, horizon + size * 0.14, size * 0.02, (244, 247, 251))
    for _ in range(26):
        _disc(
            draw, rng.uniform(0, size), rng.uniform(0, size), size * rng.uniform(0.005, 0.01), (255, 255, 255)
        )
    return horizon + size * 0.1


def _city(draw: ImageDraw.ImageDraw, rng: Random, size: int, light: float) -> float:
    horizon = size * rng.uniform(0.64, 0.7)
    _disc(draw, _sun_x(rng, size, light), size * rng.uniform(0.1, 0.18), size * 0.055, (246, 242, 216))
    for _ in range(14):
        _disc(draw, rng.uniform(0, size), rng.uniform(0, 0.35) * size, size * 0.004, (220, 220, 240))
    for layer, colour in enumerate(((44, 42, 86), (28, 28, 60))):
        x = -rng.uniform(0, 0.1) * size
        while x < size:
            w = size * rng.uniform(0.1, 0.17)
            top = horizon - size * rng.uniform(0.18, 0.5 - 0.14 * layer)
            draw.rectangle((x, top, x + w, horizon), fill=colour)
            if layer:
                pane, step = max(2, size * 0.018), size * 0.042
                wy = top + step * 0.5
                while wy < horizon - step:
                    wx = x + step * 0.4
                    while wx < x + w - step * 0.6:
                        if rng.random() < 0.6:
                            draw.rectangle(
                                (wx, wy, wx + pane, wy + pane),
                                fill=(255, 214, 120) if rng.random() < 0.8 else (150, 220, 240),
                            )
                        wx += step
                    wy += step
            x += w + size * 0.008
    draw.rectangle((0, horizon, size, size), fill=(58, 56, 82))
    draw.rectangle((0, horizon, size, horizon + size * 0.03), fill=(92, 88, 116))
    y = horizon + size * 0.2
    for k in range(5):
        draw.rectangle(
            (size * (0.22 * k - 0.04), y, size * (0.22 * k + 0.08), y + size * 0.014), fill=(228, 206, 130)
        )
    return horizon + size * 0.03


def _desert(draw: ImageDraw.ImageDraw, rng: Random, size: int, light: float) -> float:
    horizon = size * rng.uniform(0.5, 0.58)
    _disc(draw, _sun_x(rng, size, light), size * rng.uniform(0.14, 0.3), size * 0.085, (255, 238, 176))
    sand = rng.choice(((228, 162, 96), (234, 176, 108), (220, 148, 92)))
    _ridge(draw, rng, size, horizon - size * 0.03, size * 0.06, _tint(sand, 0.84))
    _ridge(draw, rng, size, horizon + size * 0.06, size * 0.04, _tint(sand, 0.96))
    for _ in range(rng.randrange(1, 4)):
        _cactus(
            draw,
            rng,
            size,
            rng.choice((rng.uniform(0.04, 0.24), rng.uniform(0.76, 0.96))) * size,
            horizon + size * 0.12,
        )
    _ridge(draw, rng, size, horizon + size * 0.16, size * 0.025, _tint(sand, 1.08))
    return horizon + size * 0.12


def _cactus(draw: ImageDraw.ImageDraw, rng: Random, size: int, x: float, foot: float) -> None:
    green, tall, w = (74, 138, 92), size * rng.uniform(0.18, 0.28), size * 0.02
    draw.rounded_rectangle((x - w, foot - tall, x + w, foot), w, fill=green)
    for side in (-1, 1):
        y, reach = foot - tall * rng.uniform(0.35, 0.55), side * size * 0.055
        left, right = sorted((x, x + reach))
        draw.rounded_rectangle(
            (left - w * 0.6, y - w * 0.7, right + w * 0.6, y + w * 0.7), w * 0.6, fill=green
        )
        draw.rounded_rectangle(
            (x + reach - w * 0.7, y - tall * 0.35, x + reach + w * 0.7, y + w * 0.6), w * 0.6, fill=green
        )


def _room(draw: ImageDraw.ImageDraw, rng: Random, size: int, light: float) -> float:
    floor = size * rng.uniform(0.66, 0.72)
    side = 0.24 if light < 0 else 0.76
    x, y, w, h = side * size, size * rng.uniform(0.1, 0.16), size * 0.15, size * 0.34
    draw.rectangle((x - w - 5, y - 5, x + w + 5, y + h + 5), fill=(250, 246, 238))
    draw.rectangle((x - w, y, x + w, y + h), fill=(158, 210, 240))
    draw.polygon(
        (x - w, y + h, x - w, y + h * 0.7, x - w * 0.2, y + h * 0.55, x + w, y + h * 0.78, x + w, y + h),
        fill=(134, 186, 128),
    )
    draw.rectangle((x - 3, y, x + 3, y + h), fill=(250, 246, 238))
    draw.rectangle((x - w, y + h * 0.48, x + w, y + h * 0.48 + 5), fill=(250, 246, 238))
    px = (1 - side) * size + rng.uniform(-0.04, 0.04) * size
    frame = rng.choice(((178, 116, 80), (92, 110, 140), (196, 164, 96)))
    draw.rectangle((px - size * 0.11, y + 4, px + size * 0.11, y + size * 0.2), fill=frame)
    draw.rectangle(
        (px - size * 0.085, y + 4 + size * 0.025, px + size * 0.085, y + size * 0.175),
        fill=rng.choice(((244, 232, 214), (216, 228, 232), (242, 214, 200))),
    )
    _disc(
        draw,
        px + size * rng.uniform(-0.03, 0.03),
        y + size * 0.105,
        size * 0.035,
        rng.choice(((222, 110, 90), (90, 140, 180), (230, 180, 80))),
    )
    boards = rng.choice(((182, 132, 92), (160, 112, 80), (196, 152, 112)))
    draw.rectangle((0, floor, size, size), fill=boards)
    draw.rectangle((0, floor - size * 0.024, size, floor), fill=(250, 246, 238))
    for k in range(1, 4):
        draw.line(
            (0, floor + k * k * size * 0.03, size, floor + k * k * size * 0.03),
            fill=_tint(boards, 0.88),
            width=2,
        )
    rug = rng.choice(((206, 120, 106), (110, 140, 160), (220, 186, 120), (136, 160, 124)))
    draw.ellipse((size * 0.12, floor + size * 0.07, size * 0.88, floor + size * 0.27), fill=_tint(rug, 1.12))
    draw.ellipse((size * 0.17, floor + size * 0.09, size * 0.83, floor + size * 0.25), fill=rug)
    return floor


def _space(draw: ImageDraw.ImageDraw, rng: Random, size: int, light: float) -> float:
    for _ in range(34):
        r = size * rng.choice((0.004, 0.006, 0.009))
        _disc(
            draw,
            rng.uniform(0, size),
            rng.uniform(0, size),
            r,
            rng.choice(((255, 255, 255), (255, 236, 200), (200, 220, 255))),
        )
    x, y, r = (
        _sun_x(rng, size, -light),
        size * rng.choice((rng.uniform(0.12, 0.24), rng.uniform(0.76, 0.9))),
        size * rng.uniform(0.1, 0.16),
    )
    planet = rng.choice(((226, 140, 96), (110, 160, 214), (196, 130, 190), (130, 190, 160)))
    _disc(draw, x, y, r, _tint(planet, 0.62))
    _disc(draw, x + math.copysign(r * 0.14, light), y - r * 0.1, r * 0.86, planet)
    if rng.random() < 0.6:
        draw.line(
            (x - r * 1.7, y + r * 0.45, x + r * 1.7, y - r * 0.45),
            fill=_tint(planet, 1.25),
            width=max(2, round(size * 0.014)),
        )
    mx, my = size - x + rng.uniform(-0.08, 0.08) * size, size * rng.uniform(0.1, 0.3)
    _disc(draw, mx, my, size * 0.045, (206, 204, 214))
    _disc(draw, mx + size * 0.012, my - size * 0.01, size * 0.011, (172, 170, 184))
    return 0.0


def _meadow(draw: ImageDraw.ImageDraw, rng: Random, size: int, light: float) -> float:
    horizon = size * rng.uniform(0.5, 0.6)
    _disc(draw, _sun_x(rng, size, light), size * rng.uniform(0.12, 0.2), size * 0.06, (255, 246, 196))
    _clouds(draw, rng, size, 0.3, (255, 255, 255))
    green = rng.choice(((126, 188, 96), (142, 194, 88), (112, 182, 104)))
    _ridge(draw, rng, size, horizon - size * 0.05, size * 0.05, _tint(green, 0.86))
    _ridge(draw, rng, size, horizon + size * 0.04, size * 0.03, green)
    _ridge(draw, rng, size, horizon + size * 0.18, size * 0.02, _tint(green, 1.08))
    petals = ((250, 250, 250), (250, 210, 80), (240, 120, 150), (170, 130, 220))
    for _ in range(16):
        x, depth = rng.uniform(0, size), rng.uniform(0.08, 0.4)
        y = min(size * 0.99, horizon + depth * size)
        r = size * (0.006 + 0.016 * depth)
        for dx, dy in ((-r, 0), (r, 0), (0, -r), (0, r)):
            _disc(draw, x + dx, y + dy, r, petals[int(x) % 4])
        _disc(draw, x, y, r * 0.8, (250, 190, 60) if int(x) % 4 != 1 else (200, 110, 50))
    return horizon + size * 0.08


_PAINTERS = {
    "beach": _beach,
    "forest": _forest,
    "snow": _snow,
    "city at night": _city,
    "desert": _desert,
    "room": _room,
    "space": _space,
    "meadow": _meadow,
}
