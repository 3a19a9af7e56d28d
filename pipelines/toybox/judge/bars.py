"""The bars of the judge: each function turns measurements into rows of the table.

A row is {"bar", "value", "at_least", "ok", "note"}; shares are in [0, 1]. `value` None means that the part
which the bar measures is not in the folder, and the note says what to build.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.progress import Job
from pipelines.toybox import photos
from pipelines.toybox.draw import Painter, Sampling, draw, round_trip
from pipelines.toybox.judge.prompts import Prompt, renderings, seed_prompts
from pipelines.toybox.stages.clip import clip_top1
from pipelines.toybox.stages.dino import dino_auc, embed
from pipelines.toybox.stages.encoders import render_all
from pipelines.toybox.stages.vae import psnr
from pipelines.toybox.world import ACCESSORIES, sample_scene
from pipelines.toybox.world.labels import HEADS, PEOPLE

Row = dict[str, Any]
Reading = dict[str, np.ndarray]  # class indices by head, as Readers.read gives them

WORLD_DB, PHOTO_DB, NARROW_PHOTO_DB = 30.0, 27.0, 25.0
WORLD_SCENES = 64
CLIP_GROUPS, CLIP_AMONG = 8, 64
DINO_PAIRS = 200
SEED_PROMPTS, SEED_SAMPLES, SEED_GAP = 12, 8, 0.10
ONE_IMAGE_SECONDS = 1.5  # "about 1 s"


def row(bar: str, value: float | None, at_least: float | str, note: str = "", ok: bool | None = None) -> Row:
    """One row; `ok` follows from the numbers unless the bar is of another kind."""
    if ok is None:
        ok = value is not None and not isinstance(at_least, str) and value >= at_least
    return {
        "bar": bar,
        "value": None if value is None else round(value, 4),
        "at_least": at_least,
        "ok": ok,
        "note": note,
    }


def missing(bar: str, at_least: float | str, part: str, stage: str) -> Row:
    """The row of a bar whose part is not there."""
    return row(bar, None, at_least, f"{part}/ is not there: likeness toybox build --stage {stage}", ok=False)


# ---- parts that are judged without drawing


def autoencoder(vae: nn.Module | None, job: Job) -> list[Row]:
    """PSNR in dB, the mean over pictures, in float32: test scenes, and photographs never trained on."""
    bars = ("autoencoder, world (dB)", "autoencoder, unseen photographs (dB)")
    if vae is None:
        return [
            missing(bar, least, "vae", "vae") for bar, least in zip(bars, (WORLD_DB, PHOTO_DB), strict=True)
        ]
    world = render_all(sample_scene(number, "test") for number in range(WORLD_SCENES))
    seen = np.concatenate([photos.subject_photos(name) for name in photos.HELD_OUT])
    values = [psnr(images, round_trip(vae, images, job)) for images in (world, seen)]
    note = f"{' and '.join(photos.HELD_OUT)}; {NARROW_PHOTO_DB:g} if a narrower code draws clearly better"
    return [
        row(bars[0], values[0], WORLD_DB, f"{len(world)} test scenes"),
        row(bars[1], values[1], PHOTO_DB, f"{len(seen)} photographs of {note}"),
    ]


def clip(model: Any | None) -> Row:
    """Top-1 image → full caption among 64 test scenes."""
    bar, least = "toybox-clip: top-1 of 64", 0.90
    if model is None:
        return missing(bar, least, "clip", "clip")
    scenes = [sample_scene(number, "test") for number in range(CLIP_GROUPS * CLIP_AMONG)]
    return row(bar, clip_top1(model, scenes, CLIP_AMONG), least, f"{len(scenes)} test scenes")


def dino(model: Any | None) -> Row:
    """AUC of the same identity against another of the same class and colours, all held out."""
    bar, least = "toybox-dino: AUC same identity", 0.97
    if model is None:
        return missing(bar, least, "dino", "dino")
    return row(bar, dino_auc(model, range(DINO_PAIRS)), least, f"{DINO_PAIRS} pairs of held-out identities")


# ---- what was drawn


def drawn(prompts: Sequence[Prompt], found: Reading, trust: dict[str, dict[str, float]]) -> list[Row]:
    """The rows that classifiers read from the drawn pictures; `trust` is their own held-out accuracy."""
    single = [index for index, prompt in enumerate(prompts) if prompt.group in ("thing", "person")]
    things = [index for index in single if prompts[index].group == "thing"]
    people = [index for index in single if prompts[index].group == "person"]
    styled = [index for index, prompt in enumerate(prompts) if prompt.names_style]

    def right(index: int, head: str, slot: int = 0) -> bool:
        """Whether the picture shows what the words asked of a subject; a subject must be there."""
        asked = prompts[index].asked(slot)[head]
        return bool(found["count"][index] > slot and HEADS[head][found[head][index, slot]] == asked)

    def asking(rows: Sequence[int], head: str) -> list[int]:
        return [index for index in rows if head in prompts[index].asked()]

    worn = [(index, item) for item in ACCESSORIES for index in asking(things, item)]
    dressed = [
        all(right(index, head) for head in (item, f"{item} colour") if head in prompts[index].asked())
        for index, item in worn
    ]
    place = [HEADS["place"][found["place"][index]] == each.scene.place for index, each in enumerate(prompts)]
    style = [HEADS["style"][found["style"][index]] == prompts[index].scene.style for index in styled]
    worn_heads = [head for item in ACCESSORIES for head in (item, f"{item} colour")]
    return [
        _share(
            "class drawn is the class named",
            [right(index, "kind") for index in single],
            0.95,
            trust,
            ["kind"],
        ),
        _share("colour", [right(i, "colour") for i in asking(things, "colour")], 0.90, trust, ["colour"]),
        _share("pattern", [right(i, "pattern") for i in asking(things, "pattern")], 0.85, trust, ["pattern"]),
        _share("accessory present and right", dressed, 0.85, trust, worn_heads),
        _share("place", place, 0.95, trust, ["place"]),
        _share("style", style, 0.90, trust, ["style"]),
        _pairs(prompts, found, trust),
        _people(prompts, found, people, right, trust),
    ]


def _share(
    bar: str, right: Sequence[bool], least: float, trust: dict[str, dict[str, float]], heads: Sequence[str],
    note: str = "",
) -> Row:  # fmt: skip
    """The share of right answers, with the accuracy of the classifiers that gave them beside it."""
    plain, soft = (min(trust[name].get(head, 0.0) for head in heads) for name in ("plain", "soft"))
    beside = (
        f"{'classifier' if len(heads) == 1 else 'least sure classifier'} {plain:.1%}, softened {soft:.1%}"
    )
    parts = [f"{len(right)} asked", note, beside]
    return row(
        bar, float(np.mean(right)) if right else None, least, "; ".join(part for part in parts if part)
    )


def _pairs(prompts: Sequence[Prompt], found: Reading, trust: dict[str, dict[str, float]]) -> Row:
    """Both subjects there, each in its own colour, whoever stands left; sides and swaps go into the note."""
    whole, sides, both, swapped = [], [], [], []
    for index, prompt in enumerate(prompts):
        if prompt.group != "pair":
            continue
        wanted = [(prompt.asked(slot)["kind"], prompt.asked(slot)["colour"]) for slot in (0, 1)]
        shown = [
            tuple(HEADS[head][found[head][index, slot]] for head in ("kind", "colour")) for slot in (0, 1)
        ] if found["count"][index] == 2 else []  # fmt: skip
        whole.append(sorted(shown) == sorted(wanted))
        both.append(sorted(kind for kind, _ in shown) == sorted(kind for kind, _ in wanted))
        crossed = [(wanted[0][0], wanted[1][1]), (wanted[1][0], wanted[0][1])]
        swapped.append(sorted(shown) == sorted(crossed))
        if prompt.names_sides:
            sides.append(shown == wanted)
    note = ""
    if whole:
        note = f"both present {np.mean(both):.1%}, colours swapped {np.mean(swapped):.1%}"
        note += f", on the named sides {np.mean(sides):.1%}" if sides else ""
    return _share(
        "two subjects, attributes not swapped", whole, 0.70, trust, ["count", "kind", "colour"], note
    )


def _people(
    prompts: Sequence[Prompt], found: Reading, people: Sequence[int],
    right: Callable[[int, str], bool], trust: dict[str, dict[str, float]],
) -> Row:  # fmt: skip
    """Hair, beard and glasses where the words name them; those nobody asked for go into the note."""
    answers = {
        head: [right(index, head) for index in people if head in prompts[index].asked()] for head in PEOPLE
    }
    notes = [f"{head} {np.mean(each):.0%}" for head, each in answers.items() if each]
    for head in ("beard", "glasses"):
        unasked = [found[head][i, 0] == 1 for i in people if prompts[i].shown().get(head) == "no"]
        if unasked:
            notes.append(f"{head} unasked {np.mean(unasked):.0%}")
    every = [answer for each in answers.values() for answer in each]
    return _share("people: attributes named", every, 0.85, trust, PEOPLE, ", ".join(notes))


# ---- drawing itself


def seeds_matter(painter: Painter | None, model: Any | None, how: Sampling, seed: int, job: Job) -> Row:
    """Mean pairwise DINO similarity of samples of one prompt, against renderings that fit its words.

    The note says beside it what it is without guidance: guidance trades variety for obedience, and only the
    rest is the network's own.
    """
    bar, least = "seeds matter: gap of DINO similarity", f"≤ {SEED_GAP:.2f}"
    if painter is None:
        return missing(bar, least, "unet", "unet")
    if model is None:
        return missing(bar, least, "dino", "dino")
    samples: dict[float, list[float]] = {how.guidance: [], 1.0: []}  # by guidance; one entry where it is 1
    real: list[float] = []
    for index, prompt in enumerate(seed_prompts(SEED_PROMPTS, seed)):
        seeds = [seed + 1000 * index + each for each in range(SEED_SAMPLES)]
        for guidance, found in samples.items():
            way = replace(how, guidance=guidance)
            images = draw(painter, [prompt.text] * SEED_SAMPLES, seeds, way, job)
            found.append(alike(embed(model, images).numpy()))
        real.append(alike(embed(model, render_all(renderings(prompt, SEED_SAMPLES, seed))).numpy()))
        job.report(index + 1, SEED_PROMPTS, bar="seeds matter")
    similar = {guidance: float(np.mean(found)) for guidance, found in samples.items()}
    rendered = float(np.mean(real))
    gap = abs(similar[how.guidance] - rendered)
    note = f"drawn {similar[how.guidance]:.3f}, unguided {similar[1.0]:.3f}, "
    note += f"rendered {rendered:.3f}, {SEED_PROMPTS} prompts"
    return row(bar, gap, least, note, ok=gap <= SEED_GAP)


def alike(unit: np.ndarray) -> float:
    """Mean cosine over all pairs of unit vectors [n,D]."""
    cosine = unit @ unit.T
    return float(cosine[np.triu_indices(len(unit), 1)].mean())


def one_image(painter: Painter | None, how: Sampling) -> Row:
    """Seconds of one picture on this machine, once warm; the better of two."""
    bar, least = f"one image, {how.steps} steps (s)", "about 1"
    if painter is None:
        return missing(bar, least, "unet", "unet")
    alone = Sampling(how.steps, how.guidance, 1)
    draw(painter, ["a red dog"], [0], Sampling(2, how.guidance, 1))
    seconds = []
    for seed in range(2):
        start = time.perf_counter()
        draw(painter, ["a red dog"], [seed], alone)
        seconds.append(time.perf_counter() - start)
    where = painter.device.type
    if where == "cpu":
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        where = f"cpu, {torch.get_num_threads()} threads{load}"
    note = f"{where}, {str(painter.dtype).removeprefix('torch.')}, guidance {how.guidance:g}"
    return row(bar, min(seconds), least, note, ok=min(seconds) <= ONE_IMAGE_SECONDS)
