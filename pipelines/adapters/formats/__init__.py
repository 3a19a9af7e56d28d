"""Adapter files: whatever goes around, read by what its header shows, and written for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from pipelines.adapters.adapter import Adapter
from pipelines.adapters.families import family_of
from pipelines.adapters.formats import cloneofsimo, diffusers, embeddings, kohya
from pipelines.adapters.layers import check_family, mismatch, placed
from pipelines.artifacts import Header, read_safetensors_header
from pipelines.base.backbone import Backbone
from pipelines.errors import BrokenWeights, MissingAsset, UnknownName

READERS: dict[str, ModuleType] = {
    "cloneofsimo": cloneofsimo, "kohya": kohya, "diffusers": diffusers, "embeddings": embeddings,
}  # fmt: skip
FOLDER = (
    "adapter.safetensors",
    "pytorch_lora_weights.safetensors",
    "learned_embeds.safetensors",
    "adapter_model.safetensors",
)
LAYOUTS = ("a1111", "diffusers", "kohya")


def load(path: Path | str, base: Backbone | None = None) -> Adapter:
    """Any adapter file, or a folder that holds one, as an Adapter.

    With `base` its layers are those of the base, what is left over stands in `unused`, and family and shapes
    are checked. Raises MissingAsset, BrokenWeights (pickled, truncated, corrupt, NaN, rank 0, empty, no
    adapter), AdapterMismatch (another family), BadInput (a format that needs the base), NotAvailable.
    """
    path = file_of(path)
    header = read_safetensors_header(path)
    reader = READERS[layout_of(path, header)]
    if base is not None:
        check_family(Adapter(path.name, family_of(header)), base)
    adapter: Adapter = reader.read(path, base)
    if base is not None:
        if not adapter.layers and not adapter.words:
            shown = ", ".join(adapter.unused[:3])
            raise mismatch(adapter, base, f"the base has none of its layers ({shown} …)")
        placed(adapter, base)
    return adapter


def file_of(path: Path | str) -> Path:
    """The adapter file that a path names: itself, or the one in a folder. Raises MissingAsset."""
    path = Path(path)
    if not path.is_dir():
        return path
    found = [path / name for name in FOLDER if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
    if not found:
        raise MissingAsset(path / FOLDER[0], "Name an adapter file, or a folder that holds one.")
    return found[0]


def layout_of(path: Path | str, header: Header) -> str:
    """Which reader a header is for. Raises BrokenWeights where it is no adapter's."""
    names = list(header.tensors)
    if not names:
        raise BrokenWeights(path, "it holds no tensors")
    for layout, reader in READERS.items():
        if reader.matches(names):
            return layout
    raise BrokenWeights(
        path,
        f"it is no adapter in a layout this program knows (its first tensor is {names[0][:80]})",
        "Choose a LoRA in diffusers', kohya's or A1111's layout, or a textual inversion file.",
    )


def export(
    adapter: Adapter,
    path: Path | str,
    layout: str = "diffusers",
    base: Backbone | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write an adapter for other programs: "diffusers", "kohya", or "a1111" (words alone: a TI file).

    The header gets ModelSpec's and kohya's fields. Raises UnknownName for another layout.
    """
    from pipelines.adapters.card import header_for

    if layout not in LAYOUTS:
        raise UnknownName("layout", layout, LAYOUTS)
    about = {**header_for(adapter), **(metadata or {})}
    if adapter.words and not adapter.layers and layout != "kohya" and len(adapter.words) == 1:
        return embeddings.write(path, adapter, about, "a1111" if layout == "a1111" else "diffusers")
    if layout == "diffusers":
        return diffusers.write(path, adapter, about)
    return kohya.write(path, adapter, about, base)


def save(path: Path | str, adapter: Adapter, metadata: Mapping[str, str] | None = None) -> Path:
    """Write an adapter in diffusers' layout with a full header: what a run folder holds."""
    return export(adapter, path, "diffusers", None, metadata)
