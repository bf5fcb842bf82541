// One type: depth, reasons to wait, limits that can be changed, what it takes, recent failures.
import {useState} from 'preact/hooks';
import {html} from '../html.js';
import {may, post, put, query} from '../api.js';
import {link} from '../route.js';
import {columnsOf, digest, turn} from '../live.js';
import {Ago, Card, Curl, Do, Json, Trouble, Wait, say, useGet} from '../parts.js';
import {Chart} from '../chart.js';
import {count, rate, span} from '../format.js';
import {why} from './jobs.js';

// Limits edits what can be changed while the server runs.
function Limits({type: t, again}) {
  const [values, set] = useState({});
  const fields = [['max_workers', 'at a time (0: no limit)', 'number'], ['rate', 'starts, like 100/s', 'text'], ['burst', 'starts at once', 'number'], ['concurrency_per_key', 'at a time per key', 'number']];
  const save = async () => {
    const body = Object.fromEntries(Object.entries(values).map(([k, v]) => [k, k === 'rate' ? v : Number(v)]));
    await put('/workers', {types: {[t.name]: body}});
    set({});
    say('changed, until the next start');
    again();
  };
  return html`<${Card} title="Limits" tools=${html`<${Curl} method="PUT" path="/workers" body=${{types: {[t.name]: values}}} />`}>
    ${fields.map(([name, text, kind]) => html`<label key=${name} class="row"><input name=${name} type=${kind} min="0" disabled=${!may('manage')} value=${values[name] ?? t[name] ?? ''} onInput=${(e) => set({...values, [name]: e.target.value})} />
      <span>${name.replaceAll('_', ' ')}: ${text}</span> ${t.sources?.[name] && html`<span class="faint">(${t.sources[name]})</span>`}</label>`)}
    <div class="row"><${Do} needs="manage" kind="main" disabled=${!Object.keys(values).length} act=${save}>Change</${Do}><span class="faint">It counts until the next start; the configuration is for good.</span></div></${Card}>`;
}

function Depth({type: t, live}) {
  const by = t.priorities || live.priorities || {};
  const max = Math.max(1, ...[1, 2, 3, 4, 5].map((p) => by[p]?.waiting ?? by[p] ?? 0));
  return html`<${Card} title="Waiting" tools=${html`<a href=${link(`/jobs${query({type: t.name, status: 'pending'})}`)}>show them</a>`}><div class="figures"><div><span class="faint">waiting</span><b>${count(live.waiting ?? t.depth.pending)}</b></div><div><span class="faint">oldest</span><b><${Wait} seconds=${live.oldest_seconds} /></b></div>
      <div><span class="faint">running</span><b>${count(live.running ?? t.depth.processing)}</b></div><div><span class="faint">retrying</span><b>${count(live.retrying ?? t.depth.retrying)}</b></div><div><span class="faint">scheduled</span><b>${count(live.scheduled ?? t.depth.scheduled)}</b></div></div>
    ${Object.keys(by).length > 0 && html`<table><tbody>${[1, 2, 3, 4, 5].map((p) => {
      const n = by[p]?.waiting ?? by[p] ?? 0;
      return html`<tr key=${p}><td>priority ${p}</td><td class="num">${count(n)}</td><td style=${{width: '60%'}}><span class="bar" style=${{width: '100%'}}><i style=${{width: `${(100 * n) / max}%`}} /></span></td></tr>`;
    })}</tbody></table>`}
    ${Object.keys(live.waiting_reasons || {}).length > 0 && html`<ul>${Object.entries(live.waiting_reasons).map(([r, n]) => html`<li key=${r}>${count(n)}: ${why({reason: r})}</li>`)}</ul>`}</${Card}>`;
}

export default function Type({id}) {
  const {data: t, error, again} = useGet(`/types/${encodeURIComponent(id)}`, [turn(5)]);
  const {data: failures} = useGet(`/failures${query({type: id, limit: 5})}`, [turn(10)]);
  const {data: history} = useGet(`/stats/history?range=1h&type=${encodeURIComponent(id)}`, [turn(30)]);
  const d = digest.value, live = d?.types?.[id] || {};
  if (!t) return html`<h1>${id}</h1><${Trouble} error=${error} />${!error && html`<p class="faint" aria-busy="true">…</p>`}`;
  const ring = history && columnsOf(history, id);
  const settings = ['run', 'runs', 'retry_count', 'timeout', 'backoff', 'lease', 'inputs'].filter((k) => t[k] != null);
  return html`<div class="row"><h1>${t.name}</h1><span class="faint">${t.description}</span>
      ${t.paused && html`<span class="warn" id="paused">‖ paused${t.paused_by ? ` by ${t.paused_by}` : ''} ${t.paused_at && html`<${Ago} at=${t.paused_at} />`}</span>`}
      <div class="tools">${t.paused ? html`<${Do} needs="manage" kind="main" act=${() => post(`/types/${t.name}/resume`).then(again)}>Resume</${Do}>` : html`<${Do} needs="manage" act=${() => post(`/types/${t.name}/pause`).then(again)}>Pause</${Do}>`}
        <a class="button" href=${link(`/new?type=${t.name}`)}>New job</a><a class="button" href=${link(`/jobs?type=${t.name}`)}>Jobs</a><${Curl} path=${`/types/${t.name}`} /></div></div><${Trouble} error=${error} />
    <div class="grid"><${Depth} type=${t} live=${live} /><${Limits} type=${t} again=${again} /></div>
    ${ring && html`<div class="grid"><${Card} title="Throughput, 1 h"><${Chart} label="jobs that ended in a second" format=${rate} group=${id} data=${[ring.at, ring.done, ring.failed]} lines=${[{label: 'done/s', colour: 'busy', fill: true}, {label: 'failed/s', colour: 'bad', fill: true}]} /></${Card}>
      <${Card} title="Wait and run, 1 h"><${Chart} label="times" log format=${span} group=${id} data=${[ring.at, ring.wait_p95, ring.run_p50, ring.run_p95].map((l, i) => (i ? l.map((v) => (v > 0 ? v : null)) : l))} lines=${[{label: 'wait p95', colour: 'warn'}, {label: 'run p50', colour: 'good'}, {label: 'run p95', colour: 'bad'}]} /></${Card}></div>`}
    ${failures?.failures?.length > 0 && html`<${Card} title="Failures" tools=${html`<a href=${link(`/failures?type=${id}`)}>all</a>`}><table class="cards"><tbody>${failures.failures.map((f) => html`<tr key=${f.fingerprint}><td class="num">${count(f.count)}</td><td class="cut mono bad">${f.error}</td><td class="num"><${Ago} at=${f.last} /></td><td><a href=${link(`/jobs?status=failed&fingerprint=${f.fingerprint}`)}>see</a></td></tr>`)}</tbody></table></${Card}>`}
    <div class="grid"><${Card} title="Settings"><dl class="facts">${settings.map((k) => [html`<dt key=${k}>${k.replaceAll('_', ' ')}</dt>`, html`<dd>${typeof t[k] === 'object' ? html`<${Json} value=${t[k]} />` : String(t[k])} ${t.sources?.[k] && html`<span class="faint">(${t.sources[k]})</span>`}</dd>`])}</dl></${Card}>
      ${t.schema && html`<${Card} title="What payloads must look like"><${Json} value=${t.schema} /></${Card}>`}</div>`;
}
