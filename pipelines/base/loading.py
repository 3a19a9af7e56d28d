"""A preset's name, a folder, a single file or a Hub id → a backbone on its device. Pickles are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from pipelines.artifacts import Header, read_safetensors_header
from pipelines.base.backbone import Backbone
from pipelines.base.known import (
    PICKLES,
    WEIGHTLESS,
    BaseInfo,
    bases,
    cached,
    check,
    components,
    fetch,
    known,
    read_json,
    weights,
)
from pipelines.base.memory import Device, Policy, pick
from pipelines.base.sd import SD
from pipelines.base.sd3 import SD3
from pipelines.base.sdxl import SDXL
from pipelines.base.text import CLOSED
from pipelines.errors import BrokenWeights, LikenessError, MissingAsset, UnknownName
from pipelines.progress import Job

__all__ = ["BaseInfo", "bases", "open_base"]

PIPELINES: Mapping[str, Callable[[str, str, Mapping[str, Any]], Any]] = {
    "StableDiffusion": SD,
    "StableDiffusionXL": SDXL,
    "StableDiffusion3": SD3,
}
_KIND = re.compile(r"(\w+?)(?:Img2Img|Inpaint)?Pipeline")
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_UNET = "model.diffusion_model."


def open_base(
    name: str,
    device: str = "auto",
    job: Job | None = None,
    dtype: torch.dtype | None = None,
    policy: Policy | None = None,
) -> Backbone:
    """Open a base: a preset's name, a folder in diffusers' layout, a safetensors file, or a Hub id.

    The weights are frozen and on the device, as `policy` says; without one, whole if they fit. The last base
    stays open, and opening it again is free. Raises UnknownName, MissingAsset, BrokenWeights, NotAvailable,
    OutOfMemory.
    """
    job = job or Job()
    place = pick(device)
    dtype = dtype or _preferred(name, place)
    source, info = _find(name, job)
    title = info.name if info else source.stem
    stamp = source if source.is_file() else source / "model_index.json"
    key = (str(source.resolve()), title, dtype, stamp.stat().st_mtime_ns if stamp.exists() else 0)

    def make() -> Backbone:
        with place.guard(f"opening {title}"):
            parts = (
                _from_file(source, dtype, job) if source.is_file() else _from_folder(source, dtype, job, info)
            )
            base = _assembled(title, info.family if info else None, parts)
            base.memory = place
            place.place(base, policy or _fitting(base, place))
        job.note(f"{title} is open on {base.device}, as {str(dtype).removeprefix('torch.')}.")
        return base

    base = place.kept(key, make)
    if policy is not None and policy != place.policy:
        place.place(base, policy)
    return base


def _preferred(name: str, place: Device) -> torch.dtype:
    info = known(name)
    return getattr(torch, info.dtype) if info and info.dtype else place.dtype()


def _find(name: str, job: Job) -> tuple[Path, BaseInfo | None]:
    """Where the files are, fetched from the Hub if need be."""
    info = known(name)
    if info is not None:
        if info.where is not None:
            return info.where, info
        if info.asset:
            raise MissingAsset(info.asset, "Build it: likeness toybox build --stage all.")
        return fetch(info.hub, job, info.variant), info
    path = Path(name).expanduser()
    if path.suffix.lower() in PICKLES:
        raise BrokenWeights(
            path, "it is a pickled checkpoint, which could run code",
            "Take a version of it in safetensors, or convert it elsewhere.",
        )  # fmt: skip
    if path.exists():
        return path, None
    if path.is_absolute() or name.startswith(("./", "../", "~")) or path.suffix == ".safetensors":
        raise MissingAsset(path, "Check the path of the model.")
    if not _HUB.fullmatch(name):
        raise UnknownName("base", name, [each.name for each in bases()])
    return cached(name) or fetch(name, job), None


def _from_folder(folder: Path, dtype: torch.dtype, job: Job, info: BaseInfo | None) -> dict[str, Any]:
    """The components of a folder in diffusers' layout, by name, and the settings of its index."""
    index = read_json(folder / "model_index.json")
    listed = components(folder)
    variant = info.variant if info else ""
    check(folder, variant)  # all headers first: a broken last file should not cost the loading of the others
    parts: dict[str, Any] = {key: value for key, value in index.items() if not isinstance(value, list)}
    for count, (key, (library, kind)) in enumerate(listed.items(), 1):
        job.check()
        parts[key] = _component(folder, key, _class(folder, library, kind), dtype, variant)
        job.report(count, len(listed), component=key)
    return parts


def _class(folder: Path, library: str, kind: str) -> Any:
    """A class of diffusers or transformers; code that comes with a model is never run."""
    owner = {"diffusers": diffusers, "transformers": transformers}.get(library)
    found = getattr(owner, kind, None)
    if not isinstance(found, type) or not hasattr(found, "from_pretrained"):
        raise BrokenWeights(
            folder / "model_index.json", f"it asks for {library}.{kind}, which this program does not have",
            "Update diffusers and transformers, or choose a model that needs no code of its own.",
        )  # fmt: skip
    return found


def _component(folder: Path, key: str, kind: Any, dtype: torch.dtype, variant: str) -> Any:
    """One component, its weights complete. Raises BrokenWeights."""
    path = folder / key
    try:
        if key.startswith(WEIGHTLESS):
            return kind.from_pretrained(path, local_files_only=True)
        _, own = weights(path, variant)
        with _quiet():
            module, loaded = kind.from_pretrained(
                path, local_files_only=True, use_safetensors=True, variant=own or None,
                output_loading_info=True,
                **{"dtype" if issubclass(kind, transformers.PreTrainedModel) else "torch_dtype": dtype},
            )  # fmt: skip
    except LikenessError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BrokenWeights(path, reason.rstrip(".")) from error
    missing = sorted(each for each in loaded["missing_keys"] if "position_ids" not in each)
    if missing:
        raise BrokenWeights(path, f"it lacks {missing[0]} ({len(missing)} tensors are missing)")
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of the libraries beside our own."""
    kept = [each for each in (diffusers_logging, transformers_logging) if each.is_progress_bar_enabled()]
    try:
        for each in kept:
            each.disable_progress_bar()
        yield
    finally:
        for each in kept:
            each.enable_progress_bar()


def _from_file(path: Path, dtype: torch.dtype, job: Job) -> dict[str, Any]:
    """The components of one safetensors file in the original layout of SD 1, SD 2, SDXL or SD3.

    Its configs and tokenizers come from a folder of the same name beside it, else from the family's own
    repository.
    """
    preset = preset_of(path, read_safetensors_header(path))
    beside = path.with_suffix("")
    info = known(preset)
    if (beside / "model_index.json").is_file():
        config = beside
    else:
        assert info is not None  # noqa: S101 (a test opens every preset that `preset_of` names)
        config = info.where or fetch(info.hub, job, only_configs=True)
    index = read_json(config / "model_index.json")
    kind: Any = getattr(diffusers, str(index.get("_class_name")), None)
    if kind is None or not hasattr(kind, "from_single_file"):
        raise BrokenWeights(config / "model_index.json", "it names no pipeline that reads single files")
    job.note(f"Reading {path.name}.")
    extra: dict[str, Any] = {"safety_checker": None} if preset in ("sd15", "sd21") else {}
    try:
        with _quiet():
            pipeline = kind.from_single_file(
                str(path), config=str(config), local_files_only=True, torch_dtype=dtype, **extra
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BrokenWeights(path, reason.rstrip(".")) from error
    job.report(1, 1, component=path.name)
    settings = {key: value for key, value in index.items() if not isinstance(value, list)}
    return {**settings, **pipeline.components}


def preset_of(path: Path, header: Header) -> str:
    """Which family's preset a single file belongs to, by the names and shapes of its tensors.

    Raises BrokenWeights for a file that is not a whole base of a family known here.
    """
    names = header.tensors
    if f"{_UNET}joint_blocks.0.x_block.attn.qkv.weight" in names:
        return "sd3"
    if any(each.startswith("conditioner.embedders.1.") for each in names):
        return "sdxl"
    if any(each.startswith("cond_stage_model.model.") for each in names):
        return "sd21"
    if any(each.startswith("cond_stage_model.transformer.") for each in names):
        return "sd15"
    lora = any(".lora_" in each or each.startswith("lora_") for each in names)
    raise BrokenWeights(
        path,
        "it is an adapter, not a base" if lora else "it is not a whole base of a family known here",
        "Give it as an adapter."
        if lora
        else "Use a full checkpoint of SD 1, SD 2, SDXL or SD3, or a folder.",
    )


def _assembled(name: str, family: str | None, parts: Mapping[str, Any]) -> Any:
    """The backbone of these components, frozen. Raises UnknownName for a pipeline of another kind."""
    found = _KIND.fullmatch(str(parts.get("_class_name")))
    kind = found[1] if found else str(parts.get("_class_name"))
    if kind not in PIPELINES:
        raise UnknownName(
            "kind of pipeline", str(parts.get("_class_name")), [f"{each}Pipeline" for each in PIPELINES]
        )
    for each in parts.values():
        if isinstance(each, torch.nn.Module):
            each.eval().requires_grad_(False)
    vae = parts["vae"]
    if next(vae.parameters()).dtype == torch.float16 and getattr(vae.config, "force_upcast", False):
        vae.float()  # SDXL's overflows in half precision
    return PIPELINES[kind](name, family or family_of(kind, parts), parts)


def family_of(kind: str, parts: Mapping[str, Any]) -> str:
    """The family of a pipeline without a preset."""
    if kind != "StableDiffusion":
        return {"StableDiffusionXL": "sdxl", "StableDiffusion3": "sd3"}[kind]
    if type(parts["vae"]).__name__ == "AutoencoderTiny" and len(parts["tokenizer"]) < CLOSED:
        return "toybox"
    return "sd2" if parts["unet"].config.cross_attention_dim == 1024 else "sd1"


def _fitting(base: Any, place: Device) -> Policy:
    """Everything on the device where it fits with a third to spare, else one component at a time."""
    if place.where is None or place.where.type == "cpu":
        return "resident"
    modules = [base.net, base.vae, *base.texts.values()]
    size = sum(p.numel() * p.element_size() for each in modules for p in each.parameters())
    return "resident" if size * 1.5 < place.available() else "model"
