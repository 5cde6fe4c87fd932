"use strict";
// The page of a sweep: one filter and one selection, shared by the plots and the table.
// Python has drawn the axes and says where in them each point belongs.

const data = JSON.parse(document.getElementById("data").textContent);
const { columns, values, common, series, plots } = data;
const total = values.point.length;
const at = (id) => document.getElementById(id);
const LIMIT = 500; // rows in the table at first: with thousands the page would be slow to open
const REACH = 18; // how near the pointer must come to a point, in units of the plot
const SAME = 4; // points as near as this hide each other

const state = { sort: null, descending: false, chosen: null, limit: LIMIT };

// ---- writing values --------------------------------------------------------------------------

const sixDigits = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 6 });
const whole = new Intl.NumberFormat("en-US");
for (const column of columns) // made once: making one takes longer than using it a hundred times
  column.format = new Intl.NumberFormat("en-US",
    { minimumFractionDigits: column.digits, maximumFractionDigits: column.digits });

function plain(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return (Number.isInteger(value) ? whole : sixDigits).format(value);
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "object")
    return Object.entries(value).map(([key, inner]) =>
      inner !== null && typeof inner === "object" ? `${key} (${plain(inner)})` : `${key} ${plain(inner)}`).join(", ");
  return String(value);
}

function written(column, row) {
  const value = values[column.key][row];
  if (value === null) return "";
  switch (column.form) {
    case "integer":
    case "fixed": return column.format.format(value);
    case "percent": return `${column.format.format(100 * value)} %`;
    default: return plain(value);
  }
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const nameOf = (row) => plain((values.name ?? values.point)[row] ?? values.point[row]);
const of = (key, row) => (key in common ? common[key] : values[key]?.[row]);

// ---- the filter: all terms must hold; `word`, `column:text`, `column:16`, `column:<1e6` -------

const texts = values.point.map((_, row) =>
  columns.filter((c) => c.shown || c.key === "reason").map((c) => plain(values[c.key][row])).join("\n").toLowerCase());

/** The terms that can be understood, and what is wrong with the first that cannot. */
function parse(query) {
  const keys = new Set([...columns.map((c) => c.key), ...Object.keys(common)]);
  const terms = [];
  let wrong = null;
  for (const word of query.trim().split(/\s+/).filter(Boolean)) {
    const [, name, sign, wanted] = word.match(/^([a-z_]\w*):(<=|>=|<|>|=)?(.*)$/i) ?? [];
    const key = name?.toLowerCase();
    const number = wanted ? Number(wanted) : NaN;
    if (key === undefined) terms.push({ text: word.toLowerCase() });
    else if (!keys.has(key)) wrong ??= `no column “${name}”`;
    else if (!wanted) continue; // still being typed
    else if (/[<>]/.test(sign ?? "") && Number.isNaN(number)) wrong ??= `“${wanted}” is not a number`;
    else terms.push({ key, sign, text: wanted.toLowerCase(), number });
  }
  return { terms, wrong };
}

function holds(term, row) {
  if (term.key === undefined) return texts[row].includes(term.text);
  const value = of(term.key, row) ?? null;
  if (value === null) return false;
  if (typeof value === "number") {
    switch (term.sign) {
      case "<": return value < term.number;
      case ">": return value > term.number;
      case "<=": return value <= term.number;
      case ">=": return value >= term.number;
      default: return value === term.number;
    }
  }
  const text = plain(value).toLowerCase();
  return term.sign === "=" ? text === term.text : text.includes(term.text);
}

// ---- plots -----------------------------------------------------------------------------------

const SHAPES = [ // circle, square, diamond, triangle: as in the pictures
  "M-3.2,0a3.2,3.2 0 1,0 6.4,0a3.2,3.2 0 1,0 -6.4,0z",
  "M-2.9,-2.9h5.8v5.8h-5.8z",
  "M0,-4L4,0L0,4L-4,0z",
  "M0,-3.9L3.7,2.9H-3.7z",
];
const shape = (number, more) =>
  svg("path", { d: SHAPES[number % SHAPES.length], class: `mark s${number}`, ...more });

for (const plot of plots) {
  plot.points = plot.points.map(([row, px, py, x, y]) => ({ row, px, py, x, y }));
  plot.svg = at(plot.name).querySelector("svg");
  plot.svg.setAttribute("tabindex", "0");
  plot.svg.setAttribute("role", "application");
  plot.svg.setAttribute("aria-label", `${plot.title}: the arrow keys go from point to point`);
  plot.line = svg("path", { class: "front" });
  plot.names = svg("g", {});
  plot.chosen = svg("circle", { class: "ring chosen", r: 6.5, visibility: "hidden" });
  plot.near = svg("circle", { class: "ring near", r: 5.5, visibility: "hidden" });
  plot.marks = svg("g", {});
  for (const point of plot.points) {
    point.mark = shape(series.of[point.row], {
      transform: `translate(${point.px},${point.py})`, "data-point": values.point[point.row],
    });
    plot.marks.append(point.mark);
  }
  plot.svg.append(plot.line, plot.marks, plot.names, plot.chosen, plot.near);

  plot.svg.addEventListener("pointermove", (event) => hover(plot, nearest(plot, event), event));
  plot.svg.addEventListener("pointerleave", () => hover(plot, null));
  plot.svg.addEventListener("click", (event) => {
    const point = nearest(plot, event);
    if (!point) return;
    // Points may lie on each other: each further click takes the next of them.
    const pile = plot.points.filter((p) =>
      p.inside && Math.hypot(p.px - point.px, p.py - point.py) < SAME);
    const here = pile.findIndex((p) => p.row === state.chosen);
    select(here < 0 ? point.row : pile[(here + 1) % pile.length].row, plot);
  });
  plot.svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const order = plot.points.filter((p) => p.inside).sort((a, b) => a.px - b.px || b.py - a.py);
    const here = order.findIndex((p) => p.row === state.chosen);
    const next = here < 0 ? order.at(step > 0 ? 0 : -1) : order[here + step];
    if (next) select(next.row, plot);
  });
}

function nearest(plot, event) {
  const where = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.svg.getScreenCTM().inverse());
  let found = null;
  let best = REACH;
  for (const point of plot.points) {
    const distance = Math.hypot(point.px - where.x, point.py - where.y);
    if (point.inside && distance < best) [found, best] = [point, distance];
  }
  return found;
}

function ring(circle, point) {
  circle.setAttribute("visibility", point ? "visible" : "hidden");
  if (!point) return;
  circle.setAttribute("cx", point.px);
  circle.setAttribute("cy", point.py);
}

function hover(plot, point, event) {
  const tip = at("tip");
  ring(plot.near, point);
  tip.hidden = !point;
  if (!point) return;
  const figures = columns.filter((c) => c.key_figure && values[c.key][point.row] !== null);
  tip.replaceChildren(element("b", {}, nameOf(point.row)), ...figures.map((c) =>
    element("span", {}, element("i", {}, c.label), written(c, point.row))));
  const right = event.clientX + 16 + tip.offsetWidth > innerWidth;
  const low = event.clientY + 16 + tip.offsetHeight > innerHeight;
  tip.style.left = `${right ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16}px`;
  tip.style.top = `${low ? event.clientY - 16 - tip.offsetHeight : event.clientY + 16}px`;
}

// As fronts.py: points for which no other is as good in both and better in one.
function frontOf(points) {
  const front = [];
  let last = { x: -Infinity, y: Infinity };
  for (const point of [...points].sort((a, b) => a.x - b.x || a.y - b.y)) {
    if (point.y < last.y || (point.x === last.x && point.y === last.y)) {
      front.push(point);
      last = point;
    }
  }
  return front;
}

function drawPlots(inside) {
  for (const plot of plots) {
    for (const point of plot.points) {
      point.inside = inside[point.row];
      point.mark.classList.toggle("out", !point.inside);
    }
    plot.marks.append(...plot.points.filter((p) => p.inside).map((p) => p.mark)); // above the others
    const front = plot.front ? frontOf(plot.points.filter((p) => p.inside)) : [];
    const path = front.map((p, i) => (i ? `H${p.px}V${p.py}` : `M${p.px},${p.py}`)).join("");
    plot.line.setAttribute("d", path);
    plot.names.replaceChildren();
    let last = null;
    for (const point of front) {
      const text = `${of("rows", point.row) ?? "?"}×${of("columns", point.row) ?? "?"}`;
      if (last && (text === last.text || Math.hypot(point.px - last.px, point.py - last.py) < 34)) continue;
      last = { ...point, text };
      // Left below a point of the front there is no other point.
      plot.names.append(svg("text", { class: "front-name", x: point.px - 5, y: point.py + 10 }, text));
    }
  }
}

// ---- the table -------------------------------------------------------------------------------

const shown = columns.filter((c) => c.shown);
const lines = new Map(); // row number → its line, made when first shown
const bodies = [at("points").tBodies[0], at("failures").querySelector("tbody")];

at("points").tHead.rows[0].append(...shown.map((column) => {
  const button = element("button", { type: "button", title: `filter with ${column.key}:…` }, column.label);
  button.addEventListener("click", () => {
    state.descending = state.sort === column && !state.descending;
    state.sort = column;
    drawTable();
  });
  return element("th", { scope: "col", "data-key": column.key, ...numeric(column) }, button);
}));

function numeric(column) {
  return column.form === "text" ? {} : { class: "number" };
}

function line(row) {
  if (!lines.has(row)) {
    lines.set(row, element("tr", { "data-point": values.point[row] }, ...shown.map((c) => {
      const cell = element("td", numeric(c), written(c, row));
      if (c.key === "status") cell.className = values.status[row];
      return cell;
    })));
  }
  return lines.get(row);
}

function compare(a, b) {
  if (!state.sort) return 0;
  const [x, y] = [values[state.sort.key][a], values[state.sort.key][b]];
  if (x === null || y === null) return (x === null) - (y === null); // what was not measured is last
  const order = typeof x === "number" && typeof y === "number"
    ? x - y : plain(x).localeCompare(plain(y), "en", { numeric: true });
  return state.descending ? -order : order;
}

let order = []; // rows the filter leaves, in the table's order

function drawTable() {
  for (const header of at("points").tHead.rows[0].cells) {
    const sorted = state.sort?.key === header.dataset.key;
    header.setAttribute("aria-sort", sorted ? (state.descending ? "descending" : "ascending") : "none");
  }
  order.sort((a, b) => compare(a, b) || a - b);
  bodies[0].replaceChildren(...order.slice(0, state.limit).map(line));
  at("more").hidden = order.length <= state.limit;
  at("more").textContent = `Show all ${whole.format(order.length)} rows`;
  markLines();
}

function markLines() {
  for (const body of bodies) {
    for (const made of body.rows) {
      made.setAttribute("aria-selected", made.dataset.point === String(values.point[state.chosen]));
      made.tabIndex = -1;
    }
    // One stop for the Tab key; the arrows go on from it.
    const stop = body.querySelector("[aria-selected=true]") ?? body.rows[0];
    if (stop) stop.tabIndex = 0;
  }
}

function rowOf(target) {
  const id = target.closest("tbody tr")?.dataset.point;
  return id === undefined ? -1 : values.point.findIndex((point) => String(point) === id);
}

for (const body of bodies) {
  body.addEventListener("click", (event) => {
    const row = rowOf(event.target);
    if (row >= 0) select(row, body);
  });
  body.addEventListener("keydown", (event) => {
    const here = event.target.closest("tr");
    const next = event.key === "ArrowDown" ? here.nextElementSibling
      : event.key === "ArrowUp" ? here.previousElementSibling
      : event.key === "Enter" || event.key === " " ? here : null;
    if (!next) return;
    event.preventDefault();
    select(rowOf(next), body);
    next.focus();
  });
}

at("more").addEventListener("click", () => {
  state.limit = Infinity;
  drawTable();
});

// ---- the selected point ----------------------------------------------------------------------

/** Select a row everywhere, null for none; `from` is where it was done and need not scroll. */
function select(row, from) {
  state.chosen = row;
  for (const plot of plots) ring(plot.chosen, plot.points.find((point) => point.row === row));
  markLines();
  at("hint").hidden = row !== null;
  at("detail").hidden = row === null;
  if (row === null) return;
  const figures = columns.filter((c) => c.key_figure && values[c.key][row] !== null);
  const reason = of("reason", row);
  at("detail-name").textContent = `${values.point[row]} · ${nameOf(row)}`;
  at("detail-figures").textContent = reason ? `${of("status", row)}: ${reason}`
    : figures.map((c) => `${c.label} ${written(c, row)}`).join(" · ");
  at("command").textContent = of("command", row) ?? "no command is known";
  at("copy").textContent = "Copy";
  const all = [
    ...columns.filter((c) => values[c.key][row] !== null).map((c) => [c.label, written(c, row)]),
    ...Object.entries(common).filter(([, value]) => value !== null)
      .map(([key, value]) => [key.replaceAll("_", " "), plain(value)]),
  ];
  at("detail-all").replaceChildren(...all.map(([label, text]) =>
    element("div", text.length > 40 ? { class: "long" } : {}, element("dt", {}, label), element("dd", {}, text))));
  if (from !== bodies[0]) show(lines.get(row));
}

/** Scroll the table, and only it, to a line. */
function show(line) {
  if (!line?.isConnected) return;
  at("scroll").scrollTop = line.offsetTop - at("scroll").clientHeight / 2;
}

at("close").addEventListener("click", () => select(null));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target !== at("filter")) select(null);
});

at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("command").textContent);
    at("copy").textContent = "Copied";
  } catch { // the browser does not let this page: select it, to be copied by hand
    getSelection().selectAllChildren(at("command"));
    at("copy").textContent = "Selected";
  }
});

// ---- all of it -------------------------------------------------------------------------------

function update() {
  const count = at("count");
  const { terms, wrong } = parse(at("filter").value);
  const inside = values.point.map((_, row) => terms.every((term) => holds(term, row)));
  order = values.point.map((_, row) => row).filter((row) => inside[row]);
  const points = total === 1 ? "point" : "points";
  at("filter").setAttribute("aria-invalid", wrong !== null);
  count.classList.toggle("wrong", wrong !== null);
  count.textContent = wrong ?? (order.length === total ? `${whole.format(total)} ${points}`
    : `${whole.format(order.length)} of ${whole.format(total)} ${points}`);
  drawPlots(inside);
  drawTable();
}

if (series.names.length > 1) {
  at("legend").append(`${series.label}:`, ...series.names.map((name, number) => {
    const picture = svg("svg", { viewBox: "-5 -5 10 10" });
    picture.append(shape(number, {}));
    return element("span", {}, picture, name);
  }));
}
const same = Object.entries(common).filter(([key, value]) =>
  value !== null && typeof value !== "object" && !["command", "manifest_hash"].includes(key));
at("common").textContent = same.length
  ? `The same in every point: ${same.map(([key, value]) => `${key.replaceAll("_", " ")} ${plain(value)}`).join(", ")}.` : "";

const without = values.point.map((_, row) => row).filter((row) => of("status", row) !== "done");
at("failures").hidden = !without.length;
bodies[1].append(...without.map((row) =>
  element("tr", { "data-point": values.point[row] },
    element("td", { class: of("status", row) }, of("status", row)),
    element("td", {}, nameOf(row)),
    element("td", {}, plain(of("reason", row))))));

function refilter() {
  state.limit = LIMIT;
  update();
}
at("filter").addEventListener("input", refilter);
at("clear").addEventListener("click", () => {
  at("filter").value = "";
  refilter();
});
update();
