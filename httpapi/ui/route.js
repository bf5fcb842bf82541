// The address is the state: views read the path and the query, and change them.
import {signal, computed} from '@preact/signals';

const base = '/ui';

const address = signal(location.pathname + location.search);
addEventListener('popstate', () => { address.value = location.pathname + location.search; });

// path is that of the view, without its base: /jobs.
export const path = computed(() => address.value.split('?')[0].slice(base.length) || '/');

// params is the query as URLSearchParams. Do not change it; see setParams.
export const params = computed(() => new URLSearchParams(address.value.split('?')[1] || ''));

// go shows a view, like /jobs?status=failed. replace: the browser's way back skips this one.
export function go(to, {replace} = {}) {
  const url = base + to;
  if (url === address.value) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', url);
  address.value = url;
  if (!replace) scrollTo(0, 0);
}

// setParams changes parts of the query: a list repeats a name, '' or null removes it.
export function setParams(changes, how = {replace: true}) {
  const q = new URLSearchParams(params.value);
  for (const [name, value] of Object.entries(changes)) {
    q.delete(name);
    for (const v of Array.isArray(value) ? value : [value]) if (v !== '' && v != null) q.append(name, v);
  }
  const text = q.toString();
  go(path.value + (text ? `?${text}` : ''), how);
}

// link is the address of a view, for href.
export const link = (to) => base + to;

// Clicks on links to views do not load the page anew.
document.addEventListener('click', (e) => {
  const a = e.target.closest?.('a[href]');
  if (!a || e.defaultPrevented || e.button || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey || a.target || a.hasAttribute('download')) return;
  const to = a.getAttribute('href');
  if (!to.startsWith(`${base}/`)) return;
  e.preventDefault();
  go(to.slice(base.length));
});
