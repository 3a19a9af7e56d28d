"""What the Compare tab does in the browser alone: sort a table, zoom a grid, open pictures large, save a PNG.

For `gr.HTML(js_on_load=SCRIPT)`. One listener an element, for whatever is drawn into it later.
"""

from __future__ import annotations

from studio.markup import ACT

_SORT = """
const order = (a, b) => {
  if (a === '' || b === '') return (a === '') - (b === '');
  const x = Number(a), y = Number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, {numeric: true}) : x - y;
};
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-sort]');
  if (!button) return;
  const head = button.closest('th'), table = head.closest('table'), body = table.tBodies[0];
  const down = head.getAttribute('aria-sort') === 'ascending';
  table.querySelectorAll('th[aria-sort]').forEach((each) => each.setAttribute('aria-sort', 'none'));
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const value = (row) => row.cells[Number(button.dataset.sort)].dataset.v || '';
  const rows = Array.from(body.rows).sort((a, b) => {
    const empty = (value(a) === '') - (value(b) === '');
    return empty || (down ? -1 : 1) * order(value(a), value(b));
  });
  body.append(...rows);
});
"""

_ZOOM = """
element.addEventListener('input', (event) => {
  if (!event.target.matches('input.zoom')) return;
  const frame = event.target.closest('.zoomable');
  frame.style.setProperty('--zoom', event.target.value + '%');
});
"""

_LARGE = """
element.addEventListener('click', (event) => {
  const link = event.target.closest('a[data-large]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const links = Array.from(element.querySelectorAll('a[data-large]'));
  let at = links.indexOf(link);
  const box = document.createElement('dialog');
  box.className = 'lightbox';
  const make = (tag, text, act) => {
    const each = document.createElement(tag);
    if (text) each.textContent = text;
    if (act) { each.type = 'button'; each.className = 'act'; each.addEventListener('click', act); }
    box.append(each);
    return each;
  };
  const image = make('img'), words = make('p');
  const show = (step) => {
    at = (at + step + links.length) % links.length;
    const inner = links[at].querySelector('img');
    image.src = links[at].href;
    image.alt = inner ? inner.alt : '';
    words.textContent = links[at].dataset.large;
  };
  make('button', 'Previous', () => show(-1));
  make('button', 'Next', () => show(1));
  make('button', 'Close', () => box.close());
  box.addEventListener('keydown', (key) => {
    if (key.key === 'ArrowLeft') show(-1);
    if (key.key === 'ArrowRight') show(1);
  });
  box.addEventListener('click', (click) => { if (click.target === box) box.close(); });
  box.addEventListener('close', () => { box.remove(); link.focus(); });
  document.body.append(box);
  show(0);
  box.showModal();
});
"""

_PNG = """
element.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-png]');
  if (!button) return;
  const columns = Array.from(element.querySelectorAll('.side-run'));
  const size = 256, gap = 12, top = 64;
  const shown = columns.map((each) => Array.from(each.querySelectorAll('a[data-large] img')));
  const high = Math.max(1, ...shown.map((each) => each.length));
  const canvas = document.createElement('canvas');
  canvas.width = gap + columns.length * (size + gap);
  canvas.height = top + high * (size + gap);
  const pen = canvas.getContext('2d');
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = '#1e1e22';
  const line = (text, x, y, font) => {
    pen.font = font;
    while (text.length > 1 && pen.measureText(text).width > size) text = text.slice(0, -2) + '…';
    pen.fillText(text, x, y);
  };
  for (let x = 0; x < columns.length; x += 1) {
    const left = gap + x * (size + gap);
    line(columns[x].dataset.title || '', left, 24, '600 15px sans-serif');
    line(columns[x].dataset.figures || '', left, 46, '13px sans-serif');
    for (let y = 0; y < shown[x].length; y += 1) {
      const image = shown[x][y];
      image.loading = 'eager';
      try { await image.decode(); } catch { continue; }
      const wide = image.naturalWidth, tall = image.naturalHeight, scale = size / Math.max(wide, tall);
      pen.drawImage(image, left, top + y * (size + gap), wide * scale, tall * scale);
    }
  }
  canvas.toBlob((blob) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = button.dataset.png;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, 'image/png');
});
"""

SCRIPT = ACT + _SORT + _ZOOM + _LARGE + _PNG
