// The frame: which view is shown, the header, login, help, and the palette.
import {render} from 'preact';
import {useEffect, useState} from 'preact/hooks';
import {html} from './html.js';
import {locked, login, me, token, whoAmI} from './api.js';
import {go, link, path} from './route.js';
import {known, useKeys} from './keys.js';
import {digest, paused, recent, state} from './live.js';
import {Dialog, Dialogs, Words, fail} from './parts.js';
import {count} from './format.js';

// views are all of them: their path, their module, and for those in the header their name, their
// address and the key behind g.
const views = [
  {at: /^\/$/, file: 'overview', name: 'Overview', to: '/', key: 'o'},
  {at: /^\/jobs$/, file: 'jobs', name: 'Jobs', to: '/jobs', key: 'j'},
  {at: /^\/jobs\/([^/]+)$/, file: 'job'},
  {at: /^\/failures$/, file: 'failures', name: 'Failures', to: '/failures', key: 'f'},
  {at: /^\/types$/, file: 'types', name: 'Types', to: '/types', key: 't'},
  {at: /^\/types\/([^/]+)$/, file: 'type'},
  {at: /^\/schedules$/, file: 'schedules', name: 'Schedules', to: '/schedules', key: 's'},
  {at: /^\/workers$/, file: 'workers', name: 'Workers', to: '/workers', key: 'w'},
  {at: /^\/new$/, file: 'new'},
  {at: /^\/tail$/, file: 'tail', name: 'Tail', to: '/tail', key: 'l'},
];

const loaded = {};

// View shows the view of the path. Its module is loaded when it is shown first.
function View() {
  const [, turn] = useState(0);
  const found = views.map((v) => [v, v.at.exec(path.value)]).find(([, m]) => m);
  const [view, match] = found || [];
  useEffect(() => {
    document.title = `${view?.name || decodeURIComponent(match?.[1] || 'Nothing here')} · jobstream`;
    if (view && !loaded[view.file]) {
      import(`./pages/${view.file}.js`).then((m) => { loaded[view.file] = m.default; }, () => {
        loaded[view.file] = () => html`<p class="trouble" role="alert">The view cannot be loaded. <a href="">Load the page anew</a>.</p>`;
      }).then(() => turn((n) => n + 1));
    }
  }, [view]);
  if (!view) return html`<p class="trouble">There is no view ${path.value}. <a href=${link('/')}>Overview</a></p>`;
  const Shown = loaded[view.file];
  return Shown ? html`<${Shown} key=${path.value} id=${match[1] && decodeURIComponent(match[1])} />` : html`<p class="faint" aria-busy="true">…</p>`;
}

const dots = {live: ['●', 'live'], paused: ['‖', 'paused'], hidden: ['‖', 'paused'], lost: ['✕', 'reconnecting']};

function Live() {
  const [mark, text] = dots[state.value];
  return html`<button type="button" class="quiet live ${state.value}" aria-pressed=${paused.value} title="Space pauses and goes on"
    onClick=${() => { paused.value = !paused.value; }}><span aria-hidden="true">${mark}</span> ${text}</button>`;
}

const themes = ['auto', 'light', 'dark'];

function Theme() {
  const [theme, set] = useState(localStorage.getItem('jobstream-theme') || 'auto');
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem('jobstream-theme', theme);
  }, [theme]);
  return html`<button type="button" class="quiet" title="Colours" onClick=${() => set(themes[(themes.indexOf(theme) + 1) % 3])}>◐ <span class="wide-only">${theme}</span></button>`;
}

function Header({help}) {
  const failed = digest.value ? recent.reduce((n, d) => n + (d.total.failed || 0), 0) : 0; // while the page was open, in the last five minutes
  return html`<header class="top">
    <a class="logo" href=${link('/')}>jobstream</a>
    <nav aria-label="views">${views.filter((v) => v.name).map((v) => html`<a key=${v.to} href=${link(v.to)}
      aria-current=${(v.to === '/' ? path.value === '/' : path.value.startsWith(v.to)) ? 'page' : null}>${v.name}${v.to === '/failures' && failed > 0 ? html` <b class="new">+${count(failed)}</b>` : ''}</a>`)}</nav>
    <div class="tools">
      <a class="button" href=${link('/new')} title="New job (n)">+ <span class="wide-only">New</span></a>
      <${Live} /><${Theme} />
      ${token.value && html`<button type="button" class="quiet" title="Forget the token of this tab" onClick=${() => login('').catch(() => {})}>log out</button>`}
      <button type="button" class="quiet" title="Keys (?)" aria-label="Keys" onClick=${help}>?</button>
    </div></header>`;
}

function Login() {
  const [text, set] = useState('');
  const [wrong, setWrong] = useState('');
  const submit = async (e) => {
    e.preventDefault();
    try {
      await login(text);
    } catch (err) {
      setWrong(err.message);
    }
  };
  return html`<main class="login"><form onSubmit=${submit} class="card"><h1>jobstream</h1><p>${locked.value}</p>
    <label>Token <input type="password" autocomplete="off" autofocus value=${text} onInput=${(e) => set(e.target.value)} required /></label>
    <p class="trouble" role="alert">${wrong}</p>
    <button class="main">Log in</button><p class="faint">It is kept until this tab is closed.</p></form></main>`;
}

function Help({close}) {
  return html`<${Dialog} title="Keys" close=${close}><dl class="keys">${known.value.map(([key, text]) => html`<div key=${key + text}><dt>${key === ' ' ? 'Space' : key.replace('mod+k', 'Ctrl K')}</dt><dd>${text}</dd></div>`)}</dl>
    <footer><button type="button" autofocus onClick=${close}>Close</button></footer></${Dialog}>`;
}

// Palette goes to a job, a type or a view by a few letters.
function Palette({close}) {
  const [text, set] = useState('');
  const types = Object.keys(digest.value?.types || {});
  const all = [
    ...views.filter((v) => v.name).map((v) => [v.name, v.to]), ['New job', '/new'],
    ...types.flatMap((t) => [[`type ${t}`, `/types/${t}`], [`jobs of ${t}`, `/jobs?type=${t}`], [`new ${t} job`, `/new?type=${t}`]]),
  ].filter(([name]) => name.toLowerCase().includes(text.toLowerCase())).slice(0, 8);
  const job = text.trim();
  if (/^[1-9][0-9]*$|^[0-9a-f]{8}-/.test(job)) all.unshift([`job ${job}`, `/jobs/${job}`]);
  else if (job) all.push([`search jobs for “${job}”`, `/jobs?q=${encodeURIComponent(job)}`]);
  const to = (where) => { close(); go(where); };
  return html`<${Dialog} title="Go to" close=${close}><form onSubmit=${(e) => { e.preventDefault(); if (all[0]) to(all[0][1]); }}>
    <input type="search" autofocus aria-label="id, type or view" placeholder="id, type, view" value=${text} onInput=${(e) => set(e.target.value)} />
    <ul class="choices">${all.map(([name, where]) => html`<li key=${name}><button type="button" class="quiet" onClick=${() => to(where)}>${name}</button></li>`)}</ul></form></${Dialog}>`;
}

function App() {
  const [over, setOver] = useState('');
  const close = () => setOver('');
  useKeys({
    ...Object.fromEntries(views.filter((v) => v.key).map((v) => [`g ${v.key}`, [v.name, () => go(v.to)]])),
    n: ['new job', () => go('/new')],
    ' ': ['pause, go on', () => { paused.value = !paused.value; }],
    '?': ['these keys', () => setOver('help')],
    'mod+k': ['go to a job, type or view', () => setOver('palette')],
  });
  useEffect(() => { whoAmI().catch((err) => { if (!locked.value) fail(err); }); }, []);
  if (locked.value) return html`<${Login} />`;
  return html`<a class="skip" href="#view">Skip to the view</a><${Header} help=${() => setOver('help')} />
    <main id="view" tabindex="-1"><${View} /></main>
    <footer class="bottom faint">${me.value && html`jobstream ${me.value.version} · ${me.value.node} · ${me.value.principal.name} · <a href="/docs" target="_blank" rel="noopener">API</a>`}</footer>
    ${over === 'help' && html`<${Help} close=${close} />`}${over === 'palette' && html`<${Palette} close=${close} />`}
    <${Dialogs} /><${Words} />`;
}

render(html`<${App} />`, document.getElementById('app'));
