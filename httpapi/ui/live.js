// The figures of each second, by GET /events?digest=1s. One stream is for all views.
import {signal, effect} from '@preact/signals';
import {events, locked, token, Problem} from './api.js';

// digest is the latest one; null before the first.
export const digest = signal(null);

// state is live, paused, hidden (the tab is) or lost (the server does not answer).
export const state = signal('lost');

// paused is what the user wants.
export const paused = signal(false);

// now is the time of the last digest, or of the last second. Views that show ages read it.
export const now = signal(Date.now());

// turn changes once in so many seconds. useGet asks again when it does.
export const turn = (seconds) => Math.floor(now.value / (seconds * 1000));

// recent are the last five minutes of digests, oldest first, for small charts.
export const recent = [];
const kept = 300;

let running = null;
const hidden = signal(document.hidden);
document.addEventListener('visibilitychange', () => { hidden.value = document.hidden; });

effect(() => {
  const want = !paused.value && !hidden.value && !locked.value;
  void token.value; // another token, another stream
  running?.abort();
  running = null;
  if (!want) {
    state.value = paused.value ? 'paused' : 'hidden';
    return;
  }
  running = new AbortController();
  follow(running.signal);
});

async function follow(signal) {
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 2, 10000)) {
    try {
      await events('/events?digest=1s', (e) => {
        if (e.event !== 'digest' || signal.aborted) return;
        wait = 500;
        const d = JSON.parse(e.data);
        recent.push(d);
        if (recent.length > kept) recent.shift();
        digest.value = d;
        now.value = Date.now();
        state.value = 'live';
      }, {signal});
    } catch (err) {
      if (signal.aborted) return;
      if (err instanceof Problem && err.status === 401) return; // the login wakes us
    }
    if (signal.aborted) return;
    state.value = 'lost';
    await new Promise((done) => { setTimeout(done, wait); });
  }
}

// without digests ages go on
setInterval(() => { if (state.value !== 'hidden' && !paused.value && Date.now() - now.value > 1500) now.value = Date.now(); }, 1000);

// columnsOf are the columns of GET /stats/history, of a type or of the total, with the end of
// each period as at. Numbers of jobs become rates.
export function columnsOf(h, type) {
  const from = Date.parse(h.from) / 1000, c = type ? h.types?.[type] : h.total;
  if (!c) return null;
  const out = {at: c.done.map((_, i) => from + (i + 1) * h.step_seconds)};
  for (const [name, list] of Object.entries(c)) out[name] = counted.has(name) ? list.map((v) => (v == null ? null : v / h.step_seconds)) : list;
  return out;
}

const counted = new Set(['in', 'done', 'failed', 'retried', 'cancelled']);
