// The review page. The server holds the queue and the decisions; this page shows a part of them and sends what a person decides.
// An image is known by its place in the queue ("id"). Nothing is kept here that a reload or another window would miss.

const PAGE_SIZE = 48;
const POLL_MS = 2000;
const RETRY_MS = 1000;
const MAX_MATCHES = 60;
const SMALL_PX = 200;
const DONE_WORDS = { relabel: "Relabeled", keep: "Kept", exclude: "Excluded" };

const $ = (id) => document.getElementById(id);
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const number = (value) => value.toLocaleString("en-US");
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

let facts; // of the dataset: classes, kinds, counts
let ids = []; // images of the chosen filter, most suspicious first
let at = 0; // position in ids
let view = "single";
let run = ""; // of the server; a new one numbers its changes from the start
let seen = 0; // number of changes of that run that this page knows
let isOffline = false;
let isDone = false;
let undoable = []; // decisions of this window: { id, before }
let work = Promise.resolve(); // actions run one after another, however fast the keys are
const items = new Map();
const decisions = new Map();

// ---------------------------------------------------------------------------------------------------------------- server

async function call(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(answer.error || `the server answered ${response.status}`), { status: response.status });
  return answer;
}

function showProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

// Takes over the changes that the server knows and this page does not; `own` is the image that this window just decided.
function absorb(answer, own) {
  if (answer.queue !== facts.queue) return location.reload(); // the images have changed, and with them all places
  if (answer.run !== run) decisions.clear();
  [run, seen] = [answer.run, answer.seen];
  const changed = [];
  for (const [id, decision, label] of answer.changes) {
    const known = decisions.get(id);
    if (known?.decision === (decision ?? undefined) && known?.label === (label ?? undefined)) continue;
    decision ? decisions.set(id, { decision, label }) : decisions.delete(id);
    changed.push(id);
    if (id !== own) undoable = undoable.filter((entry) => entry.id !== id); // another window was later
  }
  return changed;
}

async function poll() {
  for (;;) {
    await sleep(POLL_MS);
    try {
      const changed = absorb(await call(`/api/decisions?run=${run}&seen=${seen}`));
      if (!isOffline) showProblem("");
      if (changed?.length) refresh(changed);
    } catch (error) {
      if (!isOffline) showProblem(error.status ? `Error: ${error.message}` : "The server does not answer. Start tl review again; every decision so far is saved.");
    }
  }
}

async function load(wanted) {
  const missing = wanted.filter((id) => !items.has(id));
  if (missing.length) for (const item of (await call(`/api/items?ids=${missing}`)).items) items.set(item.id, item);
  return wanted.map((id) => items.get(id));
}

// Saves a decision; as long as the server does not answer, tries again. Returns whether it was saved.
async function save(id, decision, label) {
  const [{ digest }] = await load([id]);
  for (;;) {
    try {
      const answer = await call("/api/decisions", { digest, decision, label, run, seen });
      isOffline = false;
      showProblem("");
      const changed = absorb(answer, id);
      if (changed?.length) refresh(changed);
      return true;
    } catch (error) {
      if (error.status) {
        isOffline = false;
        showProblem(`Not saved: ${error.message}`);
        return false;
      }
      isOffline = true;
      showProblem("Not saved yet: the server does not answer. Start tl review again; this page keeps trying.");
      await sleep(RETRY_MS);
    }
  }
}

// --------------------------------------------------------------------------------------------------------------- actions

function remember() {
  sessionStorage.setItem(`undo ${facts.queue}`, JSON.stringify(undoable));
}

function announce(text) {
  $("announcer").textContent = text;
}

// Adds an action to the queue. While the server is away, only the one that waits for it is kept.
function act(name, label) {
  if (isOffline) return;
  if (name === "choose") typedAhead = "";
  work = work.then(() => ACTIONS[name](label)).catch((error) => showProblem(`Error: ${error.message}`));
}

async function decide(decision, label) {
  const id = ids[at];
  if (id === undefined || isDone) return;
  const [item] = await load([id]);
  if (decision === "relabel" && item.error) return announce("A file that cannot be used can only be kept or excluded.");
  if (decision === "relabel" && item.labels.length === 1 && item.labels[0] === label) [decision, label] = ["keep", undefined];
  const before = decisions.get(id) ?? null;
  if (!(await save(id, decision, label))) return;
  undoable.push({ id, before });
  remember();
  await go(nextOpen(at), `${DONE_WORDS[decision]}${label ? ` ${label}` : ""}.`);
}

const ACTIONS = {
  accept: async () => {
    const [item] = await load([ids[at]]);
    return item.decision ? decide(item.decision, item.label ?? undefined) : announce("There is no suggestion: keep, choose a class or exclude.");
  },
  keep: () => decide("keep"),
  exclude: () => decide("exclude"),
  relabel: (label) => decide("relabel", label),
  undo: async () => {
    const entry = undoable.pop() ?? (decisions.has(ids[at]) && !isDone ? { id: ids[at], before: null } : null);
    if (!entry) return announce("Nothing to undo in this window.");
    if (!(await save(entry.id, entry.before?.decision ?? "undo", entry.before?.label))) return undoable.push(entry);
    remember();
    const position = ids.indexOf(entry.id);
    return position < 0 ? announce("Undone, on an image outside the filter.") : go(position, "Undone.");
  },
  next: () => (isDone ? null : go(Math.min(at + 1, ids.length - 1))),
  previous: () => go(isDone ? at : Math.max(at - 1, 0)),
  open: () => go(nextOpen(at)),
  choose: () => openChooser(),
  view: () => setView(view === "grid" ? "single" : "grid"),
};

// The position of the next image without a decision, from the start again after the last; -1 if there is none.
function nextOpen(from) {
  for (let step = 1; step <= ids.length; step += 1) {
    const position = (from + step) % ids.length;
    if (!decisions.has(ids[position])) return position;
  }
  return -1;
}

// Shows the image at a position of ids; -1: all are decided.
async function go(position, words = "") {
  isDone = position < 0 || !ids.length;
  if (!isDone) {
    at = position;
    localStorage.setItem(`at ${facts.queue}`, ids[at]);
  }
  await show(words);
}

// --------------------------------------------------------------------------------------------------------------- showing

function badgeOf(id) {
  const known = decisions.get(id);
  return known ? { className: `badge ${known.decision}`, textContent: `${DONE_WORDS[known.decision]}${known.label ? ` ${known.label}` : ""}` } : { className: "badge", textContent: "" };
}

function refresh(changed) {
  showCounts();
  if (view === "grid") changed.forEach(showBadge);
  else if (!isDone && changed.includes(ids[at])) Object.assign($("badge"), badgeOf(ids[at]));
}

function showCounts() {
  const counts = { relabel: 0, keep: 0, exclude: 0 };
  let decided = 0;
  for (const [id, known] of decisions) {
    counts[known.decision] += 1;
    decided += id < facts.num_suspicious;
  }
  $("bar").max = facts.num_suspicious || 1;
  $("bar").value = decided;
  $("counts").textContent = `${number(decided)} of ${number(facts.num_suspicious)} decided · ${number(counts.relabel)} relabeled, ${number(counts.keep)} kept, ${number(counts.exclude)} excluded`;
}

async function show(words) {
  showCounts();
  $("done").hidden = !isDone;
  $("single").hidden = isDone || view !== "single";
  $("grid").hidden = isDone || view !== "grid";
  if (isDone) return showDone(words);
  return view === "grid" ? showGrid(words) : showSingle(words);
}

function showDone(words) {
  $("done-title").textContent = ids.length ? "Every image of this selection has a decision" : "No image in this selection";
  $("done-text").textContent = ids.length
    ? "Choose another kind or class above, or go back with ←. The decisions take effect where the file is named:"
    : "Choose another kind, class or status above.";
  $("done-command").textContent = `tl auto fit ${facts.images} --corrections ${facts.corrections}`;
  $("done-command").hidden = !ids.length;
  announce(`${words} ${$("done-title").textContent}.`);
}

function question(item) {
  const labeled = `Labeled ${item.labels.join(" and ")}`;
  if (item.error) return "This file cannot be used";
  if (item.decision === "relabel") return `${labeled}. Is it ${item.label}?`;
  return item.decision === "keep" ? `${labeled}. Probably right` : labeled;
}

async function showSingle(words) {
  const id = ids[at];
  const [item] = await load([id]);
  const [image, full] = [$("image"), $("full")];
  $("place").textContent = `${number(at + 1)} of ${number(ids.length)}`;
  Object.assign($("badge"), badgeOf(id));
  $("question").textContent = question(item);
  $("path").textContent = item.paths.join(" · ");
  full.hidden = Boolean(item.error);
  $("broken").hidden = !item.error;
  $("broken").textContent = item.error ?? "";
  image.className = "";
  if (!item.error) {
    full.href = image.src = `/images/${item.digest}/full`;
    image.alt = `Image ${item.paths[0]}`;
    full.title = "Open the image in a new tab";
  }
  $("reasons").replaceChildren(...(item.reasons.length ? item.reasons : ["Nothing suspicious was found."]).map((text) => element("li", { textContent: text })));
  const suggested = { relabel: item.label, keep: "the label is right", exclude: "exclude it" }[item.decision];
  $("accept").textContent = suggested ? `Accept: ${suggested}` : "No suggestion";
  document.querySelector('[data-act="accept"]').disabled = !suggested;
  $("keep").textContent = item.error || item.labels.length !== 1 ? "" : item.labels[0];
  $("choosing").hidden = Boolean(item.error);
  showChips(id, item);
  showComparison(item);
  announce(`${words} ${$("place").textContent}. ${item.paths[0]}. ${$("question").textContent}. ${item.reasons[0] ?? ""}`);
  load(ids.slice(at + 1, at + 9)).then((next) => next.slice(0, 2).forEach((one) => one.error || (new Image().src = `/images/${one.digest}/full`)), () => {});
}

// Up to ten classes have the keys 1 to 9 and 0, always the same; of more, those that the network finds most probable.
const chipLabels = (item) => (facts.classes.length <= 10 ? facts.classes : item.top.map(([label]) => label));

// A class called by a digit has that key.
const keysAreNames = () => facts.classes.every((name) => /^[0-9]$/.test(name));
const keyOf = (name, place) => (keysAreNames() ? name : String((place + 1) % 10));

function showChips(id, item) {
  const label = decisions.get(id)?.decision === "relabel" ? decisions.get(id).label : null;
  const chances = new Map(item.top);
  $("chips").replaceChildren(
    ...chipLabels(item).map((name, place) => {
      const chance = chances.get(name) >= 0.01 ? ` ${Math.round(100 * chances.get(name))}%` : "";
      const chip = element("button", { type: "button" }, name, element("span", { className: "soft", textContent: chance }), " ", element("kbd", { textContent: keyOf(name, place) }));
      chip.setAttribute("aria-pressed", name === label);
      chip.addEventListener("click", () => act("relabel", name));
      return chip;
    }),
  );
}

function showComparison(item) {
  const rows = item.related.map((other) => [`Its near-duplicate, labeled ${other.labels.join(" and ")}`, [other.digest]]);
  for (const label of new Set([...item.labels, ...(item.label ? [item.label] : [])])) {
    if (facts.examples[label]?.length && !item.error) rows.push([`Typical ${label}`, facts.examples[label]]);
  }
  $("compare").replaceChildren(
    ...rows.map(([title, digests]) =>
      element("section", {}, element("h3", { textContent: title }), element("ul", {}, ...digests.map((digest) => element("li", {}, thumbnail(digest, title))))),
    ),
  );
}

function thumbnail(digest, alt) {
  return element("img", { src: `/images/${digest}/thumbnail`, alt, loading: "lazy", decoding: "async" });
}

// ------------------------------------------------------------------------------------------------------------------ grid

let shownPage = null;

async function showGrid(words) {
  const first = Math.floor(at / PAGE_SIZE) * PAGE_SIZE;
  const page = ids.slice(first, first + PAGE_SIZE);
  const key = `${facts.queue} ${page}`;
  if (shownPage !== key) {
    const listed = await load(page);
    $("cards").replaceChildren(...listed.map((item, place) => element("li", {}, makeCard(item, first + place))));
    shownPage = key;
  }
  page.forEach(showBadge);
  const [pages, current] = [Math.ceil(ids.length / PAGE_SIZE), first / PAGE_SIZE + 1];
  $("page-place").textContent = `Page ${number(current)} of ${number(pages)}`;
  $("page-back").disabled = current === 1;
  $("page-on").disabled = current === pages;
  for (const card of document.querySelectorAll(".card")) card.tabIndex = card.dataset.id === String(ids[at]) ? 0 : -1;
  const active = document.querySelector('.card[tabindex="0"]');
  if (!document.querySelector("dialog[open]") && !$("filters").contains(document.activeElement)) active?.focus({ preventScroll: false });
  announce(`${words} ${number(at + 1)} of ${number(ids.length)}.`);
}

function makeCard(item, position) {
  const image = item.error ? element("span", { className: "noimage", textContent: item.error }) : thumbnail(item.digest, "");
  const suggested = { relabel: `→ ${item.label}`, keep: "→ keep", exclude: "→ exclude" }[item.decision] ?? "";
  const card = element(
    "button",
    { type: "button", className: "card" },
    image,
    element("span", {}, element("strong", { textContent: item.labels.join(" and ") || "no class" }), ` ${suggested}`),
    element("span", { className: "badge kind", textContent: facts.kinds[item.kinds[0]].title }),
    element("span", { className: "badge" }),
    element("span", { className: "soft", textContent: item.paths[0] }),
  );
  card.dataset.id = item.id;
  card.addEventListener("focus", () => {
    at = position;
  });
  card.addEventListener("click", () => {
    at = position;
    setView("single");
  });
  return card;
}

function showBadge(id) {
  const card = document.querySelector(`.card[data-id="${id}"]`);
  if (!card) return;
  Object.assign(card.querySelectorAll(".badge")[1], badgeOf(id));
  card.classList.toggle("decided", decisions.has(id));
}

function setView(name) {
  view = name;
  document.querySelector(`input[name="view"][value="${name}"]`).checked = true;
  keepFilters();
  return go(ids.length ? at : -1).then(() => name === "single" && $("stage").focus());
}

// --------------------------------------------------------------------------------------------------------------- filters

function keepFilters() {
  const chosen = new URLSearchParams({ kind: $("kind").value, label: $("label").value, status: $("status").value, view });
  history.replaceState(null, "", `#${chosen}`);
}

async function applyFilters() {
  const query = new URLSearchParams({ kind: $("kind").value });
  if ($("label").value) query.set("label", $("label").value);
  const found = (await call(`/api/queue?${query}`)).ids;
  const status = $("status").value;
  ids = status === "all" ? found : found.filter((id) => decisions.has(id) === (status === "decided"));
  keepFilters();
  const last = ids.indexOf(Number(localStorage.getItem(`at ${facts.queue}`) ?? -1));
  if (last >= 0 && (status === "decided" || !decisions.has(ids[last]))) return go(last);
  at = last;
  return go(status === "decided" && ids.length ? 0 : ids.length ? nextOpen(last) : -1);
}

function fillFilters() {
  const option = (value, text) => element("option", { value, textContent: text });
  const kinds = Object.entries(facts.kinds).filter(([, kind]) => kind.count);
  $("kind").replaceChildren(
    option("suspicious", `All suspicious (${number(facts.num_suspicious)})`),
    ...kinds.map(([code, kind]) => option(code, `${kind.title} (${number(kind.count)})`)),
    option("all", `All images (${number(facts.num_items)})`),
  );
  $("label").replaceChildren(option("", "All"), ...facts.classes.map((name) => option(name, name)));
  const chosen = new URLSearchParams(location.hash.slice(1));
  for (const id of ["kind", "label", "status"]) {
    if ([...$(id).options].some((one) => one.value === chosen.get(id))) $(id).value = chosen.get(id);
  }
  if (!facts.num_suspicious && !chosen.has("kind")) $("kind").value = "all";
  if (chosen.get("view") === "grid") [view, document.querySelector('input[value="grid"]').checked] = ["grid", true];
}

// --------------------------------------------------------------------------------------------------------------- chooser

let matches = [];
let matched = 0;
let typedAhead = null; // what is typed while the dialog waits for a decision before it to be saved

const simple = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

function openChooser() {
  const typed = typedAhead ?? "";
  typedAhead = null;
  if (isDone || items.get(ids[at])?.error) return;
  $("search").value = typed;
  findMatches();
  $("chooser").showModal();
  $("search").focus();
}

function findMatches() {
  const [typed, wanted] = [$("search").value.trim(), simple($("search").value.trim())];
  const chances = new Map(items.get(ids[at])?.top ?? []);
  const rank = (name) => (simple(name) === wanted ? 0 : simple(name).startsWith(wanted) ? 1 : 2) - (chances.get(name) ?? 0) / 2;
  const names = facts.classes.filter((name) => simple(name).includes(wanted)).sort((one, other) => rank(one) - rank(other));
  matches = names.slice(0, MAX_MATCHES).map((name) => ({ name, text: name }));
  if (typed && !facts.classes.includes(typed)) matches.push({ name: typed, text: `New class “${typed}”` });
  matched = 0;
  showMatches();
}

function showMatches() {
  $("matches").replaceChildren(
    ...matches.map(({ text, name }, place) => {
      const row = element("li", { id: `match-${place}`, textContent: text });
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", place === matched);
      row.addEventListener("click", () => choose(name));
      return row;
    }),
  );
  $("search").setAttribute("aria-activedescendant", matches.length ? `match-${matched}` : "");
  $(`match-${matched}`)?.scrollIntoView({ block: "nearest" });
}

function choose(name) {
  $("chooser").close();
  if (!facts.classes.includes(name)) facts.classes.push(name);
  act("relabel", name);
}

function onSearchKey(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && matches.length) {
    matched = (matched + step + matches.length) % matches.length;
    showMatches();
  } else if (event.key === "Enter") {
    if (matches.length) choose(matches[matched].name);
  } else return;
  event.preventDefault();
}

// ------------------------------------------------------------------------------------------------------------------ keys

const KEYS = { a: "accept", k: "keep", x: "exclude", u: "undo", c: "choose", "/": "choose", n: "open", g: "view" };

function onKey(event) {
  const target = event.target;
  if (document.querySelector("dialog[open]") || target.closest("select, input:not([type=radio])")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (typedAhead !== null && key.length === 1) return take(event, () => (typedAhead += event.key));
  if ((event.ctrlKey || event.metaKey) && key === "z") return take(event, () => act("undo"));
  if (event.ctrlKey || event.metaKey || event.altKey || target.type === "radio") return;
  const inCard = target.closest(".card");
  if (key.startsWith("Arrow")) return move(event, key, inCard);
  if (!$("shortcuts").checked) return;
  if (key === "?") return take(event, () => $("keys").showModal());
  if (key === "Enter" && view === "single" && !target.closest("button, a, summary")) return take(event, () => act("accept"));
  if (/^[0-9]$/.test(key)) return take(event, () => act("digit", key));
  if (key in KEYS) take(event, () => act(KEYS[key]));
}

ACTIONS.digit = async (key) => {
  const [item] = await load([ids[at]]);
  const label = chipLabels(item).find((name, place) => keyOf(name, place) === key);
  return label ? decide("relabel", label) : announce(`No class has the key ${key}.`);
};

function take(event, then) {
  event.preventDefault();
  then();
}

function move(event, key, inCard) {
  if (view === "single") {
    if (key === "ArrowLeft") take(event, () => act("previous"));
    if (key === "ArrowRight") take(event, () => act("next"));
  } else if (inCard) {
    const columns = getComputedStyle($("cards")).gridTemplateColumns.split(" ").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
    take(event, () => go(Math.max(0, Math.min(ids.length - 1, at + step))));
  }
}

// ----------------------------------------------------------------------------------------------------------------- start

function connect() {
  document.addEventListener("keydown", onKey);
  for (const button of document.querySelectorAll("[data-act]")) button.addEventListener("click", () => act(button.dataset.act));
  for (const id of ["kind", "label", "status"]) $(id).addEventListener("change", () => (work = work.then(applyFilters)));
  for (const radio of document.querySelectorAll('input[name="view"]')) radio.addEventListener("change", () => setView(radio.value));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("page-back").addEventListener("click", () => go((Math.floor(at / PAGE_SIZE) - 1) * PAGE_SIZE));
  $("page-on").addEventListener("click", () => go((Math.floor(at / PAGE_SIZE) + 1) * PAGE_SIZE));
  $("help").addEventListener("click", () => $("keys").showModal());
  $("search").addEventListener("input", findMatches);
  $("search").addEventListener("keydown", onSearchKey);
  $("image").addEventListener("load", () => $("image").classList.toggle("small", $("image").naturalWidth < SMALL_PX));
  $("image").addEventListener("error", () => announce("The image could not be loaded; the file may have changed since the scan."));
  $("shortcuts").checked = localStorage.getItem("shortcuts") !== "off";
  $("shortcuts").addEventListener("change", () => localStorage.setItem("shortcuts", $("shortcuts").checked ? "on" : "off"));
}

async function start() {
  facts = await call("/api/review");
  document.title = `Review of ${facts.name}`;
  $("title").textContent = `Review of ${facts.name}${facts.model ? `, with ${facts.model}` : ""}`;
  $("file").textContent = facts.corrections;
  undoable = JSON.parse(sessionStorage.getItem(`undo ${facts.queue}`) ?? "[]");
  fillFilters();
  const kept = undoable;
  absorb(await call("/api/decisions"));
  undoable = kept;
  await applyFilters();
  connect();
  document.body.dataset.ready = "yes";
  poll();
}

start().catch((error) => showProblem(`The page cannot start: ${error.message}. Reload it when tl review runs.`));
