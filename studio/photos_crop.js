// Photos: clicks, captions and the cropper. Runs once for its gr.HTML; what is inside comes and goes.
const send = (act, value) => trigger('click', {act, value: value === undefined ? '' : String(value)});
let last = '';

element.addEventListener('click', (event) => {
  const opener = event.target.closest('[data-crop]');
  if (opener && element.contains(opener)) {
    event.preventDefault();
    crop(opener);
    return;
  }
  const button = event.target.closest('[data-act]');
  if (!button || !element.contains(button) || button.getAttribute('aria-disabled') === 'true') return;
  event.preventDefault();
  send(button.dataset.act, button.dataset.value || '');
});

element.addEventListener('change', (event) => {
  const name = event.target.dataset && event.target.dataset.caption;
  if (name) send('caption', JSON.stringify([name, event.target.value]));
});

element.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.target.dataset && event.target.dataset.caption) {
    event.preventDefault();
    event.target.blur();
  }
});

// drawing anew takes the focus away: give it back to what has the same key
element.addEventListener('focusin', (event) => { last = (event.target.dataset || {}).key || ''; });
new MutationObserver(() => {
  if (!last || document.activeElement !== document.body) return;
  const again = element.querySelector(`[data-key="${CSS.escape(last)}"]`);
  if (again) again.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true});

function crop(opener) {
  const dialog = document.createElement('dialog');
  dialog.className = 'cropper';
  dialog.setAttribute('aria-label', `Crop ${opener.dataset.crop}`);
  dialog.innerHTML = `
    <p>Drag a rectangle over what the training shall see. Arrow keys move it, with Shift they size it.</p>
    <div class="stage"><img alt=""><div class="box" tabindex="0" role="group" aria-label="What is kept">
      <i data-side="nw"></i><i data-side="ne"></i><i data-side="sw"></i><i data-side="se"></i></div></div>
    <output aria-live="polite"></output>
    <div class="acts"><button type="button" class="act main" data-do="keep">Keep this part</button>
      <button type="button" class="act" data-do="whole">Whole photo</button>
      <button type="button" class="act" data-do="close">Cancel</button></div>`;
  const stage = dialog.querySelector('.stage'), frame = dialog.querySelector('.box');
  const output = dialog.querySelector('output'), image = dialog.querySelector('img');
  image.src = opener.dataset.src;
  image.draggable = false;
  image.addEventListener('load', () => {
    const scale = Math.min(440 / image.naturalWidth, 0.5 * window.innerHeight / image.naturalHeight);
    image.style.width = `${Math.round(image.naturalWidth * scale)}px`;
  });
  let box = JSON.parse(opener.dataset.box);
  const least = 0.05, clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  const draw = () => {
    const [left, top, right, bottom] = box;
    Object.assign(frame.style, {
      left: `${100 * left}%`, top: `${100 * top}%`,
      width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
    });
    output.textContent = `Keeps ${Math.round(100 * (right - left))} % of the width and `
      + `${Math.round(100 * (bottom - top))} % of the height.`;
  };
  const sorted = (x1, y1, x2, y2) => {
    let [left, right] = [Math.min(x1, x2), Math.max(x1, x2)], [top, bottom] = [Math.min(y1, y2), Math.max(y1, y2)];
    left = clamp(left, 0, 1 - least); right = clamp(Math.max(right, left + least), least, 1);
    top = clamp(top, 0, 1 - least); bottom = clamp(Math.max(bottom, top + least), least, 1);
    return [left, top, right, bottom];
  };
  const moved = (x, y) => {
    const width = box[2] - box[0], height = box[3] - box[1];
    const left = clamp(box[0] + x, 0, 1 - width), top = clamp(box[1] + y, 0, 1 - height);
    return [left, top, left + width, top + height];
  };
  const at = (event) => {
    const area = image.getBoundingClientRect();
    return [clamp((event.clientX - area.left) / area.width, 0, 1), clamp((event.clientY - area.top) / area.height, 0, 1)];
  };

  let drag = null;
  stage.addEventListener('pointerdown', (event) => {
    event.preventDefault();
    frame.focus();
    stage.setPointerCapture(event.pointerId);
    const [x, y] = at(event), side = event.target.dataset.side;
    // a corner is dragged against the one opposite; inside the box it moves; anywhere else a new one begins
    if (side) drag = {from: [side.includes('w') ? box[2] : box[0], side.includes('n') ? box[3] : box[1]]};
    else if (event.target === frame && (box[2] - box[0] < 1 || box[3] - box[1] < 1)) drag = {hold: [x, y]};
    else drag = {from: [x, y]};
  });
  stage.addEventListener('pointermove', (event) => {
    if (!drag) return;
    const [x, y] = at(event);
    if (drag.hold) {
      box = moved(x - drag.hold[0], y - drag.hold[1]);
      drag.hold = [x, y];
    } else box = sorted(...drag.from, x, y);
    draw();
  });
  stage.addEventListener('pointerup', () => { drag = null; });
  stage.addEventListener('pointercancel', () => { drag = null; });
  frame.addEventListener('keydown', (event) => {
    // not by default: the button that the focus goes back to would be pressed, and open this again
    if (event.key === 'Enter') { event.preventDefault(); return finish('keep'); }
    const step = 0.02, way = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key];
    if (!way) return;
    event.preventDefault();
    box = event.shiftKey ? sorted(box[0], box[1], clamp(box[2] + way[0], box[0] + least, 1), clamp(box[3] + way[1], box[1] + least, 1)) : moved(...way);
    draw();
  });

  const finish = (what) => {
    if (what === 'keep') send('crop', JSON.stringify([opener.dataset.crop, box]));
    if (what === 'whole') send('crop', JSON.stringify([opener.dataset.crop, null]));
    dialog.close();
  };
  dialog.addEventListener('click', (event) => { if (event.target.dataset.do) finish(event.target.dataset.do); });
  dialog.addEventListener('close', () => { dialog.remove(); opener.isConnected && opener.focus(); });
  document.body.append(dialog);
  draw();
  dialog.showModal();
  frame.focus();
}
