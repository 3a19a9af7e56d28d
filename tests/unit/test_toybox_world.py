"""The renderer's truth: masks, boxes and keypoints agree with pixels; the same seed is the same picture."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.toybox import world
from pipelines.toybox.stages import details
from pipelines.toybox.world import (
    COLOURS,
    EDITS,
    HELD_OUT,
    KINDS,
    PATTERNS,
    PLACES,
    STYLES,
    WORDS,
    Scene,
    caption,
    edit_pair,
    exact_colour,
    held_out,
    render,
    render_image,
    sample_identity,
    sample_scene,
)


def test_the_same_seed_draws_the_same_picture():
    for seed in range(12):
        scene = sample_scene(seed)
        assert scene == sample_scene(seed)
        assert np.array_equal(render_image(scene), render(scene).image)
    assert not np.array_equal(render_image(sample_scene(0)), render_image(sample_scene(1)))


def test_a_fresh_process_draws_the_same_picture():
    """No hash seed, no global state: a digest made in another interpreter agrees."""
    code = (
        "import zlib; from pipelines.toybox.world import *;"
        "print([zlib.crc32(render_image(sample_scene(s)).tobytes()) for s in range(4)]);"
        "print(caption(sample_scene(3), 1))"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in "ab"
    }
    assert len(runs) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_masks_hold_exactly_the_pixels_that_a_subject_changes(kind):
    """Away from its mask and its shadow the picture is the empty place; inside the mask it is not."""
    for seed in range(3):
        scene = sample_scene(seed, kind=kind, n_subjects=1, style="flat")
        drawing, empty = render(scene), render_image(replace(scene, subjects=()))
        differs = (drawing.image != empty).any(2)
        assert not (differs & ~drawing.footprints[0]).any()
        assert differs[drawing.masks[0]].mean() > 0.97
        assert drawing.masks[0].mean() > 0.04


def test_boxes_are_tight_around_masks():
    for seed in range(20):
        drawing = render(sample_scene(seed))
        assert len(drawing.masks) == len(drawing.boxes) == len(drawing.scene.subjects)
        for mask, (x0, y0, x1, y1) in zip(drawing.masks, drawing.boxes, strict=True):
            assert mask.any()
            assert mask[y0:y1, x0:x1].sum() == mask.sum()
            assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()


def test_two_subjects_never_share_a_pixel_and_stand_left_to_right():
    for seed in range(20):
        drawing = render(sample_scene(seed, n_subjects=2))
        assert not (drawing.masks[0] & drawing.masks[1]).any()
        left, right = (np.flatnonzero(mask.any(0)).mean() for mask in drawing.masks)
        assert left < right


def test_five_face_points_lie_on_the_face():
    for seed in range(12):
        scene = sample_scene(seed, kind="person", n_subjects=1, style="flat", accessories=())
        scene = replace(scene, subjects=(replace(scene.subjects[0], expression="smile"),))
        drawing = render(scene)
        points = drawing.keypoints[0]
        assert set(points) == {"left_eye", "right_eye", "nose", "mouth_left", "mouth_right"}
        for x, y in points.values():
            assert drawing.masks[0][int(y), int(x)]
        # The white of an eye is brighter than the skin beside the nose is, whatever the skin.
        for name in ("left_eye", "right_eye"):
            x, y = points[name]
            patch = drawing.image[int(y) - 4 : int(y) + 5, int(x) - 6 : int(x) + 7].astype(int)
            assert patch.max() - patch.min() > 80
        assert points["left_eye"][1] < points["nose"][1] < points["mouth_left"][1]


@pytest.mark.parametrize("kind", world.ANIMALS)
def test_animals_have_pose_points_in_the_picture(kind):
    drawing = render(sample_scene(5, kind=kind, n_subjects=1))
    assert {"nose", "left_eye"} <= set(drawing.keypoints[0])
    x, y = drawing.keypoints[0]["left_eye"]
    assert drawing.masks[0][int(y), int(x)]


def test_depth_is_nearer_on_a_subject_than_behind_it():
    for seed in range(12):
        drawing = render(sample_scene(seed, n_subjects=1))
        assert drawing.depth.min() >= 0 and drawing.depth.max() <= 1
        assert drawing.depth[drawing.masks[0]].max() < drawing.depth[0].max()


def test_edges_follow_the_silhouette():
    drawing = render(sample_scene(3, kind="mug", n_subjects=1, style="flat", colour="red", place="snow"))
    mask = drawing.masks[0]
    border = mask[1:-1, 1:-1] & ~(mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:])
    grown = np.zeros_like(drawing.edges)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            grown |= np.roll(drawing.edges, (dy, dx), (0, 1))
    assert grown[1:-1, 1:-1][border].mean() > 0.9


def test_identity_stays_while_the_rest_varies():
    """The exact colour and proportions belong to the identity; place, light and pose do not."""
    who = sample_identity("dog", HELD_OUT + 7, colour="blue", pattern="plain")
    scenes = [
        sample_scene(seed, "test", identity=who, n_subjects=1, style="flat", accessories=())
        for seed in range(6)
    ]
    assert {scene.subjects[0].identity for scene in scenes} == {who}
    assert len({scene.place for scene in scenes}) > 1
    hue = np.asarray(exact_colour(who))
    for scene in scenes:
        drawing = render(scene)
        body = drawing.image[drawing.masks[0]].astype(float)
        # Light scales the colour, so compare directions.
        cosine = (body @ hue) / np.linalg.norm(body, axis=1) / np.linalg.norm(hue)
        assert (cosine > 0.99).mean() > 0.3


def test_thousands_of_people_are_distinct():
    faces = {replace(sample_identity("person", i), id=0) for i in range(2000)}
    assert len(faces) == 2000


def test_train_and_test_share_no_identity_and_no_held_out_combination():
    for seed in range(300):
        for split in ("train", "test"):
            scene = sample_scene(seed, split)
            for subject in scene.subjects:
                assert (subject.identity.id >= HELD_OUT) == (split == "test")
                kind, colour = subject.identity.kind, subject.identity.colour
                assert held_out(kind, colour, scene.place) == (split == "test")


def test_the_mix_of_scenes():
    counts = np.bincount([len(sample_scene(seed).subjects) for seed in range(3000)], minlength=3) / 3000
    assert 0.30 < counts[2] < 0.36
    assert 0.03 < counts[0] < 0.09


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def test_captions_use_only_known_words_and_never_the_rare_ones():
    for seed in range(1500):
        words = _words(caption(sample_scene(seed), seed))
        assert set(words) <= set(WORDS), set(words) - set(WORDS)
        assert not set(words) & set(world.RARE)
    assert "sks" in WORDS


def test_captions_vary_and_drop_attributes_but_a_full_one_names_all():
    scene = sample_scene(
        5,
        kind="dog",
        n_subjects=1,
        colour="red",
        pattern="striped",
        style="flat",
        place="beach",
        accessories=(),
    )
    assert len({caption(scene, seed) for seed in range(40)}) > 15
    assert any("red" not in _words(caption(scene, seed)) for seed in range(40))
    for seed in range(40):
        assert {"striped", "red", "dog"} <= set(_words(caption(scene, seed, full=True)))


def test_captions_name_only_what_a_style_shows():
    for seed in range(300):
        words = set(_words(caption(sample_scene(seed, style="pencil"), seed, full=True)))
        assert not words & set(COLOURS)


@pytest.mark.parametrize("kind", [each for each in KINDS if each != "person"])
def test_a_pattern_that_is_named_can_be_seen(kind):
    """A wing, a belly or a window over it must not leave so little that the words are not true."""
    for pattern in PATTERNS[1:]:
        shares: list[float] = []
        for seed in range(10):
            scene = sample_scene(seed, kind=kind, pattern=pattern, n_subjects=1, style="flat", accessories=())
            one = scene.subjects[0]
            bare = replace(scene, subjects=(replace(one, identity=replace(one.identity, pattern="plain")),))
            drawing = render(scene)
            changed = np.abs(drawing.image.astype(int) - render_image(bare)).max(-1) > 24
            shares.append(float(changed[drawing.masks[0]].mean()))
        assert np.mean(shares) > 0.11, pattern
        assert min(shares) > 0.05, pattern


def test_captions_tell_left_from_right():
    for seed in range(60):
        scene = sample_scene(seed, n_subjects=2, style="flat")
        left, right = (subject.identity.kind for subject in scene.subjects)
        text = caption(scene, seed, full=True)
        if "to the left of" in text and "person" not in (left, right):
            assert text.index(left) < text.index("to the left of") < text.rindex(right)


@pytest.mark.parametrize("kind", EDITS)
def test_edit_pairs_are_equal_outside_the_region_and_differ_inside(kind):
    for seed in range(6):
        pair = edit_pair(seed, kind=kind)
        before, after = pair.before.image, pair.after.image
        assert np.array_equal(before[~pair.region], after[~pair.region])
        assert (before[pair.region] != after[pair.region]).any()
        assert set(_words(pair.instruction)) <= set(WORDS)


@pytest.mark.parametrize("kind", ["colour", "add", "replace"])
def test_an_edited_picture_is_the_rendering_of_the_edited_scene(kind):
    """Joining by region hides nothing: the after picture is what the renderer draws of the changed scene."""
    for seed in range(8):
        pair = edit_pair(seed, kind=kind)
        assert np.array_equal(pair.after.image, render_image(pair.after.scene))


def _alone(kind: str, **fixed: Any) -> Scene:
    return sample_scene(4, kind=kind, n_subjects=1, style="flat", **{"accessories": (), **fixed})


def test_details_are_looked_for_where_they_would_be():
    """A hat's cells lie on the hat, and count as much where there is none: else a weight would tell."""
    bare = _alone("dog", pattern="plain")
    hatted = replace(bare, subjects=(replace(bare.subjects[0], accessories=(("hat", "red"),)),))
    changed = np.abs(render_image(hatted).astype(int) - render_image(bare)).max(-1) > details.SEEN
    cells = changed.reshape(16, 8, 16, 8).mean((1, 3))
    without, with_hat = (details.focus(scene).astype(float) for scene in (bare, hatted))
    assert (without[cells > 0.5] > 1).all()
    assert without.max() <= details.MOST
    worn_and_pattern = 4  # a hat, sunglasses, a scarf; and the pattern
    np.testing.assert_allclose(without.sum(), worn_and_pattern * details.SHARE * 256, rtol=0.1)
    assert np.abs(without - with_hat).sum() < 0.1 * without.sum()
    assert not details.focus(sample_scene(0, n_subjects=0)).any()


@pytest.mark.parametrize(("kind", "count"), [("mug", 1), ("cat", 4), ("person", 7)])
def test_one_detail_is_changed_at_a_time(kind: str, count: int):
    subject = _alone(kind).subjects[0]
    others = list(details.otherwise(subject, "flat"))
    assert len(others) == count
    pictures = {
        render_image(replace(_alone(kind), subjects=(each,))).tobytes() for each in (subject, *others)
    }
    assert len(pictures) == count + 1


def test_every_place_and_style_looks_different():
    scene = sample_scene(4, kind="cat", n_subjects=1, style="flat")
    places = [render_image(replace(scene, place=place)).astype(int) for place in PLACES]
    styles = [render_image(replace(scene, style=style)).astype(int) for style in STYLES]
    for pictures in (places, styles):
        for i, a in enumerate(pictures):
            for b in pictures[i + 1 :]:
                assert np.abs(a - b).mean() > 4
