// What views are made of.
import {useEffect, useLayoutEffect, useRef, useState} from 'preact/hooks';
import {signal} from '@preact/signals';
import {html} from './html.js';
import {curl, get, may, Problem} from './api.js';
import {useKeys} from './keys.js';
import {now} from './live.js';
import {ago, clock, span} from './format.js';

const marks = {scheduled: '◷', pending: '○', processing: '◐', retrying: '↻', blocked: '‖', completed: '●', failed: '✕', cancelled: '⊘'};

// Status shows the state of a job, by word and sign and not by colour alone.
export const Status = ({status}) => html`<span class="status ${status}"><span aria-hidden="true">${marks[status] || '·'}</span> ${status}</span>`;

// Ago is a moment as seen from now; the pointer shows the clock.
export const Ago = ({at}) => (at ? html`<time datetime=${at} title=${clock(at)}>${ago(at, now.value)}</time>` : html`<span class="faint">–</span>`);

// Bar is progress in percent.
export const Bar = ({percent, label}) => html`<span class="bar" role="progressbar" aria-valuenow=${percent} aria-valuemin="0" aria-valuemax="100"
  aria-label=${label || 'progress'}><i style=${{width: `${percent}%`}} /></span>`;

// Spark is a small chart of the last numbers, of which there is room for some.
export function Spark({values, label, room = 60, width = 120, height = 22}) {
  const last = values.slice(-room), before = room - last.length;
  const max = Math.max(1e-9, ...last.map((v) => v || 0));
  const step = width / room;
  const d = last.map((v, i) => `M${((before + i) * step + step / 2).toFixed(1)} ${height}V${(height - (height - 2) * (v || 0) / max).toFixed(1)}`).join('');
  return html`<svg class="spark" width=${width} height=${height} viewBox="0 0 ${width} ${height}" role="img" aria-label=${label}>
    <path d=${d} stroke-width=${Math.max(1, step * 0.8).toFixed(1)} /></svg>`;
}

// Do is a button that acts: it shows that it is at it, and what went wrong. needs: the scope
// without which it is not offered.
export function Do({act, needs, children, kind = '', title, disabled}) {
  const [busy, setBusy] = useState(false);
  if (needs && !may(needs)) return null;
  const click = async (e) => {
    e.stopPropagation();
    setBusy(true);
    try {
      await act();
    } catch (err) {
      fail(err);
    } finally {
      setBusy(false);
    }
  };
  return html`<button type="button" class=${kind} title=${title} disabled=${busy || disabled} aria-busy=${busy} onClick=${click}>${children}</button>`;
}

// --- words at the edge of the page

const words = signal([]);
let serial = 0;

// say shows a few words for a while.
export function say(text, kind = 'good') {
  const one = {id: ++serial, text, kind};
  words.value = [...words.value.slice(-3), one];
  setTimeout(() => { words.value = words.value.filter((w) => w !== one); }, kind === 'bad' ? 12000 : 5000);
}

// fail shows an error.
export function fail(err) {
  if (err?.name === 'AbortError') return;
  const more = err instanceof Problem && err.errors.length ? `: ${err.errors.map((e) => `${e.pointer} ${e.detail}`).join('; ')}` : '';
  say(`${err.message}${more}`, 'bad');
}

export const Words = () => html`<div class="words" role="status" aria-live="polite">${words.value.map((w) => html`<p key=${w.id} class=${w.kind}>${w.text}</p>`)}</div>`;

// --- dialogs

const asked = signal(null);

// ask opens a dialog, and gives what its button gives, or null. body is what stands in it.
export const ask = (title, body, yes = 'OK', kind = 'main') => new Promise((done) => { asked.value = {title, body, yes, kind, done}; });

export function Dialogs() {
  const q = asked.value;
  return q && html`<${Dialog} key=${q.title} title=${q.title} close=${() => { asked.value = null; q.done(null); }}>
    <div>${q.body}</div>
    <footer><button type="button" onClick=${() => { asked.value = null; q.done(null); }}>Cancel</button>
    <button type="button" class=${q.kind} autofocus onClick=${() => { asked.value = null; q.done(true); }}>${q.yes}</button></footer>
  </${Dialog}>`;
}

// Dialog is modal. Escape closes it.
export function Dialog({title, close, children, wide}) {
  const box = useRef();
  useKeys({Escape: ['', close]}, {only: true});
  useLayoutEffect(() => {
    box.current.showModal();
    box.current.querySelector('[autofocus]')?.focus();
  }, []);
  return html`<dialog ref=${box} class=${wide ? 'wide' : ''} aria-labelledby="dialog-title" onCancel=${(e) => { e.preventDefault(); close(); }}>
    <h2 id="dialog-title">${title}</h2>${children}</dialog>`;
}

// --- requests

// useGet asks for a path, and again when the path or one of the others changes. It gives
// {data, error, again}; data is of the last answer.
export function useGet(path, others = []) {
  const [state, set] = useState({data: null, error: null, path: ''});
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!path) return undefined;
    const stop = new AbortController();
    get(path, {signal: stop.signal}).then(
      (data) => set({data, error: null, path}),
      (error) => { if (error.name !== 'AbortError') set((s) => ({...s, error, path})); },
    );
    return () => stop.abort();
  }, [path, turn, ...others]);
  return {...state, again: () => setTurn((n) => n + 1)};
}

// Trouble shows why there is nothing to see.
export const Trouble = ({error}) => error && html`<p class="trouble" role="alert">${error.message}</p>`;

// Curl offers the request of a view as a command.
export function Curl({method = 'GET', path, body}) {
  const copy = async () => {
    const line = curl(method, path, body);
    try {
      await navigator.clipboard.writeText(line);
      say('copied');
    } catch {
      await ask('As a command', html`<pre class="wrap">${line}</pre>`, 'Close');
    }
  };
  return html`<button type="button" class="quiet curl" title=${curl(method, path, body)} onClick=${copy}>copy as curl</button>`;
}

// Json shows a value. Long lists and objects can be folded.
export function Json({value, name, depth = 0}) {
  const label = name == null ? '' : html`<span class="name">${name}: </span>`;
  if (value === null || typeof value !== 'object') return html`<div class="json">${label}<span class=${typeof value}>${value === null ? 'null' : JSON.stringify(value)}</span></div>`;
  const list = Array.isArray(value);
  const entries = Object.entries(value);
  if (!entries.length) return html`<div class="json">${label}${list ? '[]' : '{}'}</div>`;
  return html`<details class="json" open=${depth < 2 && entries.length <= 50}><summary>${label}${list ? `[${entries.length}]` : `{${entries.length}}`}</summary>
    ${entries.slice(0, 500).map(([k, v]) => html`<${Json} key=${k} name=${k} value=${v} depth=${depth + 1} />`)}
    ${entries.length > 500 && html`<div class="faint">… ${entries.length - 500} more</div>`}</details>`;
}

// Card is a part of a view with a heading.
export const Card = ({title, tools, children, kind = ''}) => html`<section class="card ${kind}">${title && html`<header><h2>${title}</h2><div class="tools">${tools}</div></header>`}${children}</section>`;

// Wait is how long something has waited, in a colour that says whether that is long.
export const Wait = ({seconds}) => html`<span class=${seconds > 300 ? 'warn' : ''}>${seconds ? span(seconds) : '–'}</span>`;
