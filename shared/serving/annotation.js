"use strict";
// One text at a time. The server has the truth: each click names the version of the text that was
// seen here, and the answer holds the state of all labels and the text to show next.

const byId = (id) => document.getElementById(id);
const settings = JSON.parse(byId("settings").textContent);
const token = new URLSearchParams(location.search).get("token");
const KEYS = [..."123456789abcdefghijklmnopqrstuvwxyz"];
const POLL_MS = 2000;
const LEAST_MS = 400; // nobody reads a text and finds no label for it in less

let state = null; // of all labels, as the server said last
let current = null; // the text on the page; null: all texts are done
let chosen = new Set(); // labels that are pressed
let busy = false; // a click is on its way to the disk
let missed = false; // a key came meanwhile, before the text that is shown now
let shownAt = 0; // when the text was shown first, in milliseconds
let savingNote = Promise.resolve();
const sent = new Map(); // what this tab said about a text, to be offered again after an undo

// --- the server ----------------------------------------------------------------------------------

class Refusal extends Error {
  constructor(status, answer) {
    super(answer.error);
    this.status = status;
    this.answer = answer;
  }
}

async function ask(path, body) {
  const headers = { Authorization: `Bearer ${token}` };
  const options = { headers, cache: "no-store" };
  if (body) {
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error(
      "The program does not answer. All labels so far are on the disk: start it again, and open the address that it prints."
    );
  }
  const answer = await response.json();
  if (!response.ok) throw new Refusal(response.status, answer);
  return answer;
}

function say(message) {
  if (byId("message").textContent !== message) byId("message").textContent = message;
}

// --- what is shown -------------------------------------------------------------------------------

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const buttons = settings.labels.map(({ name, definition }, i) => {
  const button = element("button");
  button.type = "button";
  if (KEYS[i]) button.append(element("kbd", KEYS[i]));
  const middle = element("span", "", "name");
  middle.append(element("b", name));
  if (definition) middle.append(element("small", definition));
  button.append(middle, element("span", "", "facts"));
  button.addEventListener("click", () => press(name));
  return button;
});
byId("labels").append(...buttons);
if (settings.labels.length > 9) byId("labels").classList.add("many");
byId("filter-part").hidden = settings.labels.length <= KEYS.length;

for (const { name, definition, examples } of settings.labels) {
  if (!definition && !examples?.length) continue;
  const list = byId("guide").querySelector("dl");
  list.append(element("dt", name));
  if (definition) list.append(element("dd", definition));
  for (const example of examples) list.append(element("dd", example, "example"));
}

function showState(newState) {
  state = newState;
  const done = state.labelled + state.skipped;
  byId("bar").max = Math.max(state.texts, 1);
  byId("bar").value = done;
  const skipped = state.skipped ? `, ${state.skipped.toLocaleString("en")} skipped` : "";
  const before = state.all_labelled - state.labelled;
  const earlier = before > 0 ? `; ${before.toLocaleString("en")} from earlier` : "";
  byId("counts").textContent =
    `${done.toLocaleString("en")} of ${state.texts.toLocaleString("en")}${skipped}${earlier}`;
  const estimate = state.estimate;
  const f1 = (value) => value.toFixed(2);
  byId("estimate").textContent = estimate
    ? `A quick classifier of words, cross-validated on your ${estimate.n_texts} labelled texts: micro F1 ${f1(estimate.micro_f1)} (95 % interval ${f1(estimate.low)} to ${f1(estimate.high)}), macro F1 ${f1(estimate.macro_f1)} of ${estimate.n_labels} labels`
    : "From 20 labelled texts on, and 5 of a label, this line estimates the F1.";
  byId("undo").disabled = byId("undo-done").disabled = !state.undo;
  if (state.warning) say(state.warning);
  showLabels();
}

// A label may have a name that every object inherits, such as "constructor".
function own(object, key) {
  return object && Object.hasOwn(object, key) ? object[key] : undefined;
}

function showLabels() {
  settings.labels.forEach(({ name }, i) => {
    buttons[i].setAttribute("aria-pressed", chosen.has(name));
    const score = own(current?.scores, name);
    const count = own(state?.label_counts, name) ?? 0;
    const parts = score === undefined ? [] : [`score ${score.toFixed(2)}`];
    buttons[i].querySelector(".facts").textContent = [...parts, `${count}×`].join(" · ");
  });
  if (settings.single) return;
  const names = settings.labels.map(({ name }) => name).filter((name) => chosen.has(name));
  byId("save").lastElementChild.textContent =
    names.length ? `Save: ${names.join(", ")}` : "Save: none of the labels applies";
}

function showText(item) {
  const isOther = item?.id !== current?.id;
  current = item;
  byId("work").hidden = !item;
  byId("done").hidden = Boolean(item);
  if (!item) {
    byId("commands").textContent =
      `./run.sh label_next --data ${settings.output} --unlabelled_data YOUR_TEXTS\n` +
      `./run.sh few_label_probe --data ${settings.output}`;
    if (isOther) byId("done").focus();
    return;
  }
  chosen = new Set(item.labels);
  const place = item.position === null ? "Text of an earlier batch" : `Text ${item.position + 1}`;
  const states = { labelled: item.labels.join(", ") || "none of the labels", skipped: "skipped" };
  byId("place").textContent = place + (item.status ? `: ${states[item.status]}` : "");
  byId("text").textContent = item.text;
  byId("reason").textContent = item.reason ? `Chosen because: ${item.reason}` : "";
  byId("take").hidden = !item.suggested.length;
  byId("take").lastElementChild.textContent = `Take the suggestion: ${item.suggested.join(", ")}`;
  byId("note").value = item.note;
  byId("filter").value = "";
  filterLabels();
  showLabels();
  byId("text").scrollTop = 0;
  if (!isOther) return;
  shownAt = performance.now();
  byId("text").focus({ preventScroll: true });
}

function show(answer) {
  showText(answer.item);
  showState(answer.state);
}

function speak(text) {
  byId("spoken").textContent = text;
}

// --- what a person does --------------------------------------------------------------------------

async function run(action) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await savingNote;
    await action();
  } catch (error) {
    say(error.message);
    if (error.status === 409) {
      show(error.answer);
      say(`Another tab was faster: nothing was changed. This is the text as it is now.`);
    }
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function send(action, labels) {
  return run(async () => {
    const { id, version } = current;
    const note = byId("note").value;
    const answer = await ask("/api/clicks", { action, id, seen: version, labels, note });
    sent.set(id, labels);
    say("");
    show(answer);
    const about = action === "skip" ? "Skipped" : `Saved: ${labels.join(", ") || "no label"}`;
    speak(`${about}. ${byId("counts").textContent}`);
  });
}

// Whether a decision may be about a text that the person has not seen.
function isTooEarly(isEmpty) {
  const tooEarly = missed || (isEmpty && performance.now() - shownAt < LEAST_MS);
  missed = false;
  if (tooEarly) {
    say("A key came before this text was shown: look at its labels, then press the key again.");
  }
  return tooEarly;
}

const save = () => current && !isTooEarly(!chosen.size) && send("label", [...chosen]);
const skip = () => current && send("skip", []);
const take = () => current?.suggested.length && send("label", current.suggested);

function press(name) {
  if (!current || busy) return;
  if (settings.single) {
    if (!isTooEarly(false)) send("label", [name]);
    return;
  }
  if (!chosen.delete(name)) chosen.add(name);
  showLabels();
}

const undo = () =>
  state?.undo &&
  run(async () => {
    const answer = await ask("/api/clicks", { action: "undo", seen: state.undo.click });
    say("");
    show(answer);
    const before = sent.get(answer.item.id);
    if (!settings.single && before && !answer.item.status) {
      chosen = new Set(before);
      showLabels();
    }
    speak("Taken back.");
  });

const look = (step) =>
  run(async () => {
    const from = current ? current.position ?? -1 : state.texts;
    const position = Math.min(Math.max(from + step, 0), state.texts - 1);
    if (position < 0 || position === current?.position) return;
    show(await ask(`/api/text?position=${position}`));
  });

function saveNote() {
  const item = current;
  const note = byId("note").value;
  if (!item || busy || note === item.note) return;
  savingNote = ask("/api/clicks", { action: "note", id: item.id, seen: item.version, note })
    .then((answer) => {
      item.version = answer.item.version;
      item.note = note;
      state.version = answer.state.version;
      speak("The note is saved.");
    })
    .catch((error) => say(error.message));
}

function filterLabels() {
  const wanted = byId("filter").value.trim().toLowerCase();
  settings.labels.forEach(({ name }, i) => {
    buttons[i].hidden = !name.toLowerCase().includes(wanted);
  });
}

byId("take").addEventListener("click", take);
byId("save")?.addEventListener("click", save);
byId("skip").addEventListener("click", skip);
byId("undo").addEventListener("click", undo);
byId("undo-done").addEventListener("click", undo);
byId("previous").addEventListener("click", () => look(-1));
byId("review").addEventListener("click", () => look(-1));
byId("next").addEventListener("click", () => look(1));
byId("note").addEventListener("change", saveNote);
byId("filter").addEventListener("input", filterLabels);
// A mouse leaves the focus on the button, where Enter would press it again.
document.addEventListener("click", (event) => {
  if (event.detail && event.target.closest("button")) byId("text").focus({ preventScroll: true });
});

const COMMANDS = {
  0: take,
  Enter: save,
  "-": skip,
  Backspace: undo,
  ArrowLeft: () => look(-1),
  ArrowRight: () => look(1),
  "/": () => byId("note").focus(),
  ".": () => byId("filter").focus(),
};
if (settings.single) delete COMMANDS.Enter;

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.isComposing || event.altKey || event.metaKey) return;
  if (target.matches("textarea, input")) {
    const ends = key === "Escape" || (key === "Enter" && !event.shiftKey);
    if (!ends || event.ctrlKey) return;
    event.preventDefault();
    if (key === "Enter" && target.id === "filter") buttons.find((b) => !b.hidden)?.click();
    byId("text").focus({ preventScroll: true });
    return;
  }
  const isUndo = event.ctrlKey && key === "z";
  if (event.ctrlKey && !isUndo) return;
  // Who has walked to a button with the Tab key presses it with Enter.
  if (key === "Enter" && target.matches("button, summary, a")) return;
  const command = isUndo ? undo : COMMANDS[key];
  const index = KEYS.indexOf(key.toLowerCase());
  if (!command && !(index >= 0 && index < buttons.length)) return;
  event.preventDefault();
  if (event.repeat) return; // a key that is held down labels one text
  if (busy) {
    missed = true;
    return;
  }
  if (command) command();
  else press(settings.labels[index].name);
});

// --- other tabs, the next batch ------------------------------------------------------------------

async function poll() {
  if (!state || busy) return;
  try {
    const seen = state.version;
    const newState = await ask("/api/state");
    if (busy) return;
    const hasMore = newState.texts > newState.labelled + newState.skipped;
    if (current ? newState.version !== seen : hasMore) {
      const answer = await ask(current ? `/api/text?id=${current.id}` : "/api/text");
      if (busy) return;
      if (!current) show(answer);
      else if (answer.item.version !== current.version) {
        if (byId("note").value !== current.note) {
          say("Another tab has changed this text; your note is not saved yet.");
          return;
        }
        const isDone = answer.item.status && !current.status;
        show(isDone ? await ask("/api/text") : answer);
        if (isDone) say("Another tab has labelled that text; this is the next one.");
        return;
      }
    }
    const isBack = byId("message").dataset.from === "poll";
    if (isBack && !newState.warning) say("");
    byId("message").dataset.from = newState.warning ? "poll" : "";
    showState(newState);
  } catch (error) {
    byId("message").dataset.from = "poll";
    say(error.message);
  }
}

addEventListener("beforeunload", (event) => {
  if (current && byId("note").value !== current.note) event.preventDefault();
});

run(async () => show(await ask("/api/text")));
setInterval(poll, POLL_MS);
document.addEventListener("visibilitychange", () => document.hidden || poll());
