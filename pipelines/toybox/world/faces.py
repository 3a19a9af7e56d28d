"""What all living things share: mouths, eyes' keypoints and the places where accessories sit."""

from pipelines.toybox.world.pen import Pen

CREAM = (255.0, 240.0, 218.0)
DARK = (44.0, 38.0, 46.0)
BLUSH = (240.0, 132.0, 132.0)


def mouth(pen: Pen, x: float, y: float, w: float, expression: str) -> None:
    """A mouth of half-width w under a nose."""
    if expression == "surprised":
        pen.blob(x, y + 0.03, w * 0.45, w * 0.6, (96.0, 40.0, 48.0), outline=False)
    elif expression == "smile":
        pen.stroke(
            [
                (x - w, y),
                (x - w * 0.5, y + w * 0.6),
                (x, y + w * 0.1),
                (x + w * 0.5, y + w * 0.6),
                (x + w, y),
            ],
            0.03,
            DARK,
        )
    else:
        pen.stroke([(x - w, y + w * 0.2), (x + w, y + w * 0.2)], 0.03, DARK)


def living(pen: Pen, hx, hy, head, eyes, neck) -> None:
    """Anchors and eye keypoints of an animal: eyes = (x left, x right, y), neck = (x, y, half-width)."""
    left, right, y = eyes
    pen.anchor("head", hx, hy - head * 0.84, head * 0.92)
    pen.anchor("eyes", (left + right) / 2, y, (right - left) / 2)
    pen.anchor("neck", *neck)
    pen.point("left_eye", left, y)
    pen.point("right_eye", right, y)
