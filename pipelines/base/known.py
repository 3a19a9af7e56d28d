"""The bases known by name, what of them is on this machine, and the way from the Hub.

A preset is `presets/bases/NAME.toml`: title, family, where the weights are (`hub` or `asset`), bytes to
fetch, licence, gated, variant, and under `[defaults]` a partial job with the settings that suit it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.artifacts import assets, read_safetensors_header
from pipelines.errors import BadInput, BrokenWeights, LikenessError, MissingAsset, NotAvailable, UnknownName
from pipelines.progress import Job

COMPONENTS = (
    "unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer",
    "tokenizer_2", "tokenizer_3", "scheduler",
)  # fmt: skip
NEEDED = ("vae", "text_encoder", "tokenizer", "scheduler")
WEIGHTLESS = ("tokenizer", "scheduler")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_PLAIN = re.compile(r"[\w-]+\.safetensors")


@dataclass(frozen=True)
class BaseInfo:
    """A base model that has a preset; `bytes` is its size, `where` its folder once it is installed."""

    name: str
    title: str
    family: str
    licence: str
    bytes: int = 0
    hub: str = ""
    asset: str = ""
    gated: bool = False
    variant: str = ""
    dtype: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    where: Path | None = None

    @property
    def installed(self) -> bool:
        """Whether its files are on this machine."""
        return self.where is not None


def presets() -> Path:
    """The folder of base presets: the checkout's, or the installed package's copy."""
    package = Path(__file__).resolve().parents[1]
    checkout, installed = package.parent / "presets" / "bases", package / "_presets" / "bases"
    return checkout if checkout.is_dir() else installed


def bases() -> list[BaseInfo]:
    """Every base with a preset, the embedded one first. Raises BadInput for a preset that is no preset."""
    found = [_read(path) for path in sorted(presets().glob("*.toml"))]
    return sorted(found, key=lambda each: (not each.asset, each.bytes))


def known(name: str) -> BaseInfo | None:
    """The base of that name, or None."""
    return next((each for each in bases() if each.name == name), None)


def components(folder: Path) -> dict[str, tuple[str, str]]:
    """What `model_index.json` lists that a backbone needs: component → (library, class).

    Raises MissingAsset, and BrokenWeights where it is damaged.
    """
    index = read_json(folder / "model_index.json")
    listed = {key: index[key] for key in COMPONENTS if key in index}
    if not all(isinstance(each, list) and len(each) == 2 for each in listed.values()):
        raise BrokenWeights(folder / "model_index.json", "a component is not [library, class]")
    pairs = {key: (str(lib), str(cls)) for key, (lib, cls) in listed.items() if lib is not None}
    missing = [key for key in NEEDED if key not in pairs]
    if missing or not pairs.keys() & {"unet", "transformer"}:
        raise BrokenWeights(folder / "model_index.json", f"it lists no {(*missing, 'denoising network')[0]}")
    return pairs


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises MissingAsset, BrokenWeights."""
    if not path.is_file():
        raise MissingAsset(path, "Choose a folder in the diffusers layout, or fetch the model again.")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise BrokenWeights(path, "it is not JSON") from None
    if not isinstance(table, dict):
        raise BrokenWeights(path, "it is not a JSON object")
    return table


def weights(folder: Path, variant: str = "") -> tuple[list[Path], str]:
    """The checked safetensors files of one component, and the variant they are of ("" for none).

    Raises BrokenWeights for pickles and damaged files, MissingAsset where there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    plain = [each for each in files if _PLAIN.fullmatch(each.name)]
    varied = {each: _variant(each.name) for each in files if each not in plain}
    wanted = variant if variant in varied.values() and variant else ""
    if not wanted and not plain and varied:
        wanted = next(iter(varied.values()))
    chosen = [each for each, own in varied.items() if own == wanted] if wanted else plain
    for index in folder.glob("*.index*.json"):
        if ("." + wanted if wanted else "") in index.name.replace(".index", "").replace(".json", ""):
            chosen += _listed(index, wanted)
    if not chosen:
        pickled = [each for each in sorted(folder.glob("*")) if each.suffix in PICKLES]
        if pickled:
            raise BrokenWeights(
                pickled[0], "it is a pickled checkpoint, which could run code",
                "Take a version of the model in safetensors, or convert it elsewhere.",
            )  # fmt: skip
        raise MissingAsset(folder / "*.safetensors", "Fetch the model again; this part of it is not there.")
    chosen = list(dict.fromkeys(chosen))
    for each in chosen:
        read_safetensors_header(each)
    return chosen, wanted


def check(folder: Path, variant: str = "") -> None:
    """Whether a model folder is whole, by headers alone. Raises MissingAsset, BrokenWeights."""
    for key in components(folder):
        if not key.startswith(WEIGHTLESS):
            weights(folder / key, variant)
        elif not (folder / key).is_dir():
            raise MissingAsset(folder / key, "Fetch the model again; this part of it is not there.")


def cached(hub: str, variant: str = "") -> Path | None:
    """The folder of a Hub model that was fetched whole, or None."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(hub, "model_index.json")
    if not isinstance(index, str):
        return None
    try:
        check(Path(index).parent, variant)
    except LikenessError:
        return None
    return Path(index).parent


def fetch(hub: str, job: Job, variant: str = "", only_configs: bool = False) -> Path:
    """A Hub model's folder, fetched where it is not here yet; tells of bytes as they come, can be stopped.

    Raises NotAvailable without a network or without access, UnknownName for a model that does not exist.
    """
    from huggingface_hub import HfApi, get_session, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    # the Hub's client has changed its HTTP library before, and lets that library's errors through
    http: Any = import_module(type(get_session()).__module__.partition(".")[0])

    remedy = f"Go online and try again, or fetch it elsewhere with: hf download {hub}"
    try:
        listed = HfApi().model_info(hub, files_metadata=True).siblings or []
        sizes = {each.rfilename: each.size or 0 for each in listed}
        names = wanted(list(sizes), variant, only_configs)
        done, total = 0, sum(sizes[each] for each in names)
        job.note(f"Fetching {hub}: {total / 2**30:.1f} GiB.")
        for name in names:
            job.check()
            hf_hub_download(hub, name, tqdm_class=_meter(job, done, total, name))
            done += sizes[name]
            job.report(done, total, file=name)
        return Path(hf_hub_download(hub, "model_index.json", local_files_only=True)).parent
    except GatedRepoError:
        raise NotAvailable(
            hub, "its owner asks for an agreement first",
            f"Accept the licence at https://huggingface.co/{hub}, then sign in with: hf auth login",
        ) from None  # fmt: skip
    except RepositoryNotFoundError:
        raise UnknownName("model on the Hub", hub, [each.hub for each in bases() if each.hub]) from None
    except (HfHubHTTPError, http.HTTPError, OSError) as error:
        reason = f"it is not on this machine, and the Hub cannot be reached ({error})"
        raise NotAvailable(hub, reason, remedy) from None


def _meter(job: Job, done: int, total: int, name: str) -> Any:
    """A progress bar class for the Hub's client: tells a job instead of a terminal, and stops where it does.

    The client may draw two bars of one file (what came, and what was put together); the longer one counts.
    """
    from tqdm import tqdm

    plain: Any = tqdm
    most = 0

    class Meter(plain):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **{**named, "disable": True})

        def update(self, n: float | None = 1) -> None:
            nonlocal most
            job.check()
            self.n += n or 0
            if self.n > most:
                most = self.n
                job.report(done + int(most), total, file=name)

    return Meter


def wanted(names: list[str], variant: str, only_configs: bool = False) -> list[str]:
    """The files of a repository that a backbone needs: safetensors of one variant, and small text files."""
    chosen = [each for each in names if each == "model_index.json"]
    for part in COMPONENTS:
        own = [each for each in names if each.startswith(f"{part}/")]
        varied = [each for each in own if _variant(Path(each).name) == variant]
        plain = [each for each in own if _PLAIN.fullmatch(Path(each).name)]
        if not only_configs:
            chosen += varied if variant and varied else plain
        chosen += [each for each in own if Path(each).suffix in (".json", ".txt", ".model")]
    return chosen


def _variant(name: str) -> str:
    """ "model.fp16-00001-of-00002.safetensors" → "fp16"; "" for other names."""
    found = re.fullmatch(r"[\w-]+\.(\w+?)(?:-\d{5}-of-\d{5})?\.safetensors", name)
    return found[1] if found else ""


def _listed(index: Path, variant: str) -> list[Path]:
    """The files that an index of shards names, all of which have to be there."""
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict):
        raise BrokenWeights(index, "it lists no weights")
    names = sorted({str(each) for each in table.values()})
    if any(Path(each).name != each or not each.endswith(".safetensors") for each in names):
        return []  # the index of pickled shards, or names that lead out of the folder
    return [index.parent / each for each in names if _variant(each) == variant]


def _read(path: Path) -> BaseInfo:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        info = BaseInfo(path.stem, **table)
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise BadInput(f"{path} is no preset of a base: {error}.", "Correct it, or remove it.") from None
    if info.asset:
        where = assets() / info.asset
        found = where if (where / "model_index.json").is_file() else None
    else:
        found = cached(info.hub, info.variant)
    size = (
        sum(each.stat().st_size for each in _model_files(found)) if found and not info.bytes else info.bytes
    )
    return replace(info, where=found, bytes=size)


def _model_files(folder: Path) -> list[Path]:
    return [each for key in COMPONENTS for each in sorted((folder / key).glob("*.safetensors"))]
