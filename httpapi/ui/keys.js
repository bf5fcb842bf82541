// The keys of the frame and of the view that is shown.
import {useLayoutEffect, useRef} from 'preact/hooks';
import {signal} from '@preact/signals';

// known lists the keys that work now, for the help: [keys, what they do].
export const known = signal([]);

const layers = []; // the last one is asked first
let before = ''; // the key before, for keys of two letters, like "g j"
let forget = 0;

const typing = (e) => e.target.closest?.('input, textarea, select, [contenteditable]');

addEventListener('keydown', (e) => {
  if (e.ctrlKey || e.altKey || e.metaKey) {
    if (e.key.toLowerCase() === 'k' && !e.altKey) run('mod+k', e);
    return;
  }
  if (e.key === 'Escape') {
    if (typing(e)) e.target.blur();
    run('Escape', e);
    return;
  }
  if (typing(e)) return;
  if (e.key === ' ' || e.key === 'Enter') if (e.target.closest?.('button, a, summary, [role=button]')) return;
  clearTimeout(forget);
  const two = before ? `${before} ${e.key}` : '';
  before = '';
  if (two && run(two, e)) return;
  if (run(e.key, e)) return;
  if (e.key === 'g') {
    before = 'g';
    forget = setTimeout(() => { before = ''; }, 1500);
  }
});

function run(key, e) {
  for (let i = layers.length - 1; i >= 0; i--) {
    const f = layers[i].current[key];
    if (f) {
      if (f.do(e) === false) return false;
      e.preventDefault();
      return true;
    }
    if (layers[i].current.only) return false;
  }
  return false;
}

// useKeys binds keys while a component is shown: {j: ['next row', f], …}. only: those of
// others do not work meanwhile.
export function useKeys(keys, {only} = {}) {
  const layer = useRef({});
  layer.current = Object.fromEntries(Object.entries(keys).map(([key, [text, f]]) => [key, {text, do: f}]));
  if (only) layer.current.only = true;
  useLayoutEffect(() => {
    layers.push(layer);
    known.value = layers.flatMap((l) => Object.entries(l.current).filter(([, k]) => k.text).map(([key, k]) => [key, k.text]));
    return () => {
      layers.splice(layers.indexOf(layer), 1);
      known.value = layers.flatMap((l) => Object.entries(l.current).filter(([, k]) => k.text).map(([key, k]) => [key, k.text]));
    };
  }, []);
}
