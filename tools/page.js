'use strict';
/* What the compiler did, drawn from the JSON in #data. Names come from the model and are
 * hostile: they reach the page as text nodes, attributes set by function, and canvas text. */

const data = JSON.parse(document.getElementById('data').textContent);
const report = data.report;
const byId = (id) => document.getElementById(id);

/* ---- elements and numbers ---------------------------------------------------------- */

/* el('td', {class: 'left'}, 'text', other) */
function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(e, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (typeof value === 'function') e.addEventListener(key, value);
    else e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

function scaled(v, units, base) {
  let k = 0;
  while (Math.abs(v) >= base && k < units.length - 1) { v /= base; k++; }
  const digits = k === 0 || v >= 100 ? 0 : v >= 10 ? 1 : 2;
  return v.toFixed(Number.isInteger(v) && k === 0 ? 0 : digits) + ' ' + units[k];
}
const bytes = (v) => scaled(v, ['B', 'KiB', 'MiB', 'GiB', 'TiB'], 1024);
const flops = (v) => scaled(v, ['flop', 'kflop', 'Mflop', 'Gflop', 'Tflop'], 1000);
const time = (ms) => ms >= 1000 ? (ms / 1000).toFixed(2) + ' s'
  : ms >= 1 ? ms.toFixed(2) + ' ms' : (ms * 1000).toFixed(1) + ' µs';
const percent = (v) => (100 * v).toFixed(v < 0.1 ? 1 : 0) + ' %';
const plural = (n, word) => n + ' ' + word + (n === 1 ? '' : 's');

/* ---- kinds of work, each a colour ----------------------------------------------------- */

const kinds = [
  ['attention', 'attention', /attention/],
  ['product', 'products', /matmul|conv|einsum/],
  ['norm', 'norms, reductions', /norm|softmax|reduce|sum|mean|argm|topk|cumsum/],
  ['control', 'control flow, sizes', /^(if|loop|readsym|require|ret)$/],
  ['move', 'moving data', /gather|scatter|reshape|transpose|slice|concat|expand|pad|copy|input|iota|symvec|cast|split/],
  ['elementwise', 'elementwise', /./],
];
const kindOf = (op) => kinds.find((k) => k[2].test(op))[0];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

/* ---- tooltip --------------------------------------------------------------------------- */

function tip(text, event) {
  const t = byId('tip');
  t.hidden = !text;
  if (!text) return;
  t.textContent = text;
  const box = t.getBoundingClientRect();
  t.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + 'px';
  t.style.top = Math.min(event.clientY + 14, innerHeight - box.height - 8) + 'px';
}
const tips = (text) => ({ mousemove: (e) => tip(text, e), mouseleave: () => tip('') });

/* ---- overview --------------------------------------------------------------------------- */

function overview() {
  const a = report.attention, b = report.buffers, run = data.run, once = data.kernels.filter((k) => k.once).length;
  byId('model').textContent = report.model || 'model';
  document.title = (report.model || 'model') + ' - forge';
  byId('target').textContent = 'forge ' + report.version + ' · ' + report.target;
  const tiles = [
    [report.nodes.onnx, 'nodes of the model'],
    [report.nodes.optimized, 'operations after the passes'],
    [data.kernels.length - once, 'kernels' + (once ? ' in a run, ' + once + ' before the first' : '')],
    [a.fused + ' / ' + a.candidates, 'attentions fused'],
    [time(report.ms_total), 'to compile'],
    [bytes(b.bytes_planned), 'for intermediates, ' + bytes(b.bytes_naive) + ' without sharing'],
    [bytes(report.weights.bytes), 'of weights'],
  ];
  if (run.ms) tiles.push([time(run.ms), 'a run, ' + plural(run.threads, 'thread')]);
  for (const [value, label] of tiles)
    byId('overview').append(el('div', { class: 'tile' }, el('b', {}, String(value)), el('span', {}, label)));
}

/* ---- layout of a graph ------------------------------------------------------------------ */

const WIDTH = 158, HEIGHT = 36, GAP = 18, ROW = 62;

/* A layer below every operand. What depends on no input stands just above its first reader, or,
 * without one, beside what precedes it in the program. */
function layers(nodes) {
  const readers = nodes.map(() => []);
  let beside = 0;
  nodes.forEach((n, i) => {
    n.fed = n.op === 'input' || n.in.some((k) => nodes[k].fed);
    n.layer = n.in.reduce((most, k) => Math.max(most, nodes[k].layer + 1), n.fed ? 0 : beside);
    if (n.fed) beside = n.layer;
    for (const k of n.in) readers[k].push(i);
  });
  for (let i = nodes.length - 1; i >= 0; i--)
    if (!nodes[i].fed && readers[i].length)
      nodes[i].layer = readers[i].reduce((least, k) => Math.min(least, nodes[k].layer - 1), Infinity);
  const rows = new Map();
  for (const n of nodes) rows.set(n.layer, (rows.get(n.layer) || []).concat(n));
  return [...rows.keys()].sort((a, b) => a - b).map((k) => rows.get(k));
}

/* Each row in the order of where its operands stand, as near to them as there is room. */
function place(rows, nodes) {
  const middle = (list) => list.reduce((sum, k) => sum + nodes[k].x, 0) / list.length;
  rows.forEach((row, y) => {
    for (const n of row) {
      n.y = y * ROW;
      n.x = n.in.length ? middle(n.in) : 0;
    }
    row.sort((a, b) => a.x - b.x);
    const wanted = row.map((n) => n.x);
    for (let k = 1; k < row.length; k++)
      row[k].x = Math.max(row[k].x, row[k - 1].x + WIDTH + GAP);
    const shift = row.reduce((sum, n, k) => sum + wanted[k] - n.x, 0) / row.length;
    for (const n of row) n.x += shift;
  });
}

function layout(name) {
  const nodes = data.graphs[name];
  for (const n of nodes) {
    n.in = n.in || [];
    n.names = n.names || [];
    n.kind = kindOf(n.op);
  }
  const rows = layers(nodes);
  place(rows, nodes);
  const xs = nodes.map((n) => n.x);
  const left = xs.reduce((a, b) => Math.min(a, b), 0), right = xs.reduce((a, b) => Math.max(a, b), 0);
  return { nodes, left, width: right - left + WIDTH, height: rows.length * ROW };
}

/* ---- drawing a graph -------------------------------------------------------------------- */

const canvas = byId('drawing'), chart = byId('map');
const views = [['imported', 'Imported'], ['optimised', 'Optimised'], ['kernels', 'Kernels']];
const layouts = {};
let view = '', graph = null, camera = { x: 0, y: 0, scale: 1 };
let picked = new Set();

function sharp(c) {
  const box = c.getBoundingClientRect(), ratio = devicePixelRatio || 1;
  c.width = Math.round(box.width * ratio);
  c.height = Math.round(box.height * ratio);
  const g = c.getContext('2d');
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [g, box.width, box.height];
}

function shorten(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  let n = text.length;
  while (n > 1 && g.measureText(text.slice(0, n) + '…').width > width) n = Math.floor(n * 0.9);
  return text.slice(0, n) + '…';
}

function drawEdges(g, seen) {
  for (const n of graph.nodes) {
    for (const k of n.in) {
      const from = graph.nodes[k];
      const x1 = from.x + WIDTH / 2, y1 = from.y + HEIGHT, x2 = n.x + WIDTH / 2, y2 = n.y;
      if (Math.max(y1, y2) < seen.top || Math.min(y1, y2) > seen.bottom) continue;
      const marked = picked.has(n) || picked.has(from), long = y2 - y1 > 3 * ROW;
      g.globalAlpha = marked ? 1 : long ? 0.3 : 0.8;
      g.strokeStyle = colour(marked ? 'mark' : 'move');
      g.lineWidth = marked ? 2 : 1;
      const bend = Math.min(Math.max((y2 - y1) / 2, 12), 2 * ROW);
      g.beginPath();
      g.moveTo(x1, y1);
      g.bezierCurveTo(x1, y1 + bend, x2, y2 - bend, x2, y2);
      g.stroke();
    }
  }
  g.globalAlpha = 1;
}

function drawNode(g, n, legible) {
  const marked = picked.has(n);
  g.fillStyle = colour('panel');
  g.strokeStyle = colour(marked ? 'mark' : n.kind);
  g.lineWidth = marked ? 3 : 1.2;
  g.beginPath();
  g.roundRect(n.x, n.y, WIDTH, HEIGHT, 6);
  g.fill();
  g.stroke();
  g.fillStyle = colour(n.kind);
  g.fillRect(n.x, n.y + 5, 4, HEIGHT - 10);
  if (!legible) return;
  g.fillStyle = colour('ink');
  g.font = '600 12px system-ui, "DejaVu Sans", sans-serif';
  g.fillText(shorten(g, n.op === 'input' ? n.reg : n.op, WIDTH - 20), n.x + 11, n.y + 15);
  g.fillStyle = colour('muted');
  g.font = '10px ui-monospace, "DejaVu Sans Mono", monospace';
  g.fillText(shorten(g, n.type, WIDTH - 20), n.x + 11, n.y + 29);
}

function draw() {
  const [g, w, h] = sharp(canvas);
  const { x, y, scale } = camera;
  const seen = { top: y - HEIGHT, bottom: y + h / scale, left: x - WIDTH, right: x + w / scale };
  g.scale(scale, scale);
  g.translate(-x, -y);
  drawEdges(g, seen);
  for (const n of graph.nodes)
    if (n.y > seen.top && n.y < seen.bottom && n.x > seen.left && n.x < seen.right)
      drawNode(g, n, scale > 0.45);
  drawMap(w, h);
}

function drawMap(w, h) {
  const [g, mw, mh] = sharp(chart);
  const sx = mw / graph.width, sy = mh / graph.height;
  for (const n of graph.nodes) {
    g.fillStyle = colour(picked.has(n) ? 'mark' : n.kind);
    g.fillRect((n.x - graph.left) * sx, n.y * sy, Math.max(WIDTH * sx, 2), picked.has(n) ? 4 : Math.max(HEIGHT * sy, 1));
  }
  g.strokeStyle = colour('ink');
  g.lineWidth = 1.5;
  g.strokeRect((camera.x - graph.left) * sx, camera.y * sy, w / camera.scale * sx, h / camera.scale * sy);
}

let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

/* ---- moving about --------------------------------------------------------------------- */

function centre(n, scale) {
  const box = canvas.getBoundingClientRect();
  camera.scale = scale || camera.scale;
  camera.x = n.x + WIDTH / 2 - box.width / camera.scale / 2;
  camera.y = n.y + HEIGHT / 2 - box.height / camera.scale / 2;
  redraw();
}

function zoom(factor, px, py) {
  const box = canvas.getBoundingClientRect();
  px = px === undefined ? box.width / 2 : px;
  py = py === undefined ? box.height / 2 : py;
  const scale = Math.min(Math.max(camera.scale * factor, 0.01), 4);
  camera.x += px / camera.scale - px / scale;
  camera.y += py / camera.scale - py / scale;
  camera.scale = scale;
  redraw();
}

function fit(whole) {
  const box = canvas.getBoundingClientRect();
  const across = (box.width - 130) / graph.width;
  camera.scale = Math.min(1.1, whole ? Math.min(across, (box.height - 30) / graph.height) : Math.max(across, 0.75));
  camera.x = graph.left + graph.width / 2 - (box.width - 100) / camera.scale / 2;
  if (!whole && graph.nodes.length)
    camera.x = graph.nodes[0].x + WIDTH / 2 - (box.width - 100) / camera.scale / 2;
  camera.y = -20 / camera.scale;
  redraw();
}

function nodeAt(event) {
  const box = canvas.getBoundingClientRect();
  const x = camera.x + (event.clientX - box.left) / camera.scale;
  const y = camera.y + (event.clientY - box.top) / camera.scale;
  return graph.nodes.find((n) => x >= n.x && x <= n.x + WIDTH && y >= n.y && y <= n.y + HEIGHT);
}

function moving() {
  let drag = null;
  canvas.addEventListener('pointerdown', (e) => {
    drag = { x: e.clientX, y: e.clientY, far: false };
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener('pointermove', (e) => {
    if (!drag) {
      const n = nodeAt(e);
      canvas.style.cursor = n ? 'pointer' : 'grab';
      return;
    }
    const dx = e.clientX - drag.x, dy = e.clientY - drag.y;
    if (!drag.far && Math.hypot(dx, dy) < 4) return;
    drag = { x: e.clientX, y: e.clientY, far: true };
    camera.x -= dx / camera.scale;
    camera.y -= dy / camera.scale;
    redraw();
  });
  canvas.addEventListener('pointerup', (e) => {
    const n = drag && !drag.far && nodeAt(e);
    drag = null;
    if (n) showInstruction(n);
  });
  canvas.addEventListener('wheel', (e) => {
    const box = canvas.getBoundingClientRect();
    e.preventDefault();
    if (e.ctrlKey || e.metaKey || e.altKey) {
      zoom(Math.exp(-e.deltaY / 300), e.clientX - box.left, e.clientY - box.top);
      return;
    }
    camera.x += e.deltaX / camera.scale;
    camera.y += e.deltaY / camera.scale;
    redraw();
  }, { passive: false });
  canvas.addEventListener('keydown', (e) => {
    const step = { ArrowDown: [0, 60], ArrowUp: [0, -60], ArrowLeft: [-60, 0], ArrowRight: [60, 0] }[e.key];
    if (e.key === '+' || e.key === '-') zoom(e.key === '+' ? 1.25 : 0.8);
    if (!step) return;
    e.preventDefault();
    camera.x += step[0] / camera.scale;
    camera.y += step[1] / camera.scale;
    redraw();
  });
  const jump = (e) => {
    if (!(e.buttons & 1)) return;
    const box = chart.getBoundingClientRect(), seen = canvas.getBoundingClientRect();
    camera.x = graph.left + (e.clientX - box.left) / box.width * graph.width - seen.width / camera.scale / 2;
    camera.y = (e.clientY - box.top) / box.height * graph.height - seen.height / camera.scale / 2;
    redraw();
  };
  chart.addEventListener('pointerdown', jump);
  chart.addEventListener('pointermove', jump);
  byId('closer').addEventListener('click', () => zoom(1.25));
  byId('further').addEventListener('click', () => zoom(0.8));
  byId('fit').addEventListener('click', () => fit(true));
  addEventListener('resize', redraw);
}

function choose(name) {
  view = name;
  graph = layouts[name] = layouts[name] || layout(name);
  for (const b of byId('views').children) b.classList.toggle('on', b.dataset.view === name);
  picked = new Set();
  fit(false);
}

/* ---- details --------------------------------------------------------------------------- */

function details(...children) {
  const box = byId('details');
  box.replaceChildren(...children.filter(Boolean));
  box.scrollTop = 0;
}

function pairs(rows) {
  const list = el('dl');
  for (const [key, value] of rows)
    if (value !== undefined && value !== null && value !== '') list.append(el('dt', {}, key), el('dd', {}, String(value)));
  return list;
}

function nameLinks(names, title) {
  if (!names || !names.length) return null;
  const shown = names.slice(0, 60);
  return el('div', {}, el('p', { class: 'muted' }, title),
    ...shown.map((k) => el('button', { class: 'link', type: 'button', click: () => showModelNode(k) },
      data.nodes[k].name + (data.nodes[k].op ? '  (' + data.nodes[k].op + ')' : ''))),
    names.length > shown.length ? el('p', { class: 'muted' }, 'and ' + (names.length - shown.length) + ' more') : null);
}

const kernelOf = (reg) => data.kernels.find((k) => k.reg === reg);

function kernelRows(k) {
  return [['kernel', k.op], ['result', '%' + k.reg + ': ' + k.type], ['storage', k.storage],
    ['arithmetic', k.flops === undefined ? '' : flops(k.flops)], ['traffic', k.bytes === undefined ? '' : bytes(k.bytes)],
    ['time', k.ms === undefined ? '' : time(k.ms) + ', ' + percent(k.ms / data.run.ms) + ' of the run'],
    ['of the roof', roofShare(k) === undefined ? '' : percent(roofShare(k))], ['position', k.position],
    ['runs', k.once ? 'once, before the first run' : '']];
}

function showInstruction(n) {
  const k = n.kernel ? kernelOf(n.reg) : null;
  picked = new Set([n]);
  details(el('h3', {}, n.op === 'input' ? 'Input ' + n.reg : n.op),
    pairs(k ? kernelRows(k) : [['result', n.reg && '%' + n.reg], ['type', n.type],
      ['kernel', n.kernel === false ? 'never runs: same bytes as its operand' : '']]),
    nameLinks(n.names, 'Stands for ' + plural(n.names.length, 'node') + ' of the model:'),
    n.text ? el('pre', {}, n.text) : null);
  redraw();
}

/* What became of a node of the model, pass by pass. */
function showModelNode(index) {
  const node = data.nodes[index];
  const steps = node.events.map((e, k) => el('div', { class: 'step' + (e.text ? '' : ' gone') },
    el('b', {}, e.pass), ' ', el('small', {}, k ? 'round ' + e.round : ''),
    e.text ? el('pre', {}, e.text)
      : el('p', { class: 'muted' }, k ? 'nothing left: its value is known, is computed elsewhere, or nobody reads it'
        : 'no instruction: its value is known, or another register’s')));
  const kernels = data.kernels.filter((k) => k.names.includes(index));
  const missed = data.missed.filter((m) => m.node.includes('"' + node.name + '"'));
  details(el('h3', {}, node.name), el('p', { class: 'muted' }, node.op || 'from the text of the model'), ...steps,
    ...missed.map((m) => el('div', { class: 'step gone' }, el('b', {}, 'not fused by ' + m.pass), el('p', {}, m.reason))),
    ...kernels.map((k) => el('div', { class: 'step' }, el('b', {}, 'runs in'), pairs(kernelRows(k)))));
  picked = new Set(graph.nodes.filter((n) => n.names.includes(index)));
  const [first] = picked;
  if (first) centre(first, Math.max(camera.scale, 0.8));
  else redraw();
}

/* ---- search ----------------------------------------------------------------------------- */

function searching() {
  const input = byId('search'), list = byId('found');
  let at = 0, hits = [];
  const show = () => {
    const text = input.value.trim().toLowerCase();
    hits = [];
    for (let k = 0; text && k < data.nodes.length && hits.length < 50; k++)
      if (data.nodes[k].name.toLowerCase().includes(text)) hits.push(k);
    at = 0;
    list.replaceChildren(...hits.map((k, i) => el('li', { class: i ? '' : 'on', mousedown: () => take(k) },
      data.nodes[k].name)));
    list.hidden = !hits.length;
  };
  const take = (k) => {
    list.hidden = true;
    input.value = data.nodes[k].name;
    showModelNode(k);
  };
  input.addEventListener('input', show);
  input.addEventListener('blur', () => { list.hidden = true; });
  input.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && hits.length) take(hits[at]);
    if (e.key === 'Escape') list.hidden = true;
    if ((e.key !== 'ArrowDown' && e.key !== 'ArrowUp') || !hits.length) return;
    e.preventDefault();
    at = (at + (e.key === 'ArrowDown' ? 1 : hits.length - 1)) % hits.length;
    [...list.children].forEach((li, i) => li.classList.toggle('on', i === at));
    list.children[at].scrollIntoView({ block: 'nearest' });
  });
}

/* ---- passes ----------------------------------------------------------------------------- */

function ledger() {
  const most = Math.max(...report.passes.map((p) => p.ms), 1e-9), table = byId('ledger');
  table.append(el('tr', {}, ...['pass', 'round', 'time', '', 'nodes before', 'after', 'change', 'memory']
    .map((t) => el('th', {}, t))));
  for (const p of report.passes) {
    const change = p.nodes_after - p.nodes_before;
    table.append(el('tr', { class: p.changed ? '' : 'same' }, el('td', {}, p.name), el('td', {}, p.round), el('td', {}, time(p.ms)),
      el('td', { class: 'left' }, el('span', { class: 'track' }, el('span', { class: 'fill', style: 'width:' + (100 * p.ms / most) + '%' }))),
      el('td', {}, p.nodes_before), el('td', {}, p.nodes_after),
      el('td', {}, p.changed ? (change > 0 ? '+' : '') + change : 'nothing'),
      el('td', {}, p.rss_delta_kb ? (p.rss_delta_kb > 0 ? '+' : '') + p.rss_delta_kb + ' KiB' : '')));
  }
  byId('knobs').textContent = 'Phases: ' + report.phases.map((p) => p.name + ' ' + time(p.ms)).join(', ') +
    '. Fused: ' + (report.fusions.map((f) => f.rule + ' ' + f.count).join(', ') || 'nothing') +
    '. The same build again: ' + report.knobs;
}

/* ---- memory ----------------------------------------------------------------------------- */

function memory() {
  const m = data.memory, rows = m.registers.filter((r) => r.offset !== undefined), b = report.buffers;
  byId('memory-text').textContent = plural(b.virtual, 'tensor') + ' in ' + plural(b.physical, 'buffer') + ': ' +
    bytes(b.bytes_planned) + ' planned, ' + bytes(b.bytes_naive) + ' without sharing, ' +
    bytes(b.bytes_lower_bound) + ' at least. A rectangle is a tensor: as high as it is large, as wide as it lives.';
  const W = 1200, H = 340, left = 78, bottom = 34, top = 18;
  const total = rows.reduce((most, r) => Math.max(most, r.offset + r.bytes), Math.max(b.bytes_planned, 1));
  const last = rows.reduce((most, r) => Math.max(most, r.last + 1), 1);
  const first = rows.reduce((least, r) => Math.min(least, r.first), last - 1);
  const x = (p) => left + (p - first) / (last - first) * (W - left - 10), y = (v) => H - bottom - v / total * (H - bottom - top);
  const s = svg('svg', { viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': 'Memory over time' });
  for (let k = 0; k <= 4; k++)
    s.append(svg('line', { class: 'grid', x1: left, x2: W - 10, y1: y(total * k / 4), y2: y(total * k / 4) }),
      svg('text', { x: left - 8, y: y(total * k / 4) + 4, 'text-anchor': 'end' }, bytes(total * k / 4)));
  for (const r of rows)
    s.append(svg('rect', Object.assign({ class: 'buffer', x: x(r.first), y: y(r.offset + r.bytes),
      width: Math.max(x(r.last + 1) - x(r.first), 1), height: Math.max(y(r.offset) - y(r.offset + r.bytes), 0.6),
      style: 'fill: var(--' + kindOf(r.made_by || 'input') + ')',
      click: () => toKernel(r.register) },
    tips('%' + r.register + ': ' + r.type + '\nmade by ' + (r.made_by || 'input') + ', ' + bytes(r.bytes) + ' at +' + r.offset +
      '\nlives ' + r.first + ' to ' + r.last))));
  if (rows.length) {
    const at = x(m.peak_at + 0.5), far = at > W * 0.7;
    s.append(svg('line', { class: 'mark', x1: at, x2: at, y1: top - 4, y2: H - bottom }),
      svg('text', { class: 'marked', x: at + (far ? -6 : 6), y: top - 5, 'text-anchor': far ? 'end' : 'start' },
        'peak: ' + bytes(m.peak_bytes) + ' live at position ' + m.peak_at));
  }
  for (let k = 0; k <= 8; k++)
    s.append(svg('text', { x: x(first + (last - first) * k / 8), y: H - bottom + 16, 'text-anchor': 'middle' },
      Math.round(first + (last - first) * k / 8)));
  s.append(svg('line', { class: 'axis', x1: left, x2: W - 10, y1: y(0), y2: y(0) }),
    svg('text', { x: (left + W) / 2, y: H - 4, 'text-anchor': 'middle' }, 'position in the program'));
  byId('memory-chart').append(s);
}

/* ---- kernels ------------------------------------------------------------------------------ */

/* How near a kernel comes to what the machine could do at its ratio of flops to bytes. */
function roofShare(k) {
  if (!k.ms || !data.run.peak_gflops) return undefined;
  const least = Math.max((k.flops || 0) / data.run.peak_gflops, (k.bytes || 0) / data.run.peak_gbps) * 1e-6;
  return least / k.ms;
}

function kernelText(k) {
  return k.op + ' %' + k.reg + '\n' + (k.names.length ? data.nodes[k.names[k.names.length - 1]].name + '\n' : '') +
    (k.flops ? flops(k.flops) + ', ' : '') + bytes(k.bytes || 0) + (k.ms ? ', ' + time(k.ms) : '');
}

function toKernel(reg) {
  choose('kernels');
  const n = graph.nodes.find((v) => v.reg === reg);
  if (!n) return;
  showInstruction(n);
  centre(n, 0.9);
  byId('graph').scrollIntoView();
}

function roofline() {
  const run = data.run, dots = data.kernels.filter((k) => k.ms && k.flops && k.bytes);
  if (!run.peak_gflops || !dots.length) return;
  const W = 1200, H = 330, left = 60, bottom = 40, top = 14, right = 20;
  const rate = (k) => k.flops / k.ms * 1e-6, ratio = (k) => k.flops / k.bytes;
  const ends = (list) => [Math.floor(Math.log10(Math.min(...list))), Math.ceil(Math.log10(Math.max(...list)))];
  const [x0, x1] = ends(dots.map(ratio).concat(run.peak_gflops / run.peak_gbps));
  const [y0, y1] = ends(dots.map(rate).concat(run.peak_gflops));
  const x = (v) => left + (Math.log10(v) - x0) / (x1 - x0) * (W - left - right);
  const y = (v) => H - bottom - (Math.log10(v) - y0) / (y1 - y0) * (H - bottom - top);
  const s = svg('svg', { viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': 'Roofline' });
  for (let k = x0; k <= x1; k++)
    s.append(svg('line', { class: 'grid', x1: x(10 ** k), x2: x(10 ** k), y1: top, y2: H - bottom }),
      svg('text', { x: x(10 ** k), y: H - bottom + 16, 'text-anchor': 'middle' }, String(10 ** k)));
  for (let k = y0; k <= y1; k++)
    s.append(svg('line', { class: 'grid', x1: left, x2: W - right, y1: y(10 ** k), y2: y(10 ** k) }),
      svg('text', { x: left - 8, y: y(10 ** k) + 4, 'text-anchor': 'end' }, String(10 ** k)));
  const knee = run.peak_gflops / run.peak_gbps, start = Math.max(10 ** x0, 10 ** y0 / run.peak_gbps);
  s.append(svg('path', { class: 'roof', d: `M${x(start)} ${y(start * run.peak_gbps)} L${x(knee)} ${y(run.peak_gflops)} L${x(10 ** x1)} ${y(run.peak_gflops)}` }),
    svg('text', { x: W - right - 4, y: y(run.peak_gflops) - 6, 'text-anchor': 'end' },
      run.peak_gflops.toFixed(0) + ' GFLOP/s, ' + run.peak_gbps.toFixed(1) + ' GB/s measured'),
    svg('text', { x: (left + W) / 2, y: H - 6, 'text-anchor': 'middle' }, 'flops per byte of memory traffic'),
    svg('text', { x: 14, y: H / 2, 'text-anchor': 'middle', transform: `rotate(-90 14 ${H / 2})` }, 'GFLOP/s'));
  for (const k of dots)
    s.append(svg('circle', Object.assign({ class: 'dot', cx: x(ratio(k)), cy: y(rate(k)),
      r: Math.max(3, Math.min(16, 26 * Math.sqrt(k.ms / run.ms))), style: 'fill: var(--' + kindOf(k.op) + ')',
      click: () => toKernel(k.reg) }, tips(kernelText(k)))));
  byId('roofline').append(s);
}

const columns = [
  ['kernel', 'left', (k) => k.op, (k) => k.op + (k.once ? ' (once)' : '')],
  ['nodes', 'left wide', (k) => k.names.length, (k) => k.names.map((n) => data.nodes[n].name).join(', ')],
  ['time', '', (k) => k.ms || 0, (k) => k.ms ? time(k.ms) : ''],
  ['of the run', '', (k) => k.ms || 0, (k) => k.ms ? percent(k.ms / data.run.ms) : ''],
  ['arithmetic', '', (k) => k.flops || 0, (k) => k.flops ? flops(k.flops) : ''],
  ['traffic', '', (k) => k.bytes || 0, (k) => k.bytes ? bytes(k.bytes) : ''],
  ['GFLOP/s', '', (k) => k.ms ? (k.flops || 0) / k.ms : 0, (k) => k.ms && k.flops ? (k.flops / k.ms * 1e-6).toFixed(1) : ''],
  ['GB/s', '', (k) => k.ms ? (k.bytes || 0) / k.ms : 0, (k) => k.ms && k.bytes ? (k.bytes / k.ms * 1e-6).toFixed(1) : ''],
  ['of the roof', '', (k) => roofShare(k) || 0, (k) => roofShare(k) === undefined ? '' : percent(roofShare(k))],
];

function kernelTable(by, down) {
  const list = [...data.kernels].sort((a, b) => {
    const p = columns[by][2](a), q = columns[by][2](b);
    return (p < q ? -1 : p > q ? 1 : a.position - b.position) * (down ? -1 : 1);
  });
  byId('kernel-table').replaceChildren(
    el('tr', {}, ...columns.map((c, i) => el('th', { class: 'sorts ' + c[1], click: () => kernelTable(i, i === by ? !down : true) },
      c[0] + (i === by ? (down ? ' ▾' : ' ▴') : '')))),
    ...list.map((k) => el('tr', { class: 'pick', tabindex: 0, click: () => toKernel(k.reg),
      keydown: (e) => { if (e.key === 'Enter') toKernel(k.reg); } },
    ...columns.map((c, i) => {
      const cell = el('td', { class: c[1] }, c[3](k));
      if (i === 0) cell.prepend(el('span', { class: 'fill', style: 'width:9px;margin-right:8px;background:var(--' + kindOf(k.op) + ')' }));
      if (i === 1) cell.title = c[3](k);
      return cell;
    }))));
}

function kernels() {
  const run = data.run;
  byId('run-text').textContent = run.failure ? 'Not measured: ' + run.failure
    : 'Measured: ' + time(run.ms) + ' a run on ' + plural(run.threads, 'thread') + ', inputs ' + run.inputs +
      '. The roof is what this machine reached in arithmetic and in reading memory right after.';
  roofline();
  kernelTable(run.failure ? 4 : 2, true);
}

/* ---- misses ------------------------------------------------------------------------------- */

function misses() {
  const list = byId('missed-list');
  if (!data.missed.length) {
    list.append(el('p', { class: 'muted' }, 'Nothing was missed.'));
    return;
  }
  list.append(el('table', {}, el('tr', {}, ...['pass', 'node', 'reason'].map((t) => el('th', { class: 'left' }, t))),
    ...data.missed.map((m) => el('tr', {}, el('td', {}, m.pass), el('td', { class: 'left wide', title: m.node }, m.node),
      el('td', { class: 'left', style: 'white-space:normal' }, m.reason)))));
}

/* ---- start ---------------------------------------------------------------------------------- */

function theme(dark) {
  document.documentElement.classList.toggle('dark', dark);
  if (graph) redraw();
}

function start() {
  const hash = new URLSearchParams(location.hash.slice(1)); /* #theme=dark&view=imported&node=NAME */
  theme(hash.has('theme') ? hash.get('theme') === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches);
  byId('theme').addEventListener('click', () => theme(!document.documentElement.classList.contains('dark')));
  overview();
  for (const [name, label] of views)
    if (data.graphs[name])
      byId('views').append(el('button', { type: 'button', 'data-view': name, click: () => choose(name) },
        label + ' ' + data.graphs[name].length));
  for (const [kind, label] of kinds)
    byId('legend').append(el('span', {}, el('i', { style: 'background:var(--' + kind + ')' }), label));
  moving();
  searching();
  choose(data.graphs[hash.get('view')] ? hash.get('view') : 'kernels');
  details(el('p', { class: 'muted' }, 'Click a node to see what it stands for, or find a node of the model by name to see ' +
    'what each pass made of it. Drag or scroll to move, Ctrl and scroll to zoom.'));
  ledger();
  memory();
  kernels();
  misses();
  const linked = data.nodes.findIndex((n) => n.name === hash.get('node'));
  if (linked >= 0) showModelNode(linked);
  document.documentElement.dataset.ready = 'yes';
}

start();
