"""How a person is drawn: a portrait, head and shoulders, with a face that carries identity.

Of the identity's parameters a dozen shape the face, so that thousands of people differ at a glance; hair,
beard and glasses are fields of their own because captions name them.
"""

import math

from pipelines.toybox.world.pen import Colour, Pen, lerp, mix, shade
from pipelines.toybox.world.scene import Subject
from pipelines.toybox.world.vocabulary import HAIR_COLOURS, SKINS

DARK = (52.0, 38.0, 40.0)
IRISES = ((92.0, 62.0, 44.0), (70.0, 116.0, 170.0), (84.0, 130.0, 84.0), (60.0, 50.0, 52.0))


def _hair_back(pen: Pen, style: str, hair: Colour, w: float, h: float, y: float, p) -> None:
    if style == "long":
        length = lerp(0.55, 0.95, p[9])
        pen.smooth(
            [
                (-w * 1.24, y - h * 0.3),
                (-w * 0.8, y - h * 1.16),
                (0, y - h * 1.3),
                (w * 0.8, y - h * 1.16),
                (w * 1.24, y - h * 0.3),
                (w * 1.36, y + length),
                (w * 0.7, y + length + 0.1),
                (-w * 0.7, y + length + 0.1),
                (-w * 1.36, y + length),
            ],
            shade(hair, 0.82),
        )
    elif style == "curly":
        puff = lerp(0.2, 0.3, p[9])
        for k in range(9):
            a = math.pi * (1.12 + k * 0.76 / 8 * 2.32 - 0.5)
            pen.blob(math.cos(a) * w * 1.14, y - 0.16 + math.sin(a) * h * 0.98, puff, puff, shade(hair, 0.9))


def _hair_front(pen: Pen, style: str, hair: Colour, w: float, h: float, y: float, p) -> None:
    part = lerp(-0.6, 0.6, p[10])
    top, brow = y - h, y - h * lerp(0.5, 0.62, p[11])
    if style in ("short", "long"):
        pen.smooth(
            [
                (-w * 1.08, y - h * 0.1),
                (-w * 1.1, y - h * 0.74),
                (-w * 0.5, top - 0.15),
                (w * 0.5, top - 0.15),
                (w * 1.1, y - h * 0.74),
                (w * 1.08, y - h * 0.1),
                (w * 0.84, brow + 0.1),
                (w * part, brow - 0.08),
                (-w * 0.84, brow + 0.1),
            ],
            hair,
        )
    elif style == "curly":
        puff = lerp(0.18, 0.25, p[9])
        for k in range(6):
            x = -1 + k * 0.4
            pen.blob(w * x, top + 0.05 + 0.16 * x * x, puff, puff, hair)
    elif style == "spiky":
        points = [(-w * 1.06, y - h * 0.3)]
        spikes = 6
        for k in range(spikes):
            x = -1 + 2 * k / (spikes - 1)
            points += [
                (w * (x - 0.1), top + 0.04 + 0.2 * x * x),
                (w * (x * 1.15 + part * 0.3), top - lerp(0.24, 0.4, p[9]) + 0.26 * x * x),
            ]
        points += [(w * 1.06, y - h * 0.3), (w * 0.7, brow), (0, brow - 0.06), (-w * 0.7, brow)]
        pen.poly(points, hair)


def person(pen: Pen, s: Subject, c: Colour, p) -> None:
    """Head and shoulders; the face about 1.1 units tall, the shirt in colour `c` below the picture's edge."""
    who = s.identity
    turn = s.pose[1]
    skin: Colour = tuple(float(v) for v in SKINS[min(len(SKINS) - 1, int(p[0] * len(SKINS)))])  # type: ignore[assignment]
    hair: Colour = tuple(float(v) for v in HAIR_COLOURS[who.hair_colour])  # type: ignore[assignment]
    hair = mix(hair, (255.0, 255.0, 255.0) if p[15] > 0.5 else (0.0, 0.0, 0.0), abs(p[15] - 0.5) * 0.24)
    w, h = lerp(0.46, 0.6, p[1]), lerp(0.6, 0.72, p[2])
    jaw = lerp(0.62, 0.98, p[3]) if who.man else lerp(0.5, 0.82, p[3])
    y = -0.28
    _hair_back(pen, who.hair_style, hair, w, h, y, p)
    shoulders = lerp(0.86, 1.06, p[4]) * (1.0 if who.man else 0.88)
    pen.smooth(
        [
            (-shoulders, 1.3),
            (-shoulders, 0.92),
            (-shoulders * 0.72, 0.66),
            (-0.2, 0.54),
            (0.2, 0.54),
            (shoulders * 0.72, 0.66),
            (shoulders, 0.92),
            (shoulders, 1.3),
            (0, 1.5),
        ],
        c,
        pattern=True,
    )
    neck = 0.2 if who.man else 0.16
    pen.smooth(
        [(-neck, y + h * 0.7), (neck, y + h * 0.7), (neck * 1.1, 0.6), (0, 0.72), (-neck * 1.1, 0.6)],
        shade(skin, 0.86),
    )
    x = 0.03 * turn
    for side in (-1, 1):
        pen.blob(x + side * w * 1.0, y + 0.04, 0.085, 0.13, shade(skin, 0.93))
    pen.smooth(
        [
            (x - w, y - h * 0.25),
            (x - w * 0.62, y - h * 0.92),
            (x + w * 0.62, y - h * 0.92),
            (x + w, y - h * 0.25),
            (x + w * (0.5 + jaw * 0.46), y + h * 0.5),
            (x + w * jaw * 0.5, y + h * 0.94),
            (x - w * jaw * 0.5, y + h * 0.94),
            (x - w * (0.5 + jaw * 0.46), y + h * 0.5),
        ],
        skin,
    )
    if p[5] > 0.68:
        for k in range(6):
            side = -1 if k % 2 else 1
            pen.blob(
                x + side * (w * 0.38 + 0.06 * (k // 2)),
                y + h * 0.2 + 0.06 * ((k // 2) % 2),
                0.025,
                0.025,
                shade(skin, 0.72),
                outline=False,
            )
    elif not who.man:
        for side in (-1, 1):
            pen.blob(
                x + side * w * 0.58,
                y + h * 0.3,
                0.11,
                0.075,
                mix(skin, (236.0, 110.0, 110.0), 0.42),
                outline=False,
            )
    if who.beard:
        _beard(pen, x, y, w, h, jaw, shade(hair, 0.92), p)
    _face(pen, s, x, y, w, h, skin, hair, p)
    _hair_front(pen, who.hair_style, hair, w, h, y, p)
    pen.anchor("head", x, y - h * 0.8, w * 1.16)
    pen.anchor("neck", x, 0.58, max(neck * 1.9, 0.34))


def _beard(pen: Pen, x, y, w, h, jaw, hair: Colour, p) -> None:
    long = lerp(0.0, 0.24, p[12])
    pen.smooth(
        [
            (x - w * 0.97, y + h * 0.05),
            (x - w * 0.72, y + h * 0.42),
            (x - w * 0.3, y + h * 0.3),
            (x + w * 0.3, y + h * 0.3),
            (x + w * 0.72, y + h * 0.42),
            (x + w * 0.97, y + h * 0.05),
            (x + w * (0.52 + jaw * 0.44), y + h * 0.62),
            (x + w * jaw * 0.46, y + h * 1.02 + long),
            (x - w * jaw * 0.46, y + h * 1.02 + long),
            (x - w * (0.52 + jaw * 0.44), y + h * 0.62),
        ],
        hair,
    )


def _face(pen: Pen, s: Subject, x, y, w, h, skin: Colour, hair: Colour, p) -> None:
    who = s.identity
    gap, eye = w * lerp(0.36, 0.5, p[6]), lerp(0.085, 0.125, p[7])
    ey = y - h * 0.06
    look = s.pose[1]
    iris = IRISES[min(3, int(p[8] * 4))]
    thick = lerp(0.045, 0.095, p[13]) * (1.1 if who.man else 0.8)
    lift = 0.06 if s.expression == "surprised" else 0.0
    brow = shade(hair, 0.75) if who.hair_style != "bald" else DARK
    for side in (-1, 1):
        pen.eye(x + side * gap, ey, eye, look=look, iris=iris, white=True)
        slant = lerp(-0.05, 0.05, p[14])
        pen.stroke(
            [
                (x + side * (gap - 0.13), ey - eye - 0.07 - lift - slant),
                (x + side * gap, ey - eye - 0.11 - lift),
                (x + side * (gap + 0.13), ey - eye - 0.07 - lift + slant),
            ],
            thick,
            brow,
        )
    nose, nose_wide = lerp(0.16, 0.27, p[11]), lerp(0.06, 0.12, p[12])
    pen.stroke(
        [
            (x, ey + 0.06),
            (x + nose_wide * 0.9 * s.facing, ey + nose),
            (x - nose_wide * 0.4, ey + nose + 0.02),
        ],
        0.04,
        shade(skin, 0.66),
    )
    my, mw = y + h * 0.56, lerp(0.13, 0.22, p[10])
    lip = mix(skin, (196.0, 64.0, 72.0), 0.45 if who.man else 0.78)
    if s.expression == "smile":
        pen.smooth([(x - mw, my - 0.03), (x, my + 0.01), (x + mw, my - 0.03), (x, my + 0.12)], lip)
    elif s.expression == "surprised":
        pen.blob(x, my + 0.03, mw * 0.5, 0.085, lip)
    else:
        pen.stroke([(x - mw * 0.8, my), (x + mw * 0.8, my)], 0.06, lip)
    if who.glasses:
        _glasses(pen, x, ey, gap, w)
    pen.anchor("eyes", x, ey, gap)
    for name, px, py in (
        ("left_eye", x - gap, ey),
        ("right_eye", x + gap, ey),
        ("nose", x, ey + nose),
        ("mouth_left", x - mw, my),
        ("mouth_right", x + mw, my),
    ):
        pen.point(name, px, py)


def _glasses(pen: Pen, x, ey, gap, w) -> None:
    frame, r = (40.0, 36.0, 48.0), gap * 0.8
    for side in (-1, 1):
        ring = [
            (x + side * gap + r * math.cos(a * math.tau / 18), ey + r * 0.92 * math.sin(a * math.tau / 18))
            for a in range(19)
        ]
        pen.stroke(ring, 0.055, frame)
        pen.stroke([(x + side * (gap + r), ey), (x + side * w, ey - 0.04)], 0.05, frame)
    pen.stroke([(x - gap + r, ey), (x + gap - r, ey)], 0.05, frame)


def accessory(pen: Pen, item: str, colour: Colour) -> None:
    """Puts a hat, sunglasses or a scarf on whoever was just drawn, at the anchors that the drawing left."""
    if item == "hat":
        x, y, w = pen.anchors["head"]
        pen.poly(
            [(x - w * 0.6, y), (x - w * 0.52, y - w * 0.95), (x + w * 0.52, y - w * 0.95), (x + w * 0.6, y)],
            colour,
        )
        pen.poly(
            [(x - w * 0.6, y), (x - w * 0.57, y - w * 0.26), (x + w * 0.57, y - w * 0.26), (x + w * 0.6, y)],
            shade(colour, 0.55) if sum(colour) > 240 else (210.0, 60.0, 60.0),
            outline=False,
        )
        pen.blob(x, y + w * 0.03, w * 1.06, w * 0.15, colour)
    elif item == "sunglasses":
        x, y, w = pen.anchors["eyes"]
        r = max(w * 0.82, 0.14)
        pen.stroke([(x - w - r, y - r * 0.45), (x + w + r, y - r * 0.45)], 0.07, shade(colour, 0.8))
        for side in (-1, 1):
            pen.smooth(
                [
                    (x + side * w - r, y - r * 0.62),
                    (x + side * w + r, y - r * 0.62),
                    (x + side * w + r * 0.8, y + r * 0.6),
                    (x + side * w, y + r * 0.8),
                    (x + side * w - r * 0.8, y + r * 0.6),
                ],
                colour,
            )
            pen.stroke(
                [(x + side * w - r * 0.4, y + r * 0.1), (x + side * w + r * 0.05, y - r * 0.35)],
                0.04,
                shade(colour, 1.6),
            )
    else:
        x, y, w = pen.anchors["neck"]
        pen.smooth(
            [(x + w * 0.3, y), (x + w * 0.75, y + 0.02), (x + w * 0.85, y + 0.52), (x + w * 0.4, y + 0.54)],
            shade(colour, 0.8),
        )
        pen.smooth(
            [
                (x - w * 1.05, y - 0.1),
                (x, y - 0.02),
                (x + w * 1.05, y - 0.1),
                (x + w * 1.02, y + 0.12),
                (x, y + 0.22),
                (x - w * 1.02, y + 0.12),
            ],
            colour,
        )
