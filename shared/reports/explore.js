// --- labels --------------------------------------------------------------------------------------

const short = (text, most = 24) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Names that are equal when shortened stay apart.
function shortNames(names, most) {
  const shown = names.map((text) => short(text, most));
  return shown.map((text, i) => (shown.indexOf(text) < i ? `${text} (${i + 1})` : text));
}

function labelChart() {
  const shown = shortNames(data.labels.map(([label]) => label));
  const values = data.labels.map(([, texts], i) => ({ label: shown[i], texts }));
  return {
    description: "Texts by label",
    height: 20 * values.length,
    data: { values },
    mark: { type: "bar", tooltip: true },
    encoding: {
      y: { field: "label", type: "nominal", title: null, sort: shown, axis: { labelLimit: 160 } },
      x: { field: "texts", type: "quantitative", title: "texts" },
    },
  };
}

function togetherChart() {
  const { labels, counts } = data.together;
  const shown = shortNames(labels, 18);
  const values = labels.flatMap((_, i) => labels.map((_, j) => ({
    label: shown[i], with: shown[j], texts: counts[i][j], share: i === j || !counts[i][i] ? 0 : counts[i][j] / counts[i][i],
  }))).filter((cell) => cell.texts && cell.label !== cell.with);
  const axis = { type: "nominal", sort: shown, scale: { domain: shown } };
  return {
    description: "Texts with both of two labels",
    height: 22 * labels.length + 90,
    data: { values },
    encoding: {
      y: { field: "label", title: null, ...axis, axis: { labelLimit: 120 } },
      x: { field: "with", title: "also has", ...axis, axis: { labelAngle: -60, labelLimit: 120 } },
    },
    layer: [
      { mark: { type: "rect", tooltip: true }, encoding: { tooltip: ["label", "with", "texts", "share"].map((field) => ({ field, ...(field === "share" ? { format: ".1%" } : {}) })), color: { field: "share", type: "quantitative", scale: { domain: [0, 1], range: [colour("panel"), colour("blue")] }, legend: null } } },
      ...(labels.length > 12 && innerWidth < 600 ? [] : [{ mark: { type: "text", fontSize: 10 }, encoding: { text: { field: "texts" }, color: { condition: { test: "datum.share > 0.6", value: colour("page") }, value: colour("text") } } }]),
    ],
  };
}

// --- lengths and time ----------------------------------------------------------------------------

function lengthChart() {
  const most = data.histogram.at(-1).to;
  const lines = data.lengths.filter((length) => length <= most).map((length, i) => ({ length, i }));
  const x = { type: "quantitative", title: "tokens", scale: { type: "log", base: 2, nice: false } };
  return {
    description: "Texts by number of tokens",
    resolve: { scale: { y: "independent" } },
    layer: [
      {
        data: { values: data.histogram },
        mark: { type: "rect", stroke: colour("page"), tooltip: true },
        encoding: {
          x: { field: "from", ...x }, x2: { field: "to" },
          y: { field: "texts", type: "quantitative", title: "texts" }, y2: { datum: 0 },
          tooltip: ["from", "to", "texts"].map((field) => ({ field })),
        },
      },
      ...(lines.length ? [
        { data: { values: lines }, mark: { type: "rule", strokeDash: [4, 4], color: colour("orange"), strokeWidth: 1.5 }, encoding: { x: { field: "length", ...x } } },
        { data: { values: lines }, mark: { type: "text", align: "left", dx: 4, color: colour("orange") }, encoding: { x: { field: "length", ...x }, y: { field: "i", type: "ordinal", axis: null, scale: { range: [8, 20, 32, 44] } }, text: { field: "length" } } },
      ] : []),
    ],
  };
}

const period = () => ({ field: "period", type: "temporal", title: data.time.unit, scale: { type: "utc" }, axis: { format: data.time.unit === "year" ? "%Y" : data.time.unit.length > 4 ? "%Y-%m" : "%Y-%m-%d", labelAngle: -60, labelOverlap: true } });

function timeChart() {
  const values = data.time.periods.flatMap((start, i) => [
    { period: start, name: "labelled", texts: data.time.labelled[i] },
    { period: start, name: "unlabelled", texts: data.time.texts[i] - data.time.labelled[i] },
  ]);
  return {
    description: `Texts by ${data.time.unit}`,
    height: 240,
    data: { values },
    mark: { type: "bar", tooltip: true },
    encoding: {
      x: { field: "period", type: "ordinal", title: data.time.unit, axis: { labelAngle: -60, labelOverlap: true } },
      y: { field: "texts", type: "quantitative" },
      color: { field: "name", type: "nominal", scale: { range: [colour("blue"), colour("line")] } },
      order: { field: "name" },
    },
  };
}

function trendChart() {
  const names = Object.keys(data.time.labels);
  const values = data.time.periods.flatMap((start, i) => names.map((label) => ({
    period: start, label, texts: data.time.labels[label][i], labelled: data.time.labelled[i],
    share: data.time.labelled[i] ? data.time.labels[label][i] / data.time.labelled[i] : null,
  })));
  return {
    description: "Share of the labelled texts that have a label",
    height: 340,
    data: { values },
    mark: { type: "line", point: { size: 16 }, tooltip: true },
    encoding: {
      x: period(),
      y: { field: "share", type: "quantitative", title: "share", axis: { format: "%", tickCount: 5 } },
      color: { field: "label", type: "nominal", sort: names, scale: { domain: names, range: palette() }, legend: legend() },
      tooltip: ["period", "label", "texts", "labelled"].map((field) => ({ field })),
    },
  };
}

// --- map -----------------------------------------------------------------------------------------

// Okabe and Ito's colours, which most people can tell apart; the dark ones are lighter at night.
function palette() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return dark
    ? ["#56b4e9", "#e69f00", "#2fc99b", "#e88bb7", "#f0e442", "#ff8b5c", "#8fa8ff", "#c9c9c9"]
    : ["#0072b2", "#d55e00", "#009e73", "#b04a86", "#9a7d00", "#56b4e9", "#6a3d9a", "#333333"];
}

const legend = () => ({ columns: Math.max(1, Math.floor(Math.min(innerWidth, 960) / 190)), symbolLimit: 20, symbolOpacity: 1, labelLimit: 160 });
const COLOURED = 8;

function pointCounts() {
  const counts = new Map();
  for (const point of data.points) for (const label of point.labels ?? []) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].sort(([, a], [, b]) => b - a).map(([label]) => label);
}

function mapChart() {
  const chosen = by("map-label").value;
  const frequent = pointCounts().slice(0, COLOURED);
  // Of several labels, the rarest one of those with a colour.
  const group = (labels) => {
    if (chosen) return labels?.includes(Number(chosen)) ? data.names[chosen] : "others";
    if (!labels) return "unlabelled";
    const best = frequent.filter((label) => labels.includes(label)).at(-1);
    return best === undefined ? "other labels" : data.names[best];
  };
  const greys = chosen ? ["others"] : ["other labels", "unlabelled"];
  const values = data.points.map((point, i) => ({ i, x: point.x, y: point.y, labels: names(point), text: short(point.text, 160), row: point.row, group: group(point.labels) }));
  const used = new Set(values.map((value) => value.group));
  const shown = (chosen ? [data.names[chosen]] : frequent.map((label) => data.names[label])).filter((label) => used.has(label));
  const others = greys.filter((label) => used.has(label));
  const colours = chosen ? [colour("orange")] : palette();
  const axis = { type: "quantitative", axis: null, scale: { zero: false, nice: false, padding: 8 } };
  const marks = (coloured) => ({
    transform: [{ filter: { field: "group", oneOf: coloured ? shown : others } }],
    mark: { type: "circle", size: coloured ? 34 : 18, opacity: coloured ? 0.85 : 0.5 },
    encoding: {
      x: { field: "x", ...axis },
      y: { field: "y", ...axis },
      color: { field: "group", type: "nominal", scale: { domain: [...shown, ...others], range: [...colours.slice(0, shown.length), ...[colour("muted"), colour("line")].slice(0, others.length)] }, legend: legend() },
      tooltip: ["row", "labels", "text"].map((field) => ({ field })),
    },
  });
  return { description: "Map of the texts", height: 460, data: { values }, layer: [marks(false), marks(true)] };
}

const names = (point) => (point.labels === null ? "unlabelled" : point.labels.map((label) => data.names[label]).join(", ") || "none applies");

function showPoint(index) {
  const point = data.points[index];
  const text = element("pre", point.text);
  const title = element("p", `Row ${point.row}: `);
  title.append(element("bdi", names(point)));
  text.dir = "auto";
  by("map-text").replaceChildren(title, text);
}

function drawMap() {
  chart("map-chart", mapChart, ({ view }) => {
    for (const event of ["click", "pointerover"]) view.addEventListener(event, (_, item) => item?.datum?.i !== undefined && showPoint(item.datum.i));
  });
}

// --- start ---------------------------------------------------------------------------------------

const languages = new Intl.DisplayNames(["en"], { type: "language" });
for (const node of document.querySelectorAll("[data-language]")) node.textContent = languages.of(node.dataset.language);
if (data.labels.length) chart("label-chart", labelChart);
if (by("together-chart")) chart("together-chart", togetherChart);
chart("length-chart", lengthChart);
if (data.time) chart("time-chart", timeChart);
if (by("trend-chart")) chart("trend-chart", trendChart);
if (data.points.length) {
  by("map-label").append(...pointCounts().map((label) => option(data.names[label], label)));
  by("map-label").addEventListener("input", drawMap);
  drawMap();
}
