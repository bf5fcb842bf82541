// Changes of many jobs: first how many, then the job that makes them, with its progress.
import {useEffect, useState} from 'preact/hooks';
import {html} from './html.js';
import {get, post} from './api.js';
import {link} from './route.js';
import {Bar, Curl, ask, say} from './parts.js';
import {count} from './format.js';

const words = {retry: 'Retry', cancel: 'Cancel', delete: 'Delete'};

// bulk asks how many jobs a change is about, wants a yes, makes it, and waits for its end.
export async function bulk(action, filter, {all} = {}) {
  const body = {action, filter, ...(all ? {all: true} : {})};
  const {matched: n} = await post('/jobs/bulk', {...body, dry_run: true});
  if (!n) {
    say(`There is nothing to ${action}.`);
    return null;
  }
  const about = Object.entries(filter).map(([k, v]) => `${k} ${[v].flat().join(' or ')}`).join(', ') || 'every job';
  const yes = await ask(`${words[action]} ${count(n)} jobs?`, html`<p>${about}</p>${action === 'delete' && html`<p>Their results and files go with them.</p>`}<${Curl} method="POST" path="/jobs/bulk" body=${body} />`, words[action], action === 'delete' ? 'bad' : 'main');
  if (!yes) return null;
  const job = await post('/jobs/bulk', body);
  await ask(`${words[action]} ${count(n)} jobs`, html`<${Progress} id=${job.id} />`, 'Close');
  return job;
}

function Progress({id}) {
  const [j, set] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    const look = async () => {
      while (!stop.signal.aborted) {
        const now = await get(`/jobs/${id}`, {signal: stop.signal});
        set(now);
        if (now.ended_at) return;
        await new Promise((done) => { setTimeout(done, 300); });
      }
    };
    look().catch(() => {});
    return () => stop.abort();
  }, [id]);
  if (!j) return html`<p aria-busy="true">…</p>`;
  return html`<p><${Bar} percent=${j.progress} /> ${j.progress} % ${j.message}</p>${j.ended_at && html`<p class=${j.status === 'completed' ? 'good' : 'bad'} id="bulk-done">${j.status} ${j.error} ${j.result ? JSON.stringify(j.result) : ''}</p>`}<p><a href=${link(`/jobs/${id}`)}>the job that does it</a></p>`;
}
