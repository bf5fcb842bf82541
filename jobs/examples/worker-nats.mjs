// A worker in Node with @nats-io/transport-node. It does the jobs of the type shout.
import { connect } from "@nats-io/transport-node";
import { setTimeout as sleep } from "node:timers/promises";

const nc = await connect({ servers: process.env.NATS_URL ?? "127.0.0.1:4222", maxReconnectAttempts: -1, waitOnFirstConnect: true });
const worker = `node-${process.pid}`;
const stops = new Map(); // lease -> AbortController
nc.subscribe(`jobstream.worker.cancel.${worker}`, { callback: (_, m) => stops.get(m.json().lease)?.abort() });

// work does one job. It must stop when the signal says so.
async function work(job, signal) {
  await sleep((job.payload.seconds ?? 0) * 1000, null, { signal });
  return { text: job.payload.text.toUpperCase(), worker };
}

async function ask(verb, body, seconds = 40) {
  const m = await nc.request(`jobstream.worker.${verb}`, JSON.stringify(body), { timeout: seconds * 1000 });
  const code = Number(m.headers?.get("Nats-Service-Error-Code") || 0);
  if (code === 429 || code >= 500) throw new Error(`status ${code}`);
  return m.json();
}

async function run({ lease, lease_seconds: span, job }, asked) {
  const stop = new AbortController();
  stops.set(lease, stop);
  let until = asked + span * 1000; // by this process's own clock
  const beats = setInterval(async () => {
    const sent = performance.now();
    const b = await ask("beat", { worker, leases: [lease] }, span / 3).catch(() => null);
    if (b?.lease_seconds) until = sent + span * 1000;
    if (b?.lost?.length || b?.cancel?.[lease] !== undefined || performance.now() + (span / 3) * 1000 > until) stop.abort();
  }, (span / 3) * 1000);
  const [end, body] = await work(job, stop.signal).then((result) => ["done", { result }], (e) => ["fail", { error: String(e) }]);
  for (let n = 0; !stop.signal.aborted; n++) { // a report that comes again does no harm; a lost lease is answered with 409
    if (await ask(end, { lease, ...body }, 5).catch(() => null)) break;
    await sleep(Math.random() * Math.min(10_000, 200 * 2 ** n));
  }
  clearInterval(beats);
  stops.delete(lease);
}

for (let n = 0; ; ) {
  const asked = performance.now();
  const answer = await ask("next", { types: ["shout"], worker }).catch(() => null);
  if (answer?.leases) n = 0;
  else await sleep(Math.random() * Math.min(10_000, 200 * 2 ** n++));
  for (const l of answer?.leases ?? []) await run(l, asked);
}
