"""Pictures that say how they were made: our job, and the text that other programs read and write.

The text is A1111's: the prompt, a line "Negative prompt: …", and a last line of "Name: value" pairs, at
least three of them. What comes from foreign pictures is text to judge: it is read as data, never more than
256 KiB of it, and what we cannot use is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipelines.artifacts import PNG_LIMIT, read_png_spec, read_png_text, write_png
from pipelines.errors import BadInput
from pipelines.jobs.references import hashed, split
from pipelines.jobs.spec import from_table

if TYPE_CHECKING:
    from PIL.Image import Image

NEGATIVE = "Negative prompt:"
SAMPLERS = {
    "ddim": "DDIM",
    "euler": "Euler",
    "dpmpp_2m": "DPM++ 2M",
    "unipc": "UniPC",
    "lcm": "LCM",
}
"""The samplers of this program, and what other programs call them."""
_PAIR = re.compile(r'\s*(\w[\w \-/]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_LORA = re.compile(r"<lora:([^:<>]+)(?::([-+\d.]+))?[^<>]*>")
_SCHEDULES = re.compile(r" (karras|exponential|simple|automatic|a)$", re.IGNORECASE)


@dataclass(frozen=True)
class Foreign:
    """What a picture of another program says: a partial drawing, and the names of what we cannot use."""

    table: dict[str, Any]
    ignored: tuple[str, ...]


def save(
    path: Path | str, image: Image, spec: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> Path:
    """Write a PNG that carries `spec` (a shareable job of this one picture) and its A1111 text.

    `extra` are further pairs of that text, such as {"Model hash": …}. Raises BadInput when the job is larger
    than 256 KiB, DiskFull when the disk is.
    """
    about = {"Size": f"{image.width}x{image.height}", **(extra or {})}
    return write_png(path, image, spec, parameters_text(spec, about))


def parameters_text(spec: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> str:
    """A drawing's table as A1111's text. `extra` pairs replace ours of the same name."""
    prompts = cast("list[str]", spec.get("prompts") or [""])
    stack = [(_stem(each["adapter"]), float(each.get("weight", 1))) for each in spec.get("adapters") or ()]
    loras = "".join(f" <lora:{name}:{weight:g}>" for name, weight in stack)
    lines = [prompts[0] + loras]
    if spec.get("negative"):
        lines.append(f"{NEGATIVE} {spec['negative']}")
    pairs = {**_pairs(spec), **(extra or {}), "Version": f"likeness {_version()}"}
    lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in pairs.items()))
    return "\n".join(lines)


def read_parameters(text: str) -> Foreign:
    """A1111's text as a partial drawing. Raises BadInput for a text beyond 256 KiB or with bad numbers."""
    if len(text.encode()) > PNG_LIMIT:
        raise BadInput("The picture carries settings that are too large.", "Choose another picture.")
    *lines, last = text.strip().split("\n")
    pairs = {name.strip(): _unquoted(value.strip()) for name, value in _PAIR.findall(last)}
    if len(pairs) < 3:
        lines, pairs = [*lines, last], {}
    prompt, negative = _texts(lines)
    table, used = _table(pairs)
    table["adapters"] = [
        {"adapter": name, "weight": _number("lora", weight or "1")} for name, weight in _LORA.findall(prompt)
    ]
    table["prompts"] = [_LORA.sub("", prompt).strip()]
    table["negative"] = negative
    return Foreign(table, tuple(sorted(pairs.keys() - used)))


def like(path: Path | str) -> Foreign:
    """What a picture says of how it was made: our job whole, or another program's text as far as it goes.

    Raises MissingAsset without a file, BadInput where the picture says nothing, or nothing readable.
    """
    table = read_png_spec(path)
    if table is not None:
        return Foreign(from_table(table).portable(), ())
    text = read_png_text(path, "parameters")
    if text is None:
        raise BadInput(
            f"{path} does not say how it was made.",
            "Choose a PNG that this program, A1111 or a like one wrote.",
        )
    return read_parameters(text)


def _pairs(spec: Mapping[str, Any]) -> dict[str, Any]:
    sampler = cast("Mapping[str, Any]", spec.get("sampler") or {})
    guidance = cast("Mapping[str, Any]", spec.get("guidance") or {})
    pairs: dict[str, Any] = {}
    if sampler:
        pairs["Steps"] = sampler.get("steps")
        pairs["Sampler"] = SAMPLERS.get(str(sampler.get("name")), sampler.get("name"))
    if "scale" in guidance:
        pairs["CFG scale"] = guidance["scale"]
    pairs["Seed"] = spec.get("seed", 0)
    if spec.get("width") and spec.get("height"):
        pairs["Size"] = f"{spec['width']}x{spec['height']}"
    pairs["Model"] = _stem(str(spec.get("base", "")))
    if spec.get("start"):
        pairs["Denoising strength"] = spec.get("strength")
    if guidance.get("method") not in (None, "cfg"):
        pairs["Guidance"] = guidance["method"]
    found = [(each["adapter"], hashed(str(each["adapter"]))) for each in spec.get("adapters") or ()]
    hashes = ", ".join(f"{_stem(str(name))}: {about[1][:12]}" for name, about in found if about)
    if hashes:
        pairs["Lora hashes"] = hashes
    return {name: value for name, value in pairs.items() if value not in (None, "")}


def _table(pairs: Mapping[str, str]) -> tuple[dict[str, Any], set[str]]:
    """The pairs that mean something here as a partial drawing, and which those were."""
    table: dict[str, Any] = {}
    # whose model a foreign name means is not ours to guess: the base stays the user's choice
    used = {"Version", "Model"} if pairs.get("Version", "").startswith("likeness") else {"Version"}
    for name, path in (("Steps", "steps"), ("Seed", "seed")):
        if name in pairs:
            value = int(_number(name, pairs[name]))
            used.add(name)
            if path == "steps":
                table["sampler"] = {"steps": value}
            else:
                table["seed"] = value
    if "CFG scale" in pairs:
        used.add("CFG scale")
        table["guidance"] = {"method": "cfg", "scale": _number("CFG scale", pairs["CFG scale"])}
    if "Denoising strength" in pairs:
        used.add("Denoising strength")
        table["strength"] = _number("Denoising strength", pairs["Denoising strength"])
    if size := re.fullmatch(r"(\d{1,5})x(\d{1,5})", pairs.get("Size", "")):
        used.add("Size")
        table |= {"width": int(size[1]), "height": int(size[2])}
    known = {shown.casefold(): name for name, shown in SAMPLERS.items()}
    sampler = _SCHEDULES.sub("", pairs.get("Sampler", "")).casefold()
    if sampler in known:
        used.add("Sampler")
        table["sampler"] = {**table.get("sampler", {}), "name": known[sampler]}
    return table, used


def _texts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt, which may both run over several lines."""
    for index, line in enumerate(lines):
        if line.startswith(NEGATIVE):
            rest = [line.removeprefix(NEGATIVE).lstrip(), *lines[index + 1 :]]
            return "\n".join(lines[:index]), "\n".join(rest).strip()
    return "\n".join(lines), ""


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 2**63:
        raise BadInput(f'The picture says "{text[:40]}" for {name}.', "Choose another picture.")
    return int(value) if value == int(value) and "." not in text and "e" not in text.lower() else value


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n\"]", value) else value


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except (ValueError, RecursionError):
        return value


def _stem(reference: str) -> str:
    """How a reference is called in a prompt: the last part of its name, without the ending."""
    about = hashed(reference)
    name = about[0] if about else split(reference)[1]
    leaf = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return re.sub(r"\.(safetensors|png)$|[<>:]", "", leaf)


def _version() -> str:
    try:
        return version("likeness-studio")
    except PackageNotFoundError:
        return "(not installed)"
