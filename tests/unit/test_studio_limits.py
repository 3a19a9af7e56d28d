"""What a visitor of a shared studio may ask for."""

import time
from typing import Any

import pytest

from pipelines.errors import BadInput, LikenessError, NotAvailable
from pipelines.jobs.spec import from_table
from studio.limits import check_limits, drawings
from studio.settings import SPACE, SPACE_GPU, Settings

LOCAL, SHARED = Settings(), Settings(hosting=SPACE)
BASES = ["toybox", "sdxl"]
SMALL = {"method": "dreambooth_lora", "steps": 100}


def train(**concept):
    return {"kind": "train", "concept": {**SMALL, **concept}}


def grid(job, *axes):
    return {
        "kind": "compare",
        "job": job,
        "axes": [{"path": path, "values": values} for path, values in axes],
    }


GREEDY = [
    ({"kind": "compose", "prompts": ["a"] * 9}, "9 pictures"),
    ({"kind": "compose", "prompts": ["a"], "count": 9}, "9 pictures"),
    ({"kind": "compose", "prompts": ["a"], "sampler": {"steps": 401}}, "401 steps"),
    ({"kind": "compose", "prompts": ["a"], "width": 264}, "264 pixels"),
    ({"kind": "edit", "prompts": ["a"], "height": 8192}, "8,192 pixels"),
    (train(steps=401), "401 steps"),
    ({"kind": "train"}, "steps"),  # what is left open counts too
    (train(batch=256), "photos shown"),
    (train(accumulation=64), "photos shown"),
    (train(resolution=4096), "pixels"),
    (train(prior_weight=1, prior_images=10_000), "samples"),
    ({**train(), "watch": {"every": 1, "count": 16}}, "samples"),
    (grid({"prompts": ["a"]}, ("seed", list(range(9)))), "9 pictures"),
    (grid({"prompts": ["a"], "count": 4}, ("seed", [1, 2, 3])), "12 pictures"),
    (grid({"prompts": ["a"]}, ("count", [1, 5])), "10 pictures"),
    (grid({"prompts": ["a"]}, ("prompts", [["a"] * 5]), ("count", [2])), "10 pictures"),
    (grid({"prompts": ["a"]}, ("sampler.steps", [10, 1000])), "1,000 steps"),
    (grid({"prompts": ["a"]}, ("seed", [1]), ("width", [128, 1024])), "1,024 pixels"),
]


@pytest.mark.parametrize(("table", "what"), GREEDY)
def test_a_space_is_for_everybody(table, what):
    spec = from_table(table)
    with pytest.raises(NotAvailable, match=what) as caught:
        check_limits(spec, SHARED, BASES)
    assert "Duplicate" in caught.value.remedy
    check_limits(spec, LOCAL, BASES)


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "compose", "prompts": ["a"], "count": 8, "width": 256, "sampler": {"steps": 50}},
        train(steps=400, batch=8),
        train(prior_weight=1, prior_images=100),
        grid({"prompts": ["a"]}, ("seed", [1, 2]), ("guidance.scale", [1, 4, 7])),
        {"kind": "check", "photos": "upload:x"},
        {"kind": "score", "images": ["upload:x"]},
    ],
)
def test_what_is_usual_is_allowed(table):
    check_limits(from_table(table), SHARED, BASES)


def test_bases_are_those_of_the_list_also_inside_a_grid():
    for table in (
        {"kind": "compose", "base": "sd9"},
        grid({"base": "sd9"}, ("seed", [1])),
        grid({}, ("base", ["toybox", "sd9"])),
    ):
        with pytest.raises(NotAvailable, match="embedded base"):
            check_limits(from_table(table), SHARED, BASES)
        for settings in (LOCAL, Settings(hosting=SPACE_GPU)):
            with pytest.raises(BadInput, match="not among the bases"):
                check_limits(from_table(table), settings, BASES)


@pytest.mark.parametrize(
    "table",
    [
        grid({"kind": "train"}, ("seed", [1])),
        grid({"kind": "fetch", "base": "owner/name"}, ("base", ["x"])),
        grid({"prompts": ["a"]}, ("no.such", [1])),
        grid({"prompts": ["a"]}, ("seed", list(range(500)))),
        grid({"prompts": ["a"]}, ("seed", list(range(100))), ("width", list(range(8, 800, 8)))),
        grid({"prompts": ["a"]}, *((path, [1]) for path in ("seed", "count", "width", "height"))),
        grid({"prompts": ["a"]}, ("width", ["wide"])),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_before_it_waits(table):
    with pytest.raises(LikenessError):
        drawings(from_table(table))


def test_settings_that_belong_together_are_varied_together():
    axes = ("guidance.method", ["apg", "cfg"]), ("guidance.scale", [1, 2, 3]), ("seed", [4, 5])
    found: Any = drawings(from_table(grid({"prompts": ["a"]}, *axes)))
    assert len(found) == 1 + 2 * 3 + 2
    assert {(each.guidance["method"], each.guidance.get("scale")) for each in found[1:7]} == {
        (method, scale) for method in ("apg", "cfg") for scale in (1, 2, 3)
    }


def test_the_largest_grid_is_looked_at_in_less_than_a_click():
    spec = from_table(
        grid({"prompts": ["a"]}, ("seed", list(range(20))), ("guidance.scale", list(range(1, 21))))
    )
    drawings(spec)
    begun = time.process_time()
    drawings(spec)
    assert time.process_time() - begun < 0.5
