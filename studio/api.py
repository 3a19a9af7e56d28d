"""The same jobs for programs: endpoints with stable names, for gradio_client and plain HTTP.

`train`, `compose`, `edit`, `identity`, `compare`, `score` and `check` take a job as a table of settings;
`upload` takes pictures, `status` and `cancel` a job's number. Every answer is one object: {"ok": true, …} or
{"ok": false, "error": {"type", "message", "remedy"}}. Nothing else of the page is public.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import gradio as gr
from anyio import CapacityLimiter
from gradio.events import api

from pipelines.errors import BadInput, UnknownName
from pipelines.jobs import presets
from pipelines.jobs.spec import KINDS, JobSpec
from studio.api_words import Answer, failure, seen, told
from studio.desk import Desk

if TYPE_CHECKING:
    from studio.page import Page

EVERY = 0.2
DEEPEST, MOST_VALUES, MOST_TEXT = 12, 5_000, 256 * 1024
ENDED = frozenset({"done", "failed", "cancelled", "interrupted"})
ABOUT = {
    "train": "Teach a base a subject from photos. Streams progress; ends with the adapter and its curve.",
    "compose": "Draw pictures, with any stack of concepts. Ends with the pictures and their readouts.",
    "edit": "Change a picture by words. Ends with the pictures and their readouts.",
    "identity": "Draw a subject after reference pictures, without training. Ends with the pictures.",
    "compare": "Draw a grid over one to three settings. Ends with the grid and a row for every cell.",
    "score": "Measure pictures: obedience to a prompt, likeness to references.",
}
_CHECK = "Look at photos before training: a verdict and a reason each. Answers at once, whatever runs."
_UPLOAD = "Bring pictures, or a zip of them, into the workspace; answers with the reference to name them by."
_STATUS = "What a job is doing, or what came of it."
_CANCEL = "Stop a job, queued or running."


def build(page: Page) -> None:
    """The endpoints. Whoever waits for a job holds no thread: jobs have a queue of their own."""
    free: dict[str, Any] = {"concurrency_limit": None}
    threads = CapacityLimiter(8)
    for name, about in ABOUT.items():
        api(_endpoint(page, name, threads), api_name=name, api_description=about, **free)
    api(_check(page, threads), api_name="check", api_description=_CHECK, **free)
    api(_upload(page, threads), api_name="upload", api_description=_UPLOAD, **free)
    api(_asked(page, threads, status), api_name="status", api_description=_STATUS, **free)
    api(_asked(page, threads, cancel), api_name="cancel", api_description=_CANCEL, **free)


def job_of(desk: Desk, name: str, table: Any) -> JobSpec:
    """The job that an endpoint's table describes, over the settings that suit its base.

    Raises BadInput or UnknownName.
    """
    given = _bounded(table)
    kind = "compose" if name == "identity" else name
    said = given.pop("kind", kind)
    if said not in (kind, name):
        raise BadInput(f'"{name}" does not take a job of kind "{said}".', 'Leave "kind" out.')
    if kind == "compare" and isinstance(inner := given.get("job"), dict):
        of = str(inner.get("kind", "compose"))
        if of not in ("compose", "edit"):
            raise BadInput(f'A grid cannot vary a "{of}" job.', "Use a compose or an edit job.")
        given["job"] = _built(desk, of, inner).portable()
    spec = _built(desk, kind, given)
    reference: Any = getattr(spec, "reference", None)
    if name == "identity" and not (reference or {}).get("images"):
        raise BadInput(
            "There is no reference picture.",
            'Name one: {"reference": {"method": …, "images": ["upload:NAME"]}}.',
        )
    return spec


def status(desk: Desk, job: int) -> Answer:
    """What a job is doing now. Raises UnknownName."""
    return seen(desk, desk.store.get(job))


def cancel(desk: Desk, job: int) -> Answer:
    """Stop a job; → what it is doing now, which may go on for a step. Raises UnknownName."""
    desk.cancel(job)
    return status(desk, job)


def files_of(given: Any) -> list[Path]:
    """The uploaded files among an endpoint's arguments. Raises BadInput for any path but of an upload."""
    from gradio.utils import get_upload_folder

    home = Path(get_upload_folder()).resolve()
    found: list[Path] = []
    for each in given if isinstance(given, list) else [given]:
        name = each.get("path") if isinstance(each, dict) else getattr(each, "path", None)
        path = Path(name) if isinstance(name, str) and name and "\0" not in name else None
        if path is None or not path.resolve().is_relative_to(home) or not path.is_file():
            raise BadInput(
                "Only uploaded files are taken.",
                "With gradio_client write handle_file(PATH); over HTTP send it to /gradio_api/upload first.",
            )
        found.append(path)
    if not found:
        raise BadInput("There is no file.", "Give one or more pictures, or a zip of them.")
    return found


def _endpoint(page: Page, name: str, threads: CapacityLimiter) -> Callable[..., AsyncIterator[Answer]]:
    """An endpoint that queues a job, tells how it goes on, and ends with what came of it."""

    async def endpoint(
        job: dict[str, Any], request: gr.Request, wait: bool = True
    ) -> AsyncIterator[dict[str, Any]]:
        here = partial(anyio.to_thread.run_sync, limiter=threads)
        try:
            desk = await here(lambda: page.desk(request))
            ident = await here(lambda: desk.submit(job_of(desk, name, job)))
            last: Answer = {}
            while last.get("state") not in ENDED:
                now = await here(lambda: status(desk, ident))
                if now != last:
                    last = now
                    yield now
                if not wait:
                    return
                await asyncio.sleep(EVERY)
        except Exception as error:  # noqa: BLE001 -- told as data
            yield failure(error)

    return endpoint


def _check(page: Page, threads: CapacityLimiter) -> Callable[..., Any]:
    async def check(job: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        return await _answered(page, request, threads, lambda desk: _checked(desk, job))

    return check


def _checked(desk: Desk, table: Any) -> Answer:
    return {"ok": True, "state": "done", "result": told(desk, desk.ask(job_of(desk, "check", table)))}


def _upload(page: Page, threads: CapacityLimiter) -> Callable[..., Any]:
    async def upload(files: list[gr.FileData], request: gr.Request, name: str = "photos") -> dict[str, Any]:
        def keep(desk: Desk) -> Answer:
            return {"ok": True, "reference": desk.upload(files_of(files), str(name)[:200])}

        return await _answered(page, request, threads, keep)

    return upload


def _asked(page: Page, threads: CapacityLimiter, what: Callable[[Desk, int], Answer]) -> Callable[..., Any]:
    async def asked(job: int, request: gr.Request) -> dict[str, Any]:
        def answer(desk: Desk) -> Answer:
            if not isinstance(job, int) or isinstance(job, bool) or not 0 < job < 2**63:
                raise BadInput("That is no number of a job.", 'Give the "job" of an earlier answer.')
            return what(desk, job)

        return await _answered(page, request, threads, answer)

    return asked


async def _answered(
    page: Page, request: gr.Request, threads: CapacityLimiter, work: Callable[[Desk], Answer]
) -> Answer:
    """What `work` answers, in a thread; its errors as data."""
    try:
        return await anyio.to_thread.run_sync(lambda: work(page.desk(request)), limiter=threads)
    except Exception as error:  # noqa: BLE001 -- told as data
        return failure(error)


def _built(desk: Desk, kind: str, table: Mapping[str, Any]) -> JobSpec:
    known = KINDS[kind].model_fields
    if unknown := [each for each in table if each not in known]:
        raise UnknownName(f"setting of {kind}", str(unknown[0]), set(known) - {"kind", "version"})
    base = table.get("base") or desk.settings.base
    native = desk.native(base) if isinstance(base, str) else {}
    plain = {"base": base} if "base" in known else {}
    return presets.build(kind, base_defaults=native, preset={**plain, **table})


def _bounded(table: Any) -> dict[str, Any]:
    """A copy of a job's table. Raises BadInput for what is none, or larger than any job."""
    if not isinstance(table, dict):
        raise BadInput("A job is a table of settings.", 'Send an object, such as {"prompts": ["a dog"]}.')
    level: list[Any] = [table]
    values = letters = 0
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for each in level:
            items = [*each, *each.values()] if isinstance(each, dict) else list(each)
            values += len(items)
            letters += sum(len(item) for item in items if isinstance(item, str))
            inner += [item for item in items if isinstance(item, dict | list)]
        if values > MOST_VALUES or letters > MOST_TEXT:
            raise BadInput("The job is too large.", "Send settings only; pictures go through upload.")
        if not inner:
            return dict(table)
        level = inner
    raise BadInput("The job is nested too deeply.", "Send it as the page exports it.")
