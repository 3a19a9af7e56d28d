"""Base and device in the side panel: what jobs draw with, on what, and how other bases come here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
import psutil

from studio import base_manager, post
from studio.base_manager import TOYBOX, Base, Found
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import ACTIVE, QUIET
from studio.markup import Markup, action, bar, join, note, tag, text
from studio.panel_parts import CLICKS, fact
from studio.words import size

if TYPE_CHECKING:
    from studio.page import Page

SLOW = 5
TOYBOX_IS = (
    "Toybox is a small demonstration base that came with the studio. It learns and draws in seconds, but all "
    "it knows is a drawn world, which will not hold a real dog's face. For photos choose a large base."
)


def build(page: Page) -> None:
    """The section: device, bases, adding one's own, signing in."""
    with gr.Accordion("Base and device", open=False, elem_id="panel-bases") as whole:
        device = gr.HTML(elem_id="bases-device")
        cards = gr.HTML(js_on_load=CLICKS, elem_id="bases-list")
        again = gr.Button("Look again", size="sm", elem_id="bases-look")
        _adding(page)
        _signing(page)
    page.live.add(device, lambda desk: (desk.stamp("bases"), _memory_now()), device_now)
    page.live.add(cards, lambda desk: (desk.stamp("bases", "fetch"), base_manager.chosen(desk)), section)
    page.answers(cards, more={"choose": choose, "download": download, "remove": base_manager.remove})

    def look(request: gr.Request) -> None:
        base_manager.look(page.desk(request), gpus=True)

    def first(request: gr.Request) -> None:
        desk = page.desk(request)
        if not base_manager.found(desk).bases:
            base_manager.look(desk)

    page.changed.append(again.click(guarded(look), None, None, **ACTIVE))
    page.changed.append(whole.expand(guarded(first), None, None, **ACTIVE))


def _adding(page: Page) -> None:
    """Folders and files of this machine, for its own user."""
    with gr.Accordion("Add a base of your own", open=False, elem_id="bases-add", visible=False) as own:
        where = gr.Textbox(
            label="Full path", elem_id="bases-path", placeholder="/home/me/models/my-model",
            info="A folder in the diffusers layout, or one .safetensors file. It stays where it is.",
        )  # fmt: skip
        put = gr.Button("Check and add", size="sm", elem_id="bases-put")

    def add(path: str, request: gr.Request) -> str:
        made = base_manager.add(page.desk(request), path)
        gr.Info(f"{text(made.title)} is whole and on the list.", duration=5)
        return ""

    _for_the_owner(page, own)
    page.changed.append(gr.on([put.click, where.submit], guarded(add), where, where, **ACTIVE))


def _signing(page: Page) -> None:
    """The token for bases whose owner asks for an agreement."""
    with gr.Accordion("Sign in to the Hub", open=False, elem_id="bases-sign", visible=False) as door:
        state = gr.HTML(elem_id="bases-signed")
        token = gr.Textbox(
            label="Hugging Face token", type="password", elem_id="bases-token", max_length=200,
            info="From huggingface.co/settings/tokens, with the right to read. It is kept where the Hub's "
            "own programs keep it, and never shown again.",
        )  # fmt: skip
        with gr.Row():
            enter = gr.Button("Sign in", size="sm", elem_id="bases-enter")
            leave = gr.Button("Sign out", size="sm", elem_id="bases-leave")

    def sign_in(secret: str, request: gr.Request) -> str:
        base_manager.sign_in(page.desk(request), secret)
        gr.Info("Signed in.", duration=5)
        return ""

    def sign_out(request: gr.Request) -> None:
        base_manager.sign_out(page.desk(request))

    _for_the_owner(page, door)
    page.live.add(state, lambda desk: (desk.stamp("bases"), base_manager.signed_in()), _signed)
    page.changed.append(gr.on([enter.click, token.submit], guarded(sign_in), token, token, **ACTIVE))
    page.changed.append(leave.click(guarded(sign_out), None, None, **ACTIVE))


def _for_the_owner(page: Page, part: gr.Accordion) -> None:
    """Show a part to the user of this very machine alone; what is in it refuses others as well."""

    def offered(request: gr.Request) -> Any:
        return gr.update(visible=base_manager.may_add(page.desk(request)))

    page.demo.load(offered, None, part, **QUIET)


def choose(desk: Desk, name: str) -> dict[str, Any]:
    """Draw and train with this base from now on: every tab takes it, with the settings that suit it."""
    base_manager.choose(desk, name)
    return post.parcel(post.EVERYWHERE, {"base": name}, "Every tab now uses this base.")


def download(desk: Desk, name: str) -> None:
    """Queue the fetching of a base."""
    base_manager.download(desk, name)
    gr.Info("It waits in the queue; the rest goes on meanwhile.", duration=5)


def device_now(desk: Desk) -> Markup:
    """What jobs run on, and its memory."""
    memory = psutil.virtual_memory()
    used = memory.total - memory.available
    parts = [
        fact("Jobs run on", "the GPU" if "cuda" in desk.devices else "the processor (CPU)"),
        fact("Memory", f"{size(memory.available)} of {size(memory.total)} free"),
        bar(used / memory.total if memory.total else None, "memory in use"),
    ]
    for each in base_manager.found(desk).gpus or ():
        free, total = float(each["free"]), float(each["total"])
        parts.append(fact(str(each["gpu"]), f"{size(free)} of {size(total)} free"))
        parts.append(bar((total - free) / total if total else None, "memory of the GPU in use"))
    return tag("div", *parts, cls="facts")


def section(desk: Desk) -> Markup:
    """The bases: the chosen one first, then what is here, then what could be fetched."""
    told, now = base_manager.found(desk), base_manager.chosen(desk)
    listed = sorted(base_manager.listing(desk), key=lambda each: (each.name != now, not each.installed))
    fetching = {getattr(row.spec, "base", "") for row in desk.active() if row.spec.kind == "fetch"}
    cards = [card(each, told, now, each.name in fetching, desk) for each in listed]
    asking = None if told.bases else note("Which bases are here is looked up when this opens; a moment.")
    return join([asking, *cards])


def card(base: Base, told: Found, now: str, fetching: bool, desk: Desk) -> Markup:
    """One base: what it is, whether it is here, whether it fits, and what can be done."""
    free, gpu = _room(told.gpus)
    kind, sentence = base_manager.fits(base, free, gpu)
    facts = [base.family if base.local else "", size(base.bytes) if base.bytes else "", base.licence]
    acts: list[object] = []
    if base.name == now:
        acts.append(tag("span", "in use", cls="tag good"))
    elif base.installed:
        acts.append(action("Use this base", "choose", base.name, cls="act main"))
    elif fetching:
        acts.append(tag("span", "being fetched; see the queue", cls="tag"))
    elif desk.settings.hosting.kind == "local" and told.bases:
        acts.append(action(f"Download {size(base.bytes)}", "download", base.name))
    if base.local:
        question = "Take it off the list? Its files stay where they are."
        acts.append(action("Remove", "remove", base.name, cls="act danger", data_confirm=question))
    return tag(
        "div",
        tag("div", tag("b", base.title or base.name, title=base.name), _here(base, told), cls="line"),
        tag("div", " · ".join(each for each in facts if each), cls="quiet"),
        tag("p", TOYBOX_IS, cls="about") if base.name == TOYBOX else None,
        tag("p", sentence, cls=f"fits {kind}")
        if base.name != TOYBOX and (told.bases or base.local)
        else None,
        _gate(base) if base.gated and not base.installed else None,
        tag("div", *acts, cls="acts"),
        cls="job base on" if base.name == now else "job base",
    )


def _here(base: Base, told: Found) -> Markup | None:
    if base.local:
        return tag("span", "your own", cls="tag good")
    if base.installed:
        return tag(
            "span", "came with the studio" if base.name == TOYBOX else "on this machine", cls="tag good"
        )
    return tag("span", "not here yet", cls="tag") if told.bases else None


def _gate(base: Base) -> Markup:
    link = tag(
        "a",
        "accept its licence",
        href=f"https://huggingface.co/{base.hub}",
        target="_blank",
        rel="noreferrer",
    )
    return tag("p", "Its owner asks first: ", link, ", then sign in below.", cls="quiet")


def _room(gpus: Sequence[Mapping[str, Any]] | None) -> tuple[float, bool]:
    """The memory that decides, in bytes, and whether it is a GPU's."""
    if gpus:
        return max(float(each["total"]) for each in gpus), True
    return float(psutil.virtual_memory().available), False


def _memory_now() -> int:
    """The free memory in steps of 5 %, so that the figure is not drawn anew each second."""
    return int(psutil.virtual_memory().percent / SLOW)


def _signed(desk: Desk) -> Markup:
    if base_manager.signed_in():
        return note("You are signed in to the Hugging Face Hub.", kind="good")
    return tag("p", "Not signed in. Only bases whose owner asks for an agreement need it.", cls="quiet")
