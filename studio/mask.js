// The mask board: a picture, and over it a canvas on which people paint what may change.
// The server sends {"image": address, "mask": address or ""} as the component's value; every change of the
// mask goes back as a PNG, white where the edit may happen, or as "" where nothing is painted.
const find = (what) => element.querySelector(what);
const picture = find('img'), canvas = find('canvas'), said = find('.mask-said'), size = find('input[type=range]');
const pen = canvas.getContext('2d', {willReadFrequently: true});
const LONGEST = 1024, UNDO = 12;
let tool = 'brush', past = [], path = null, shown = {}, spot = null;

const copy = () => {
  const twin = document.createElement('canvas');
  twin.width = canvas.width; twin.height = canvas.height;
  twin.getContext('2d').drawImage(canvas, 0, 0);
  return twin;
};
const put = (other) => {
  pen.globalCompositeOperation = 'copy';
  pen.drawImage(other, 0, 0);
  pen.globalCompositeOperation = 'source-over';
};
const remember = () => { past.push(copy()); if (past.length > UNDO) past.shift(); };
const width = () => Math.max(2, Number(size.value) / 100 * Math.max(canvas.width, canvas.height));

// every pixel is either painted or not: what is half covered counts as painted from the middle on
const exported = () => {
  const out = document.createElement('canvas');
  out.width = canvas.width; out.height = canvas.height;
  const ink = out.getContext('2d'), data = pen.getImageData(0, 0, out.width, out.height);
  let painted = 0;
  for (let i = 0; i < data.data.length; i += 4) {
    const on = data.data[i + 3] > 127 ? 255 : 0;
    painted += on ? 1 : 0;
    data.data[i] = data.data[i + 1] = data.data[i + 2] = on;
    data.data[i + 3] = 255;
  }
  ink.putImageData(data, 0, 0);
  return [painted / (out.width * out.height), painted ? out.toDataURL('image/png') : ''];
};
const tell = (share) => {
  said.textContent = !share ? 'Nothing is painted: the whole picture may change.'
    : `${Math.max(1, Math.round(share * 100))} % of the picture may change; the rest stays as it is, pixel for pixel.`;
};
const send = () => { const [share, png] = exported(); tell(share); trigger('painted', {png}); };

const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height];
};
const ready = () => {
  pen.fillStyle = pen.strokeStyle = '#0f8a8c';
  pen.lineCap = pen.lineJoin = 'round';
  pen.lineWidth = width();
  pen.globalCompositeOperation = tool === 'erase' ? 'destination-out' : 'source-over';
};
const line = (from, to) => {
  ready(); pen.beginPath(); pen.moveTo(...from); pen.lineTo(to[0] + 0.01, to[1]); pen.stroke();
  pen.globalCompositeOperation = 'source-over';
};
const area = () => {
  put(past[past.length - 1]); ready(); pen.beginPath();
  if (tool === 'box') {
    const [a, b] = [path[0], path[path.length - 1]];
    pen.rect(a[0], a[1], b[0] - a[0], b[1] - a[1]);
  } else path.forEach((each, index) => index ? pen.lineTo(...each) : pen.moveTo(...each));
  pen.fill();
};
canvas.addEventListener('pointerdown', (event) => {
  if (event.button) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  remember(); path = [at(event)];
  if (tool === 'brush' || tool === 'erase') line(path[0], path[0]);
});
canvas.addEventListener('pointermove', (event) => {
  if (!path) return;
  const here = at(event), last = path[path.length - 1];
  path.push(here);
  if (tool === 'brush' || tool === 'erase') line(last, here); else area();
});
const lifted = () => { if (!path) return; path = null; send(); };
canvas.addEventListener('pointerup', lifted);
canvas.addEventListener('pointercancel', lifted);

// without a mouse: arrows move the spot, space paints or erases there
const cursor = find('.mask-spot');
const showSpot = () => {
  cursor.hidden = !spot;
  if (spot) { cursor.style.left = `${spot[0] / canvas.width * 100}%`; cursor.style.top = `${spot[1] / canvas.height * 100}%`; }
};
canvas.addEventListener('keydown', (event) => {
  const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}, move = moves[event.key];
  if (!move && event.key !== ' ') return;
  event.preventDefault();
  spot = spot || [canvas.width / 2, canvas.height / 2];
  const far = canvas.width / (event.shiftKey ? 100 : 25);
  if (move) spot = [0, 1].map((i) => Math.min([canvas.width, canvas.height][i], Math.max(0, spot[i] + far * move[i])));
  else { remember(); line(spot, spot); send(); }
  showSpot();
});
canvas.addEventListener('blur', () => { spot = null; showSpot(); });

const DO = {
  undo: () => { if (past.length) { put(past.pop()); send(); } },
  clear: () => { remember(); pen.clearRect(0, 0, canvas.width, canvas.height); send(); },
  invert: () => {
    remember(); ready(); pen.globalCompositeOperation = 'source-out';
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = 'source-over'; send();
  },
  grow: () => {
    remember();
    const before = past[past.length - 1], far = Math.max(2, canvas.width / 64);
    for (let i = 0; i < 24; i++) {
      pen.drawImage(before, far * Math.cos(i * Math.PI / 12), far * Math.sin(i * Math.PI / 12));
    }
    send();
  },
};
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button || !element.contains(button)) return;
  if (button.dataset.do) DO[button.dataset.do]();
  if (!button.dataset.tool) return;
  tool = button.dataset.tool;
  element.querySelectorAll('[data-tool]').forEach((each) => each.setAttribute('aria-pressed', each === button));
});

const drawMask = (address) => {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  tell(0);
  if (!address) return;
  const mask = new Image();
  mask.onload = () => {
    put(mask.width === canvas.width && mask.height === canvas.height ? mask : scaled(mask));
    const data = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.data.length; i += 4) data.data[i + 3] = data.data[i] > 127 ? 255 : 0;
    pen.putImageData(data, 0, 0);
    ready(); pen.globalCompositeOperation = 'source-in';
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = 'source-over';
    tell(exported()[0]);
  };
  mask.src = address;
};
const scaled = (image) => {
  const twin = document.createElement('canvas');
  twin.width = canvas.width; twin.height = canvas.height;
  twin.getContext('2d').drawImage(image, 0, 0, twin.width, twin.height);
  return twin;
};
picture.addEventListener('load', () => {
  const share = Math.min(1, LONGEST / Math.max(picture.naturalWidth, picture.naturalHeight));
  canvas.width = Math.round(picture.naturalWidth * share);
  canvas.height = Math.round(picture.naturalHeight * share);
  find('.mask-stage').hidden = find('.mask-tools').hidden = false;
  drawMask(shown.mask);
});
picture.addEventListener('error', () => {
  if (!shown.image) return;
  find('.mask-stage').hidden = find('.mask-tools').hidden = true;
  said.textContent = 'This browser cannot show the picture, so no mask can be painted; it will be edited as a whole.';
});
const take = () => {
  const next = JSON.parse(props.value || '{}'), before = shown;
  shown = next; past = [];
  find('.mask').hidden = !next.image;
  if (!next.image) { picture.removeAttribute('src'); return; }
  if (next.image !== before.image) picture.src = next.image; else drawMask(next.mask);
};
watch('value', take);
take();
