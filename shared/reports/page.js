const rows = read("rows");
const name = (label) => data.labels[label];
// Thresholds of some classifiers lie near 0 and 1; no score reaches one above 1.
const decimal = (value) => (value > 1 ? "never" : value < 0.001 || value > 0.999 ? String(value) : value.toFixed(3));
const percent = (share) => `${(100 * share).toFixed(1)} %`;

// --- charts --------------------------------------------------------------------------------------

const share = (field, title, scale = { domain: [0, 1] }) => ({ field, type: "quantitative", title, scale, axis: { tickCount: 5 } });

function coverageChart() {
  const values = data.coverage.flatMap((point) => [
    { coverage: point.coverage, value: point.subset_accuracy, name: data.single ? "accuracy" : "rows with all labels right" },
    ...(data.single ? [] : [{ coverage: point.coverage, value: point.micro_f1, name: "micro F1" }]),
  ]);
  return {
    description: "Quality of the tags by the share of the rows that are tagged",
    data: { values },
    mark: { type: "line", tooltip: true },
    encoding: {
      x: share("coverage", "share of the rows that are tagged"),
      y: share("value", "quality", { zero: false }),
      color: { field: "name", type: "nominal" },
      strokeDash: { field: "name", type: "nominal" },
    },
  };
}

function calibrationChart() {
  return {
    description: "Share of true labels by score",
    layer: [
      {
        data: { values: [{ x: 0, y: 0 }, { x: 1, y: 1 }] },
        mark: { type: "line", strokeDash: [4, 4], color: colour("muted") },
        encoding: { x: share("x", "mean score"), y: share("y", "share that is true") },
      },
      {
        data: { values: data.calibration.points },
        mark: { type: "line", point: true, tooltip: true },
        encoding: {
          x: share("score", "mean score"),
          y: share("share", "share that is true"),
          color: { field: "scores", type: "nominal" },
          tooltip: ["scores", "score", "share", "count"].map((field) => ({ field })),
        },
      },
    ],
  };
}

function confusionChart() {
  const short = (label) => (name(label).length > 24 ? `${name(label).slice(0, 23)}…` : name(label));
  // Labels that are equal when shortened keep rows of their own.
  const order = [...new Set(data.confusions.cells.flatMap((cell) => [cell.missed, cell.predicted]))];
  const shown = new Map(order.map((label, i) => [label, order.some((other, j) => j < i && short(other) === short(label)) ? `${short(label)} (${label})` : short(label)]));
  const values = data.confusions.cells.map((cell) => ({ missed: shown.get(cell.missed), predicted: shown.get(cell.predicted), rows: cell.rows }));
  const most = Math.max(...values.map((cell) => cell.rows));
  const axis = (title) => ({ type: "nominal", title, sort: [...shown.values()], axis: { labelLimit: 130 } });
  return {
    description: "Rows by missed and wrongly predicted label",
    height: { step: 22 },
    data: { values },
    encoding: {
      y: { field: "missed", ...axis(data.single ? "true label" : "missed") },
      x: { field: "predicted", ...axis("predicted instead"), axis: { labelAngle: -60, labelLimit: 130 } },
    },
    layer: [
      { mark: { type: "rect", tooltip: true }, encoding: { color: { field: "rows", type: "quantitative", scale: { domain: [0, most], range: [colour("panel"), colour("blue")] }, legend: null } } },
      { mark: { type: "text", fontSize: 11 }, encoding: { text: { field: "rows" }, color: { condition: { test: `datum.rows > ${0.7 * most}`, value: colour("page") }, value: colour("text") } } },
    ],
  };
}

function learningChart() {
  const layer = (loss, title, orient) => ({
    transform: [{ filter: `datum.loss === ${loss}` }],
    mark: { type: "line", point: true, tooltip: true },
    encoding: {
      x: { field: "epoch", type: "quantitative" },
      y: { field: "value", type: "quantitative", title, axis: { orient } },
      color: { field: "name", type: "nominal" },
    },
  });
  return {
    description: "Losses and validation metric by epoch",
    data: { values: data.learning },
    layer: [layer(true, "loss", "left"), layer(false, "metric", "right")],
    resolve: { scale: { y: "independent" } },
  };
}

// --- thresholds ----------------------------------------------------------------------------------

const slider = by("threshold");
let curve = data.abstention;

const precision = (i) => (curve.predicted[i] ? curve.true_positives[i] / curve.predicted[i] : 0);
const recall = (i) => curve.true_positives[i] / curve.positives;

function thresholdChart() {
  const axes = data.single
    ? { x: share("coverage", "share of the rows that are tagged"), y: share("precision", "accuracy", { zero: false }) }
    : { x: share("recall", "recall"), y: share("precision", "precision") };
  const values = curve.threshold.map((threshold, i) => ({
    i, threshold, precision: precision(i), recall: recall(i), coverage: curve.predicted[i] / curve.positives,
  })).filter((_, i) => curve.predicted[i]);
  const chosen = values.filter((point) => point.i === slider.max - slider.value);
  const tooltip = ["threshold", data.single ? "coverage" : "recall", "precision"].map((field) => ({ field, format: field === "threshold" ? ".6~g" : ".3f", type: "quantitative" }));
  return {
    description: data.single ? "Accuracy by coverage" : "Precision by recall",
    layer: [
      { data: { values }, mark: { type: "line", point: { size: 20 } }, encoding: { ...axes, order: { field: "i" }, tooltip } },
      { data: { values: chosen }, mark: { type: "point", filled: true, size: 140, color: colour("orange") }, encoding: { ...axes, tooltip } },
    ],
  };
}

function figure(list, term, value, note) {
  const box = element("div");
  const definition = element("dd");
  definition.append(element("b", value));
  if (note) definition.append(element("span", note));
  box.append(element("dt", term), definition);
  list.append(box);
}

function showThreshold() {
  const i = slider.max - slider.value; // points are in descending order
  const [p, r] = [precision(i), recall(i)];
  const [n, hits] = [curve.predicted[i], curve.true_positives[i]];
  const list = by("threshold-figures");
  const value = decimal(curve.threshold[i]);
  by("threshold-value").textContent = value;
  slider.setAttribute("aria-valuetext", value);
  list.replaceChildren();
  if (data.single) {
    figure(list, "rows tagged", n.toLocaleString("en"), percent(n / curve.positives));
    figure(list, "accuracy of these", p.toFixed(3), `${hits.toLocaleString("en")} right`);
    figure(list, "left to a person", (curve.positives - n).toLocaleString("en"));
    by("threshold-status").textContent = `${percent(n / curve.positives)} tagged, accuracy ${p.toFixed(3)}`;
  } else {
    figure(list, "precision", p.toFixed(3));
    figure(list, "recall", r.toFixed(3));
    figure(list, "F1", (p + r ? (2 * p * r) / (p + r) : 0).toFixed(3));
    figure(list, "rows predicted", n.toLocaleString("en"), `${hits} right, ${n - hits} wrong`);
    if (curve.saved !== null) {
      const changes = Math.abs(n - curve.predicted[curve.saved]);
      figure(list, "rows that change", changes.toLocaleString("en"), `against ${decimal(curve.threshold[curve.saved])}`);
    }
    by("threshold-status").textContent = `Precision ${p.toFixed(3)}, recall ${r.toFixed(3)}`;
  }
  chart("threshold-chart", thresholdChart);
}

function showCurve() {
  if (!data.single) curve = data.curves[by("curve-label").value];
  slider.max = curve.threshold.length - 1;
  const start = data.single ? curve.threshold.length - 1 : curve.saved ?? Math.floor(curve.threshold.length / 2);
  slider.value = slider.max - start;
  showThreshold();
}

// --- texts ---------------------------------------------------------------------------------------

const PAGE_SIZE = 10;
let limit = PAGE_SIZE;

function labelled(paragraph, title, labels, other, className, scores) {
  paragraph.append(`${title}: `);
  labels.forEach((label, i) => {
    const score = scores.get(label);
    const right = other.includes(label);
    const item = element("span", right ? "✓ " : "✗ ", right ? "right" : className);
    item.append(element("bdi", name(label)), score === undefined ? "" : ` (${score.toFixed(2)})`);
    paragraph.append(i ? ", " : "", item);
  });
  if (!labels.length) paragraph.append("none");
}

function wordList(words) {
  const list = element("dl", undefined, "words");
  const heaviest = Math.max(...words.flatMap(([, pairs]) => pairs.map(([, weight]) => weight)));
  for (const [label, pairs] of words) {
    const term = element("dt");
    term.append(element("bdi", name(label)));
    const definition = element("dd", pairs.length ? undefined : "none");
    for (const [word, weight] of pairs) {
      const item = element("span", undefined, "word");
      item.style.setProperty("--share", weight / heaviest);
      item.append(element("bdi", word), " ", element("small", weight.toFixed(2)));
      definition.append(item, " ");
    }
    list.append(term, definition);
  }
  return list;
}

function neighbourList(neighbours) {
  const list = element("ol", undefined, "neighbours");
  for (const neighbour of neighbours) {
    const item = element("li");
    item.append(element("bdi", neighbour.text || "(no text)"));
    const note = element("p", `Row ${neighbour.row}, cosine ${neighbour.cosine.toFixed(2)}: `, "note");
    neighbour.labels.forEach((label, i) => note.append(i ? ", " : "", element("bdi", name(label))));
    if (!neighbour.labels.length) note.append("no label");
    item.append(note);
    list.append(item);
  }
  return list;
}

function reasons(row) {
  const details = element("details", undefined, "reasons");
  details.append(element("summary", "Reasons"));
  if (row.words) details.append(element("h4", "Words that weigh most, with what each adds to the logit"), wordList(row.words));
  if (row.neighbours) details.append(element("h4", "Nearest training texts"), neighbourList(row.neighbours));
  return details;
}

function rowItem(index, list) {
  const row = rows.rows[index];
  const item = element("li");
  const details = element("details");
  const [summary, text] = [element("summary", row.headline || "(no text)"), element("pre", row.text + (row.cut ? " …" : ""))];
  summary.dir = text.dir = "auto";
  details.append(summary, text);
  if (row.cut) details.append(element("p", `${row.cut.toLocaleString("en")} more characters`, "note"));
  const scores = new Map(row.scores);
  const [truth, guess] = [element("p"), element("p")];
  labelled(truth, "True", row.true, row.predicted, "missed", scores);
  labelled(guess, "Predicted", row.predicted, row.true, "wrong", scores);
  item.append(details, truth, guess);
  if (list === "label_errors") item.append(element("p", `Reason: ${row.reason}`));
  const others = row.scores.filter(([label]) => !row.true.includes(label) && !row.predicted.includes(label)).slice(0, 3);
  const note = element("p", `Row ${row.row}; all labels right with probability ${row.confidence.toFixed(2)}`, "note");
  others.forEach(([label, score], i) => note.append(i ? ", " : "; also ", element("bdi", name(label)), ` ${score.toFixed(2)}`));
  item.append(note);
  if (row.words || row.neighbours) item.append(reasons(row));
  return item;
}

function concerns(row, label) {
  return row.true.includes(label) || row.predicted.includes(label);
}

function showRows() {
  const list = document.querySelector("input[name=list]:checked").value;
  const label = by("row-label").value;
  const words = by("row-search").value.toLowerCase();
  const matching = rows[list].filter((index) => {
    const row = rows.rows[index];
    return (!label || concerns(row, Number(label))) && (!words || row.text.toLowerCase().includes(words));
  });
  by("row-list").replaceChildren(...matching.slice(0, limit).map((index) => rowItem(index, list)));
  const [n, total] = [rows[list].length, rows[`${list}_total`]];
  const part = n < total ? `; the report has ${n.toLocaleString("en")} of ${total.toLocaleString("en")} rows of this list` : "";
  by("rows-status").textContent = `${Math.min(limit, matching.length)} of ${matching.length} rows${part}`;
  by("more-rows").hidden = matching.length <= limit;
}

function startRows() {
  const used = new Set(Object.values(rows.rows).flatMap((row) => [...row.true, ...row.predicted]));
  const options = [...used].sort((a, b) => a - b).map((label) => option(name(label), label));
  by("row-label").append(...options);
  const restart = () => { limit = PAGE_SIZE; showRows(); };
  for (const input of document.querySelectorAll("input[name=list], #row-label, #row-search")) input.addEventListener("input", restart);
  by("reasons-note").textContent = rows.note;
  by("more-rows").addEventListener("click", () => { limit += PAGE_SIZE; showRows(); });
  showRows();
}

// --- start ---------------------------------------------------------------------------------------

if (rows) startRows();
by("rows-panel").hidden = !rows;
by("no-rows").hidden = Boolean(rows);

if (data.curves) {
  by("curve-label").append(...data.curves.map((values, i) => option(`${name(values.label)} (${values.positives})`, i)));
  by("curve-label").addEventListener("input", showCurve);
}
slider.addEventListener("input", showThreshold);
if (data.single || data.curves.length) showCurve();
if (data.confusions.cells.length) chart("confusion-chart", confusionChart);
chart("calibration-chart", calibrationChart);
chart("coverage-chart", coverageChart);
if (data.learning.length) chart("learning-chart", learningChart);
