// --- learning curves -----------------------------------------------------------------------------

const COLOURS = ["#2a6f97", "#e07a1f", "#3a9d6b", "#a23b72", "#8a8f98", "#d4a017", "#6a5acd", "#c0392b", "#17a2b8"];

// The axis ends where one line that diverges would hide all others.
function upperEnd(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  return Math.min(at(1), Math.max(at(0.95), 3 * at(0.5) - 2 * at(0)));
}

function curveChart(technique, figure) {
  const settings = Object.keys(data.curves[technique]);
  const values = settings.flatMap((setting) => {
    const lines = data.curves[technique][setting];
    return lines.step.map((step, i) => ({ setting, step, value: lines[figure][i] })).filter(({ value }) => value !== null);
  });
  const numbers = values.map(({ value }) => value);
  const domain = numbers.length ? [Math.min(...numbers), upperEnd(numbers)] : [0, 1];
  const name = { train: "training loss", valid: "validation loss", score: data.score }[figure];
  return {
    description: `${name} by step`,
    height: 320,
    data: { values },
    params: [{ name: "chosen", select: { type: "point", fields: ["setting"] }, bind: "legend" }],
    mark: { type: "line", clip: true, point: { size: 20 }, tooltip: true },
    encoding: {
      x: { field: "step", type: "quantitative", title: "step" },
      y: { field: "value", type: "quantitative", title: name, scale: { domain, zero: false } },
      color: { field: "setting", type: "nominal", sort: settings, scale: { domain: settings, range: COLOURS }, legend: { columns: innerWidth < 600 ? 2 : 4, labelLimit: 220 } },
      opacity: { condition: { param: "chosen", value: 1 }, value: 0.12 },
    },
  };
}

for (const select of document.querySelectorAll("select[data-chart]")) {
  const technique = select.dataset.chart;
  chart(`${technique}-chart`, () => curveChart(technique, select.value));
  select.addEventListener("change", () => draw(`${technique}-chart`));
}

// --- activations and gradients by layer ----------------------------------------------------------

function magnitudeChart(quantity) {
  const values = Object.entries(data.signals).flatMap(([setting, layers]) =>
    Object.entries(layers).flatMap(([layer, shapes]) =>
      shapes[quantity].magnitudes.map((share, i) => ({ setting: `${setting} (${Math.round(100 * Math.max(...Object.values(layers).map((s) => s[quantity].zeros)))} % zeros)`, layer, share, power: data.edges[i] })),
    ),
  );
  const shown = values.filter(({ share }) => share > 0).map(({ power }) => power);
  const domain = [Math.min(...shown), Math.max(...shown) + 0.25];
  return {
    description: `Sizes of ${quantity}`,
    data: { values: values.filter(({ power }) => power >= domain[0] && power <= domain[1]) },
    mark: { type: "line", interpolate: "step-after", clip: true },
    encoding: {
      facet: { field: "setting", type: "nominal", title: null, columns: innerWidth < 700 ? 1 : 3, sort: null, header: { labelColor: colour("text") } },
      x: { field: "power", type: "quantitative", title: `size of ${quantity}, power of ten`, scale: { domain } },
      y: { field: "share", type: "quantitative", title: "share" },
      color: { field: "layer", type: "nominal", scale: { scheme: "viridis" } },
    },
    width: innerWidth < 700 ? innerWidth - 110 : 240,
    height: 110,
    autosize: "pad",
  };
}

if (Object.keys(data.signals).length) for (const quantity of ["activations", "gradients"]) chart(`${quantity}-chart`, () => magnitudeChart(quantity));
