// What needs attention first, then figures, charts and types, all by the digest.
import {useState} from 'preact/hooks';
import {html} from '../html.js';
import {me, post} from '../api.js';
import {link} from '../route.js';
import {columnsOf, digest, now, recent, turn} from '../live.js';
import {Chart} from '../chart.js';
import {Ago, Card, Curl, Do, Spark, Status, Wait, say, useGet} from '../parts.js';
import {count, rate, share, span, bytes, shortId} from '../format.js';

const ranges = ['5m', '1h', '24h'];
const lateAfter = 300; // seconds

// attention lists what is wrong, the worst first.
function attention(d) {
  const found = [];
  for (const [name, t] of Object.entries(d.types || {})) {
    if (t.paused && t.waiting) found.push({rank: t.oldest_seconds + 1e6, type: name, what: `oldest waits ${span(t.oldest_seconds)}, ${count(t.waiting)} waiting: the type is paused`, resume: true});
    else if (t.waiting_reasons?.no_worker) found.push({rank: t.oldest_seconds + 1e5, type: name, what: `${count(t.waiting_reasons.no_worker)} wait, and no worker asks for them`});
    else if (t.oldest_seconds > lateAfter) found.push({rank: t.oldest_seconds, type: name, what: `oldest waits ${span(t.oldest_seconds)}, ${count(t.waiting)} waiting`});
  }
  return found.sort((a, b) => b.rank - a.rank).slice(0, 5);
}

function Attention({d, nodes}) {
  const {data} = useGet('/failures?limit=3', [turn(15)]);
  const failures = (data?.failures || []).filter((f) => now.value - Date.parse(f.last) < 600e3);
  const found = attention(d);
  const oldest = Math.max(0, ...Object.values(d.types || {}).map((t) => t.oldest_seconds || 0));
  if (d.workers?.paused) found.unshift({what: 'The workers of this server are paused: no job starts.', go: true});
  for (const n of nodes) if (!n.ready && nodes.length > 1) found.unshift({node: n.name, what: `Node ${n.name} is not ready: ${n.why}`});
  if (!found.length && !failures.length) return html`<${Card} title="Needs attention"><p class="good" id="all-well">All is well: the oldest job waits ${span(oldest)}, no failures in ten minutes.</p></${Card}>`;
  return html`<${Card} title="Needs attention" kind="attention"><ul class="choices">
    ${found.map((f) => html`<li key=${f.type || f.node || 'workers'} class="row"><span class="warn">▲</span> ${f.type && html`<a href=${link(`/types/${f.type}`)}>${f.type}</a>`} <span>${f.what}</span>
      ${f.resume && html`<${Do} needs="manage" act=${() => post(`/types/${f.type}/resume`).then(() => say(`${f.type} goes on`))}>Resume</${Do}>`}
      ${f.go && html`<${Do} needs="manage" act=${() => post('/workers/resume').then(() => say('the workers go on'))}>Resume</${Do}>`}</li>`)}
    ${failures.map((f) => html`<li key=${f.fingerprint} class="row"><span class="bad">✕</span> <a href=${link(`/types/${f.type}`)}>${f.type}</a> <span>${count(f.count)} failed, the last <${Ago} at=${f.last} />:</span> <span class="mono cut">${f.error}</span>
      <a class="button" href=${link(`/jobs?status=failed&fingerprint=${f.fingerprint}`)}>See ${count(f.count)}</a></li>`)}
  </ul></${Card}>`;
}

function Figures({d}) {
  const t = d.total || {};
  const per = d.seconds || 1;
  const facts = [
    ['in', `${rate((t.in || 0) / per)}/s`], ['done', `${rate((t.done || 0) / per)}/s`], ['failed', share(t.failed || 0, (t.failed || 0) + (t.done || 0))],
    ['wait p50', span(t.wait?.p50)], ['wait p99', span(t.wait?.p99)], ['waiting', count(t.waiting || 0)], ['busy', `${d.workers?.busy ?? 0}/${d.workers?.max ?? 0}`],
  ];
  return html`<${Card}><div class="figures">${facts.map(([name, value]) => html`<div key=${name}><span class="faint">${name}</span><b>${value}</b></div>`)}</div></${Card}>`;
}

// Charts shows the rings of GET /stats/history, and goes on with the digest.
function Charts() {
  const [range, setRange] = useState('5m');
  const {data} = useGet(`/stats/history?range=${range}`, [turn(30)]);
  void digest.value; // it goes on with each
  if (!data) return null;
  const of = columnsOf(data);
  const h = {at: of.at, done: of.done, failed: of.failed, p50: of.wait_p50, p95: of.wait_p95, p99: of.wait_p99};
  if (data.range === '5m') {
    for (const name of Object.keys(h)) h[name] = [...h[name]];
    const last = h.at[h.at.length - 1];
    for (const d of recent) {
      const at = Date.parse(d.at) / 1000;
      if (at <= last + 0.5) continue;
      h.at.push(at);
      h.done.push((d.total.done || 0) / d.seconds);
      h.failed.push((d.total.failed || 0) / d.seconds);
      for (const p of ['p50', 'p95', 'p99']) h[p].push(d.total.wait?.[p] ?? null);
    }
    for (const list of Object.values(h)) list.splice(0, Math.max(0, list.length - 300));
  }
  const tools = html`<div class="tabs" role="group" aria-label="range">${ranges.map((r) => html`<button key=${r} type="button" class=${r === range ? 'main' : ''} aria-pressed=${r === range} onClick=${() => setRange(r)}>${r}</button>`)}</div>`;
  const positive = (list) => list.map((v) => (v > 0 ? v : null));
  return html`<div class="grid"><${Card} title="Throughput" tools=${tools}>
      <${Chart} label="jobs that ended in a second" format=${rate} data=${[h.at, h.done, h.failed]} lines=${[{label: 'done/s', colour: 'busy', fill: true}, {label: 'failed/s', colour: 'bad', fill: true}]} /></${Card}>
    <${Card} title="Time in queue" tools=${html`<${Curl} path=${`/stats/history?range=${range}`} />`}>
      <${Chart} label="time in the queue" log format=${span} data=${[h.at, positive(h.p50), positive(h.p95), positive(h.p99)]} lines=${[{label: 'p50', colour: 'good'}, {label: 'p95', colour: 'warn'}, {label: 'p99', colour: 'bad'}]} /></${Card}></div>`;
}

function Types({d}) {
  const per = d.seconds || 1;
  const rows = Object.entries(d.types || {}).sort(([, a], [, b]) => (b.oldest_seconds || 0) - (a.oldest_seconds || 0) || (b.waiting || 0) - (a.waiting || 0));
  return html`<${Card} title="Types" tools=${html`<${Curl} path="/workers/stats" />`}><div class="scroll"><table class="cards"><thead><tr><th>type</th><th class="num">waiting</th><th class="num">oldest</th><th class="num">running</th><th class="num">done/s</th><th class="num">p95 run</th><th class="num">failed, 5 min</th><th>done, last minute</th></tr></thead>
    <tbody>${rows.slice(0, 100).map(([name, t]) => {
      const mine = recent.map((r) => r.types?.[name] || {});
      const failed = mine.reduce((n, r) => n + (r.failed || 0), 0);
      return html`<tr key=${name}><td><a href=${link(`/types/${name}`)}>${name}</a>${t.paused && html` <span class="warn">‖ paused</span>`}</td>
        <td class="num" data-name="waiting"><a href=${link(`/jobs?type=${name}&status=pending`)}>${count(t.waiting || 0)}</a></td><td class="num" data-name="oldest"><${Wait} seconds=${t.oldest_seconds} /></td>
        <td class="num" data-name="running">${count(t.running || 0)}</td><td class="num" data-name="done/s">${rate((t.done || 0) / per)}</td><td class="num" data-name="p95 run">${span(t.run?.p95)}</td>
        <td class="num" data-name="failed">${failed ? html`<a class="bad" href=${link(`/failures?type=${name}`)}>${count(failed)} ▲</a>` : '0'}</td>
        <td><${Spark} label=${`done in each second, ${name}`} values=${mine.slice(-60).map((r) => r.done || 0)} /></td></tr>`;
    })}</tbody></table></div></${Card}>`;
}

function JustNow({d}) {
  const rows = (d.sample || []).slice(-10).reverse();
  const more = (d.skipped || 0) + Math.max(0, (d.sample || []).length - rows.length);
  return html`<${Card} title="Just now" tools=${html`<span class="faint">${more > 0 ? `+${count(more)} not shown` : ''} · disk ${bytes(d.node?.disk_free_bytes)} free · ${d.node?.commit_ms ? `${d.node.commit_ms.toFixed(1)} ms a commit` : 'no commits'}</span>`}>
    <table class="cards"><tbody>${rows.map((c) => html`<tr key=${c.id + c.status}><td><${Status} status=${c.status} /></td><td>${c.type}</td><td><a class="mono" href=${link(`/jobs/${c.id}`)}>#${c.seq} ${shortId(c.id)}</a></td><td class="cut bad">${c.error}</td><td class="num"><${Ago} at=${c.at} /></td></tr>`)}
    ${!rows.length && html`<tr><td class="faint">Nothing has happened in the last second.</td></tr>`}</tbody></table></${Card}>`;
}

// Nodes shows the nodes of a cluster, as the one knows them that serves this page.
function Nodes({nodes}) {
  if (nodes.length < 2) return null;
  const state = (n) => {
    if (n.differs) return html`<span class="bad">✕ differs</span>`;
    if (!n.ready) return html`<span class="bad">✕ not ready</span>`;
    return n.leader ? html`<b class="good">★ leads</b>` : html`<span class="good">● ready</span>`;
  };
  const clock = (n) => (Math.abs(n.clock_ms || 0) > 500 ? html`<span class="warn">▲ clock ${n.clock_ms > 0 ? '+' : '−'}${span(Math.abs(n.clock_ms) / 1000)}</span>` : null);
  return html`<${Card} title="Nodes" kind="nodes" tools=${html`<${Curl} path="/nodes" />`}><div class="scroll"><table class="cards"><thead><tr><th>node</th><th>role</th><th>state</th><th class="num">position</th><th class="num">lag</th><th>hash</th><th>version</th><th>address</th></tr></thead>
    <tbody>${nodes.map((n) => html`<tr key=${n.name}><td><b>${n.name}</b>${n.name === me.value?.node && html` <span class="faint">this one</span>`}</td><td data-name="role">${n.role}</td>
      <td data-name="state">${state(n)} ${n.why && html`<span>${n.why}</span>`} ${clock(n)}</td><td class="num" data-name="position">${count(n.position)}</td><td class="num" data-name="lag">${count(n.lag)}</td>
      <td data-name="hash" class="mono" title=${n.hash ? `after ${n.hash_at} transactions of the cluster` : ''}>${n.hash ? n.hash.slice(0, 8) : '–'}</td><td data-name="version">${n.version || '–'}</td><td data-name="address" class="mono">${n.address || '–'}</td></tr>`)}</tbody></table></div></${Card}>`;
}

export default function Overview() {
  const d = digest.value;
  const {data} = useGet('/nodes', [turn(2)]);
  const nodes = data?.nodes || [];
  if (!d) return html`<h1>Overview</h1><p class="faint" aria-busy="true">Waiting for the first figures …</p><${Nodes} nodes=${nodes} />`;
  return html`<h1>Overview</h1><${Attention} d=${d} nodes=${nodes} /><${Nodes} nodes=${nodes} /><${Figures} d=${d} /><${Charts} /><${Types} d=${d} /><${JustNow} d=${d} />`;
}
