// One job: what it is, why it does not run, its time, its log, what it left.
import {useEffect, useRef, useState} from 'preact/hooks';
import {html} from '../html.js';
import {download, events, get, patch, post, put, remove, request} from '../api.js';
import {go, link} from '../route.js';
import {useKeys} from '../keys.js';
import {digest, now, turn} from '../live.js';
import {Ago, Bar, Card, Curl, Dialog, Do, Json, Status, Trouble, ask, fail, say, useGet} from '../parts.js';
import {ago, between, bytes, clock, count, span} from '../format.js';
import {why} from './jobs.js';

const open = (j) => !j.ended_at;
const waits = (j) => ['scheduled', 'pending', 'retrying', 'blocked'].includes(j.status);

// useJob reads a job, and again with each event of it.
function useJob(id) {
  const [job, set] = useState(null);
  const [error, setError] = useState(null);
  const [asked, setAsked] = useState(0);
  const again = () => setAsked((n) => n + 1);
  useEffect(() => {
    const stop = new AbortController();
    get(`/jobs/${id}`, {signal: stop.signal}).then((j) => { set(j); setError(null); }, (err) => { if (err.name !== 'AbortError') setError(err); });
    return () => stop.abort();
  }, [id, asked, job && open(job) && waits(job) ? turn(1) : 0]);
  useEffect(() => {
    if (!job || !open(job)) return undefined;
    const stop = new AbortController();
    events(`/events?job=${job.id}`, (e) => { if (e.event.startsWith('job.')) again(); }, {signal: stop.signal}).catch(() => {});
    return () => stop.abort();
  }, [job?.id, job && open(job)]);
  return {job, error, again};
}

// Reason says why it does not run, and has the button that helps.
function Reason({job: j, again}) {
  const w = j.waiting;
  if (!w || !waits(j)) return null;
  const t = digest.value?.types?.[j.type];
  const pace = t && digest.value.seconds ? (t.done || 0) / digest.value.seconds : 0;
  const estimate = w.position && pace > 0 ? ` At the present rate in about ${span(w.position / pace)}.` : '';
  const raise = async () => {
    const type = await get(`/types/${j.type}`);
    const yes = await ask('Raise the limit', html`<p>${j.type} runs ${type.active_workers} of ${type.max_workers}. Let it run ${type.max_workers + 1}?</p><p class="faint">Until the next start.</p>`, 'Raise');
    if (yes) await put('/workers', {types: {[j.type]: {max_workers: type.max_workers + 1}}}).then(() => say(`${j.type} may run ${type.max_workers + 1} at a time`));
  };
  const help = {
    type_paused: html`<${Do} needs="manage" kind="main" act=${() => post(`/types/${j.type}/resume`).then(again)}>Resume ${j.type}</${Do}>`,
    workers_paused: html`<${Do} needs="manage" kind="main" act=${() => post('/workers/resume').then(again)}>Resume the workers</${Do}>`,
    type_limit: html`<${Do} needs="manage" act=${raise}>Raise limit</${Do}>`,
    scheduled: html`<${Do} needs="manage" kind="main" act=${() => post(`/jobs/${j.id}/run`).then(again)}>Run now</${Do}>`,
    backoff: html`<${Do} needs="manage" kind="main" act=${() => post(`/jobs/${j.id}/run`).then(again)}>Run now</${Do}>`,
    no_worker: html`<a class="button" href=${link('/workers')}>Workers</a>`, all_busy: html`<a class="button" href=${link('/workers')}>Workers</a>`,
  }[w.reason];
  return html`<${Card} kind="attention"><div class="row" id="why"><b>Why not running</b> <span>${why(w)}.${w.detail ? ` ${w.detail}.` : ''}${w.until ? html` <${Ago} at=${w.until} />.` : ''}${estimate}</span>${help}</div></${Card}>`;
}

// spans are the waits and runs of its history, each {from, to, kind, text}.
function spans(list, j) {
  const out = [];
  let since = null, kind = 'queue';
  const close = (to, text) => {
    if (since) out.push({from: since, to, kind, text: text || kind});
    since = to;
  };
  for (const e of list) {
    if (e.kind === 'submitted' || e.kind === 'retried') { since = e.at; kind = 'queue'; }
    else if (e.kind === 'started') { close(e.at); kind = 'run'; }
    else if (e.kind === 'progress') continue;
    else if (kind === 'run') { close(e.at, `attempt ${e.attempt} ${e.kind}`); kind = 'backoff'; }
  }
  if (since && open(j)) out.push({from: since, to: null, kind, text: kind === 'run' ? 'running' : kind});
  return out;
}

function Timeline({history, job: j}) {
  const [log, setLog] = useState(false);
  const all = spans(history, j).slice(-40);
  if (!all.length) return null;
  const length = (s) => Math.max(0.0005, between(s.from, s.to, now.value));
  const weight = (s) => (log ? Math.log10(1 + length(s) * 1000) + 0.2 : length(s));
  const total = all.reduce((n, s) => n + weight(s), 0);
  return html`<${Card} title="Time" tools=${html`<label class="row"><input type="checkbox" checked=${log} onChange=${(e) => setLog(e.target.checked)} /> logarithmic</label>`}>
    <ol class="timeline" aria-label="waits and runs">${all.map((s, i) => html`<li key=${i} class=${s.kind} style=${{flexGrow: (weight(s) / total) * 1000}} title=${`${s.text}: ${span(length(s))}, from ${clock(s.from)}`}>
      <span>${s.text} ${span(length(s))}</span></li>`)}</ol></${Card}>`;
}

function Attempts({history, job: j}) {
  const runs = [];
  for (const e of history) {
    if (e.kind === 'started') runs.push({attempt: e.attempt, node: e.node, from: e.at});
    else if (e.kind !== 'progress' && e.kind !== 'submitted' && runs.length) {
      const r = runs[runs.length - 1];
      if (!r.to && e.attempt === r.attempt) Object.assign(r, {to: e.at, kind: e.kind, error: e.error});
    }
  }
  if (!runs.length) return null;
  return html`<${Card} title="Attempts"><table class="cards"><tbody>${runs.slice(-50).reverse().map((r, i) => html`<tr key=${i}><td class="num">${r.attempt}</td><td>${r.kind || html`<span class="busy">running</span>`}</td><td class="num">${span(between(r.from, r.to, now.value))}</td><td>${r.node}</td>
    <td class="bad">${r.error && html`<details><summary class="cut">${r.error.split('\n')[0]}</summary><pre class="wrap">${r.error}</pre></details>`}</td></tr>`)}</tbody></table>
    ${j.errors?.length > 0 && !runs.some((r) => r.error) && html`<pre class="wrap">${j.errors.map((e) => `${e.attempt}: ${e.error}`).join('\n')}</pre>`}</${Card}>`;
}

const kept = 2000; // lines in the page

// Log shows what the job has said, and goes on while it runs.
function Log({job: j}) {
  const [lines, set] = useState([]);
  const [follow, setFollow] = useState(true);
  const box = useRef();
  useKeys({f: ['follow the log', () => setFollow((f) => !f)]});
  useEffect(() => {
    const stop = new AbortController();
    let rest = '', batch = [];
    const flush = setInterval(() => {
      if (!batch.length) return;
      const more = batch;
      batch = [];
      set((l) => [...l, ...more].slice(-kept));
    }, 100);
    const read = async () => {
      const answer = await request('GET', `/jobs/${j.id}/log?tail=500${open(j) ? '&follow=true' : ''}`, {signal: stop.signal, head: {Accept: 'application/x-ndjson'}});
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      set([]);
      for (;;) {
        const {value, done} = await reader.read();
        if (done) return;
        const parts = (rest + value).split('\n');
        rest = parts.pop();
        batch.push(...parts.filter(Boolean).map((p) => JSON.parse(p)));
      }
    };
    read().catch(() => {});
    return () => { stop.abort(); clearInterval(flush); };
  }, [j.id, open(j)]);
  useEffect(() => { if (follow && box.current) box.current.scrollTop = box.current.scrollHeight; }, [lines, follow]);
  return html`<${Card} title="Log" tools=${html`<label class="row"><input type="checkbox" checked=${follow} onChange=${(e) => setFollow(e.target.checked)} /> follow (f)</label><${Curl} path=${`/jobs/${j.id}/log`} />`}>
    <pre class="log" ref=${box} tabindex="0" aria-label="log">${lines.map((l) => html`<div key=${`${l.attempt}-${l.n}`} class=${l.level === 'error' ? 'bad' : l.level === 'warn' ? 'warn' : ''}><span class="faint">${clock(l.at)} ${l.attempt}</span> ${l.text}</div>`)}${!lines.length && html`<span class="faint">nothing yet</span>`}</pre></${Card}>`;
}

function Files({job: j}) {
  const inputs = Object.entries(j.inputs || {});
  const files = j.artifacts || (j.artifact ? [j.artifact] : []);
  if (!files.length && !inputs.length) return null;
  return html`<${Card} title="Files"><table class="cards"><tbody>
    ${inputs.map(([name, f]) => html`<tr key=${`in-${name}`}><td>${name} <span class="faint">input</span></td><td class="cut">${f.name}</td><td class="num">${bytes(f.size)}</td><td>${f.content_type}</td><td></td></tr>`)}
    ${files.map((f) => html`<tr key=${f.name}><td class="cut">${f.name}</td><td></td><td class="num">${bytes(f.size)}</td><td>${f.content_type}</td>
      <td><${Do} act=${() => download(`/jobs/${j.id}/artifacts/${encodeURIComponent(f.name)}`, f.name)}>Download</${Do}></td></tr>`)}</tbody></table></${Card}>`;
}

// Change edits a job that has not started.
function Change({job: j, close, again}) {
  const [text, setText] = useState(JSON.stringify(j.payload ?? null, null, 2));
  const [priority, setPriority] = useState(j.priority);
  const [tags, setTags] = useState((j.tags || []).join(', '));
  const [wrong, setWrong] = useState(null);
  const save = async (e) => {
    e.preventDefault();
    try {
      const body = {priority: Number(priority), tags: tags.split(',').map((t) => t.trim()).filter(Boolean)};
      const payload = JSON.parse(text);
      if (JSON.stringify(payload) !== JSON.stringify(j.payload ?? null)) body.payload = payload;
      await patch(`/jobs/${j.id}`, body);
      close();
      again();
    } catch (err) {
      setWrong(err);
    }
  };
  return html`<${Dialog} title="Change the job" close=${close}><form onSubmit=${save}>
    <label>Priority <select value=${priority} onChange=${(e) => setPriority(e.target.value)}>${[1, 2, 3, 4, 5].map((n) => html`<option key=${n} value=${n}>${n}</option>`)}</select></label>
    <label>Tags <input value=${tags} onInput=${(e) => setTags(e.target.value)} /></label>
    <label>Payload <textarea rows="10" value=${text} onInput=${(e) => setText(e.target.value)} /></label>
    ${wrong && html`<p class="trouble" role="alert">${wrong.message} ${(wrong.errors || []).map((e) => `${e.pointer}: ${e.detail}`).join('; ')}</p>`}
    <footer><button type="button" onClick=${close}>Cancel</button><button class="main">Save</button></footer></form></${Dialog}>`;
}

const facts = (j) => [
  ['id', html`<span class="mono" id="job-id">${j.id}</span> <button type="button" class="quiet" title="copy" onClick=${() => navigator.clipboard?.writeText(j.id).then(() => say('copied'), fail)}>copy</button>`],
  ['submitted', html`<${Ago} at=${j.created_at} />`], ['by', j.created_by], ['due', j.run_at && html`<${Ago} at=${j.run_at} />`], ['started', j.started_at && html`<${Ago} at=${j.started_at} />`], ['ended', j.ended_at && html`<${Ago} at=${j.ended_at} />`],
  ['node', j.node], ['tags', j.tags?.length ? j.tags.map((t) => html`<a key=${t} class="chip" href=${link(`/jobs?tag=${encodeURIComponent(t)}`)}>${t}</a> `) : null],
  ['key', j.concurrency_key && html`<a href=${link(`/jobs?concurrency_key=${encodeURIComponent(j.concurrency_key)}`)}>${j.concurrency_key}</a>`], ['unique key', j.unique_key],
  ['schedule', j.schedule && html`<a href=${link('/schedules')}>${j.schedule}</a>`], ['callback', j.callback_url], ['fingerprint', j.fingerprint && html`<a href=${link(`/jobs?status=failed&fingerprint=${j.fingerprint}`)}>${j.fingerprint}</a>`],
  ['expires', j.expires_at && html`<${Ago} at=${j.expires_at} />`], ['deadline', j.deadline && html`<${Ago} at=${j.deadline} />`], ['trace', j.traceparent?.split('-')[1]],
];

export default function Job({id}) {
  const {job: j, error, again} = useJob(id);
  const {data: history} = useGet(j && `/jobs/${j.id}/events`, [j?.updated_at]);
  const [changing, setChanging] = useState(false);
  useEffect(() => { if (j) document.title = `${j.type} #${j.seq} · jobstream`; }, [j?.id]);
  const act = {
    cancel: () => post(`/jobs/${j.id}/cancel`).then(again),
    retry: () => post(`/jobs/${j.id}/retry`).then(again),
    run: () => post(`/jobs/${j.id}/run`).then(again),
    remove: async () => {
      if (!await ask('Delete this job?', 'Its result and its files go with it.', 'Delete', 'bad')) return;
      await remove(`/jobs/${j.id}`);
      say('deleted');
      go('/jobs');
    },
  };
  const by = (ok, f) => () => { if (j && ok(j)) f().catch(fail); };
  useKeys({
    c: ['cancel', by(open, act.cancel)], r: ['retry', by((x) => ['failed', 'cancelled'].includes(x.status), act.retry)],
    d: ['delete', by((x) => !open(x), act.remove)], e: ['change', by(waits, async () => setChanging(true))],
  });
  if (!j) return html`<h1>Job ${id}</h1><${Trouble} error=${error} />${!error && html`<p class="faint" aria-busy="true">…</p>`}`;
  const list = history?.events || [];
  return html`<div class="row"><h1><a href=${link(`/types/${j.type}`)}>${j.type}</a> <span class="faint">#${j.seq}</span></h1><span id="job-status"><${Status} status=${j.status} /></span>
      ${j.status === 'processing' && html`<${Bar} percent=${j.progress} /> ${j.progress} %`} <span class="faint">attempt ${j.attempt}/${j.max_attempts} · priority ${j.priority}</span>
      <div class="tools">${open(j) && html`<${Do} needs="manage" kind="bad" act=${act.cancel} title="c">Cancel</${Do}>`}
        ${['failed', 'cancelled'].includes(j.status) && html`<${Do} needs="manage" kind="main" act=${act.retry} title="r">Retry</${Do}>`}
        ${['scheduled', 'retrying'].includes(j.status) && html`<${Do} needs="manage" act=${act.run}>Run now</${Do}>`}
        ${waits(j) && html`<${Do} needs="manage" act=${async () => setChanging(true)} title="e">Change</${Do}>`}
        <a class="button" href=${link(`/new?from=${j.id}`)}>Again</a>
        ${!open(j) && html`<${Do} needs="manage" kind="bad" act=${act.remove} title="d">Delete</${Do}>`}<${Curl} path=${`/jobs/${j.id}`} /></div></div>
    ${j.message && html`<p class="faint">${j.message}</p>`}<${Trouble} error=${error} />
    <${Reason} job=${j} again=${again} />
    ${j.error && html`<${Card} title="Error" kind="attention"><pre class="wrap bad" id="job-error">${j.error}</pre></${Card}>`}
    <${Timeline} history=${list} job=${j} />
    <div class="grid"><${Card} title="Job"><dl class="facts">${facts(j).filter(([, v]) => v).map(([name, v]) => [html`<dt key=${name}>${name}</dt>`, html`<dd>${v}</dd>`])}</dl></${Card}>
      <${Card} title="Payload"><${Json} value=${j.payload ?? null} /></${Card}>${j.result != null && html`<${Card} title="Result"><${Json} value=${j.result} /></${Card}>`}</div>
    <${Files} job=${j} /><${Attempts} history=${list} job=${j} /><${Log} job=${j} />
    <${Card} title="History" tools=${html`<${Curl} path=${`/jobs/${j.id}/events`} />`}><table class="cards"><tbody>${list.slice(-100).reverse().map((e) => html`<tr key=${e.seq}><td class="num faint">${clock(e.at)}</td><td>${e.kind}</td><td class="num">${e.attempt || ''}</td><td>${e.actor}</td><td class="cut">${e.error || e.reason || e.message}</td></tr>`)}</tbody></table>
      ${list.length > 100 && html`<p class="faint">${count(list.length - 100)} older ones: ${ago(list[0].at)} and later</p>`}</${Card}>
    ${changing && html`<${Change} job=${j} close=${() => setChanging(false)} again=${again} />`}`;
}
