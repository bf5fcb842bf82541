// Schedules in words, their next and last runs, and a form with the times that it would have.
import {useEffect, useState} from 'preact/hooks';
import {html} from '../html.js';
import {get, post, put, query, remove} from '../api.js';
import {link, params, setParams} from '../route.js';
import {turn} from '../live.js';
import {Ago, Card, Curl, Dialog, Do, Trouble, ask, say, useGet} from '../parts.js';
import {clock} from '../format.js';
import {inWords} from '../cron.js';

// Runs are the last ones: a full mark made a job, an empty one was skipped.
function Runs({name, seen}) {
  const {data} = useGet(`/schedules/${encodeURIComponent(name)}/runs`, [seen]);
  const runs = (data?.runs || []).slice(0, 20).reverse();
  return html`<span class="runs">${runs.map((r) => (r.job ? html`<a key=${r.at} href=${link(`/jobs/${r.job}`)} title=${clock(r.at)} aria-label=${`run of ${clock(r.at)}`}>▮</a>` : html`<span key=${r.at} class="faint" title=${`${clock(r.at)}: skipped`} role="img" aria-label="skipped">▯</span>`))}</span>`;
}

function Next({schedule: s}) {
  const {data} = useGet(!s.paused && `/schedules/preview${query({cron: s.cron, every: s.every, timezone: s.timezone, n: 3})}`, [s.next_run_at]);
  if (s.paused) return html`<span class="warn">paused</span>`;
  if (s.problem) return html`<span class="bad">${s.problem}</span>`;
  const all = s.every || !data ? [s.next_run_at].filter(Boolean) : data.next;
  return html`<span title=${all.map(clock).join('\n')}><${Ago} at=${all[0]} /> <span class="faint">${all.slice(1).map(clock).join(', ')}</span></span>`;
}

const fields = ['name', 'cron', 'every', 'timezone', 'type', 'priority', 'overlap', 'catch_up', 'tags'];

function Edit({of: s, close, again}) {
  const [v, set] = useState(() => ({overlap: 'skip', catch_up: 'one', timezone: 'UTC', ...Object.fromEntries(fields.map((k) => [k, k === 'tags' ? (s[k] || []).join(', ') : s[k]]).filter(([, x]) => x)), payload: JSON.stringify(s.payload ?? null, null, 2)}));
  const {data: types} = useGet('/types');
  const [preview, setPreview] = useState(null);
  const [wrong, setWrong] = useState('');
  const change = (name) => (e) => set({...v, [name]: e.target.value});
  useEffect(() => {
    const stop = new AbortController();
    setPreview(null);
    if (!v.cron && !v.every) return undefined;
    get(`/schedules/preview${query({cron: v.every ? '' : v.cron, every: v.every, timezone: v.timezone, n: 5})}`, {signal: stop.signal}).then((a) => setPreview(a.next), (err) => { if (err.name !== 'AbortError') setPreview(err.message); });
    return () => stop.abort();
  }, [v.cron, v.every, v.timezone]);
  const body = () => {
    const b = {type: v.type, payload: JSON.parse(v.payload || 'null'), overlap: v.overlap, catch_up: v.catch_up};
    if (v.every) b.every = v.every; else Object.assign(b, {cron: v.cron, timezone: v.timezone});
    if (v.priority) b.priority = Number(v.priority);
    if (v.tags) b.tags = v.tags.split(',').map((t) => t.trim()).filter(Boolean);
    return b;
  };
  const save = async (e) => {
    e.preventDefault();
    try {
      if (s.name) await put(`/schedules/${encodeURIComponent(s.name)}`, {...body(), ...(s.paused ? {paused: true} : {})});
      else await post('/schedules', {name: v.name, ...body()});
      close();
      again();
    } catch (err) {
      setWrong(`${err.message} ${(err.errors || []).map((x) => `${x.pointer}: ${x.detail}`).join('; ')}`);
    }
  };
  return html`<${Dialog} title=${s.name ? `Change ${s.name}` : 'New schedule'} close=${close}><form onSubmit=${save} id="schedule">
    ${!s.name && html`<label>Name <input name="name" required value=${v.name || ''} onInput=${change('name')} autofocus /></label>`}
    <label>Cron <input name="cron" value=${v.cron || ''} placeholder="0 7 * * MON-FRI" onInput=${change('cron')} disabled=${!!v.every} /> <span class="faint">${v.cron && inWords(v)}</span></label>
    <label>or every <input name="every" value=${v.every || ''} placeholder="15m" onInput=${change('every')} /></label>
    <label>Time zone <input name="timezone" value=${v.timezone} onInput=${change('timezone')} disabled=${!!v.every} /></label>
    <p id="preview" class="faint">${Array.isArray(preview) ? html`Next: ${preview.map((t) => html`<time key=${t} class="chip">${clock(t)}</time> `)}` : html`<span class="trouble">${preview}</span>`}</p>
    <label>Type <select name="type" required value=${v.type || ''} onChange=${change('type')}><option value="">–</option>${(types?.types || []).map((t) => html`<option key=${t.name} value=${t.name}>${t.name}</option>`)}</select></label>
    <label>Payload <textarea rows="5" value=${v.payload} onInput=${change('payload')} /></label>
    <div class="row"><label>Priority <input name="priority" type="number" min="1" max="5" value=${v.priority || ''} onInput=${change('priority')} /></label>
      <label>If the last has not ended <select value=${v.overlap} onChange=${change('overlap')}><option value="skip">skip</option><option value="queue">queue</option></select></label>
      <label>After missed times <select value=${v.catch_up} onChange=${change('catch_up')}><option value="one">one job</option><option value="none">none</option></select></label></div>
    <label>Tags <input value=${v.tags || ''} onInput=${change('tags')} /></label><p class="trouble" role="alert">${wrong}</p>
    <footer><button type="button" onClick=${close}>Cancel</button><button class="main">Save</button></footer></form></${Dialog}>`;
}

export default function Schedules() {
  const {data, error, again} = useGet('/schedules', [turn(5)]);
  const [editing, setEditing] = useState(null);
  const wanted = params.value.get('q') || '';
  const list = (data?.schedules || []).filter((s) => s.name.includes(wanted) || s.type.includes(wanted));
  const path = (s, verb) => `/schedules/${encodeURIComponent(s.name)}${verb ? `/${verb}` : ''}`;
  const drop = async (s) => {
    if (await ask(`Delete ${s.name}?`, 'Its jobs stay.', 'Delete', 'bad')) await remove(path(s)).then(again);
  };
  return html`<div class="row"><h1>Schedules</h1><input type="search" aria-label="name or type" placeholder="name or type" style=${{width: '14rem'}} value=${wanted} onInput=${(e) => setParams({q: e.target.value})} />
      <${Do} needs="manage" kind="main" act=${async () => setEditing({})}>New schedule</${Do}><${Curl} path="/schedules" /></div>
    <${Card}><${Trouble} error=${error} /><div class="scroll"><table class="cards" id="schedules"><thead><tr><th>name</th><th>when</th><th>type</th><th>next</th><th>last runs</th><th class="num">skipped</th><th><span class="sr">more</span></th></tr></thead>
    <tbody>${list.slice(0, 200).map((s) => html`<tr key=${s.name}><td>${s.name} ${s.source === 'config' && html`<span class="faint">(configuration)</span>`}</td><td title=${s.cron || s.every}>${inWords(s)} <span class="faint">${s.cron && s.timezone}</span></td><td><a href=${link(`/types/${s.type}`)}>${s.type}</a></td>
      <td><${Next} schedule=${s} /></td><td><${Runs} name=${s.name} seen=${s.last_run_at} /></td><td class="num" data-name="skipped">${s.skipped || 0}</td>
      <td class="tools"><${Do} needs="manage" act=${() => post(path(s, 'run')).then((j) => { say(`runs as #${j.seq}`); again(); })}>Run now</${Do}>
        ${s.source !== 'config' && html`<${Do} needs="manage" act=${() => post(path(s, s.paused ? 'resume' : 'pause')).then(again)}>${s.paused ? 'Resume' : 'Pause'}</${Do}><${Do} needs="manage" act=${async () => setEditing(s)}>Edit</${Do}><${Do} needs="manage" kind="bad" act=${() => drop(s)}>Delete</${Do}>`}</td></tr>`)}
    ${data && !list.length && html`<tr><td colspan="7" class="faint">${wanted ? 'None matches.' : 'No schedules yet.'}</td></tr>`}</tbody></table></div>${list.length > 200 && html`<p class="faint">${list.length - 200} more; search for them.</p>`}</${Card}>
    ${editing && html`<${Edit} of=${editing} close=${() => setEditing(null)} again=${again} />`}`;
}
