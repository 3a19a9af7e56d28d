"""What a training leaves behind: the adapter or the network, and its curves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.artifacts import atomic_dir, atomic_write

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone
    from pipelines.concepts._base import Recipe

ADAPTER, MODEL = "adapter.safetensors", "model"


def write(base: Backbone, recipe: Recipe, folder: Path, facts: Mapping[str, Any], name: str = "") -> Path:
    """adapter.safetensors in diffusers' layout; model/ with the network where no adapter can hold it.

    With `name` NAME.safetensors, or the folder NAME. Call it while the carrier is attached. `facts` joins the
    metadata. Raises DiskFull.
    """
    about = metadata(base, recipe, facts)
    adapter = recipe.carrier.adapter(recipe.token, about)
    if adapter is not None:
        from pipelines.adapters.formats.diffusers import write as write_adapter

        path = folder / (f"{name}.safetensors" if name else ADAPTER)
        write_adapter(path, adapter, about)
        return path
    net: Any = base.net
    with atomic_dir(folder / (name or MODEL)) as place:
        net.save_pretrained(place / network_folder(base))
        (place / "likeness.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    return folder / (name or MODEL)


def network_folder(base: Backbone) -> str:
    """What a diffusers folder calls the network: "unet", or "transformer" for a DiT."""
    return "unet" if "UNet" in type(base.net).__name__ else "transformer"


def metadata(base: Backbone, recipe: Recipe, facts: Mapping[str, Any]) -> dict[str, str]:
    """Strings for a safetensors header: what it is, what calls it, and how it came about."""
    return {
        "likeness.family": base.family,
        "likeness.base": base.name,
        "likeness.method": recipe.method,
        "likeness.token": recipe.token,
        "likeness.class_word": recipe.class_word,
        "likeness.trigger": recipe.trigger,
        "likeness.settings": json.dumps(dict(recipe.settings), sort_keys=True),
        **{f"likeness.{key}": json.dumps(value) for key, value in facts.items()},
    }


def write_curves(path: Path, losses: Sequence[float], readings: Sequence[Mapping[str, float]]) -> None:
    """A row a step: its loss, and the readings taken after it. Written whole each time."""
    at = {int(each["step"]): each for each in readings}
    names = list(dict.fromkeys(name for each in readings for name in each if name != "step"))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "loss", *names])
    for step, loss in enumerate(losses, 1):
        own = at.get(step, {})
        table.writerow([step, repr(loss), *(own.get(name, "") for name in names)])
    atomic_write(path, text.getvalue().encode())
