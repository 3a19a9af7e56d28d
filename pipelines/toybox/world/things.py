"""How each object is drawn. The ground is at y = 1; `p` are the identity's proportions in [0, 1]."""

import math
from collections.abc import Sequence

from pipelines.toybox.world.pen import Colour, Pen, lerp, mix, shade
from pipelines.toybox.world.scene import Subject

CREAM = (255.0, 244.0, 224.0)
DARK = (58.0, 54.0, 64.0)
STEEL = (176.0, 180.0, 190.0)
WOOD = (146.0, 98.0, 62.0)


def mug(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """A cup with a handle at one side, drink inside, perhaps steam."""
    deep = shade(c, 0.7)
    wide, tall = lerp(0.5, 0.66, p[0]), lerp(0.95, 1.35, p[1])
    foot, handle = wide * lerp(0.7, 1.0, p[2]), lerp(0.2, 0.34, p[3])
    top = 1.0 - tall
    middle = top + tall * lerp(0.4, 0.52, p[4])
    pen.blob(wide + 0.04, middle, handle + 0.1, handle * 1.3 + 0.08, deep)
    pen.blob(wide + 0.04, middle, handle - 0.04, handle * 1.3 - 0.08, shade(c, 0.32))
    pen.smooth(
        [
            (-wide, top),
            (wide, top),
            (wide * 0.99, top + tall * 0.5),
            (foot, 0.93),
            (foot * 0.5, 1.0),
            (-foot * 0.5, 1.0),
            (-foot, 0.93),
            (-wide * 0.99, top + tall * 0.5),
        ],
        c,
        pattern=True,
    )
    if p[5] > 0.6:
        pen.poly(
            [(-wide * 0.98, 0.62), (wide * 0.98, 0.62), (foot * 1.04, 0.78), (-foot * 1.04, 0.78)],
            CREAM if p[6] > 0.5 else deep,
            outline=False,
        )
    pen.blob(0, top, wide, 0.17, shade(c, 1.4))
    pen.blob(0, top + 0.03, wide * 0.86, 0.12, (108.0, 66.0, 44.0) if p[7] > 0.4 else (236.0, 214.0, 176.0))
    if p[8] > 0.5:
        for x in (-0.18, 0.16):
            pen.stroke(
                [(x, top - 0.2), (x + 0.08, top - 0.32), (x - 0.02, top - 0.44), (x + 0.06, top - 0.56)],
                0.045,
                (244.0, 244.0, 248.0),
            )


def backpack(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """Seen from the front: rounded bag, top handle, pocket, side straps, zip."""
    deep, light = shade(c, 0.7), shade(c, 1.3)
    wide, tall = lerp(0.56, 0.72, p[0]), lerp(1.5, 1.85, p[1])
    top = 1.0 - tall
    strap = WOOD if p[2] > 0.5 else DARK
    pen.stroke([(-0.2, top + 0.08), (-0.18, top - 0.16), (0.18, top - 0.16), (0.2, top + 0.08)], 0.09, strap)
    for side in (-1, 1):
        pen.smooth(
            [
                (side * wide * 0.9, top + 0.4),
                (side * (wide + 0.2), top + 0.7),
                (side * (wide + 0.16), 0.7),
                (side * wide * 0.9, 0.8),
            ],
            deep,
        )
    shoulder = lerp(0.1, 0.5, p[3])
    pen.smooth(
        [
            (-wide * 0.5, top),
            (wide * 0.5, top),
            (wide * (1 - shoulder * 0.3), top + 0.28),
            (wide, 0.3),
            (wide * 0.96, 0.92),
            (0, 1.0),
            (-wide * 0.96, 0.92),
            (-wide, 0.3),
            (-wide * (1 - shoulder * 0.3), top + 0.28),
        ],
        c,
        pattern=True,
    )
    flap = top + tall * lerp(0.3, 0.42, p[4])
    if p[5] > 0.5:
        pen.smooth(
            [
                (-wide * 0.8, top + 0.1),
                (wide * 0.8, top + 0.1),
                (wide * 0.84, flap),
                (0, flap + 0.14),
                (-wide * 0.84, flap),
            ],
            light,
        )
        pen.blob(0, flap + 0.08, 0.08, 0.1, (246.0, 212.0, 110.0))
    else:
        pen.stroke([(-wide * 0.78, flap), (0, flap - 0.14), (wide * 0.78, flap)], 0.05, strap)
    pocket = lerp(0.5, 0.68, p[6]) * wide
    pen.smooth(
        [(-pocket, 0.28), (pocket, 0.28), (pocket, 0.8), (0, 0.88), (-pocket, 0.8)],
        deep if p[7] > 0.5 else light,
    )
    pen.stroke([(-pocket * 0.8, 0.38), (pocket * 0.8, 0.38)], 0.045, strap)
    if p[8] > 0.5:
        pen.blob(pocket * 0.4, 0.58, 0.11, 0.11, CREAM)


def car(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """From the side: cabin with windows, two wheels, lights; saloon, van or beetle by proportion."""
    deep = shade(c, 0.7)
    long, cabin = lerp(0.95, 1.12, p[0]), lerp(0.42, 0.66, p[1])
    wheel = lerp(0.22, 0.3, p[2])
    floor, belt = 0.82, 0.82 - lerp(0.42, 0.54, p[3])
    back, front = -long * lerp(0.5, 0.85, p[4]), long * lerp(0.3, 0.55, p[5])
    pen.smooth(
        [
            (back, belt + 0.08),
            (back + 0.1, belt - cabin * 0.8),
            (back + 0.34, belt - cabin),
            (front - 0.34, belt - cabin),
            (front - 0.08, belt - cabin * 0.7),
            (front + 0.12, belt + 0.08),
        ],
        c if p[6] > 0.4 else CREAM,
        pattern=False,
    )
    glass = (176.0, 216.0, 236.0)
    middle = (back + front) / 2
    pen.poly(
        [
            (back + 0.2, belt),
            (back + 0.26, belt - cabin * 0.78),
            (middle - 0.05, belt - cabin * 0.78),
            (middle - 0.05, belt),
        ],
        glass,
    )
    pen.poly(
        [
            (middle + 0.05, belt),
            (middle + 0.05, belt - cabin * 0.78),
            (front - 0.26, belt - cabin * 0.78),
            (front - 0.04, belt),
        ],
        glass,
    )
    pen.smooth(
        [
            (-long, floor - 0.1),
            (-long * 0.97, belt + 0.06),
            (-long * 0.6, belt),
            (0, belt - 0.02),
            (long * 0.6, belt + 0.02),
            (long * 0.97, belt + 0.16),
            (long, floor - 0.08),
            (0, floor + 0.04),
        ],
        c,
        pattern=True,
    )
    if p[7] > 0.5:
        pen.poly(
            [
                (-long * 0.98, floor - 0.16),
                (long * 0.99, floor - 0.16),
                (long * 0.98, floor - 0.04),
                (-long * 0.98, floor - 0.04),
            ],
            deep if p[8] > 0.5 else STEEL,
            outline=False,
        )
    pen.blob(long * 0.92, belt + 0.22, 0.08, 0.09, (255.0, 236.0, 150.0))
    pen.blob(-long * 0.95, belt + 0.2, 0.05, 0.08, (226.0, 70.0, 60.0))
    for x in (-long * 0.56, long * 0.56):
        pen.blob(x, 1.0 - wheel, wheel, wheel, (48.0, 46.0, 54.0))
        pen.blob(
            x,
            1.0 - wheel,
            wheel * lerp(0.4, 0.62, p[9]),
            wheel * lerp(0.4, 0.62, p[9]),
            STEEL if p[10] > 0.4 else CREAM,
        )


def teapot(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """A round pot: spout at one side, handle at the other, lid with a knob."""
    deep, light = shade(c, 0.72), shade(c, 1.3)
    wide, tall = lerp(0.56, 0.7, p[0]), lerp(0.46, 0.62, p[1])
    y = 0.96 - tall
    pen.blob(-wide - 0.12, y, lerp(0.26, 0.36, p[2]), tall * 0.72, deep)
    pen.blob(-wide - 0.1, y, lerp(0.26, 0.36, p[2]) - 0.13, tall * 0.72 - 0.15, shade(c, 0.32))
    reach = lerp(0.36, 0.56, p[3])
    pen.smooth(
        [
            (wide * 0.7, y + 0.24),
            (wide + reach * 0.55, y + 0.02),
            (wide + reach * 0.75, y - tall * 0.8),
            (wide + reach, y - tall * 0.82),
            (wide + reach * 0.9, y + 0.1),
            (wide * 0.6, y + 0.4),
        ],
        c,
    )
    pen.blob(0, y, wide, tall, c, pattern=True)
    pen.blob(0, 0.96, wide * 0.55, 0.07, deep)
    if p[4] > 0.5:
        pen.blob(0, y + 0.06, wide * 0.34, tall * 0.4, CREAM if p[5] > 0.5 else light, outline=p[6] > 0.5)
    lid = wide * lerp(0.5, 0.7, p[7])
    pen.smooth(
        [
            (-lid, y - tall * 0.84),
            (-lid * 0.5, y - tall * 0.84 - 0.2),
            (lid * 0.5, y - tall * 0.84 - 0.2),
            (lid, y - tall * 0.84),
            (0, y - tall * 0.74),
        ],
        light if p[8] > 0.5 else deep,
    )
    knob = lerp(0.08, 0.13, p[9])
    pen.blob(0, y - tall * 0.84 - 0.2 - knob * 0.6, knob, knob, (246.0, 212.0, 110.0) if p[10] > 0.5 else c)


def house(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """Walls of the named colour, a roof, door, windows, chimney."""
    wide, wall = lerp(0.66, 0.86, p[0]), lerp(0.8, 1.1, p[1])
    roof, over = lerp(0.5, 0.85, p[2]), lerp(0.06, 0.2, p[3])
    roofs = ((168.0, 72.0, 60.0), (92.0, 84.0, 102.0), (126.0, 88.0, 62.0), (74.0, 112.0, 118.0))
    tile = roofs[min(3, int(p[4] * 4))]
    top = 1.0 - wall
    if p[5] > 0.4:
        x = wide * (0.5 if p[6] > 0.5 else -0.5)
        pen.poly(
            [(x - 0.1, top), (x - 0.1, top - roof * 0.85), (x + 0.1, top - roof * 0.85), (x + 0.1, top)],
            (150.0, 90.0, 76.0),
        )
    pen.poly([(-wide, top), (wide, top), (wide, 1.0), (-wide, 1.0)], c, pattern=True)
    ridge = lerp(0.0, 0.45, p[7]) * wide
    pen.poly(
        [(-wide - over, top + 0.04), (-ridge, top - roof), (ridge, top - roof), (wide + over, top + 0.04)],
        tile,
    )
    door = 0.0 if p[8] > 0.5 else -wide * 0.45
    pen.poly(
        [(door - 0.16, 1.0), (door - 0.16, 0.56), (door + 0.16, 0.56), (door + 0.16, 1.0)],
        WOOD if p[9] > 0.5 else (84.0, 96.0, 140.0),
    )
    pen.blob(door + 0.09, 0.78, 0.03, 0.03, (250.0, 220.0, 120.0), outline=False)
    pane = (255.0, 232.0, 150.0) if p[10] > 0.5 else (188.0, 222.0, 238.0)
    for x in (-wide * 0.58, wide * 0.58) if door == 0.0 else (wide * 0.4,):
        r = lerp(0.13, 0.19, p[11])
        y = top + wall * 0.36
        if p[12] > 0.6:
            pen.blob(x, y, r, r, pane)
        else:
            pen.poly([(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)], pane)
        pen.stroke([(x, y - r), (x, y + r)], 0.03, CREAM)
        pen.stroke([(x - r, y), (x + r, y)], 0.03, CREAM)


def chair(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """From a little to the side: back, seat, four legs."""
    deep = shade(c, 0.72)
    wide, seat = lerp(0.5, 0.66, p[0]), lerp(0.22, 0.36, p[1])
    tall = lerp(1.0, 1.3, p[2])
    leg = WOOD if p[3] > 0.5 else (deep if p[4] > 0.5 else STEEL)
    thick = lerp(0.1, 0.16, p[5])
    slant = lerp(0.0, 0.14, p[6])
    for x in (-wide * 0.62, wide * 0.86):
        pen.stroke([(x, seat), (x + slant * 0.4, 0.86)], thick * 0.9, shade(leg, 0.72), outline=True)
    top = seat - tall
    if p[7] > 0.5:
        pen.smooth(
            [
                (-wide, seat),
                (-wide * 0.98, top + 0.12),
                (-wide * 0.5, top),
                (wide * 0.5, top),
                (wide * 0.98, top + 0.12),
                (wide, seat),
            ],
            c,
            pattern=True,
        )
    else:
        pen.poly([(-wide, seat), (-wide, top), (wide, top), (wide, seat)], c, pattern=True)
    if p[8] > 0.66:
        pen.blob(0, (seat + top) / 2, wide * 0.5, tall * 0.26, CREAM if p[9] > 0.5 else deep)
    pen.poly(
        [(-wide, seat - 0.05), (wide, seat - 0.05), (wide + 0.2, seat + 0.22), (-wide - 0.12, seat + 0.22)],
        shade(c, 1.2),
        pattern=True,
    )
    pen.poly(
        [
            (-wide - 0.12, seat + 0.22),
            (wide + 0.2, seat + 0.22),
            (wide + 0.2, seat + 0.32),
            (-wide - 0.12, seat + 0.32),
        ],
        deep,
    )
    for x in (-wide - 0.04, wide + 0.12):
        pen.stroke([(x, seat + 0.34), (x - slant if x < 0 else x + slant, 0.97)], thick, leg, outline=True)


def clock(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """A table clock: coloured rim, pale face, hands, feet, perhaps two bells."""
    deep = shade(c, 0.7)
    r = lerp(0.66, 0.8, p[0])
    y = 0.9 - r
    brass = (236.0, 196.0, 96.0)
    for side in (-1, 1):
        pen.stroke([(side * r * 0.5, y + r * 0.7), (side * r * 0.72, 0.97)], 0.13, deep, outline=True)
        if p[1] > 0.45:
            pen.blob(
                side * r * 0.58, y - r * 0.92, 0.25, 0.19, brass if p[2] > 0.5 else deep, turn=side * 0.5
            )
    if p[1] > 0.45:
        pen.stroke([(0, y - r), (0, y - r - 0.2)], 0.07, STEEL, outline=True)
    if p[3] > 0.6:
        pen.poly([(-r, y - r), (r, y - r), (r, y + r), (-r, y + r)], c, pattern=True)
    else:
        pen.blob(0, y, r, r, c, pattern=True)
    face = r * lerp(0.62, 0.74, p[4])
    pen.blob(0, y, face, face, mix(CREAM, c, 0.12 if p[5] > 0.5 else 0.0))
    for k in range(12 if p[6] > 0.5 else 4):
        a = k * math.tau / (12 if p[6] > 0.5 else 4)
        pen.blob(math.cos(a) * face * 0.8, y + math.sin(a) * face * 0.8, 0.035, 0.035, DARK, outline=False)
    hour, minute = s.pose[0] * math.pi, s.pose[1] * math.pi
    pen.stroke([(0, y), (math.cos(hour) * face * 0.45, y + math.sin(hour) * face * 0.45)], 0.075, DARK)
    pen.stroke([(0, y), (math.cos(minute) * face * 0.7, y + math.sin(minute) * face * 0.7)], 0.05, DARK)
    pen.blob(0, y, 0.06, 0.06, (212.0, 70.0, 60.0) if p[7] > 0.5 else DARK, outline=False)
