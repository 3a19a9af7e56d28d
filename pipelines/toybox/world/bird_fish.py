"""How bird and fish are drawn: from the side, feet or fins at y = 1; `p` are proportions in [0, 1]."""

from collections.abc import Sequence

from pipelines.toybox.world.faces import BLUSH, CREAM, living, mouth
from pipelines.toybox.world.pen import Colour, Pen, lerp, mix, shade
from pipelines.toybox.world.scene import Subject


def bird(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """From the side: a drop of a body on two thin legs, beak, wing, fanned tail, perhaps a crest."""
    lean, flap, wag = s.pose
    belly, deep = mix(c, CREAM, 0.75), shade(c, 0.7)
    round_ = lerp(0.46, 0.6, p[0])
    beak = lerp(0.2, 0.4, p[1])
    tail = lerp(0.35, 0.65, p[2])
    foot = (238.0, 150.0, 48.0)
    legs = lerp(0.2, 0.36, p[3])
    for x in (-0.06, 0.18):
        pen.stroke([(x, 0.6), (x + 0.02, 0.97), (x + 0.16, 0.98)], 0.06, foot)
    top = 1.0 - legs - round_ * 0.86
    for spread in (-0.16, 0.0, 0.16):
        pen.poly(
            [
                (-round_ * 0.6, top - 0.05),
                (-round_ - tail, top + 0.05 + spread + 0.1 * wag),
                (-round_ - tail + 0.1, top + 0.2 + spread + 0.1 * wag),
                (-round_ * 0.5, top + 0.2),
            ],
            deep,
        )
    pen.smooth(
        [
            (-round_ * 1.05, top),
            (-0.1, top - round_ * 0.7),
            (0.3, top - 0.66),
            (0.66, top - 0.5),
            (round_ + 0.1, top),
            (0.2, top + round_ * 0.84),
            (-0.4, top + round_ * 0.62),
        ],
        c,
        pattern=True,
    )
    pen.smooth(
        [
            (0.36, top - 0.1),
            (round_ + 0.04, top + 0.02),
            (0.24, top + round_ * 0.78),
            (-0.1, top + round_ * 0.6),
        ],
        belly,
        outline=False,
    )
    wing = 0.12 * flap
    pen.smooth(
        [
            (0.2, top - 0.1),
            (0.12, top + 0.22),
            (-0.34, top + 0.3 - wing),
            (-round_ - 0.05, top + 0.16 - wing * 2),
            (-0.3, top - 0.16),
        ],
        deep if p[4] > 0.4 else shade(c, 1.4),
        pattern=True,
    )
    hx, hy, head = 0.42, top - 0.5 + 0.04 * lean, lerp(0.32, 0.4, p[5])
    if p[6] > 0.45:
        for turn in (-0.25, 0.0, 0.25):
            pen.poly(
                [
                    (hx - 0.1, hy - head * 0.8),
                    (hx - 0.05 + turn - 0.12, hy - head - 0.3 * p[7] - 0.08),
                    (hx + 0.08, hy - head * 0.85),
                ],
                deep,
            )
    bill = foot if p[8] > 0.35 else (222.0, 84.0, 60.0)
    pen.poly(
        [(hx + head * 0.8, hy - 0.12), (hx + head + beak, hy + 0.06), (hx + head * 0.8, hy + 0.17)], bill
    )
    pen.blob(hx, hy, head, head * 0.96, c if p[9] < 0.6 else shade(c, 1.3), pattern=p[9] < 0.6)
    if p[10] > 0.5:
        pen.blob(hx + head * 0.25, hy + 0.12, 0.13, 0.1, mix(c, BLUSH, 0.7), outline=False)
    pen.eye(hx + head * 0.42, hy - 0.06, lerp(0.07, 0.095, p[11]))
    living(
        pen,
        hx,
        hy,
        head,
        (hx - head * 0.1, hx + head * 0.62, hy - 0.06),
        (hx - 0.04, hy + head * 0.9, head * 0.82),
    )
    pen.point("nose", hx + head + beak, hy + 0.06)
    pen.point("tail", -round_ - tail, top + 0.12)


def fish(pen: Pen, s: Subject, c: Colour, p: Sequence[float]) -> None:
    """From the side, afloat: oval body, forked tail, fins, gill, bubbles."""
    lean, _, wag = s.pose
    belly, deep = mix(c, CREAM, 0.75), shade(c, 0.72)
    long, tall = lerp(0.7, 0.9, p[0]), lerp(0.42, 0.62, p[1])
    fin, tail = lerp(0.22, 0.44, p[2]), lerp(0.36, 0.56, p[3])
    y = 0.22 + 0.06 * lean
    fins = deep if p[4] > 0.5 else shade(c, 1.4)
    pen.smooth(
        [
            (-long * 0.75, y),
            (-long - tail * 0.7, y - tail + 0.1 * wag),
            (-long - tail * 0.55, y + 0.08 * wag),
            (-long - tail * 0.7, y + tail + 0.1 * wag),
        ],
        fins,
    )
    pen.smooth(
        [
            (-long * 0.4, y - tall * 0.8),
            (-0.1, y - tall - fin),
            (long * 0.3, y - tall - fin * 0.6),
            (long * 0.45, y - tall * 0.7),
        ],
        fins,
    )
    pen.smooth([(-0.3, y + tall * 0.7), (-0.36, y + tall + fin * 0.7), (0.1, y + tall * 0.8)], fins)
    pen.smooth(
        [
            (long + 0.06, y + 0.02),
            (long * 0.6, y - tall * 0.72),
            (0, y - tall),
            (-long * 0.7, y - tall * 0.4),
            (-long * 0.86, y),
            (-long * 0.7, y + tall * 0.4),
            (0, y + tall),
            (long * 0.6, y + tall * 0.72),
        ],
        c,
        pattern=True,
    )
    if p[5] > 0.4:
        pen.smooth(
            [
                (long * 0.8, y + 0.2),
                (long * 0.5, y + tall * 0.7),
                (0, y + tall * 0.94),
                (-0.3, y + tall * 0.74),
                (0.2, y + tall * 0.45),
            ],
            belly,
            outline=False,
        )
    pen.stroke(
        [(long * 0.34, y - tall * 0.6), (long * 0.22, y), (long * 0.34, y + tall * 0.6)], 0.035, shade(c, 0.5)
    )
    pen.smooth(
        [(0.12, y + 0.05), (-0.24, y + 0.0), (-0.28 - 0.3 * fin, y + 0.2 + 0.08 * wag), (0.02, y + 0.24)],
        fins,
    )
    eye = lerp(0.11, 0.15, p[6])
    pen.eye(long * 0.62, y - tall * 0.2, eye, white=True)
    mouth(pen, long * 0.84, y + tall * 0.26, 0.08, s.expression)
    pen.anchor("head", long * 0.46, y - tall * 0.82, 0.36)
    pen.anchor("eyes", long * 0.56, y - tall * 0.2, 0.16)
    pen.anchor("neck", long * 0.2, y + tall * 0.72, 0.34)
    pen.point("left_eye", long * 0.62, y - tall * 0.2)
    pen.point("nose", long + 0.06, y)
    pen.point("tail", -long - tail * 0.6, y)
