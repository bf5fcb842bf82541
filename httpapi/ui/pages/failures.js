// Failed jobs by their fingerprint: type and error. A retry of five first shows whether it helps.
import {useEffect, useState} from 'preact/hooks';
import {html} from '../html.js';
import {get, post, query} from '../api.js';
import {link, params, setParams} from '../route.js';
import {useKeys} from '../keys.js';
import {digest, turn} from '../live.js';
import {Ago, Card, Curl, Do, Trouble, ask, useGet} from '../parts.js';
import {count} from '../format.js';
import {bulk} from '../bulk.js';

const first = 5; // jobs of a trial

// trial retries a few jobs of a group, and says what became of them.
async function trial(f) {
  const {jobs} = await get(`/jobs${query({status: 'failed', fingerprint: f.fingerprint, limit: first})}`);
  const ids = jobs.map((j) => j.id);
  await Promise.all(ids.map((id) => post(`/jobs/${id}/retry`)));
  await ask(`Retry ${ids.length} first`, html`<${Trial} ids=${ids} />`, 'Close');
}

function Trial({ids}) {
  const [jobs, set] = useState([]);
  useEffect(() => {
    const stop = new AbortController();
    const look = async () => {
      for (;;) {
        const all = await Promise.all(ids.map((id) => get(`/jobs/${id}?wait=2s`, {signal: stop.signal})));
        set(all);
        if (stop.signal.aborted || all.every((j) => j.ended_at)) return;
      }
    };
    look().catch(() => {});
    return () => stop.abort();
  }, []);
  const done = jobs.filter((j) => j.status === 'completed').length, failed = jobs.filter((j) => j.status === 'failed').length;
  return html`<p id="trial">${done} completed, ${failed} failed again, ${ids.length - done - failed} not done yet.</p>
    <ul>${jobs.map((j) => html`<li key=${j.id}><a href=${link(`/jobs/${j.id}`)}>#${j.seq}</a> ${j.status} <span class="faint">${j.error}</span></li>`)}</ul>`;
}

export default function Failures() {
  const p = params.value;
  const path = `/failures${query({type: p.getAll('type'), order_by: p.get('order_by'), limit: 100, cursor: p.get('cursor')})}`;
  const {data, error, again} = useGet(path, [turn(5)]);
  const [at, setAt] = useState(0);
  const list = data?.failures || [];
  const row = list[Math.min(at, list.length - 1)];
  const all = (action, f) => bulk(action, {status: ['failed'], fingerprint: f.fingerprint}).then(again);
  useKeys({
    j: ['next row', () => setAt((n) => Math.min(list.length - 1, n + 1))], k: ['row before', () => setAt((n) => Math.max(0, n - 1))],
    r: ['retry all of the row', () => row && all('retry', row)], d: ['delete all of the row', () => row && all('delete', row)],
  });
  const types = Object.keys(digest.value?.types || {});
  return html`<h1>Failures</h1><div class="row"><label class="row">type <select value=${p.get('type') || ''} onChange=${(e) => setParams({type: e.target.value, cursor: ''})}><option value="">all</option>${types.map((t) => html`<option key=${t} value=${t}>${t}</option>`)}</select></label>
      <label class="row">order <select value=${p.get('order_by') || ''} onChange=${(e) => setParams({order_by: e.target.value, cursor: ''})}><option value="">latest</option><option value="count">largest</option></select></label><${Curl} path=${path} /></div>
    <${Card}><${Trouble} error=${error} /><div class="scroll"><table class="cards" id="failures"><thead><tr><th>error</th><th>type</th><th class="num">jobs</th><th class="num">first</th><th class="num">last</th><th><span class="sr">more</span></th></tr></thead>
    <tbody>${list.map((f, i) => html`<tr key=${f.fingerprint} aria-selected=${i === at} onClick=${() => setAt(i)}><td class="cut mono bad" title=${f.example}>${f.error}</td><td><a href=${link(`/types/${f.type}`)}>${f.type}</a></td>
      <td class="num" data-name="jobs"><a href=${link(`/jobs${query({status: 'failed', fingerprint: f.fingerprint})}`)}>${count(f.count)}</a></td><td class="num" data-name="first"><${Ago} at=${f.first} /></td><td class="num" data-name="last"><${Ago} at=${f.last} /></td>
      <td class="tools">${f.permanent && html`<span class="faint">a retry can hardly help</span>`}${f.count > first && html`<${Do} needs="manage" act=${() => trial(f).then(again)}>Retry ${first} first</${Do}>`}<${Do} needs="manage" act=${() => all('retry', f)}>Retry ${count(f.count)}</${Do}>
        <${Do} needs="manage" kind="bad" act=${() => all('delete', f)}>Delete</${Do}><a href=${link(`/jobs/${f.job}`)}>example</a></td></tr>`)}
    ${data && !list.length && html`<tr><td colspan="6" class="good">No failed jobs${p.get('type') ? ' that match' : ''}.</td></tr>`}</tbody></table></div>
    ${data?.next_cursor && html`<button type="button" onClick=${() => setParams({cursor: data.next_cursor}, {})}>Next page</button>`}</${Card}>`;
}
