"""`likeness methods`, `bases`, `check`, `info`, `merge`, `jobs`: what is there, and what a file holds."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.artifacts import read_png_spec, read_png_text
from pipelines.errors import BadInput, MissingAsset, NotAvailable, UnknownName
from pipelines.jobs import workspace
from pipelines.jobs.kinds import Check
from pipelines.jobs.queries import Bases, Info, Jobs, Merge, Methods
from pipelines.jobs.references import PICTURES
from pipelines.jobs.store import FILE, Row, Store
from pipelines.progress import Job
from pipelines.reference._base import Reference
from pipelines.spec import Config, catalog, limits, read

FAMILIES = ("concepts", "guidance", "editing", "reference", "metrics", "adapters.merge")


def methods(spec: Methods, job: Job) -> dict[str, Any]:
    """Every method with title and source; of one family every setting too. Broken ones are named."""
    if spec.family and spec.family not in FAMILIES:
        raise UnknownName("family", spec.family, FAMILIES)
    rows: list[dict[str, Any]] = []
    broken: dict[str, str] = {}
    for family in (spec.family,) if spec.family else FAMILIES:
        for name, method in catalog(family, broken).items():
            row: dict[str, Any] = {"family": family, "method": name, "title": method.title}
            rows.append(row | {"source": method.source, "needs": sorted(method.needs)})
    result: dict[str, Any] = {"rows": rows}
    if spec.family:
        result["settings"] = [
            each for name, method in catalog(spec.family, {}).items() for each in settings(name, method)
        ]
    if spec.family and spec.base:
        result |= published(spec)
    if broken:
        result["broken"] = [{"method": name, "reason": reason} for name, reason in sorted(broken.items())]
    return result


def published(spec: Methods) -> dict[str, Any]:
    """Under "files" what the methods of a family draw with on a base and everybody fetches themselves, and
    whether it is here; under "refused" the methods that have nothing for such a base.
    """
    from pipelines.base.known import known

    base = known(spec.base)
    if base is None:  # a folder or file of one's own tells its family when it is opened
        return {}
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    tables = [spec.settings] if spec.settings else [{"method": name} for name in catalog(spec.family, {})]
    for table in tables:
        method = read(spec.family, table)
        if not isinstance(method, Reference):
            continue
        name = str(table["method"])
        try:
            rows += [
                {"method": name, **asdict(each), "where": str(each.where), "here": each.here}
                for each in method.wants(base.family)
            ]
        except NotAvailable as error:
            refused.append({"method": name, "reason": error.message, "remedy": error.remedy})
    return {"files": rows} | ({"refused": refused} if refused else {})


def settings(name: str, method: type[Config]) -> list[dict[str, Any]]:
    """The settings of a method as its config tells them: name, default, range, unit, help."""
    rows: list[dict[str, Any]] = []
    for key, field in method.model_fields.items():
        low, high = limits(field.metadata)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = field.get_default(call_default_factory=True)
        rows.append(
            {
                "method": name,
                "setting": key,
                "default": list(default) if isinstance(default, tuple) else default,
                "range": "" if low is None and high is None else f"{_end(low)} to {_end(high)}",
                "unit": extra.get("unit", ""),
                "help": field.description or "",
            }
        )
    return rows


def bases(spec: Bases, job: Job) -> dict[str, Any]:
    """The bases that have a preset, and which of them are on this machine."""
    from pipelines.base.known import bases as known

    rows = [
        {
            "base": each.name,
            "title": each.title,
            "family": each.family,
            "licence": each.licence,
            "gigabytes": round(each.bytes / 1e9, 2),
            "hub": each.hub or "(embedded)",
            "gated": each.gated,
            "installed": each.installed,
        }
        for each in known()
    ]
    return {
        "rows": rows,
        "note": "Any local folder, safetensors file or Hub id can stand for a base as well.",
    }


def info(spec: Info, job: Job) -> dict[str, Any]:
    """What a picture, an adapter, a run or a base says of itself. Raises BadInput for anything else."""
    path = workspace.resolve(spec.file)
    if spec.as_base or (path / "model_index.json").is_file():
        from pipelines.worker.library import base_at

        return base_at(path)
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() == ".png":
        table, text = read_png_spec(path), read_png_text(path, "parameters")
        if table is None and text is None:
            raise BadInput(
                f"{path} does not say how it was made.", "Choose a picture that carries its settings."
            )
        return {"path": str(path), "parameters": text, "job": table}
    if path.suffix.lower() == ".safetensors":
        from pipelines.adapters.card import describe

        return describe(path)
    if path.suffix.lower() in PICTURES:
        raise BadInput(f"{path} is no PNG.", "Only PNGs carry their settings here; choose the original.")
    raise BadInput(
        f"{path} is nothing that says what it is.", "Choose a PNG, a safetensors file or a run folder."
    )


def check(spec: Check, job: Job) -> dict[str, Any]:
    """A verdict on every photo and on the set, with reasons; "unusable" is a result, not an error.

    Photos with a text file beside them tell their caption, and what is wrong with it.
    """
    from pipelines.data import captions, photos

    paths = photos.list_photos(workspace.resolve(spec.photos))
    report = photos.check(paths, spec.size, job, spec.crops, spec.out).as_dict()
    texts: list[str] = []
    for path, row in zip(paths, report["photos"], strict=True):
        if text := captions.beside(path):
            text = captions.named(text, spec.token, spec.class_word)
            row |= {"caption": text, "caption_warnings": captions.lint(text, spec.token, spec.class_word)}
            texts.append(text)
    if texts:
        report["caption_warnings"] = captions.lint_all(texts, spec.token, spec.class_word)
    return report


def merge(spec: Merge, job: Job) -> dict[str, Any]:
    """Write one adapter that stands for the weighted sum of several, as its method does it."""
    from pipelines.adapters import formats
    from pipelines.adapters.card import describe
    from pipelines.base.loading import open_base

    if not spec.adapters:
        raise BadInput(
            "There is nothing to merge.", "Name adapters: likeness merge a.safetensors:0.7 b.safetensors."
        )
    method: Any = read("adapters.merge", spec.merge)
    base = open_base(spec.base, "cpu", job) if spec.base else None
    adapters = []
    for index, each in enumerate(spec.adapters):
        job.check()
        adapters.append(formats.load(workspace.resolve(each.adapter, want="adapter"), base))
        job.report(index + 1, len(spec.adapters))
    merged = method.merge(adapters, [each.weight for each in spec.adapters], base)
    names = " ".join(each.name for each in adapters)
    path = spec.out or workspace.new_run("merge", names) / "adapter.safetensors"
    if path.suffix != ".safetensors":
        path = path / "adapter.safetensors"
    formats.save(path, merged)
    about = describe(path)
    kept = ("family", "rank", "parameters", "bytes", "words", "sha256")
    return {"out": str(path.parent), "adapter": str(path), **{name: about[name] for name in kept}}


def jobs(spec: Jobs, job: Job) -> dict[str, Any]:
    """The newest jobs of the workspace, or one of them stopped. `resume` is the caller's to do."""
    path = workspace.root() / FILE
    if not path.is_file():
        if spec.action != "list":
            raise MissingAsset(path, "There are no jobs in this workspace; choose another with --workspace.")
        return {"rows": [], "workspace": str(workspace.root())}
    store = Store(path)
    try:
        if spec.action == "list":
            gone = {each.id for each in store.orphans()}
            rows = [_listed(each, gone) for each in store.jobs(spec.limit)]
            return {"rows": rows, "workspace": str(workspace.root())}
        if spec.id is None:
            raise BadInput(f"There is no job to {spec.action}.", f"Say which: likeness jobs {spec.action} 3.")
        if spec.action == "resume":
            raise BadInput(
                "A job cannot take up another.", f"On the command line: likeness jobs resume {spec.id}."
            )
        status = store.cancel(spec.id)
        word = "will stop at its next step" if status == "running" else f"is {status}"
        return {"id": spec.id, "status": status, "note": f"Job {spec.id} {word}."}
    finally:
        store.close()


def _listed(row: Row, gone: set[int]) -> dict[str, Any]:
    where = (row.result or {}).get("out") or row.run
    return {
        "id": row.id,
        "kind": row.spec.kind,
        "status": "interrupted" if row.id in gone else row.status,
        "step": f"{row.step}/{row.total}" if row.total else "",
        "base": row.base,
        "device": row.device,
        "begun": datetime.fromtimestamp(row.created).astimezone().isoformat(timespec="seconds"),
        "run": str(where) if where else "",
        "error": (row.error or {}).get("message", ""),
    }


def _folder(path: Path) -> dict[str, Any]:
    """A run folder: its description, and that of the adapter in it, where there is one."""
    if not (path / "run.json").is_file():
        return info(Info(file=str(workspace.resolve(str(path), want="adapter"))), Job())
    table = workspace.read_run(path)
    result = {
        "path": str(path),
        "status": table.get("status"),
        **({"note": table["note"]} if table.get("note") else {}),
        "readings": table.get("readings"),
        "job": table.get("spec"),
    }
    adapter = path / "adapter.safetensors"
    if adapter.is_file():
        from pipelines.adapters.card import describe

        result["adapter"] = describe(adapter)
    return result


def _end(value: float | None) -> str:
    return "…" if value is None else f"{value:g}"
