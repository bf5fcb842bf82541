// How values look. Every function takes what the API gives, and returns text.

const units = [[86400, 'd'], [3600, 'h'], [60, 'm'], [1, 's']];

// span is a length of time in seconds: 1.2 s, 12 m 04 s, 3 d 2 h.
export function span(seconds) {
  if (seconds == null || !isFinite(seconds)) return '–';
  if (seconds === 0) return '0 s';
  if (seconds < 0.001) return '<1 ms';
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
  seconds = Math.round(seconds);
  for (let i = 0; i < units.length; i++) {
    const [size, name] = units[i];
    if (seconds < size) continue;
    const rest = i + 1 < units.length ? Math.floor((seconds % size) / units[i + 1][0]) : 0;
    return `${Math.floor(seconds / size)} ${name}${rest ? ` ${rest} ${units[i + 1][1]}` : ''}`;
  }
  return '0 s';
}

// between is the time from one moment to another, or to now.
export function between(from, to, now = Date.now()) {
  if (!from) return null;
  return ((to ? Date.parse(to) : now) - Date.parse(from)) / 1000;
}

// ago is a moment as seen from now: 3 m ago, in 2 h.
export function ago(moment, now = Date.now()) {
  if (!moment) return '–';
  const s = (now - Date.parse(moment)) / 1000;
  return s >= 0 ? `${span(s)} ago` : `in ${span(-s)}`;
}

// clock is the local time of a moment, with its day if that is not today.
export function clock(moment) {
  const d = new Date(moment), today = new Date();
  const time = d.toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false});
  return d.toDateString() === today.toDateString() ? time : `${d.toLocaleDateString()} ${time}`;
}

// count is a number: 8,120, 1.2M.
export function count(n) {
  if (n == null) return '–';
  if (n >= 1e6) return `${(n / 1e6).toFixed(n >= 1e7 ? 0 : 1)}M`;
  return Math.round(n).toLocaleString('en');
}

// rate is a number in a second.
export function rate(n) {
  if (n == null) return '–';
  return n > 0 && n < 10 ? (Math.round(n * 10) / 10).toString() : count(n);
}

// share is a part of a whole, in percent.
export function share(part, whole) {
  if (!whole) return '0 %';
  const p = (100 * part) / whole;
  return `${p > 0 && p < 10 ? p.toFixed(1) : Math.round(p)} %`;
}

// bytes is a size: 2.3 KiB.
export function bytes(n) {
  if (n == null) return '–';
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (n >= 1024 && i < names.length - 1) {
    n /= 1024;
    i++;
  }
  return `${i && n < 10 ? n.toFixed(1) : Math.round(n)} ${names[i]}`;
}

// shortId is the beginning and the end of a job's id.
export function shortId(id) {
  return id ? `${id.slice(0, 8)}…${id.slice(-4)}` : '';
}
