// Workers: this server's pool, slot by slot, and workers elsewhere; how the server itself does.
import {useState} from 'preact/hooks';
import {html} from '../html.js';
import {may, post, put} from '../api.js';
import {link} from '../route.js';
import {digest, now, recent, turn} from '../live.js';
import {Ago, Bar, Card, Curl, Do, Spark, Trouble, fail, say, useGet} from '../parts.js';
import {bytes, between, count, share, span} from '../format.js';

// Slots are the workers of a pool: full ones have a job.
function Slots({leases, max}) {
  return html`<span class="slots">${leases.slice(0, 200).map((l) => html`<a key=${l.job} class="busy" href=${link(`/jobs/${l.job}`)} title=${`${l.type}, ${span(between(l.since, null, now.value))}${l.progress ? `, ${l.progress} %` : ''}`} aria-label=${`${l.type}, running`}>▮</a>`)}${max > leases.length && html`<span class="faint" aria-label=${`${max - leases.length} free`} role="img">${'▯'.repeat(Math.min(200, max - leases.length))}</span>`}</span>`;
}

function Size({stats, again}) {
  const [size, set] = useState(null);
  const value = size ?? stats.max_workers;
  return html`<label class="row">size <input type="range" min="1" max=${Math.max(32, stats.max_workers * 2)} value=${value} disabled=${!may('manage')} aria-label="size of the pool" onInput=${(e) => set(Number(e.target.value))}
      onChange=${(e) => { const n = Number(e.target.value); put('/workers', {max_workers: n}).then(() => { say(`${n} workers, until the next start`); set(null); again(); }, fail); }} /> <b>${value}</b></label>`;
}

export default function Workers() {
  const {data, error, again} = useGet('/workers', [turn(2)]);
  const {data: stats, again: anew} = useGet('/workers/stats', [turn(5)]);
  const {data: info} = useGet('/info');
  const d = digest.value;
  const all = data?.workers || [];
  const local = all.filter((w) => w.local), remote = all.filter((w) => !w.local);
  return html`<div class="row"><h1>Workers</h1>${stats?.paused && html`<span class="warn" id="paused">‖ paused</span>`}
      ${stats && html`<${Do} needs="manage" act=${() => post(`/workers/${stats.paused ? 'resume' : 'pause'}`).then(anew)}>${stats.paused ? 'Resume' : 'Pause'}</${Do}>`}<${Curl} path="/workers" /></div><${Trouble} error=${error} />
    ${local.map((w) => html`<${Card} key=${w.worker} title=${`${w.node}: its own pool`} tools=${stats && html`<${Size} stats=${stats} again=${anew} />`}>
      <${Slots} leases=${w.leases} max=${stats?.max_workers || 0} />
      <div class="figures"><div><span class="faint">busy</span><b>${d?.workers ? `${d.workers.busy}/${d.workers.max}` : count(w.leases.length)}</b></div><div><span class="faint">utilisation</span><b>${share(d?.workers?.utilisation ?? stats?.utilisation ?? 0, 1)}</b></div>
        <div><span class="faint">last 5 min</span><br /><${Spark} room=${300} label="busy workers" values=${recent.map((r) => r.workers?.busy || 0)} /></div><div><span class="faint">disk free</span><b>${bytes(d?.node?.disk_free_bytes)}</b></div>
        <div><span class="faint">commit</span><b>${d?.node?.commit_ms ? `${d.node.commit_ms.toFixed(1)} ms` : '–'}</b></div><div><span class="faint">up</span><b>${span(stats?.uptime_seconds)}</b></div><div><span class="faint">version</span><b>${info?.version || '–'}</b></div></div>
      <${Running} leases=${w.leases} /></${Card}>`)}
    <${Card} title="Workers elsewhere"><table class="cards" id="remote"><thead><tr><th>worker</th><th>types</th><th class="num">last seen</th><th>jobs</th></tr></thead><tbody>
      ${remote.slice(0, 200).map((w) => html`<tr key=${w.worker}><td>${w.worker}</td><td>${(w.types || []).map((t) => html`<a key=${t} class="chip" href=${link(`/types/${t}`)}>${t}</a> `)}</td><td class="num" data-name="last seen"><${Ago} at=${w.last_seen} /></td><td><${Slots} leases=${w.leases} max=${0} /> ${w.leases.length}</td></tr>`)}
      ${!remote.length && html`<tr><td colspan="4" class="faint">Nobody has asked for jobs in the last ten minutes.</td></tr>`}</tbody></table></${Card}>`;
}

function Running({leases}) {
  if (!leases.length) return null;
  return html`<table class="cards"><tbody>${leases.slice(0, 50).map((l) => html`<tr key=${l.job}><td><a href=${link(`/types/${l.type}`)}>${l.type}</a></td><td><a class="mono" href=${link(`/jobs/${l.job}`)}>${l.job}</a></td><td class="num">${span(between(l.since, null, now.value))}</td><td>${l.progress ? html`<${Bar} percent=${l.progress} label=${`progress of ${l.job}`} /> ${l.progress} %` : ''}</td></tr>`)}</tbody></table>`;
}
