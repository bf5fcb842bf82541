// Jobs by any filter. The query of the address is that of GET /jobs.
import {useEffect, useMemo, useRef, useState} from 'preact/hooks';
import {html} from '../html.js';
import {get, post, query, remove} from '../api.js';
import {go, link, params, setParams} from '../route.js';
import {useKeys} from '../keys.js';
import {digest, now, paused} from '../live.js';
import {Ago, Bar, Card, Curl, Do, Status, Trouble, ask, fail, say} from '../parts.js';
import {between, count, shortId, span} from '../format.js';
import {bulk} from '../bulk.js';

const statuses = ['scheduled', 'pending', 'processing', 'retrying', 'completed', 'failed', 'cancelled'];
const orders = {created: 'newest', ended: 'last ended', run_at: 'next due', started: 'last started'};
const words = ['type', 'tag', 'status', 'priority', 'error', 'payload', 'schedule', 'concurrency_key', 'unique_key', 'created_by', 'fingerprint', 'id'];
const most = 50; // rows of a page

// readSearch takes type:email error:"time out" and text apart.
export function readSearch(text) {
  const found = {q: ''}, rest = [];
  for (const m of text.matchAll(/(\w+):"([^"]*)"|(\w+):(\S+)|"([^"]*)"|(\S+)/g)) {
    const name = m[1] || m[3], value = m[2] ?? m[4];
    if (name && words.includes(name)) (found[name] ||= []).push(value);
    else if (name === 'older' || name === 'newer') found[name === 'older' ? 'created_before' : 'created_after'] = moment(value);
    else rest.push(m[0]);
  }
  found.q = rest.join(' ').replaceAll('"', '');
  return found;
}

const sizes = {s: 1, m: 60, h: 3600, d: 86400, w: 604800};

// moment is a length of time before now, as 1h.
function moment(text) {
  const m = /^(\d+)([smhdw])$/.exec(text);
  return m ? new Date(Date.now() - m[1] * sizes[m[2]] * 1000).toISOString() : text;
}

// showSearch is the inverse of readSearch, but for the status, which has its tabs.
function showSearch(p) {
  const parts = p.get('q') ? [p.get('q')] : [];
  for (const name of words) {
    if (name === 'status') continue;
    for (const v of p.getAll(name)) parts.push(`${name}:${/\s/.test(v) ? `"${v}"` : v}`);
  }
  if (p.get('created_before')) parts.push(`older:${p.get('created_before')}`);
  if (p.get('created_after')) parts.push(`newer:${p.get('created_after')}`);
  return parts.join(' ');
}

// filterOf are the parameters of an address that choose jobs, as a bulk change takes them.
export function filterOf(p) {
  const filter = {};
  for (const name of new Set(p.keys())) {
    if (['limit', 'cursor', 'order', 'order_by', 'include'].includes(name)) continue;
    const all = p.getAll(name);
    filter[name] = all.length > 1 || ['status', 'type', 'tag', 'priority', 'id'].includes(name) ? all.map((v) => (name === 'priority' ? Number(v) : v)) : all[0];
  }
  return filter;
}

function Search() {
  const [text, set] = useState(showSearch(params.value));
  const box = useRef();
  useEffect(() => set(showSearch(params.value)), [params.value]);
  useKeys({'/': ['search', () => box.current.focus()]});
  const submit = (e) => {
    e.preventDefault();
    const cleared = Object.fromEntries([...words.filter((w) => w !== 'status'), 'q', 'created_before', 'created_after', 'cursor'].map((name) => [name, '']));
    setParams({...cleared, ...readSearch(text)}, {});
    box.current.blur();
  };
  return html`<form role="search" onSubmit=${submit}><input ref=${box} type="search" aria-label="search jobs" value=${text} onInput=${(e) => set(e.target.value)}
    placeholder='id, seq, tag, text · type:email error:timeout payload:"ann@" older:1h' /></form>`;
}

function Tabs({counts}) {
  const chosen = params.value.getAll('status');
  const to = (s) => {
    const q = new URLSearchParams(params.value);
    q.delete('status');
    q.delete('cursor');
    if (s) q.append('status', s);
    return link(`/jobs${query(Object.fromEntries([...new Set(q.keys())].map((k) => [k, q.getAll(k)])))}`);
  };
  const of = (s) => (counts ? count(s ? counts.statuses?.[s] ?? counts[s] ?? 0 : counts.total) : '');
  return html`<nav class="tabs" aria-label="states"><a href=${to('')} aria-current=${chosen.length ? null : 'page'}>all ${of('')}</a>
    ${statuses.map((s) => html`<a key=${s} href=${to(s)} aria-current=${chosen.includes(s) ? 'page' : null}>${s} ${of(s)}</a>`)}</nav>`;
}

// why says why a job waits, in a few words.
export function why(w) {
  if (!w) return '';
  const text = {type_paused: 'the type is paused', workers_paused: 'the workers are paused', type_limit: 'its type is at its limit', key_limit: 'its key is at its limit', rate_limit: 'its type is at its rate',
    target_busy: 'the target is busy', all_busy: 'all workers are busy', queue: w.position ? `number ${w.position} in line` : 'others come first', queue_full: 'the queue is full', no_worker: 'no worker asks for it',
    scheduled: 'its time has not come', backoff: 'waits for its retry', starting: 'about to start', upstream: 'waits for other jobs'}[w.reason] || w.reason;
  return w.position && w.reason !== 'queue' ? `${text}, number ${w.position}` : text;
}

// What is worth saying about a job in its line.
function Line({job: j}) {
  if (j.status === 'processing') return html`<${Bar} percent=${j.progress} label=${`progress of ${j.seq}`} /> ${j.progress} % ${j.message}`;
  if (j.status === 'failed' || j.status === 'cancelled') return html`<span class=${j.status === 'failed' ? 'bad' : 'faint'}>${j.error}</span>`;
  if (j.status === 'retrying') return html`<span class="warn">${j.error}</span> again <${Ago} at=${j.run_at} />`;
  if (j.status === 'scheduled') return html`due <${Ago} at=${j.run_at} />`;
  if (j.status === 'pending') return html`<span class="faint">${why(j.waiting)}</span>`;
  return html`<span class="faint">${j.message}</span>`;
}

function Took({job: j}) {
  if (j.status === 'pending') return html`<span class="faint">waits ${span(between(j.run_at || j.created_at, null, now.value))}</span>`;
  if (j.started_at && j.ended_at) return span(between(j.started_at, j.ended_at));
  if (j.status === 'processing') return html`<span class="faint">${span(between(j.started_at, null, now.value))}</span>`;
  return '–';
}

// matches says whether a change in the digest may belong to the list.
function matches(change, p) {
  const types = p.getAll('type'), states = p.getAll('status');
  return (!types.length || types.includes(change.type)) && (!states.length || states.includes(change.status));
}

export default function Jobs() {
  const p = params.value;
  const path = useMemo(() => {
    const q = new URLSearchParams(p);
    q.set('limit', most);
    q.set('include', 'waiting');
    return `/jobs?${q}`;
  }, [p]);
  const [list, setList] = useState(null);
  const [error, setError] = useState(null);
  const [counts, setCounts] = useState(null);
  const [fresh, setFresh] = useState(0); // new ones that are not shown
  const [at, setAt] = useState(0);
  const [picked, setPicked] = useState(new Set());
  const [turn, setTurn] = useState(0);
  const over = useRef(false);
  const again = () => setTurn((n) => n + 1);

  useEffect(() => {
    const stop = new AbortController();
    get(path, {signal: stop.signal}).then((a) => {
      setList(a);
      setError(null);
      setFresh(0);
    }, (err) => { if (err.name !== 'AbortError') setError(err); });
    const c = query(Object.fromEntries(['type', 'tag', 'created_after', 'created_before', 'fingerprint'].map((k) => [k, p.getAll(k)])));
    get(`/jobs/counts${c}`, {signal: stop.signal}).then(setCounts, () => setCounts(null));
    return () => stop.abort();
  }, [path, turn]);
  useEffect(() => { setPicked(new Set()); setAt(0); }, [path]);

  // Rows that are shown change in place; new ones are counted.
  const still = paused.value || picked.size > 0 || over.current;
  useEffect(() => {
    const d = digest.value;
    if (!d || !list || still) return undefined;
    const shown = new Set(list.jobs.map((j) => j.id));
    const changed = [...new Set((d.sample || []).filter((c) => shown.has(c.id)).map((c) => c.id))];
    const others = (d.sample || []).filter((c) => !shown.has(c.id) && matches(c, p)).length + (d.skipped || 0);
    if (others && !p.get('cursor')) setFresh((n) => n + others);
    const moving = list.jobs.filter((j) => j.status === 'processing' || j.status === 'pending').map((j) => j.id);
    const wanted = [...new Set([...changed, ...moving])].slice(0, most);
    if (!wanted.length) return undefined;
    const stop = new AbortController();
    get(`/jobs${query({id: wanted, limit: most, include: 'waiting'})}`, {signal: stop.signal}).then((a) => {
      const by = new Map(a.jobs.map((j) => [j.id, j]));
      setList((l) => l && {...l, jobs: l.jobs.map((j) => by.get(j.id) || j)});
    }, () => {});
    return () => stop.abort();
  }, [digest.value]);

  const jobs = list?.jobs || [];
  const row = jobs[Math.min(at, jobs.length - 1)];
  const pick = (id) => setPicked((s) => {
    const next = new Set(s);
    if (!next.delete(id)) next.add(id);
    return next;
  });
  const chosen = () => (picked.size ? [...picked] : row ? [row.id] : []);
  const doAll = async (verb, act) => {
    const ids = chosen();
    if (!ids.length) return;
    if (verb === 'delete' && !await ask(`Delete ${ids.length} jobs?`, 'Their results and files go with them.', 'Delete', 'bad')) return;
    const done = await Promise.allSettled(ids.map(act));
    const wrong = done.filter((d) => d.status === 'rejected');
    if (wrong.length) fail(wrong[0].reason);
    if (done.length > wrong.length) say(`${done.length - wrong.length} of ${ids.length}: ${verb}`);
    setPicked(new Set());
    again();
  };
  const act = {
    retry: () => doAll('retry', (id) => post(`/jobs/${id}/retry`)),
    cancel: () => doAll('cancel', (id) => post(`/jobs/${id}/cancel`)),
    delete: () => doAll('delete', (id) => remove(`/jobs/${id}`)),
    run: () => doAll('run now', (id) => post(`/jobs/${id}/run`)),
  };
  const move = (by) => {
    const next = Math.max(0, Math.min(jobs.length - 1, at + by));
    setAt(next);
    document.getElementById(`row-${next}`)?.scrollIntoView({block: 'nearest'});
  };
  useKeys({
    j: ['next row', () => move(1)], k: ['row before', () => move(-1)], Enter: ['open it', () => row && go(`/jobs/${row.id}`)],
    x: ['select', () => row && pick(row.id)], X: ['select up to here', () => setPicked(new Set([...picked, ...jobs.slice(0, at + 1).map((j) => j.id)]))], a: ['select all on this page', () => setPicked(new Set(picked.size === jobs.length ? [] : jobs.map((j) => j.id)))],
    r: ['retry', act.retry], c: ['cancel', act.cancel], d: ['delete', act.delete], Escape: ['', () => { if (!picked.size) return false; setPicked(new Set()); return true; }],
    R: ['read anew', again],
  });

  const filter = filterOf(p);
  const matching = (action) => bulk(action, filter, {all: Object.keys(filter).length === 0}).then(again);
  return html`<div class="row"><h1>Jobs</h1></div><${Search} /><${Tabs} counts=${counts} />
    <${Card} title=${picked.size ? `${picked.size} selected` : 'All that match'} tools=${html`
      <${Do} needs="manage" act=${picked.size ? act.retry : () => matching('retry')} title="r">Retry</${Do}><${Do} needs="manage" act=${picked.size ? act.cancel : () => matching('cancel')} title="c">Cancel</${Do}>
      ${picked.size > 0 && html`<${Do} needs="manage" act=${act.run}>Run now</${Do}>`}<${Do} needs="manage" kind="bad" act=${picked.size ? act.delete : () => matching('delete')} title="d">Delete</${Do}>
      <label class="row">order <select value=${p.get('order_by') || 'created'} onChange=${(e) => setParams({order_by: e.target.value === 'created' ? '' : e.target.value, order: e.target.value === 'run_at' ? 'asc' : '', cursor: ''})}>
        ${Object.entries(orders).map(([k, v]) => html`<option key=${k} value=${k}>${v}</option>`)}</select></label>
      <${Curl} path=${path} />`}>
    <${Trouble} error=${error} />
    ${fresh > 0 && !still && html`<p><button type="button" onClick=${again}>${count(fresh)} new ↑</button></p>`}
    <div class="scroll" onMouseEnter=${() => { over.current = true; }} onMouseLeave=${() => { over.current = false; }}><table class="cards" id="jobs"><thead><tr><th><span class="sr">select</span></th><th>state</th><th>type</th><th>job</th><th><span class="sr">more</span></th><th class="num">created</th><th class="num">took</th></tr></thead>
    <tbody>${jobs.map((j, i) => html`<tr key=${j.id} id=${`row-${i}`} aria-selected=${i === at} onClick=${() => setAt(i)}>
      <td><input type="checkbox" aria-label=${`select ${j.seq}`} checked=${picked.has(j.id)} onChange=${() => pick(j.id)} /></td>
      <td><${Status} status=${j.status} />${j.attempt > 1 ? html` <span class="faint">${j.attempt}/${j.max_attempts}</span>` : ''}</td><td>${j.type}</td>
      <td><a class="mono" href=${link(`/jobs/${j.id}`)}>#${j.seq} ${shortId(j.id)}</a>${(j.tags || []).slice(0, 3).map((t) => html` <a key=${t} class="chip" href=${link(`/jobs?tag=${encodeURIComponent(t)}`)}>${t}</a>`)}</td>
      <td class="cut"><${Line} job=${j} /></td><td class="num" data-name="created"><${Ago} at=${j.created_at} /></td><td class="num" data-name="took"><${Took} job=${j} /></td></tr>`)}
    ${list && !jobs.length && html`<tr><td colspan="7" class="faint">${list.next_cursor ? `Nothing in the ${count(list.scanned)} records that were looked at.` : 'No job matches.'}</td></tr>`}</tbody></table></div>
    <div class="row">${p.get('cursor') && html`<button type="button" onClick=${() => setParams({cursor: ''}, {})}>First page</button>`}
      ${list?.next_cursor && html`<button type="button" onClick=${() => setParams({cursor: list.next_cursor}, {})}>${jobs.length ? 'Next page' : `Scanned ${count(list.scanned)}, go on?`}</button>`}</div></${Card}>`;
}
