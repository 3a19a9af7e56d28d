const wide = 1500;
const panel = () => document.querySelector('.sidebar#panel, #panel .sidebar, #panel');
const toggle = () => document.querySelector('#panel .toggle-button, .sidebar-parent .toggle-button');
const isOpen = () => { const one = document.querySelector('#panel.open, .sidebar.open'); return Boolean(one); };
const remember = () => { try { localStorage.setItem('likeness-panel', isOpen() ? 'open' : 'closed'); } catch {} };
const kept = () => { try { return localStorage.getItem('likeness-panel'); } catch { return null; } };
const shut = () => { const button = toggle(); if (isOpen() && button) button.click(); };
const show = (name) => {
  const button = toggle();
  if (!isOpen() && button) button.click();
  const label = document.querySelector('#panel-' + name + ' > .label-wrap, #panel-' + name + ' button.label-wrap');
  if (label && !label.classList.contains('open')) label.click();
  setTimeout(() => {
    const place = document.getElementById('panel-' + name);
    if (place) place.scrollIntoView({block: 'nearest'});
    if (label) label.focus({preventScroll: true});
  }, 250);
};
element.addEventListener('click', (event) => {
  const chip = event.target.closest('[data-panel]');
  if (chip) show(chip.dataset.panel);
});
document.addEventListener('click', (event) => {
  if (event.target.closest('.toggle-button')) setTimeout(remember, 300);
  else if (event.target.closest('[data-act^="use"]') && window.innerWidth < 900) shut();
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && event.target.closest('#panel') && !event.target.matches('input, textarea, select')) {
    shut();
    const chip = element.querySelector('[data-panel]');
    if (chip) chip.focus();
  }
});
setTimeout(() => {
  if (window.innerWidth >= wide && kept() !== 'closed' && !isOpen() && toggle()) toggle().click();
}, 600);
// the settings that choose the look stand in a fold, whose own script runs once it is opened
try {
  const theme = localStorage.getItem('likeness-theme');
  const paint = () => document.body.classList.toggle('dark', theme === 'dark');
  if (theme === 'dark' || theme === 'light') { paint(); setTimeout(paint, 300); }
} catch {}
