// A worker in Node with fetch only. It does the jobs of the type shout.
import { setTimeout as sleep } from "node:timers/promises";

const url = (process.env.JOBSTREAM_URL ?? "http://127.0.0.1:8080") + "/leases";
const worker = `node-${process.pid}`;

// work does one job. It must stop when the signal says so.
async function work(job, signal) {
  await sleep((job.payload.seconds ?? 0) * 1000, null, { signal });
  return { text: job.payload.text.toUpperCase(), worker };
}

async function post(path, body, seconds = 40) {
  const r = await fetch(url + path, { method: "POST", body: JSON.stringify(body), signal: AbortSignal.timeout(Math.ceil(seconds * 1000)) });
  if (r.status === 429 || r.status >= 500) throw new Error(`status ${r.status}`);
  return r.json();
}

async function run({ lease, lease_seconds: span, job }, asked) {
  const stop = new AbortController();
  let until = asked + span * 1000; // by this process's own clock
  const beats = setInterval(async () => {
    const sent = performance.now();
    const b = await post("/beat", { worker, leases: [lease] }, span / 3).catch(() => null);
    if (b?.lease_seconds) until = sent + span * 1000;
    if (b?.lost?.length || b?.cancel?.[lease] !== undefined || performance.now() + (span / 3) * 1000 > until) stop.abort();
  }, (span / 3) * 1000);
  const [end, body] = await work(job, stop.signal).then((result) => ["done", { result }], (e) => ["fail", { error: String(e) }]);
  for (let n = 0; !stop.signal.aborted; n++) { // a report that comes again does no harm; a lost lease is answered with 409
    if (await post(`/${lease}/${end}`, body).catch(() => null)) break;
    await sleep(Math.random() * Math.min(10_000, 200 * 2 ** n));
  }
  clearInterval(beats);
}

for (let n = 0; ; ) {
  const asked = performance.now();
  const answer = await post("", { types: ["shout"], worker }).catch(() => null);
  if (answer?.leases) n = 0;
  else await sleep(Math.random() * Math.min(10_000, 200 * 2 ** n++));
  for (const l of answer?.leases ?? []) await run(l, asked);
}
