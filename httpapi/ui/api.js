// Requests to the server. Everything goes through the public API, with the token of this tab.
import {signal} from '@preact/signals';

const stored = 'jobstream-token';

// token is that of this tab; '' = none.
export const token = signal(sessionStorage.getItem(stored) || '');

// me says who this is and what that may do: the answer of GET /info. null = not known yet.
export const me = signal(null);

// locked is why a token is wanted; '' = none is.
export const locked = signal('');

// login takes a token, and keeps it until the tab is closed.
export function login(text) {
  token.value = text.trim();
  if (token.value) sessionStorage.setItem(stored, token.value);
  else sessionStorage.removeItem(stored);
  locked.value = '';
  return whoAmI();
}

// whoAmI asks the server who this is.
export async function whoAmI() {
  me.value = await get('/info');
}

// may says whether a scope is one of ours. Nothing is offered before we know.
export function may(scope) {
  const scopes = me.value?.principal.scopes;
  return !!scopes && (scopes.includes(scope) || scopes.includes('admin'));
}

// Problem is an answer that is an error, or none at all (status 0).
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `status ${status}`);
    this.status = status;
    this.code = body.code || '';
    this.errors = body.errors || [];
    this.body = body;
  }
}

function headers(more) {
  return token.value ? {...more, Authorization: `Bearer ${token.value}`} : {...more};
}

// request sends a request, and returns the answer if that is not an error.
export async function request(method, path, {body, head, signal} = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method, signal, headers: headers({...(body === undefined ? {} : {'Content-Type': 'application/json'}), ...head}),
      body: body === undefined || typeof body === 'string' || body instanceof Blob ? body : JSON.stringify(body),
    });
  } catch (err) {
    if (err.name === 'AbortError') throw err;
    throw new Problem(0, {detail: 'the server does not answer'});
  }
  if (answer.ok) return answer;
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    problem.detail = `${answer.status} ${answer.statusText}`;
  }
  if (answer.status === 401) locked.value = token.value ? 'The token is not valid any more, or never was.' : 'This server wants a token.';
  throw new Problem(answer.status, problem);
}

async function json(method, path, body, more) {
  const answer = await request(method, path, {body, ...more});
  return answer.status === 204 ? null : answer.json();
}

export const get = (path, more) => json('GET', path, undefined, more);
export const post = (path, body, more) => json('POST', path, body, more);
export const put = (path, body) => json('PUT', path, body);
export const patch = (path, body) => json('PATCH', path, body);
export const remove = (path) => json('DELETE', path);

// query makes the query of an address: lists become repeated names, empty values none.
export function query(params) {
  const q = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const v of Array.isArray(value) ? value : [value]) if (v !== '' && v != null) q.append(name, v);
  }
  const text = q.toString();
  return text ? `?${text}` : '';
}

// curl is a request as a command for a shell.
export function curl(method, path, body) {
  const quote = (s) => `'${s.replaceAll("'", `'\\''`)}'`;
  let line = 'curl ';
  if (method !== 'GET' && !(method === 'POST' && body !== undefined)) line += `-X ${method} `;
  line += quote(location.origin + path);
  if (token.value) line += ' -H "Authorization: Bearer $TOKEN"';
  if (body !== undefined) line += ` -d ${quote(typeof body === 'string' ? body : JSON.stringify(body))}`;
  return line;
}

// events follows a stream of Server-Sent Events, and calls each with every event, as
// {id, event, data}. It ends when the stream does, or with an error. EventSource cannot send
// a token.
export async function events(path, each, {signal, last} = {}) {
  const answer = await request('GET', path, {signal, head: {Accept: 'text/event-stream', ...(last ? {'Last-Event-ID': last} : {})}});
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf('\n\n')) >= 0) {
      const one = {id: '', event: 'message', data: ''};
      for (const line of rest.slice(0, end).split('\n')) {
        const at = line.indexOf(':');
        const name = line.slice(0, at), text = line.slice(at + 1).replace(/^ /, '');
        if (name === 'data') one.data += one.data ? `\n${text}` : text;
        else if (name in one) one[name] = text;
      }
      rest = rest.slice(end + 2);
      each(one);
    }
  }
}

// download saves a file under a name. A link cannot send a token.
export async function download(path, name) {
  const answer = await request('GET', path);
  const url = URL.createObjectURL(await answer.blob());
  const a = document.createElement('a');
  a.href = url;
  a.download = name;
  a.click();
  URL.revokeObjectURL(url);
}
