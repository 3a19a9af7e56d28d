"""`likeness toybox build`: run one stage of the recipe, or all of them, and put the pipeline folder together.

A state folder holds, for each stage, its checkpoints, log and sample sheets (`unet/step-…`, `unet/log.jsonl`,
`unet/samples/`), beside the caches (`world/`, `latents/`) and what is finished (`export/NAME/`).

A stage starts, in this order, from its newest checkpoint (with --resume), from --init, from the committed
weights in assets/toybox, from nothing; `--init scratch` skips the committed ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import CLIPTextModel, PreTrainedModel

from pipelines.artifacts import assets, atomic_dir, cache_dir
from pipelines.concepts.checkpoint import checkpoints, locked
from pipelines.errors import BadInput, MissingAsset, UnknownName
from pipelines.jobs.spec import ToyboxBuild
from pipelines.progress import Job
from pipelines.toybox import cache, nets, tokenizer
from pipelines.toybox.stages import clip, dino, encoders, unet, vae, weak
from pipelines.toybox.stages import world as worlds
from pipelines.toybox.training import Plan, Stage, pick_device, train

ORDER = ("world", "vae", "clip", "dino", "unet", "weak")
SCRATCH = Path("scratch")


@dataclass(frozen=True)
class Kitchen:
    """What every stage is built with: the state folder, the device, the user's wishes."""

    spec: ToyboxBuild
    state: Path
    device: torch.device
    job: Job

    def exported(self, name: str) -> Path | None:
        """The finished part of this name: this state's own, else the committed one, else None."""
        own = self.state / "export" / name
        if own.is_dir():
            return own
        return self.committed(name)

    def committed(self, name: str) -> Path | None:
        """The folder of a part in assets/toybox, if it is there."""
        try:
            folder = assets() / "toybox" / name
        except MissingAsset:
            return None
        return folder if folder.is_dir() else None

    def needed(self, name: str, stage: str) -> Path:
        """The finished part of this name. Raises MissingAsset saying which stage makes it."""
        found = self.exported(name)
        if found is None:
            remedy = f"Build it first: likeness toybox build --stage {stage} --state {self.state}"
            raise MissingAsset(self.state / "export" / name, remedy)
        return found

    def start(self, name: str) -> Path | None:
        """What a new training of this part starts from, or None for nothing."""
        if self.spec.init is not None:
            return None if self.spec.init == SCRATCH else self.spec.init
        return self.committed(name)

    def resuming(self, name: str) -> bool:
        """Whether a checkpoint of this stage will replace whatever it starts from."""
        return self.spec.resume and bool(checkpoints(self.state / name))

    def plan(self, plan: Plan) -> Plan:
        """A stage's plan with the user's seed and views."""
        plan = replace(plan, seed=plan.seed + self.spec.seed)
        return plan if self.spec.views is None else replace(plan, views=self.spec.views)


def build(spec: ToyboxBuild, job: Job) -> dict[str, Any]:
    """Run the stages that `spec` names; → figures of each, and the folder that `out` names.

    Raises UnknownName for an unknown stage, and what `train` raises.
    """
    if spec.stage not in (*ORDER, "all"):
        raise UnknownName("stage", spec.stage, (*ORDER, "all"))
    if spec.stage == "all" and spec.init is not None and spec.init != SCRATCH:
        raise BadInput("--init names the weights of one stage.", "Name that stage with --stage.")
    state = spec.state if spec.state is not None else cache_dir() / "toybox"
    kitchen = Kitchen(spec, state, pick_device(spec.device), job)
    names = ORDER if spec.stage == "all" else (spec.stage,)
    figures: dict[str, Any] = {}
    for name in names:
        job.note(f"Stage {name}, in {state}.")
        figures[name] = _run(name, kitchen)
    result: dict[str, Any] = {
        "state": str(state),
        **(figures if spec.stage == "all" else figures[spec.stage]),
    }
    if spec.out is not None:
        result["out"] = str(assemble(kitchen, spec.out))
    return result


def _run(name: str, kitchen: Kitchen) -> dict[str, Any]:
    if name == "world":
        spec = kitchen.spec
        views = spec.views if spec.views is not None and spec.stage == "world" else worlds.VIEWS
        with locked(kitchen.state / "world"):
            return worlds.build_world(kitchen.state, views, kitchen.job)
    stage, plan = MAKERS[name](kitchen)
    return train(
        stage,
        plan,
        kitchen.state / name,
        kitchen.device,
        kitchen.job,
        export=kitchen.state / "export" / name,
        minutes=kitchen.spec.minutes,
        resume=kitchen.spec.resume,
    )


# ---- how each stage is made


def _vae(kitchen: Kitchen) -> tuple[Stage, Plan]:
    data = worlds.World(kitchen.state)
    plan = kitchen.plan(vae.PLANS[kitchen.device.type])
    alone = kitchen.spec.decoder_only
    begin = kitchen.needed("vae", "vae") if alone and kitchen.spec.init is None else kitchen.start("vae")
    # alone, the decoder keeps the code's scale, which stands in the config of what it began with
    init = begin if alone or not kitchen.resuming("vae") else None
    net = vae.start(init, kitchen.spec.channels, data, plan.seed)
    return vae.VaeStage(net, data, plan, kitchen.device, decoder_only=alone), plan


def _clip(kitchen: Kitchen) -> tuple[Stage, Plan]:
    plan = kitchen.plan(clip.PLANS[kitchen.device.type])
    stage = clip.ClipStage(kitchen.state, plan.seed, kitchen.device, plan.batch)
    return _begun(kitchen, "clip", stage), plan


def _dino(kitchen: Kitchen) -> tuple[Stage, Plan]:
    plan = kitchen.plan(dino.PLANS[kitchen.device.type])
    if kitchen.start("dino") is not None:
        plan = dino.going_on(plan)
    stage = dino.DinoStage(kitchen.state, plan.seed, kitchen.device, plan.batch)
    _begun(kitchen, "dino", stage)
    if not kitchen.resuming("dino") and (opened := stage.sharpen()):
        kitchen.job.note(f"The stem was blind on {opened} of its {dino.WIDTH} axes; they are opened.")
    return stage, plan


def _begun(kitchen: Kitchen, name: str, stage: Stage) -> Stage:
    """The stage with its one module filled from where it starts."""
    start = kitchen.start(name)
    if start is not None and not kitchen.resuming(name):
        folder = start if start.is_dir() else start.parent
        encoders.load_model(cast("PreTrainedModel", stage.modules[name]), folder)
    return stage


def _data(kitchen: Kitchen) -> tuple[unet.Data, Path]:
    """The latents of the world, encoded now where they are not, and the autoencoder that they belong to."""
    folder = kitchen.needed("vae", "vae")
    world = worlds.World(kitchen.state)
    with locked(kitchen.state / "world"):  # not while its rows are drawn or encoded by another process
        latents = cache.build_latents(kitchen.state, folder, kitchen.device, kitchen.job)
        focus = cache.build_focus(kitchen.state, kitchen.job)
    rows = len(world)
    return unet.Data.load(
        kitchen.device, cache.load(latents, rows), world.truth(), cache.load(focus, rows)
    ), folder


def _same_code(kitchen: Kitchen, folder: Path) -> bool:
    """Whether the committed nets were trained on the latents of this autoencoder."""
    committed = kitchen.committed("vae")
    return committed is not None and cache.code_key(committed) == cache.code_key(folder)


def _unet(kitchen: Kitchen) -> tuple[Stage, Plan]:
    data, vae_folder = _data(kitchen)
    plan = kitchen.plan(unet.PLANS[kitchen.device.type])
    channels = data.latents.shape[1]
    net, text = nets.seeded(lambda: (nets.unet(channels), nets.text_encoder()), plan.seed)
    init = kitchen.start("unet")
    if kitchen.spec.init is None and not _same_code(kitchen, vae_folder):
        init = None
    if init is not None:
        plan = unet.going_on(plan)
    towers = kitchen.exported("clip")
    if kitchen.resuming("unet"):
        pass
    elif init is not None:
        _load_base(net, text, init)
    elif towers is not None:
        text = clip.text_tower(towers)
        kitchen.job.note(f"The text encoder starts from {towers}.")
    decoder = nets.load_vae(vae_folder).to(kitchen.device)  # pyright: ignore[reportArgumentType]
    return unet.UNetStage(net, text, data, plan, kitchen.device, vae=decoder), plan


def _load_base(net: torch.nn.Module, text: CLIPTextModel, init: Path) -> None:
    """Start from `init`, a UNet's file or folder, and the text encoder inside or beside it if any."""
    nets.load_into(net, init / "unet" if (init / "unet").is_dir() else init)
    for folder in (init / "text_encoder", init.parent / "text_encoder"):
        if folder.is_dir():
            encoders.load_model(text, folder)
            return


def _weak(kitchen: Kitchen) -> tuple[Stage, Plan]:
    data, vae_folder = _data(kitchen)
    plan = kitchen.plan(weak.PLANS[kitchen.device.type])
    folder = _of_base(kitchen, "text_encoder")
    text = nets.text_encoder()
    encoders.load_model(text, folder)
    net = nets.seeded(lambda: nets.weak_unet(data.latents.shape[1]), plan.seed)
    init = kitchen.start("weak")
    if kitchen.spec.init is None and not _same_code(kitchen, vae_folder):
        init = None
    if init is not None and not kitchen.resuming("weak"):
        nets.load_into(net, init)
    return weak.WeakStage(net, text, data, plan, kitchen.device, frozen_text=True), plan


MAKERS: dict[str, Callable[[Kitchen], tuple[Stage, Plan]]] = {
    "vae": _vae,
    "clip": _clip,
    "dino": _dino,
    "unet": _unet,
    "weak": _weak,
}


# ---- the folder


def assemble(kitchen: Kitchen, out: Path) -> Path:
    """Write the pipeline folder: this state's parts, and for those it lacks the committed ones. Atomic."""
    parts = {"vae": kitchen.needed("vae", "vae")}
    parts |= {name: _of_base(kitchen, name) for name in ("unet", "text_encoder")}
    for name in ("clip", "dino", "weak"):
        if (found := kitchen.exported(name)) is not None:
            parts[name] = found
    texts = {"README.md": CARD.encode(), "LICENSE": LICENCE.encode()}
    # a contact sheet, figures or an edited card that stand there stay
    kept = (path for path in out.glob("*") if path.suffix in (".md", ".png", ".txt"))
    texts |= {path.name: path.read_bytes() for path in kept}
    with atomic_dir(out) as folder:
        for name, source in parts.items():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("complete"))
        tokenizer.save(folder / "tokenizer")
        nets.export_pipeline(folder)
        for name, data in texts.items():
            (folder / name).write_bytes(data)
    (out / "complete").unlink(missing_ok=True)  # the folder is tracked; the marker has done its work
    return out


def _of_base(kitchen: Kitchen, name: str) -> Path:
    """The "unet" or "text_encoder" that the unet stage of this state made, or the committed one."""
    own = kitchen.state / "export" / "unet" / name
    if own.is_dir():
        return own
    committed = kitchen.committed(name)
    if committed is None:
        raise MissingAsset(own, f"Build it first: likeness toybox build --stage unet --state {kitchen.state}")
    return committed


CARD = """\
# Toybox

The embedded base model of Likeness Studio: a small, real text-to-image latent diffusion model of a drawn
world, made by `likeness toybox build` and measured by `likeness toybox judge`.
`StableDiffusionPipeline.from_pretrained` loads this folder unchanged.

| folder | what | class |
| --- | --- | --- |
| unet | the base, 8.9M parameters, ε-prediction at 16×16 latents | UNet2DConditionModel |
| text_encoder | 4 layers of 128 | CLIPTextModel |
| tokenizer | a vocabulary of its own, 48 tokens at most | CLIPTokenizer |
| vae | f = 8; carries the drawn world and photographs | AutoencoderTiny |
| scheduler | scaled linear, 1000 steps, β from 0.00085 to 0.018 | DDIMScheduler |
| clip | toybox-clip, trained contrastively on the drawn world | CLIPModel |
| dino | toybox-dino, tells identities apart | Dinov2Model |
| weak | a weaker sibling of the base, for AutoGuidance | UNet2DConditionModel |

Weights are float16 files that load as float32. All were trained by this project on pictures that its own
program draws, and on crops of the photographs in `assets/photos` (DreamBooth dataset, CC BY 4.0; credits
there).

The autoencoder started from the TAEF2 autoencoder of [taesd](https://github.com/madebyollin/taesd) by Ollin
Boer Bohan, MIT License; its pooled normalisations were dropped and its code narrowed before training went on.
See LICENSE.
"""

LICENCE = """\
The weights in this folder are licensed under the Apache License, Version 2.0
(http://www.apache.org/licenses/LICENSE-2.0), like the program that made them.

The autoencoder in vae/ is derived from taesd (https://github.com/madebyollin/taesd), whose licence follows.

MIT License

Copyright (c) 2023 Ollin Boer Bohan

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
