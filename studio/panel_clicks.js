const open = new Set();
let last = '';
const sign = (one) => one.dataset.act + '\n' + (one.dataset.value || '');
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button || !element.contains(button) || button.getAttribute('aria-disabled') === 'true') return;
  event.preventDefault();
  if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
  let value = button.dataset.value || '';
  if (button.dataset.field) {
    const field = button.closest('[data-row]').querySelector(button.dataset.field);
    value += '\n' + (field ? field.value : '');
  }
  trigger('click', {act: button.dataset.act, value});
});
element.addEventListener('keydown', (event) => {
  const pressed = event.target.dataset && event.target.dataset.enter;
  if (event.key !== 'Enter' || !pressed) return;
  event.preventDefault();
  const button = event.target.closest('[data-row]').querySelector('[data-act="' + pressed + '"]');
  if (button) button.click();
});
element.addEventListener('focusin', (event) => {
  const button = event.target.closest('[data-act]');
  last = button ? sign(button) : '';
});
element.addEventListener('focusout', () => { last = ''; });
// the page changes elements in place: what it folds up is unfolded again, what a person folds up stays so
element.addEventListener('click', (event) => {
  const summary = event.target.closest('summary');
  const fold = summary && summary.parentElement;
  if (fold && fold.dataset.key) fold.open ? open.delete(fold.dataset.key) : open.add(fold.dataset.key);
});
const unfold = (each) => {
  const wanted = open.has(each.dataset.key);
  if (each.open !== wanted) each.open = wanted;
};
element.addEventListener('toggle', (event) => {
  if (event.target.dataset && event.target.dataset.key) unfold(event.target);
}, true);
new MutationObserver(() => {
  element.querySelectorAll('details[data-key]').forEach(unfold);
  if (!last || document.activeElement !== document.body) return;
  const again = [...element.querySelectorAll('[data-act]')].find((each) => sign(each) === last);
  if (again) again.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true});
