"""The picture to begin from, and the mask painted on it. What is painted is a PNG that the browser makes.

Nothing is decoded here: an upload is copied by its first bytes, and the mask's bytes are kept as they are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.artifacts import atomic_write
from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import workspace
from pipelines.jobs.references import PICTURES
from studio.binding import Sheet
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import ACTIVE, CLICKED, QUIET
from studio.markup import ACT, Markup, action, clicked, note, tag

if TYPE_CHECKING:
    from studio.page import Page

MASK_LIMIT = 8 * 2**20
UPLOADS = "start"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PAINT = (
    ACT
    + """
const parts = () => ({
  canvas: element.querySelector('canvas'), image: element.querySelector('.paper img'),
  size: element.querySelector('input[name=brush]'),
});
const ready = (canvas, image) => {
  if (canvas.dataset.ready) return;
  const scale = Math.min(1, 1024 / Math.max(image.naturalWidth, image.naturalHeight, 1));
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  canvas.dataset.ready = '1';
};
let last = null;
const dab = (event) => {
  const {canvas, size} = parts();
  const box = canvas.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * canvas.width;
  const y = (event.clientY - box.top) / box.height * canvas.height;
  const pen = canvas.getContext('2d');
  pen.globalCompositeOperation = canvas.dataset.rub ? 'destination-out' : 'source-over';
  pen.strokeStyle = '#fff'; pen.lineCap = 'round'; pen.lineJoin = 'round';
  pen.lineWidth = Number(size.value) / 100 * Math.max(canvas.width, canvas.height);
  pen.beginPath(); pen.moveTo(last ? last[0] : x, last ? last[1] : y); pen.lineTo(x, y); pen.stroke();
  last = [x, y];
};
element.addEventListener('pointerdown', (event) => {
  if (event.target.tagName !== 'CANVAS') return;
  const {canvas, image} = parts();
  ready(canvas, image); canvas.setPointerCapture(event.pointerId); last = null; dab(event);
  canvas.dataset.drawing = '1'; event.preventDefault();
});
element.addEventListener('pointermove', (event) => {
  if (event.target.tagName === 'CANVAS' && event.target.dataset.drawing) dab(event);
});
const send = (canvas) => {
  const sheet = document.createElement('canvas');
  sheet.width = canvas.width; sheet.height = canvas.height;
  const pen = sheet.getContext('2d');
  pen.fillStyle = '#000'; pen.fillRect(0, 0, sheet.width, sheet.height); pen.drawImage(canvas, 0, 0);
  trigger('click', {act: 'mask', value: sheet.toDataURL('image/png').split(',')[1]});
};
const lift = (event) => {
  const canvas = event.target;
  if (canvas.tagName !== 'CANVAS' || !canvas.dataset.drawing) return;
  delete canvas.dataset.drawing; send(canvas);
};
element.addEventListener('pointerup', lift);
element.addEventListener('pointercancel', lift);
element.addEventListener('click', (event) => {
  const tool = event.target.closest('[data-tool]');
  if (!tool) return;
  const {canvas, image} = parts();
  ready(canvas, image);
  const pen = canvas.getContext('2d');
  if (tool.dataset.tool === 'rub') {
    if (canvas.dataset.rub) delete canvas.dataset.rub; else canvas.dataset.rub = '1';
    tool.setAttribute('aria-pressed', canvas.dataset.rub ? 'true' : 'false');
    return;
  }
  if (tool.dataset.tool === 'clear') {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    trigger('click', {act: 'clear', value: ''});
    return;
  }
  pen.globalCompositeOperation = 'xor'; pen.fillStyle = '#fff';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  send(canvas);
});
const restore = () => {
  const {canvas, image} = parts();
  if (!canvas || !canvas.dataset.mask) return;
  const old = new Image();
  old.onload = () => {
    ready(canvas, image.naturalWidth ? image : old);
    const pen = canvas.getContext('2d');
    pen.drawImage(old, 0, 0, canvas.width, canvas.height);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at];
    pen.putImageData(pixels, 0, 0);
  };
  old.src = canvas.dataset.mask;
};
watch('value', restore);
restore();
"""
)
"""A small painter: white strokes on black, sent whole after every stroke; touch, pen and mouse."""


class Start:
    """Upload, painter and strength, bound to `start`, `mask` and `strength` of the sheet."""

    def __init__(self, page: Page, sheet: Sheet, *, name: str) -> None:
        self._page = page
        self.start, self.mask = gr.State(""), gr.State("")
        self.upload = gr.File(
            label="A picture to begin from", file_types=["image"], type="filepath", height=120,
            elem_id=f"{name}-start", elem_classes="drop",
        )  # fmt: skip
        self.painter = gr.HTML(js_on_load=PAINT, elem_id=f"{name}-painter")
        strength = gr.Slider(
            0, 1, value=0.6, step=0.05, label="How much is drawn again", elem_id=f"{name}-strength",
            info="0.3 keeps the picture and changes its manner, 0.8 keeps little more than its layout.",
        )  # fmt: skip
        sheet.add("start", self.start)
        sheet.add("mask", self.mask)
        sheet.add("strength", strength)
        self.upload.upload(
            guarded(self._brought), self.upload, [self.start, self.mask, self.upload], **ACTIVE
        )
        gr.on(
            [self.start.change, page.demo.load], guarded(self._drawn), [self.start, self.mask],
            self.painter, **QUIET,
        )  # fmt: skip
        self.painter.click(guarded(self._done), self.start, [self.start, self.mask], **CLICKED)

    def _brought(self, request: gr.Request, path: str) -> tuple[str, str, None]:
        return bring(self._page.desk(request), path), "", None

    def _drawn(self, request: gr.Request, start: str, mask: str) -> Markup:
        return painter(self._page.desk(request), start, mask)

    def _done(self, start: str, event: gr.EventData, request: gr.Request) -> tuple[Any, Any]:
        act, value = clicked(event)
        if act == "nothing":
            return "", ""
        if act == "clear":
            return gr.skip(), ""
        if act == "mask" and start:
            return gr.skip(), keep_mask(self._page.desk(request), value)
        return gr.skip(), gr.skip()


def bring(desk: Desk, path: str) -> str:
    """Copy an uploaded picture into the workspace; → its reference. Raises BadInput, DiskFull."""
    folder = desk.path(desk.upload([path], UPLOADS))
    found = [each for each in sorted(folder.iterdir()) if each.suffix.lower() in PICTURES]
    return desk.reference(found[0])


def keep_mask(desk: Desk, data: str) -> str:
    """Keep a painted mask, a PNG in base64, under a name of its content; → its reference.

    Raises BadInput for anything else, or for more than 8 MB.
    """
    remedy = "Paint it again."
    if len(data) > MASK_LIMIT * 4 // 3 + 4:
        raise BadInput("The mask is too large.", remedy)
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content.startswith(SIGNATURE):
        raise BadInput("The mask did not arrive whole.", remedy)
    path = desk.folder / "uploads" / "masks" / f"mask-{_fingerprint(content)}.png"
    if not path.is_file():
        atomic_write(path, content)
    return desk.reference(path)


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def painter(desk: Desk, start: str, mask: str = "") -> Markup:
    """The picture to begin from under a transparent sheet to paint on; nothing without one."""
    if not start:
        return Markup("")
    try:
        where, painted = _address(desk, start), _address(desk, mask) if mask else None
    except LikenessError as error:
        return tag("div", note(error.message, " ", error.remedy, kind="warning"), _leave())
    paper = tag(
        "div",
        tag("img", src=where, alt="The picture to begin from"),
        tag("canvas", aria_label="Paint where the picture may change", role="img", data_mask=painted),
        cls="paper",
    )
    brush = tag(
        "label",
        "Brush ",
        tag("input", type="range", name_="brush", min=2, max=40, value=10, aria_label="Size of the brush"),
    )
    tools = tag(
        "div",
        brush,
        _tool("Rub out", "rub", aria_pressed="false"),
        _tool("Turn round", "turn", title="Keep what is painted, change the rest"),
        _tool("Clear", "clear"),
        _leave(),
        cls="acts",
    )
    hint = "Paint over what shall change; the rest stays. Without paint the whole picture is drawn again."
    return tag("div", paper, tools, tag("p", hint, cls="quiet"), cls="painter")


def _address(desk: Desk, reference: str) -> str:
    return desk.url(workspace.resolve(reference, folder=desk.folder, local=False))


def _tool(label: str, name: str, **more: Any) -> Markup:
    return tag("button", label, type="button", cls="act", data_tool=name, **more)


def _leave() -> Markup:
    return action("Begin from noise instead", "nothing", cls="act")
