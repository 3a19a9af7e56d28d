"""Where the weights of networks that look at pictures stand, and what to fetch where they do not.

Looked for in `<workspace>/weights/<name>/`, then in the Hugging Face cache, then on the Hub. Only safetensors
are read, and no code that comes with weights is run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.artifacts import assets
from pipelines.errors import NotAvailable
from pipelines.jobs import workspace

_ASK_AGAIN = 60.0  # seconds for which a Hub that did not answer is not asked again
_silent: dict[str, float] = {}


@dataclass(frozen=True)
class Weights:
    """A folder of weights: embedded (`asset`, below assets/), or of the Hub, with its size and licence."""

    name: str
    title: str
    hub: str = ""
    asset: str = ""
    size: str = ""
    licence: str = ""


def home(name: str) -> Path:
    """The folder in the workspace that weights of this name are put into."""
    return workspace.root() / "weights" / name


def find(weights: Weights) -> Path:
    """The local folder of these weights, downloaded to the Hugging Face cache if need be.

    Raises MissingAsset when an embedded one is gone, NotAvailable (what to fetch, how large, which licence)
    when the Hub cannot be reached.
    """
    if weights.asset:
        return assets() / weights.asset
    own = home(weights.name)
    if (own / "config.json").is_file():
        return own
    if time.monotonic() - _silent.get(weights.hub, -_ASK_AGAIN) < _ASK_AGAIN:
        raise missing(weights, "the Hub did not answer a moment ago")
    try:
        return _cached_or_fetched(weights.hub)
    except Exception as error:  # noqa: BLE001 - the Hub's client raises errors of several libraries
        _silent[weights.hub] = time.monotonic()
        raise missing(
            weights, f"it is not on this machine, and the Hub gave {type(error).__name__}"
        ) from None


def missing(weights: Weights, reason: str) -> NotAvailable:
    """The error for weights that are not there."""
    about = ", ".join(filter(None, (weights.size, weights.licence)))
    return NotAvailable(
        weights.title,
        reason,
        f"Where there is a network, fetch it ({about}): "
        f"hf download {weights.hub} --local-dir {home(weights.name)}",
    )


def _cached_or_fetched(hub: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    kept = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        folder = Path(snapshot_download(hub, allow_patterns=kept, local_files_only=True))
        if any(folder.glob("*.safetensors")):
            return folder
    except LocalEntryNotFoundError:
        pass
    # asked first, with a short patience: a download retries for minutes when there is no network
    HfApi().model_info(hub, timeout=5)
    return Path(snapshot_download(hub, allow_patterns=kept))
