// A new job: a form made of the type's schema, or JSON, with the server's own words at the field.
import {useEffect, useState} from 'preact/hooks';
import {html} from '../html.js';
import {get, post} from '../api.js';
import {go, params, setParams} from '../route.js';
import {Card, Curl, Trouble, say, useGet} from '../parts.js';

// kinds of fields that the form knows; a schema with another one gets the JSON editor for it.
function kindOf(s) {
  if (s.enum) return 'choice';
  const type = [s.type].flat().find((t) => t !== 'null');
  return {string: 'text', number: 'number', integer: 'number', boolean: 'bool'}[type] || 'json';
}

const show = (v) => (v === undefined ? '' : JSON.stringify(v, null, 2));

// Field edits one property. set(undefined) removes it.
function Field({name, schema: s, value, set, required, wrong}) {
  const kind = kindOf(s);
  const [text, setText] = useState(kind === 'json' ? show(value) : '');
  const [bad, setBad] = useState('');
  const about = html`<span>${name}${required && html` <b class="bad" title="required">*</b>`} <span class="faint">${s.description || s.title || ''}</span></span>`;
  const note = (bad || wrong) && html`<span class="trouble" role="alert">${bad || wrong}</span>`;
  const json = (t) => {
    setText(t);
    if (!t.trim()) { setBad(''); set(undefined); return; }
    try {
      set(JSON.parse(t));
      setBad('');
    } catch (err) {
      setBad(err.message);
    }
  };
  const id = `field-${name}`;
  if (kind === 'bool') return html`<label class="row" for=${id}><input id=${id} type="checkbox" checked=${value === true} onChange=${(e) => set(e.target.checked)} /> ${about} ${note}</label>`;
  if (kind === 'choice') return html`<label for=${id}>${about}<br /><select id=${id} value=${value === undefined ? '' : JSON.stringify(value)} onChange=${(e) => set(e.target.value ? JSON.parse(e.target.value) : undefined)}><option value="">–</option>${s.enum.map((v) => html`<option key=${v} value=${JSON.stringify(v)}>${String(v)}</option>`)}</select> ${note}</label>`;
  if (kind === 'json') return html`<label for=${id}>${about}<textarea id=${id} rows="3" value=${text} placeholder=${s.type === 'array' ? '[…]' : '{…}'} onInput=${(e) => json(e.target.value)} /> ${note}</label>`;
  return html`<label for=${id}>${about}<br /><input id=${id} type=${kind === 'number' ? 'number' : s.format === 'email' ? 'email' : 'text'} step="any" min=${s.minimum} max=${s.maximum} maxlength=${s.maxLength} value=${value ?? ''} placeholder=${s.default ?? s.examples?.[0] ?? ''}
    onInput=${(e) => set(e.target.value === '' ? undefined : kind === 'number' ? Number(e.target.value) : e.target.value)} size="40" /> ${note}</label>`;
}

const more = [['priority', '1 first, 5 last'], ['delay', 'not before, like 10m'], ['run_at', 'not before, RFC 3339'], ['retry_count', 'retries'], ['timeout', 'of an attempt, like 5m'], ['unique_key', 'one unfinished job at a time'],
  ['concurrency_key', 'takes turns with others of the key'], ['ttl', 'expires unless it has started, like 1h'], ['deadline', 'fails unless it has ended'], ['tags', 'separated by commas'], ['callback_url', 'gets a POST at the end'], ['inputs', 'JSON: {"file":"<id>"}']];

// value is a field of the submission, from its text.
function valueOf(name, text) {
  if (name === 'tags') return text.split(',').map((t) => t.trim()).filter(Boolean);
  if (name === 'priority' || name === 'retry_count') return Number(text);
  return name === 'inputs' ? JSON.parse(text) : text;
}

export default function New() {
  const p = params.value;
  const {data: types, error} = useGet('/types');
  const name = p.get('type') || '';
  const {data: type} = useGet(name && `/types/${encodeURIComponent(name)}`);
  const [payload, setPayload] = useState({});
  const [text, setText] = useState('{}');
  const [plain, setPlain] = useState(false);
  const [rest, setRest] = useState({});
  const [wrong, setWrong] = useState(null);
  const schema = type?.name === name && type?.schema?.properties ? type.schema : null;
  const form = schema && !plain;

  useEffect(() => { // a copy of another job
    if (!p.get('from')) return;
    get(`/jobs/${p.get('from')}`).then((j) => {
      setPayload(j.payload || {});
      setText(JSON.stringify(j.payload ?? {}, null, 2));
      setRest({...(j.priority === 3 ? {} : {priority: String(j.priority)}), ...(j.tags?.length ? {tags: j.tags.join(', ')} : {})});
      setParams({type: j.type, from: ''});
    }, () => {});
  }, []);

  let body = null, broken = '';
  try {
    body = {type: name, payload: form ? payload : JSON.parse(text || 'null'), ...Object.fromEntries(Object.entries(rest).filter(([, v]) => v).map(([k, v]) => [k, valueOf(k, v)]))};
  } catch (err) {
    broken = err.message;
  }
  const errors = Object.fromEntries((wrong?.errors || []).map((e) => [e.pointer, e.detail]));
  const submit = async (e) => {
    e.preventDefault();
    setWrong(null);
    try {
      const j = await post('/jobs', body);
      say(`submitted as #${j.seq}`);
      go(`/jobs/${j.id}`);
    } catch (err) {
      setWrong(err);
    }
  };
  const swap = () => {
    if (form) setText(JSON.stringify(payload, null, 2));
    else if (!broken) setPayload(body.payload || {});
    setPlain(!plain);
  };
  return html`<h1>New job</h1><${Trouble} error=${error} /><form onSubmit=${submit} id="new"><${Card}>
    <label>Type<br /><select required value=${name} onChange=${(e) => { setParams({type: e.target.value}); setPayload({}); setText('{}'); }}><option value="">–</option>${(types?.types || []).map((t) => html`<option key=${t.name} value=${t.name}>${t.name}</option>`)}</select></label>
    ${type?.description && html`<p class="faint">${type.description}</p>`}
    <fieldset><legend>Payload ${schema && html`<button type="button" class="quiet" onClick=${swap}>${form ? 'as JSON' : 'as a form'}</button>`}</legend>
      ${form ? Object.entries(schema.properties).map(([k, s]) => html`<${Field} key=${`${name}.${k}`} name=${k} schema=${s} value=${payload[k]} required=${schema.required?.includes(k)} wrong=${errors[`/payload/${k}`]}
          set=${(v) => setPayload((old) => { const next = {...old, [k]: v}; if (v === undefined) delete next[k]; return next; })} />`)
        : html`<textarea rows="10" aria-label="payload" value=${text} onInput=${(e) => setText(e.target.value)} />`}</fieldset>
    <details open=${Object.keys(rest).length > 0}><summary>When, how often, keys, tags</summary>${more.map(([k, about]) => html`<label key=${k} class="row"><input name=${k} value=${rest[k] || ''} onInput=${(e) => setRest({...rest, [k]: e.target.value})} /><span>${k.replaceAll('_', ' ')}: <span class="faint">${about}</span></span>
      ${errors[`/${k}`] && html`<span class="trouble">${errors[`/${k}`]}</span>`}</label>`)}</details>
    <p class="trouble" role="alert" id="refused">${broken || (wrong && `${wrong.message}${wrong.errors.length ? ` · ${wrong.errors.map((e) => `${e.pointer}: ${e.detail}`).join(' · ')}` : ''}`)}</p>
    <div class="row"><button class="main" disabled=${!name || !!broken}>Submit</button>${body && name && html`<${Curl} method="POST" path="/jobs" body=${body} />`}</div></${Card}></form>`;
}
