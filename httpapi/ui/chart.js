// Line charts, by uPlot. It is loaded with the first chart.
import {useEffect, useRef} from 'preact/hooks';
import {html} from './html.js';

let loading = null;

// The browser loads scripts only from addresses that this policy has seen. There is one.
const own = window.trustedTypes?.createPolicy('jobstream', {createScriptURL: (url) => url}) || {createScriptURL: (url) => url};

function library() {
  loading ||= new Promise((done, failed) => {
    const style = document.createElement('link');
    style.rel = 'stylesheet';
    style.href = new URL('./vendor/uplot.css', import.meta.url);
    const script = document.createElement('script');
    script.src = own.createScriptURL(new URL('./vendor/uplot.js', import.meta.url).href);
    script.onload = () => done(window.uPlot);
    script.onerror = () => failed(new Error('uPlot cannot be loaded'));
    document.head.append(style, script);
  });
  return loading;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Chart draws lines over time. data: [seconds, values, values, …]; null is a gap. lines:
// [{label, colour, fill}], colours being those of the style. log: the values on a logarithmic
// axis. format: how a value looks. Charts of one group have one cursor.
export function Chart({data, lines, label, log, format = String, group = 'all', height = 180}) {
  const box = useRef(), plot = useRef();
  useEffect(() => {
    let gone = false;
    const make = async () => {
      const uPlot = await library();
      if (gone) return;
      plot.current?.destroy();
      const axis = {stroke: colour('faint'), grid: {stroke: colour('line'), width: 1}, ticks: {stroke: colour('line')}, size: 66};
      plot.current = new uPlot({
        width: box.current.clientWidth, height, legend: {show: true, live: true}, cursor: {sync: {key: group}},
        scales: {x: {time: true}, y: log ? {distr: 3, log: 10} : {range: (u, min, max) => [0, Math.max(1, max || 0)]}},
        axes: [{...axis, size: 32}, {...axis, values: (u, all) => all.map((v) => (v == null ? '' : format(v)))}],
        series: [{}, ...lines.map((l) => ({label: l.label, stroke: colour(l.colour), width: 1.5, fill: l.fill ? `${colour(l.colour)}33` : undefined,
          value: (u, v) => (v == null ? '–' : format(v)), points: {show: false}}))],
      }, plot.latest || data, box.current);
    };
    make();
    const resized = new ResizeObserver(() => box.current && plot.current?.setSize({width: box.current.clientWidth, height}));
    resized.observe(box.current);
    const themed = new MutationObserver(make);
    themed.observe(document.documentElement, {attributes: true, attributeFilter: ['data-theme']});
    return () => {
      gone = true;
      resized.disconnect();
      themed.disconnect();
      plot.current?.destroy();
    };
  }, [lines.length, log]);
  plot.latest = data;
  useEffect(() => { plot.current?.setData(data); }, [data]);
  return html`<div class="chart" ref=${box} role="img" aria-label=${label} style=${{height: `${height + 40}px`}} />`;
}
