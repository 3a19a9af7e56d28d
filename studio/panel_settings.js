const read = (name, other) => { try { return localStorage.getItem('likeness-' + name) || other; } catch { return other; } };
const write = (name, value) => { try { localStorage.setItem('likeness-' + name, value); } catch {} };
const dark = window.matchMedia('(prefers-color-scheme: dark)');
const paint = () => {
  const theme = read('theme', 'system');
  const on = theme === 'dark' || (theme === 'system' && dark.matches);
  document.body.classList.toggle('dark', on);
  document.documentElement.style.colorScheme = on ? 'dark' : 'light';
};
const mark = () => {
  const chosen = {theme: read('theme', 'system'), sound: read('sound', 'off'), notify: read('notify', 'off')};
  for (const each of element.querySelectorAll('[data-preference]')) {
    each.setAttribute('aria-pressed', String(chosen[each.dataset.preference] === each.dataset.choice));
  }
};
element.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-preference]');
  if (!button) return;
  const {preference, choice} = button.dataset;
  const said = element.querySelector('[data-said]');
  said.textContent = '';
  if (preference === 'notify' && choice === 'on') {
    const allowed = 'Notification' in window ? await Notification.requestPermission() : 'denied';
    if (allowed !== 'granted') {
      said.textContent = 'The browser does not allow it; see the lock beside the address.';
      return;
    }
  }
  write(preference, choice);
  paint();
  mark();
});
dark.addEventListener('change', () => setTimeout(paint));
if (read('theme', 'system') !== 'system') { paint(); setTimeout(paint, 300); }
mark();
