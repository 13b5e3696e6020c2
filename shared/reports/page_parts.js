"use strict";

// What the scripts of all pages share: elements, charts that follow the colours of the page, tables
// that can be sorted.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const data = read("data");
const by = (id) => document.getElementById(id);

// Texts reach the page as text nodes only.
function element(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function option(text, value) {
  const node = new Option(text, value);
  node.dir = "auto";
  return node;
}

// --- charts --------------------------------------------------------------------------------------

const charts = new Map(); // id of the place -> function that returns the specification, and one to call when it is drawn
const views = new Map(); // id of the place -> promise of what is drawn there

function colour(variable) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${variable}`).trim();
}

function draw(id) {
  const text = colour("text");
  const line = colour("line");
  const config = {
    background: null,
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12 },
    legend: { labelColor: text, titleColor: text, labelFontSize: 12, orient: "bottom", title: null },
    range: { category: [colour("blue"), colour("orange"), colour("good")] },
    mark: { color: colour("blue") },
    text: { color: text },
  };
  const shared = { width: "container", height: 260, autosize: { type: "fit", contains: "padding" }, config };
  const before = views.get(id);
  const [specification, whenDrawn] = charts.get(id);
  const redraw = async () => {
    (await before)?.finalize();
    const result = await window.vegaEmbed(by(id), { ...shared, ...specification() }, { actions: false, renderer: "svg" });
    whenDrawn?.(result);
    return result;
  };
  views.set(id, redraw());
}

function chart(id, specification, whenDrawn) {
  charts.set(id, [specification, whenDrawn]);
  draw(id);
}

// --- tables --------------------------------------------------------------------------------------

function sortTable(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  // Numbers first come with the highest on top, names from a to z.
  const first = column ? "descending" : "ascending";
  const second = column ? "ascending" : "descending";
  const direction = header.getAttribute("aria-sort") === first ? second : first;
  for (const other of header.parentNode.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", direction);
  const value = (row) => (column ? Number(row.cells[column].dataset.value ?? row.cells[column].textContent) : row.cells[0].textContent);
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const sorted = [...table.tBodies[0].rows].map((row) => [value(row), row]);
  sorted.sort(([a], [b]) => (column ? a - b : compare(a, b)) * (direction === "ascending" ? 1 : -1));
  table.tBodies[0].append(...sorted.map(([, row]) => row));
}

for (const button of document.querySelectorAll(".sortable button")) button.addEventListener("click", () => sortTable(button.parentNode));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => [...charts.keys()].forEach(draw));
