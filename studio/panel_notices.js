const known = new Set();
let first = true;
const title = document.title;
const setting = (name) => { try { return localStorage.getItem('likeness-' + name) === 'on'; } catch { return false; } };
const back = () => { document.title = title; };
window.addEventListener('focus', back);
document.addEventListener('visibilitychange', () => { if (!document.hidden) back(); });
const beep = () => {
  try {
    const sound = new AudioContext(), tone = sound.createOscillator(), loud = sound.createGain();
    tone.frequency.value = 660;
    loud.gain.setValueAtTime(0.12, sound.currentTime);
    loud.gain.exponentialRampToValueAtTime(0.001, sound.currentTime + 0.6);
    tone.connect(loud).connect(sound.destination);
    tone.start();
    tone.stop(sound.currentTime + 0.6);
  } catch {}
};
let shelf = document.getElementById('notice-shelf');
if (!shelf) {
  shelf = document.createElement('div');
  shelf.id = 'notice-shelf';
  shelf.setAttribute('role', 'status');
  shelf.setAttribute('aria-live', 'polite');
  document.querySelector('.gradio-container').appendChild(shelf);
}
const tell = (job) => {
  const note = document.createElement('div');
  note.className = 'notice ' + job.state;
  const words = document.createElement('span');
  words.textContent = job.says;
  const close = document.createElement('button');
  close.type = 'button';
  close.textContent = '×';
  close.setAttribute('aria-label', 'Close');
  close.addEventListener('click', () => note.remove());
  note.append(words, close);
  shelf.append(note);
  setTimeout(() => note.remove(), 12000);
  if (document.hidden || !document.hasFocus()) document.title = (job.state === 'done' ? '✓ ' : '! ') + job.says;
  if (setting('sound')) beep();
  const may = setting('notify') && 'Notification' in window && Notification.permission === 'granted';
  if (may && document.hidden) new Notification('Likeness Studio', {body: job.says, tag: job.key});
};
const look = () => {
  const place = element.querySelector('[data-jobs]');
  if (!place) return;
  let jobs = [];
  try { jobs = JSON.parse(place.dataset.jobs); } catch { return; }
  for (const job of jobs) {
    if (known.has(job.key)) continue;
    known.add(job.key);
    if (!first) tell(job);
  }
  first = false;
};
new MutationObserver(look).observe(element, {
  childList: true, subtree: true, attributes: true, attributeFilter: ['data-jobs'],
});
look();
