"""How the four-legged animals are drawn. Feet at y = 1; `p` are proportions in [0, 1]."""

from collections.abc import Sequence

from pipelines.toybox.world.faces import BLUSH, CREAM, DARK, living, mouth
from pipelines.toybox.world.pen import Colour, Pen, lerp, mix, shade
from pipelines.toybox.world.scene import Subject


def dog(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """Standing, seen from the side, head turned to us: floppy ears, long muzzle, tail up."""
    lean, step, wag = s.pose
    light, deep = shade(c, 1.35), shade(c, 0.78)
    belly = mix(c, CREAM, 0.75)
    length = lerp(0.58, 0.78, p[0])
    legs = lerp(0.34, 0.55, p[1])
    back = 1.0 - legs - 0.28
    head = lerp(0.36, 0.47, p[2])
    ear = lerp(0.32, 0.62, p[3])
    tail = lerp(0.35, 0.65, p[4])
    for x, swing in ((-length + 0.22, step), (length - 0.12, -step)):
        pen.poly(
            [(x - 0.1, back), (x + 0.1, back), (x + 0.09 + 0.1 * swing, 0.95), (x - 0.1 + 0.1 * swing, 0.95)],
            deep,
        )
    tip = -0.5 - tail * 0.6
    pen.smooth(
        [
            (-length + 0.05, back - 0.12),
            (-length - 0.16, back - 0.2),
            (-length - 0.3 - 0.12 * wag, back + tip),
            (-length - 0.18 - 0.12 * wag, back + tip - 0.05),
            (-length - 0.02, back - 0.25),
        ],
        c,
        pattern=True,
    )
    pen.smooth(
        [
            (-length, back - 0.15),
            (0, back - 0.27),
            (length - 0.05, back - 0.3),
            (length + 0.1, back),
            (length - 0.1, back + 0.24),
            (0, back + 0.2),
            (-length + 0.12, back + 0.27),
            (-length - 0.06, back + 0.05),
        ],
        c,
        pattern=True,
    )
    for x, swing in ((-length + 0.12, -step), (length - 0.24, step)):
        pen.poly(
            [
                (x - 0.11, back),
                (x + 0.12, back),
                (x + 0.1 + 0.12 * swing, 1.0),
                (x - 0.1 + 0.12 * swing, 1.0),
            ],
            c,
        )
        pen.blob(x + 0.03 + 0.12 * swing, 0.96, 0.14, 0.065, belly if p[5] > 0.5 else c)
        pen.point("front_paw" if x > 0 else "hind_paw", x + 0.12 * swing, 0.97)
    hx, hy = length - 0.02, back - 0.5 - 0.06 * lean
    pen.blob(hx, hy, head, head * 0.92, light if p[6] > 0.5 else c, pattern=p[6] <= 0.5)
    if p[7] > 0.6:
        pen.blob(hx + 0.17, hy - 0.06, 0.15, 0.19, belly, outline=False)
    muzzle = lerp(0.2, 0.3, p[8])
    pen.blob(hx + head * 0.62, hy + head * 0.36, muzzle, muzzle * 0.72, belly)
    pen.blob(hx + head * 0.62 + muzzle * 0.6, hy + head * 0.24, 0.1, 0.075, DARK, outline=False)
    mouth(pen, hx + head * 0.62 + 0.02, hy + head * 0.36 + muzzle * 0.34, 0.1, s.expression)
    ear_colour = deep if p[9] > 0.4 else shade(c, 0.55)
    pen.smooth(
        [
            (hx - head * 0.75, hy - head * 0.75),
            (hx - head * 0.2, hy - head * 0.72),
            (hx - head * 0.3, hy + ear * 0.55),
            (hx - head * 0.72, hy + ear * 0.8),
            (hx - head * 1.1, hy + ear * 0.4),
        ],
        ear_colour,
    )
    pen.smooth(
        [
            (hx + head * 0.45, hy - head * 0.9),
            (hx + head * 0.75, hy - head * 0.72),
            (hx + head * 1.15, hy - head * 0.1),
            (hx + head * 0.92, hy + 0.0),
            (hx + head * 0.7, hy - head * 0.35),
        ],
        ear_colour,
    )
    eye = lerp(0.06, 0.085, p[10])
    pen.eye(hx - 0.02, hy - 0.06, eye)
    pen.eye(hx + 0.26, hy - 0.06, eye)
    living(
        pen,
        hx + 0.06,
        hy,
        head,
        (hx - 0.02, hx + 0.26, hy - 0.06),
        (hx - 0.06, hy + head * 0.92, head * 0.72),
    )
    pen.point("nose", hx + head * 0.62 + muzzle * 0.6, hy + head * 0.24)
    pen.point("tail", -length - 0.25 - 0.12 * wag, back + tip)


def cat(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """Sitting, facing us: pointed ears, whiskers, a long tail around the side."""
    lean, _, wag = s.pose
    deep, belly = shade(c, 0.78), mix(c, CREAM, 0.8)
    wide = lerp(0.42, 0.58, p[0])
    head = lerp(0.42, 0.52, p[1])
    ear = lerp(0.34, 0.58, p[2])
    tail = lerp(0.55, 0.95, p[3])
    pen.smooth(
        [
            (wide * 0.6, 0.9),
            (wide + 0.3, 0.88),
            (wide + 0.42 + 0.08 * wag, 0.9 - tail),
            (wide + 0.3 + 0.14 * wag, 0.8 - tail),
            (wide + 0.22 + 0.1 * wag, 0.9 - tail),
            (wide + 0.16, 0.7),
            (wide * 0.5, 0.7),
        ],
        c if p[4] > 0.5 else deep,
        pattern=p[4] > 0.5,
    )
    pen.smooth(
        [
            (-wide * 0.55, -0.15),
            (wide * 0.55, -0.15),
            (wide, 0.55),
            (wide * 0.85, 0.96),
            (-wide * 0.85, 0.96),
            (-wide, 0.55),
        ],
        c,
        pattern=True,
    )
    if p[5] > 0.35:
        pen.blob(0, 0.3, wide * 0.42, 0.34, belly, outline=False)
    for side in (-1, 1):
        pen.blob(side * wide * 0.42, 0.93, 0.17, 0.09, belly if p[6] > 0.5 else c)
    hx, hy = 0.07 * lean, -0.42
    inner = BLUSH if p[7] > 0.5 else deep
    for side in (-1, 1):
        base, top = (
            hx + side * head * 0.62,
            (hx + side * head * lerp(0.7, 1.0, p[8]), hy - head * 0.62 - ear),
        )
        pen.poly([(base - head * 0.34, hy - head * 0.52), top, (base + head * 0.34, hy - head * 0.42)], c)
        pen.poly(
            [
                (base - head * 0.14, hy - head * 0.6),
                (top[0], top[1] + 0.14),
                (base + head * 0.14, hy - head * 0.56),
            ],
            inner,
            outline=False,
        )
    pen.blob(hx, hy, head * 1.08, head * 0.88, c if p[9] < 0.6 else shade(c, 1.3), pattern=p[9] < 0.6)
    if p[10] > 0.5:
        pen.blob(hx, hy + head * 0.38, head * 0.5, head * 0.36, belly, outline=False)
    eye, gap = lerp(0.085, 0.12, p[11]), head * lerp(0.4, 0.52, p[12])
    iris = ((92.0, 170.0, 92.0), (226.0, 170.0, 60.0), (80.0, 140.0, 210.0), DARK)[min(3, int(p[13] * 4))]
    for side in (-1, 1):
        pen.blob(hx + side * gap, hy - 0.02, eye, eye * 1.05, iris)
        pen.blob(hx + side * gap, hy - 0.02, eye * 0.36, eye * 0.85, (20.0, 18.0, 24.0), outline=False)
        pen.blob(
            hx + side * gap + 0.03, hy - 0.06, eye * 0.26, eye * 0.26, (255.0, 255.0, 255.0), outline=False
        )
        for dy in (-0.02, 0.07):
            pen.stroke(
                [
                    (hx + side * head * 0.4, hy + head * 0.42 + dy * 0.4),
                    (hx + side * head * 1.25, hy + head * 0.36 + dy),
                ],
                0.02,
                mix(DARK, CREAM, 0.45),
            )
    pen.poly([(hx - 0.06, hy + head * 0.26), (hx + 0.06, hy + head * 0.26), (hx, hy + head * 0.4)], BLUSH)
    mouth(pen, hx, hy + head * 0.46, 0.1, s.expression)
    living(pen, hx, hy, head, (hx - gap, hx + gap, hy - 0.02), (hx, hy + head * 0.86, head * 0.78))
    pen.point("nose", hx, hy + head * 0.32)
    pen.point("tail", wide + 0.3 + 0.12 * wag, 0.82 - tail)


def rabbit(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """Crouching, from the side: very long ears, a puff of a tail, a big hind leg."""
    lean, step, wag = s.pose
    belly, deep = mix(c, CREAM, 0.8), shade(c, 0.82)
    body = lerp(0.5, 0.64, p[0])
    head = lerp(0.34, 0.42, p[1])
    ear, ear_wide = lerp(0.62, 0.95, p[2]), lerp(0.1, 0.17, p[3])
    pen.blob(-body - 0.12, 0.62, 0.17, 0.16, (252.0, 248.0, 244.0) if p[4] > 0.4 else belly)
    pen.blob(-0.1, 0.5, body + 0.05, 0.44, c, pattern=True)
    pen.blob(0.36, 0.86, 0.24, 0.11, belly if p[5] > 0.5 else c)
    pen.blob(-0.34, 0.64, 0.33, 0.27, deep if p[6] > 0.5 else c, pattern=p[6] <= 0.5)
    pen.blob(-0.2 + 0.04 * step, 0.91, 0.34, 0.1, belly if p[5] > 0.5 else c)
    hx, hy = 0.42, 0.04 + 0.04 * lean
    droop = lerp(-0.1, 0.4, p[7])
    for offset, colour in ((-0.2, deep), (0.02, c)):
        base, top = hx + offset, hx + offset - 0.1 - droop * 0.8 + 0.06 * wag
        pen.smooth(
            [
                (base - ear_wide * 0.7, hy - head * 0.6),
                (top - ear_wide, hy - head - ear * 0.6),
                (top, hy - head - ear),
                (top + ear_wide, hy - head - ear * 0.6),
                (base + ear_wide * 0.8, hy - head * 0.6),
            ],
            colour,
        )
        pen.smooth(
            [
                (base - 0.02, hy - head * 0.75),
                (top - ear_wide * 0.4, hy - head - ear * 0.55),
                (top, hy - head - ear * 0.82),
                (top + ear_wide * 0.4, hy - head - ear * 0.55),
                (base + 0.04, hy - head * 0.75),
            ],
            (246.0, 176.0, 178.0),
            outline=False,
        )
    pen.blob(hx, hy, head * 1.08, head * 0.96, c if p[8] < 0.6 else shade(c, 1.3), pattern=p[8] < 0.6)
    pen.blob(hx + head * 0.62, hy + head * 0.3, head * 0.44, head * 0.36, belly, outline=p[9] > 0.5)
    pen.blob(hx + head * 0.96, hy + head * 0.12, 0.06, 0.05, BLUSH, outline=False)
    mouth(pen, hx + head * 0.7, hy + head * 0.44, 0.08, s.expression)
    eye = lerp(0.07, 0.095, p[10])
    pen.eye(hx + 0.0, hy - 0.04, eye)
    pen.eye(hx + head * 0.72, hy - 0.06, eye * 0.9)
    living(
        pen, hx + 0.06, hy, head, (hx, hx + head * 0.72, hy - 0.05), (hx - 0.14, hy + head * 0.9, head * 0.7)
    )
    pen.point("nose", hx + head * 0.96, hy + head * 0.12)
    pen.point("tail", -body - 0.12, 0.62)


def bear(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """Sitting like a stuffed toy, facing us: round ears, broad body, arms and soles."""
    lean, wave, _ = s.pose
    belly, deep = mix(c, CREAM, 0.72), shade(c, 0.8)
    wide = lerp(0.56, 0.74, p[0])
    head = lerp(0.44, 0.54, p[1])
    ear = lerp(0.15, 0.24, p[2])
    for side in (-1, 1):
        pen.blob(side * wide * 0.85, 0.78, 0.28, 0.22, c)
        pen.blob(side * (wide * 0.85 + 0.06), 0.8, 0.15, 0.14, belly if p[3] > 0.4 else deep, outline=False)
    pen.blob(0, 0.45, wide, 0.55, c, pattern=True)
    pen.blob(0, 0.5, wide * lerp(0.5, 0.7, p[4]), 0.38, belly, outline=p[5] > 0.5)
    for side in (-1, 1):
        lift = wave if side > 0 else -0.3
        pen.blob(
            side * (wide + 0.05),
            0.22 - 0.16 * lift,
            0.15,
            0.33,
            c,
            turn=side * (-0.6 - 0.5 * lift),
            pattern=True,
        )
    hx, hy = 0.06 * lean, -0.4
    for side in (-1, 1):
        pen.blob(hx + side * head * 0.82, hy - head * 0.72, ear, ear, c)
        pen.blob(
            hx + side * head * 0.82,
            hy - head * 0.72,
            ear * 0.55,
            ear * 0.55,
            belly if p[6] > 0.5 else deep,
            outline=False,
        )
    pen.blob(hx, hy, head * 1.06, head * 0.94, c if p[7] < 0.6 else shade(c, 1.22), pattern=p[7] < 0.6)
    muzzle = head * lerp(0.42, 0.54, p[8])
    pen.blob(hx, hy + head * 0.34, muzzle, muzzle * 0.78, belly)
    pen.blob(hx, hy + head * 0.16, 0.11, 0.075, DARK, outline=False)
    mouth(pen, hx, hy + head * 0.46, 0.1, s.expression)
    eye, gap = lerp(0.055, 0.085, p[9]), head * lerp(0.36, 0.5, p[10])
    for side in (-1, 1):
        pen.eye(hx + side * gap, hy - 0.08, eye)
        if p[11] > 0.5:
            pen.blob(hx + side * head * 0.72, hy + 0.14, 0.08, 0.055, mix(c, BLUSH, 0.7), outline=False)
    living(pen, hx, hy, head, (hx - gap, hx + gap, hy - 0.08), (hx, hy + head * 0.92, head * 0.82))
    pen.point("nose", hx, hy + head * 0.16)
    pen.point("left_paw", -(wide + 0.15), 0.5)
