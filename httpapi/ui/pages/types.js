// All types with their depth and pace.
import {html} from '../html.js';
import {post} from '../api.js';
import {link} from '../route.js';
import {digest, recent, turn} from '../live.js';
import {Card, Curl, Do, Spark, Trouble, Wait, useGet} from '../parts.js';
import {count, rate, span} from '../format.js';

export default function Types() {
  const {data, error, again} = useGet('/types', [turn(5)]);
  const d = digest.value, per = d?.seconds || 1;
  return html`<h1>Types</h1><${Card} title="What this server runs" tools=${html`<${Curl} path="/types" />`}><${Trouble} error=${error} /><div class="scroll"><table class="cards" id="types">
    <thead><tr><th>type</th><th>runs</th><th class="num">waiting</th><th class="num">oldest</th><th class="num">running</th><th class="num">done/s</th><th class="num">p95 run</th><th><span class="sr">more</span></th><th><span class="sr">more</span></th></tr></thead>
    <tbody>${(data?.types || []).map((t) => {
      const live = d?.types?.[t.name] || {};
      return html`<tr key=${t.name}><td><a href=${link(`/types/${t.name}`)}>${t.name}</a> <span class="faint">${t.description}</span></td><td>${t.run}</td><td class="num" data-name="waiting">${count(live.waiting ?? t.depth?.pending)}</td>
        <td class="num" data-name="oldest"><${Wait} seconds=${live.oldest_seconds} /></td><td class="num" data-name="running">${count(live.running ?? t.depth?.processing)}${t.max_workers ? `/${t.max_workers}` : ''}</td>
        <td class="num" data-name="done/s">${rate((live.done || 0) / per)}</td><td class="num" data-name="p95 run">${span(live.run?.p95)}</td><td><${Spark} label=${`done in each second, ${t.name}`} values=${recent.slice(-60).map((r) => r.types?.[t.name]?.done || 0)} /></td>
        <td class="tools">${t.paused ? html`<span class="warn">‖ paused${t.paused_by ? ` by ${t.paused_by}` : ''}</span><${Do} needs="manage" act=${() => post(`/types/${t.name}/resume`).then(again)}>Resume</${Do}>` : html`<${Do} needs="manage" act=${() => post(`/types/${t.name}/pause`).then(again)}>Pause</${Do}>`}
          <a class="button" href=${link(`/new?type=${t.name}`)}>New</a></td></tr>`;
    })}</tbody></table></div></${Card}>`;
}
