"""The five ways to draw a scene: each turns the flat picture uint8 [H, W, 3] into another, same size."""

from functools import cache

import numpy as np
from PIL import Image, ImageFilter

REACH = {"flat": 1, "pencil": 3, "watercolour": 6, "pixel": 4, "neon": 8}
"""How many pixels outside a change its traces can spread, per style."""


def stylise(picture: np.ndarray, style: str) -> np.ndarray:
    """The picture in a style of STYLES; deterministic, and local to REACH pixels."""
    return picture if style == "flat" else _STYLES[style](picture)


def _luminance(picture: np.ndarray) -> np.ndarray:
    return picture @ np.array([0.299, 0.587, 0.114], np.float32)


def _contours(picture: np.ndarray) -> np.ndarray:
    """Strength of colour edges in [0, 1], float32 [H, W]."""
    edge = np.zeros(picture.shape[:2], np.int16)
    for channel in np.moveaxis(picture.astype(np.int16), 2, 0):
        np.maximum(edge[1:], np.abs(channel[1:] - channel[:-1]), out=edge[1:])
        np.maximum(edge[:, 1:], np.abs(channel[:, 1:] - channel[:, :-1]), out=edge[:, 1:])
    return np.clip((edge.astype(np.float32) - 10) / 60, 0, 1)


@cache
def _grain(size: int, cell: int, seed: int) -> np.ndarray:
    """Smooth fixed noise in [-1, 1], float32 [size, size]: the paper under every drawing."""
    low = np.random.default_rng(seed).random((size // cell + 2, size // cell + 2), np.float32)
    image = Image.fromarray((low * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32) / 127.5 - 1


def _soft_contours(picture: np.ndarray) -> np.ndarray:
    """Contours as a soft line about two pixels wide, float32 [H, W] in [0, 1]."""
    lines = Image.fromarray((_contours(picture) * 255).astype(np.uint8))
    return np.asarray(lines.filter(ImageFilter.BoxBlur(0.6)), np.float32) / 255


def _pencil(picture: np.ndarray) -> np.ndarray:
    size = picture.shape[0]
    tone = _luminance(picture.astype(np.float32)) / 255
    shading = np.clip(0.7 - tone, 0, 1) * (0.5 + 0.16 * _hatching(size))
    paper = 0.965 + 0.012 * _grain(size, 4, 1)
    grey = np.clip(paper - shading - 0.62 * _soft_contours(picture), 0.14, 1)
    return (grey[..., None] * np.array([252, 249, 240], np.float32)).astype(np.uint8)


@cache
def _hatching(size: int) -> np.ndarray:
    """Slanted strokes in [-1, 1], six pixels apart, float32 [size, size]."""
    rows, columns = np.mgrid[0:size, 0:size]
    return np.sin((rows + columns) * (2 * np.pi / 8)).astype(np.float32)


def _watercolour(picture: np.ndarray) -> np.ndarray:
    size = picture.shape[0]
    soft = np.asarray(
        Image.fromarray(picture).filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.BoxBlur(0.8)),
        np.float32,
    )
    wash = 1 + 0.1 * _grain(size, 16, 2)[..., None] + 0.05 * _grain(size, 5, 3)[..., None]
    pale = 255 - (255 - soft) * 0.82 * wash
    pale -= 46 * _contours(soft.astype(np.uint8))[..., None]
    return np.clip(pale + 3 * _grain(size, 4, 1)[..., None], 0, 255).astype(np.uint8)


def _pixel(picture: np.ndarray) -> np.ndarray:
    size = picture.shape[0]
    small = np.asarray(
        Image.fromarray(picture).resize((size // 4, size // 4), Image.Resampling.BOX), np.float32
    )
    small = np.clip(np.round(small / 32) * 32, 0, 255).astype(np.uint8)
    return small.repeat(4, 0).repeat(4, 1)


def _neon(picture: np.ndarray) -> np.ndarray:
    edge = _soft_contours(picture)[..., None]
    colour = picture.astype(np.float32)
    peak = np.maximum(np.maximum(colour[..., 0], colour[..., 1]), colour[..., 2])[..., None] + 1
    vivid = colour * (255 / peak)
    vivid = np.clip(vivid + (vivid - vivid.mean(2, keepdims=True)) * 0.5, 0, 255)
    bright = np.asarray(Image.fromarray(vivid.astype(np.uint8)).filter(ImageFilter.MaxFilter(3)), np.float32)
    lines = bright * edge
    glow = Image.fromarray(lines.astype(np.uint8)).filter(ImageFilter.BoxBlur(3))
    base = colour * 0.3 + np.array([8, 6, 22], np.float32)
    return np.clip(base + lines * 0.6 + np.asarray(glow, np.float32) * 0.9, 0, 255).astype(np.uint8)


_STYLES = {"pencil": _pencil, "watercolour": _watercolour, "pixel": _pixel, "neon": _neon}
