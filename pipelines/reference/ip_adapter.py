"""IP-Adapter (arXiv:2308.06721): pictures as a second prompt, through an attention of their own.

An image encoder (CLIP, with projection) reads the reference, a small projector turns it into N tokens, and
every cross-attention looks at them beside the words with the same query (`nets/decoupled`). Several pictures
give n·N tokens in one softmax, as published. Unguided branches get the tokens of *nothing* as in the
official code: the projected zero embedding (base), or what the encoder says of the mean colour (plus).
These are tokens too, and move the base: only scale 0 is the base itself.

Weights are the user's own to fetch: no image encoder of these files comes with this program, and none was
at hand where it is tested (there, encoders of the same class with random weights).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.errors import BadInput, BrokenWeights, NotAvailable
from pipelines.reference._base import Reference, Wanted
from pipelines.spec import knob

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pipelines.base.backbone import Backbone
    from pipelines.progress import Job
    from pipelines.reference.nets.decoupled import Tokens
    from pipelines.reference.nets.ip_adapter import Published

FOLDER = "weights/ip_adapter"
HUB = "huggingface.co/h94/IP-Adapter"
ENCODER = "models/image_encoder"
ENCODER_BYTES = 2_500_000_000
LICENCE = "Apache-2.0"
FILES = {
    ("sd1", "base"): ("models/ip-adapter_sd15.safetensors", 45_000_000),
    ("sd1", "plus"): ("models/ip-adapter-plus_sd15.safetensors", 98_000_000),
    ("sdxl", "base"): ("sdxl_models/ip-adapter_sdxl_vit-h.safetensors", 700_000_000),
    ("sdxl", "plus"): ("sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors", 850_000_000),
}
"""The published files by (family, variant), about how large; all of them read the one encoder in ENCODER."""


class IPAdapter(Reference):
    """Cost: N more keys at every cross-attention, no more network rows; the encoder runs once."""

    title = "IP-Adapter"
    source = "arXiv:2308.06721"
    needs = frozenset({"cross_attention"})

    scale: float = knob(
        0.6,
        0,
        1.5,
        "How strongly the reference speaks. Raise it when the likeness is weak, lower it when the words are "
        "ignored; 1 without words, 0 switches it off.",
    )
    variant: Literal["base", "plus"] = knob(
        "base", help="base: 4 tokens, the gist of the picture; plus: 16 tokens, its details."
    )
    spread: Literal["together", "one_each"] = knob(
        "together",
        help="together: every picture sees all references; one_each: picture i of a batch sees reference i.",
    )
    weights: str = knob(
        "", help="An IP-Adapter file; empty: the published one for the base.", expert=True, file=True
    )
    encoder: str = knob(
        "", help="The folder of its image encoder; empty: image_encoder beside the file.",
        expert=True, file=True,
    )  # fmt: skip

    def wants(self, family: str) -> tuple[Wanted, ...]:
        """Its own file and the image encoder, unless the settings name others."""
        wanted: list[Wanted] = []
        if not self.weights:
            name, size = self._published(family, f"bases of family {family}")
            wanted.append(_wanted("its weights", name, size))
        if not self.encoder:
            wanted.append(_wanted("its image encoder, OpenCLIP ViT-H/14", ENCODER, ENCODER_BYTES))
        return tuple(wanted)

    def _published(self, family: str, of: str) -> tuple[str, int]:
        known = FILES.get((family, self.variant))
        if known is None:
            raise NotAvailable(
                f"IP-Adapter for {of}",
                f"none was published for bases of family {family}",
                "Name a file made for it as reference.weights, or load a base of SD 1.5 or SDXL.",
            )
        return known

    def prepare(self, base: Backbone, images: Sequence[Image.Image], job: Job) -> IPAttachment:
        """Read the pictures, with the encoder in memory for no longer than that."""
        import torch

        from pipelines.reference.nets.ip_adapter import read

        self.check(base, images)
        file = self._file(base)
        folder = self._encoder(file)
        published = read(file)
        layers = published.at_sites(base)
        with torch.no_grad():
            tokens = self._tokens(base, published, folder, images, job)
        return IPAttachment(layers, tokens, self.scale)

    def _tokens(
        self, base: Backbone, published: Published, folder: Path, images: Sequence[Image.Image], job: Job
    ) -> Tokens:
        """The pictures as tokens [1, n·N, C] (or [n, N, C]), and those of nothing, of the same length."""
        import torch

        from pipelines.reference.nets.decoupled import Tokens

        encoder = _Encoder(folder, base)
        projector = published.projector.to(base.device, base.dtype)
        encoder.match(projector.reads, projector.hidden, published.path)
        found: list[Tensor] = []
        for each in images:
            job.check()
            found.append(projector(encoder(each, projector.hidden)))
        image, none = torch.cat(found), projector(encoder(None, projector.hidden))
        if self.spread == "together":
            image, none = image.flatten(0, 1)[None], none.repeat(1, len(images), 1)
        return Tokens(image, none)

    def _file(self, base: Backbone) -> Path:
        from pipelines.jobs import workspace

        if self.weights:
            return workspace.resolve(self.weights)
        wanted = _wanted("its weights", *self._published(base.family, base.name))
        if not wanted.where.is_file():
            raise _missing(wanted)
        return wanted.where

    def _encoder(self, file: Path) -> Path:
        from pipelines.jobs import workspace

        if self.encoder:
            return workspace.resolve(self.encoder)
        shared = workspace.root() / FOLDER / ENCODER
        # the one beside the published SDXL files is of another kind than these files read
        for folder in (file.parent / "image_encoder", shared) if self.weights else (shared,):
            if (folder / "config.json").is_file():
                return folder
        raise _missing(_wanted("its image encoder, OpenCLIP ViT-H/14,", ENCODER, ENCODER_BYTES))


@dataclass(frozen=True)
class IPAttachment:
    """Layers by site and tokens, for the base that they were prepared for."""

    layers: dict[str, tuple[Tensor, Tensor]]
    tokens: Tokens
    scale: float

    def open(self, base: Backbone) -> AbstractContextManager[None]:
        """Draw with it while open."""
        from pipelines.reference.nets.decoupled import decoupled

        return decoupled(base, self.layers, self.tokens, self.scale)


class _Encoder:
    """A CLIP image encoder with projection, from a folder in transformers' layout."""

    def __init__(self, folder: Path, base: Backbone) -> None:
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        from pipelines.artifacts import read_safetensors_header

        read_safetensors_header(folder / "model.safetensors")  # typed errors; and so never a pickle
        settings: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
        model: Any = CLIPVisionModelWithProjection
        try:
            net, about = model.from_pretrained(folder, output_loading_info=True, **settings)
        except (OSError, ValueError, RuntimeError) as error:
            raise BrokenWeights(folder, f"it is no CLIP image encoder with projection ({error})") from None
        if about["missing_keys"] or about.get("mismatched_keys"):
            raise BrokenWeights(folder, "weights of a CLIP image encoder with projection are missing from it")
        self.net: Any = net.to(base.device, base.dtype).eval().requires_grad_(False)
        size = int(net.config.image_size)
        self.reader: Any = (
            CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            if (folder / "preprocessor_config.json").is_file()
            else CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
        )
        self.folder, self.size, self.base = folder, size, base

    def match(self, reads: int, hidden: bool, file: Path) -> None:
        """Raises BadInput, naming both, where the file reads another encoder."""
        width = int(self.net.config.hidden_size if hidden else self.net.config.projection_dim)
        if width != reads:
            raise BadInput(
                f"{file.name} reads image states of width {reads}; the encoder {self.folder} gives {width}.",
                "Use the encoder it was trained with: ViT-H/14 (1024; plus: 1280) or ViT-bigG/14 (1280).",
            )

    def __call__(self, image: Image.Image | None, hidden: bool) -> Tensor:
        """A picture's embedding [1, E] or hidden states [1, S, H]; None stands for no picture."""
        import torch

        if image is None and not hidden:
            return torch.zeros(
                1, self.net.config.projection_dim, device=self.base.device, dtype=self.base.dtype
            )
        if image is None:
            pixels = torch.zeros(1, 3, self.size, self.size)  # after normalisation: the mean colour
        else:
            pixels = self.reader(image.convert("RGB"), return_tensors="pt").pixel_values
        pixels = pixels.to(self.base.device, self.base.dtype)
        if hidden:
            return self.net(pixels, output_hidden_states=True).hidden_states[-2]
        return self.net(pixels).image_embeds


def _wanted(what: str, name: str, size: int) -> Wanted:
    from pipelines.jobs import workspace

    return Wanted(what, name, size, LICENCE, HUB, workspace.root() / FOLDER / name)


def _missing(wanted: Wanted) -> NotAvailable:
    size = f"{wanted.bytes / 1e9:.1f} GB" if wanted.bytes >= 1e9 else f"{wanted.bytes / 1e6:.0f} MB"
    return NotAvailable(
        "IP-Adapter",
        f"{wanted.what} {wanted.file} ({size}) is not on this machine",
        f"Fetch it from {HUB} ({LICENCE}) and put it at {wanted.where}, or name your own copy in the "
        "settings.",
    )
