// What happens now, line by line: a sample of each second, as much as a person can read.
import {useEffect, useState} from 'preact/hooks';
import {html} from '../html.js';
import {link, params, setParams} from '../route.js';
import {digest, paused} from '../live.js';
import {Card, Curl, Status} from '../parts.js';
import {clock, count, shortId} from '../format.js';

const kept = 300; // lines
const statuses = ['scheduled', 'pending', 'processing', 'retrying', 'completed', 'failed', 'cancelled'];

export default function Tail() {
  const [lines, set] = useState([]);
  const p = params.value;
  const type = p.get('type') || '', status = p.get('status') || '';
  const d = digest.value;
  useEffect(() => {
    if (!d || paused.value) return;
    const some = (d.sample || []).filter((c) => (!type || c.type === type) && (!status || c.status === status));
    const more = some.map((c) => ({...c, key: `${c.id}${c.status}${c.at}`}));
    if (d.skipped && !type && !status) more.push({key: `skipped${d.at}`, skipped: d.skipped, at: d.at});
    if (more.length) set((l) => [...more.reverse(), ...l].slice(0, kept));
  }, [d]);
  useEffect(() => set([]), [type, status]);
  return html`<div class="row"><h1>Tail</h1><label class="row">type <select value=${type} onChange=${(e) => setParams({type: e.target.value})}><option value="">all</option>${Object.keys(d?.types || {}).map((t) => html`<option key=${t} value=${t}>${t}</option>`)}</select></label>
      <label class="row">state <select value=${status} onChange=${(e) => setParams({status: e.target.value})}><option value="">all</option>${statuses.map((s) => html`<option key=${s} value=${s}>${s}</option>`)}</select></label>
      <button type="button" aria-pressed=${paused.value} onClick=${() => { paused.value = !paused.value; }}>${paused.value ? 'Go on' : 'Freeze'} (Space)</button><${Curl} path=${`/events${type || status ? `?${new URLSearchParams(Object.entries({type, status}).filter(([, v]) => v))}` : ''}`} /></div>
    <${Card}><table class="cards" id="tail"><tbody>${lines.map((l) => (l.skipped ? html`<tr key=${l.key}><td colspan="4" class="faint">${count(l.skipped)} not shown</td></tr>`
      : html`<tr key=${l.key}><td class="num faint">${clock(l.at)}</td><td><${Status} status=${l.status} /></td><td>${l.type}</td><td><a class="mono" href=${link(`/jobs/${l.id}`)}>#${l.seq} ${shortId(l.id)}</a></td><td class="cut bad">${l.error}</td></tr>`))}
    ${!lines.length && html`<tr><td class="faint">Nothing yet.</td></tr>`}</tbody></table></${Card}>`;
}
