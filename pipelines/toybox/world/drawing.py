"""Scene → picture and the truth about it."""

from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipelines.toybox.world import animals, bird_fish, people, things
from pipelines.toybox.world.pen import SUPERSAMPLE, Colour, Pen, shade
from pipelines.toybox.world.places import backdrop
from pipelines.toybox.world.scene import Identity, Scene, Subject
from pipelines.toybox.world.styles import stylise
from pipelines.toybox.world.vocabulary import COLOURS

_DRAWERS = {
    **{name: getattr(animals, name) for name in ("dog", "cat", "rabbit", "bear")},
    **{name: getattr(bird_fish, name) for name in ("bird", "fish")},
    **{
        name: getattr(things, name)
        for name in ("mug", "backpack", "car", "teapot", "house", "chair", "clock")
    },
    "person": people.person,
}
_UNIT = {"person": 0.385, "fish": 0.31, "car": 0.33, "house": 0.33}


@dataclass(frozen=True)
class Drawing:
    """A picture [H, W, 3] uint8 and its truth, one entry a subject in the scene's order.

    `masks` bool [n, H, W] are what is visible of each; `boxes` int [n, 4] are (x0, y0, x1, y1), ends
    exclusive; `depth` float32 [H, W] runs from 0 (near) to 1 (far); `edges` bool [H, W] are the contours of
    the unstyled drawing; `keypoints` name pixels (x, y); `footprints` bool [n, H, W] are every pixel that a
    subject or its shadow touches, hidden ones included.
    """

    scene: Scene
    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    depth: np.ndarray
    edges: np.ndarray
    keypoints: tuple[dict[str, tuple[float, float]], ...]
    footprints: np.ndarray


def exact_colour(identity: Identity) -> Colour:
    """The identity's own shade of its named colour, as RGB in [0, 255]."""
    rng = Random(f"colour/{identity.kind}/{identity.id}")
    base = np.asarray(COLOURS[identity.colour], np.float32)
    grey = base.mean()
    varied = grey + (base - grey) * rng.uniform(0.82, 1.08)
    varied = varied * rng.uniform(0.92, 1.06) + np.array([rng.uniform(-7, 7) for _ in range(3)])
    red, green, blue = np.clip(varied, 20, 250)
    return float(red), float(green), float(blue)


def _second_colour(identity: Identity, colour: Colour) -> Colour:
    """The pattern's other colour: cream or dark, whichever the identity has, always in contrast."""
    brightness = sum(colour) / 3
    if brightness < 95:
        return (214.0, 208.0, 204.0)
    if identity.colour in ("white", "yellow"):
        return shade(colour, 0.5)
    return (252.0, 246.0, 232.0) if identity.params[14] > 0.4 else shade(colour, 0.42)


def _draw_subject(subject: Subject, size: int) -> Pen:
    identity = subject.identity
    unit = _UNIT.get(identity.kind, 0.30) * subject.scale * size
    tilt = 0.0 if identity.kind in ("house", "car", "chair") else subject.pose[0] * 0.07
    pen = Pen(size, subject.x * size, subject.y * size, unit, subject.facing, tilt)
    _DRAWERS[identity.kind](pen, subject, exact_colour(identity), identity.params)
    for item, colour in subject.accessories:
        people.accessory(pen, item, tuple(float(v) for v in COLOURS[colour]))  # type: ignore[arg-type]
    return pen


def _shadow(size: int, subject: Subject, light: float) -> Image.Image | None:
    """The soft shadow on the ground, L [size, size], or none for portraits."""
    if subject.identity.kind == "person":
        return None
    unit = _UNIT.get(subject.identity.kind, 0.30) * subject.scale * size
    x, y = subject.x * size - light * unit * 0.22, subject.y * size + unit * 1.0
    small = Image.new("L", (size // 4, size // 4), 0)
    ImageDraw.Draw(small).ellipse(
        [v / 4 for v in (x - unit * 0.95, y - unit * 0.13, x + unit * 0.95, y + unit * 0.15)], fill=90
    )
    return small.filter(ImageFilter.BoxBlur(1)).resize((size, size), Image.Resampling.BILINEAR)


def _compose(
    scene: Scene, size: int
) -> tuple[np.ndarray, float, list[np.ndarray], list[Pen], list[np.ndarray]]:
    """The unstyled picture at canvas size, the horizon, and per subject mask, pen and shadow."""
    canvas = size * SUPERSAMPLE
    image, horizon = backdrop(scene.place, scene.backdrop, scene.light, canvas)
    picture = np.array(image)
    masks, pens, shadows = [], [], []
    for subject in scene.subjects:
        dark = None if scene.place == "space" else _shadow(canvas, subject, scene.light)
        shadows.append(np.zeros((canvas, canvas), bool) if dark is None else np.asarray(dark) > 0)
        if dark is not None:
            x0, y0, x1, y1 = dark.getbbox() or (0, 0, 0, 0)
            alpha = np.asarray(dark, np.uint16)[y0:y1, x0:x1, None]
            region = picture[y0:y1, x0:x1]
            region[...] = (region * (255 - alpha) // 255).astype(np.uint8)
        pen = _draw_subject(subject, canvas)
        colour = exact_colour(subject.identity)
        second = _second_colour(subject.identity, colour)
        masks.append(pen.paint(picture, scene.light, subject.identity.pattern, second))
        pens.append(pen)
    return picture, horizon, masks, pens, shadows


def _reduce(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).reduce(SUPERSAMPLE))


def render_image(scene: Scene, size: int = 128) -> np.ndarray:
    """The picture alone, uint8 [size, size, 3]; equal to `render(scene, size).image`."""
    return stylise(_reduce(_compose(scene, size)[0]), scene.style)


def _share(mask: np.ndarray, size: int) -> np.ndarray:
    """Canvas mask → share of each final pixel that it covers, float32 [size, size]."""
    return mask.reshape(size, SUPERSAMPLE, size, SUPERSAMPLE).mean((1, 3), dtype=np.float32)


def render(scene: Scene, size: int = 128) -> Drawing:
    """The picture with its whole truth."""
    picture, horizon, masks, pens, shadows = _compose(scene, size)
    flat = _reduce(picture)
    visible: list[np.ndarray] = []
    for index, mask in enumerate(masks):
        hidden = np.any(masks[index + 1 :], axis=0) if masks[index + 1 :] else False
        visible.append(_share(mask & ~np.asarray(hidden), size) >= 0.5)
    touched = [_share(mask | shadow, size) > 0 for mask, shadow in zip(masks, shadows, strict=True)]
    return Drawing(
        scene=scene,
        image=stylise(flat, scene.style),
        masks=_stacked(visible, size),
        boxes=np.array([_box(mask) for mask in visible], int).reshape(-1, 4),
        depth=_depth(scene, visible, horizon, size),
        edges=_outline(flat),
        keypoints=tuple(pen.keypoints for pen in pens),
        footprints=_stacked(touched, size),
    )


def _stacked(masks: list[np.ndarray], size: int) -> np.ndarray:
    return np.stack(masks) if masks else np.zeros((0, size, size), bool)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _ground_depth(y: np.ndarray | float, horizon: float) -> np.ndarray | float:
    """Depth of the ground at height y in [0, 1] of the picture: far at the horizon, near at the bottom."""
    return 0.2 + 0.7 * np.clip((1 - y) / max(1 - horizon, 1e-3), 0, 1)


def _depth(scene: Scene, masks: list[np.ndarray], horizon: float, size: int) -> np.ndarray:
    rows = (np.arange(size, dtype=np.float32) + 0.5) / size
    column = np.where(rows >= horizon, _ground_depth(rows, horizon), 1.0) if horizon > 0 else np.ones(size)
    depth = np.repeat(column.astype(np.float32)[:, None], size, 1)
    for subject, mask in zip(scene.subjects, masks, strict=True):
        foot = min(subject.y + _UNIT.get(subject.identity.kind, 0.30) * subject.scale, 1.0)
        depth[mask] = float(_ground_depth(foot, horizon)) if horizon > 0 else 0.4
    return depth


def _outline(flat: np.ndarray) -> np.ndarray:
    colour = flat.astype(np.int16)
    edge = np.zeros(flat.shape[:2], bool)
    edge[1:] |= np.abs(colour[1:] - colour[:-1]).max(2) > 40
    edge[:, 1:] |= np.abs(colour[:, 1:] - colour[:, :-1]).max(2) > 40
    return edge
