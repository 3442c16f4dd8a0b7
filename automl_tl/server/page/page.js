// The live page of `tl serve`: sends images to /api/predict and shows the answers. No framework, no external request.
"use strict";

const TOP_K = 5;
const MAX_IN_FLIGHT = 4; // the server puts concurrent requests into one batch
const MAX_ATTEMPTS = 10; // while the server is busy
const WEBCAM_SIDE_PX = 480;
const WEBCAM_PAUSE_MS = 120;
const NEW_CLASS = "\0new"; // no label has control characters
const ANNOUNCE_MS = 2500; // the webcam's label is read out at most this often

const byId = (id) => document.getElementById(id);
const part = (card, name) => card.querySelector(`.${name}`);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const show = (element, visible = true) => (element.hidden = !visible);
const inFull = new Intl.NumberFormat("en");
const count = (number, noun, plural = `${noun}s`) => `${inFull.format(number)} ${number === 1 ? noun : plural}`;

let facts = null;

/** Make an element with text; `text` may be null. */
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text != null) element.textContent = text;
  return element;
}

/** A list item with text in which `words` are code. */
function makeItem(text) {
  const item = make("li");
  item.append(...text.split("`").map((words, index) => (index % 2 ? make("code", null, words) : words)));
  return item;
}

/** 0.925 is "92.5%"; only exactly 1 is "100%", only exactly 0 is "0%". */
function percent(fraction) {
  if (fraction > 0 && fraction < 0.0005) return "<0.1%";
  const text = (100 * fraction).toFixed(1).replace(/\.0$/, "");
  return `${text === "100" && fraction < 1 ? "99.9" : text}%`;
}

/** Let a screen reader say `text`. */
function announce(text) {
  byId("status").textContent = text;
}

// ------------------------------------------------------------------------------------------------------------ server

/** Request JSON. While the server is busy (503), wait as long as it asks; `onBusy(seconds)` is called before each wait. */
async function request(path, options = {}, onBusy = () => {}) {
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer. Is it still running?");
    }
    if (response.status === 503 && attempt < MAX_ATTEMPTS) {
      const seconds = Math.min(60, Math.max(1, Number(response.headers.get("Retry-After")) || 1));
      onBusy(seconds);
      await sleep(1000 * seconds);
      continue;
    }
    const body = await response.json().catch(() => null);
    if (!response.ok || body === null) {
      const error = new Error(body?.error ?? `The server answered with status ${response.status}.`);
      throw Object.assign(error, { status: response.status });
    }
    return body;
  }
}

/** Predict one image; `evidence` asks for the heatmap and the nearest training images as well. */
async function predict(image, { evidence = false, onBusy, signal } = {}) {
  let body;
  try {
    body = await image.arrayBuffer();
  } catch {
    throw new Error("The browser cannot read this file.");
  }
  const flag = Number(evidence);
  const headers = { "Content-Type": "application/octet-stream" };
  const path = `/api/predict?top_k=${TOP_K}&explain=${flag}&neighbors=${flag}`;
  const answer = await request(path, { method: "POST", body, headers, signal }, onBusy);
  if (facts && answer.version !== `${facts.name}@${facts.version}`) loadFacts(); // the alias was promoted or rolled back
  return answer;
}

// ------------------------------------------------------------------------------------------------------- model facts

async function loadFacts() {
  try {
    facts = await request("/api/model");
    showFacts();
    show(byId("problem"), false);
  } catch (error) {
    byId("problem").textContent = `The facts about the model cannot be shown: ${error.message}`;
    show(byId("problem"));
  }
}

function showFacts() {
  const { classes } = facts;
  const alias = facts.alias ? `@${facts.alias}` : "";
  document.title = `${facts.name}${alias} · automl_tl`;
  byId("model").replaceChildren(facts.name, make("span", "alias", alias));
  byId("summary").textContent =
    `Puts an image into one of ${count(classes.length, "class", "classes")}. ` +
    `Test ${facts.headline} ${percent(facts.value)} (n = ${inFull.format(facts.num_images)}).`;
  showHeadline();

  const created = make("time", null, new Date(facts.created).toLocaleDateString("en", { dateStyle: "medium" }));
  created.dateTime = facts.created;
  const rows = {
    Version: facts.version,
    Alias: facts.alias,
    Created: created,
    Backbone: facts.backbone,
    Strategy: facts.strategy,
    Size: `${facts.size_mib.toFixed(1)} MiB`,
    Input: `${facts.image_size} × ${facts.image_size} px, the center of an image`,
  };
  byId("facts").replaceChildren(
    ...Object.entries(rows).flatMap(([name, value]) => {
      if (value == null) return [];
      const described = make("dd");
      described.append(value);
      return [make("dt", null, name), described];
    }),
  );
  byId("guarantee").textContent = facts.guarantee;
  show(byId("guarantee"), Boolean(facts.guarantee));
  byId("classes").open ||= classes.length <= 24;
  byId("classes").querySelector("summary").textContent = count(classes.length, "class", "classes");
  byId("classes").querySelector("ul").replaceChildren(...classes.map((name) => make("li", null, name)));
  byId("limits").replaceChildren(...[...facts.warnings, ...facts.limits].map(makeItem));
  byId("privacy").textContent = facts.collect
    ? "Images are sent to this server only. It keeps those whose class you correct, and no others."
    : "Images are sent to this server only. It does not keep them.";
}

function showHeadline() {
  const [low, high] = facts.interval ?? [facts.value, facts.value];
  const range = `95% confidence interval ${Math.floor(100 * low + 1e-9)}–${Math.ceil(100 * high - 1e-9)}%, `;
  byId("accuracy-value").textContent = percent(facts.value);
  byId("accuracy-name").textContent = facts.headline;
  byId("accuracy-range").textContent =
    `${facts.interval ? range : ""}measured on ${count(facts.num_images, "test image")} that took no part in training.`;
  const style = part(byId("accuracy"), "interval").style;
  style.setProperty("--low", low);
  style.setProperty("--high", high);
  style.setProperty("--value", facts.value);
  show(byId("accuracy"));
}

// ----------------------------------------------------------------------------------------------------------- answers

/** Show label or verdict, reason and bars of an answer in `element`; the elements are reused, so that bars can move. */
function showAnswer(element, answer) {
  const withheld = answer.decision !== "answered";
  const [best] = answer.scores;
  element.classList.remove("pending", "failed");
  element.classList.toggle("withheld", withheld);
  const label = part(element, "label");
  if (withheld) label.textContent = answer.decision === "not sure" ? "Not sure" : "Unlike the training images";
  else label.replaceChildren(best.label, " ", make("span", "probability", percent(best.score)));
  const reason = part(element, "reason");
  reason.textContent = withheld ? `No answer: ${answer.reason}.`.replace(/\.\.$/, ".") : "";
  show(reason, withheld);

  const bars = part(element, "bars");
  bars.ariaLabel = withheld ? "Most probable classes, not an answer" : "Most probable classes";
  while (bars.children.length > answer.scores.length) bars.lastChild.remove();
  while (bars.children.length < answer.scores.length) bars.append(makeBar());
  answer.scores.forEach((score, index) => {
    const bar = bars.children[index];
    part(bar, "name").textContent = part(bar, "name").title = score.label;
    part(bar, "fill").style.setProperty("--share", score.score);
    part(bar, "value").textContent = percent(score.score);
  });
}

function makeBar() {
  const bar = make("li");
  const track = make("span", "track");
  track.ariaHidden = "true";
  track.append(make("span", "fill"));
  bar.append(make("span", "name"), track, make("span", "value"));
  return bar;
}

/** What a screen reader says about an answer. */
function spoken(answer) {
  if (answer.decision !== "answered") return answer.decision;
  return `${answer.label}, ${percent(answer.scores[0].score)}`;
}

// ------------------------------------------------------------------------------------------------------------- cards

const waiting = []; // cards whose image was not sent yet
const tally = { total: 0, answered: 0, "not sure": 0, "unlike the training images": 0, failed: 0 };
let numInFlight = 0;
let epoch = 0; // grows when the results are cleared; answers of an earlier one are dropped

/** Add a card for each file at the top of the results, and send the images. */
function addImages(files) {
  if (!files.length) return;
  const added = files.map((file) => ({ file, epoch, state: null, card: makeCard(file) }));
  byId("cards").prepend(...added.map((item) => item.card));
  waiting.push(...added);
  for (const item of added) connect(item);
  tally.total += added.length;
  showCounts();
  sendWaiting();
}

function makeCard(file) {
  const card = byId("card").content.cloneNode(true).firstElementChild;
  card.classList.add("pending");
  const image = part(card, "photo").firstElementChild;
  image.addEventListener("error", () => {
    part(card, "photo").textContent = (/\.(\w{1,5})$/.exec(file.name)?.[1] ?? "file").toUpperCase();
  });
  image.src = URL.createObjectURL(file);
  part(card, "file").textContent = part(card, "file").title = file.name;
  card.firstElementChild.ariaLabel = file.name;
  return card;
}

function connect(item) {
  const { card } = item;
  part(card, "retry").addEventListener("click", () => {
    card.classList.replace("failed", "pending");
    show(part(card, "retry"), false);
    show(part(card, "reason"), false);
    part(card, "label").textContent = "Waiting …";
    card.tabIndex = -1; // the button that had the focus is gone
    card.focus();
    waiting.push(item);
    sendWaiting();
  });
  part(card, "explain").addEventListener("click", () => toggleEvidence(item));
  part(card, "wrong").addEventListener("click", () => {
    const form = part(card, "correction");
    show(form, form.hidden);
    part(card, "wrong").ariaExpanded = String(!form.hidden);
    if (!form.hidden) form.querySelector("select").focus();
  });
  part(card, "correction").addEventListener("submit", (event) => {
    event.preventDefault();
    sendCorrection(item);
  });
}

async function sendWaiting() {
  while (numInFlight < MAX_IN_FLIGHT && waiting.length) {
    numInFlight += 1;
    send(waiting.shift()).finally(() => {
      numInFlight -= 1;
      sendWaiting();
    });
  }
}

async function send(item) {
  const { card, file } = item;
  const label = part(card, "label");
  label.textContent = "Reading …";
  const onBusy = (seconds) => (label.textContent = `The server is busy; next try in ${seconds} s`);
  let said;
  try {
    item.answer = await predict(file, { onBusy });
    showAnswer(card, item.answer);
    show(part(card, "explain"));
    if (facts?.collect) offerCorrection(card);
    setState(item, item.answer.decision);
    said = spoken(item.answer);
  } catch (error) {
    card.classList.replace("pending", "failed");
    label.textContent = "No result";
    part(card, "reason").textContent = error.message;
    show(part(card, "reason"));
    show(part(card, "retry"));
    setState(item, "failed");
    said = error.message;
  }
  if (item.epoch !== epoch) return;
  showCounts();
  if (tally.total === 1) announce(`${file.name}: ${said}`);
  else if (!waiting.length && numInFlight === 1) announce(`${byId("counts").textContent} Last: ${file.name}: ${said}`);
}

function setState(item, state) {
  if (item.epoch !== epoch) return;
  if (item.state) tally[item.state] -= 1;
  item.state = state;
  tally[state] += 1;
}

function showCounts() {
  const words = { answered: "answered", "not sure": "not sure", "unlike the training images": "unlike the training images", failed: "without result" };
  const parts = Object.entries(words).filter(([state]) => tally[state]).map(([state, word]) => `${inFull.format(tally[state])} ${word}`);
  byId("counts").textContent = `${count(tally.total, "image")}${parts.length ? `: ${parts.join(", ")}` : ""}.`;
  show(byId("results"), tally.total > 0);
}

function clearCards() {
  for (const image of byId("cards").querySelectorAll(".photo img")) URL.revokeObjectURL(image.src);
  byId("cards").replaceChildren();
  waiting.length = 0;
  epoch += 1;
  for (const state of Object.keys(tally)) tally[state] = 0;
  showCounts();
  announce("Results cleared.");
  byId("files").focus();
}

// ---------------------------------------------------------------------------------------------------------- evidence

async function toggleEvidence(item) {
  const { card } = item;
  const button = part(card, "explain");
  const evidence = part(card, "evidence");
  const open = evidence.hidden;
  if (open && !item.explained) {
    button.disabled = true;
    button.textContent = "Explaining …";
    try {
      item.explained = await predict(item.file, { evidence: true });
      showEvidence(evidence, item.explained);
    } catch (error) {
      part(card, "reason").textContent = `No explanation: ${error.message}`;
      show(part(card, "reason"));
      return;
    } finally {
      button.disabled = false;
      button.textContent = "Explain";
    }
  }
  show(evidence, open);
  card.classList.toggle("open", open);
  button.ariaExpanded = String(open);
  button.textContent = open ? "Hide explanation" : "Explain";
  button.focus();
}

function showEvidence(evidence, answer) {
  const heatmap = part(evidence, "heatmap");
  show(heatmap, Boolean(answer.heatmap));
  if (answer.heatmap) {
    heatmap.querySelector("img").src = answer.heatmap;
    heatmap.querySelector("img").alt = `Heatmap of the evidence for ${answer.label}`;
    part(heatmap, "caption").textContent =
      `Brighter areas moved the probability of “${answer.label}” more. They show what the model used, not that it is right.`;
  }
  show(part(evidence, "near"), Boolean(answer.neighbors?.length));
  if (!answer.neighbors?.length) return;
  part(evidence, "neighbors").replaceChildren(...answer.neighbors.map(makeNeighbor));
  const numMissing = answer.neighbors.filter((neighbor) => !neighbor.image).length;
  part(evidence, "note").textContent = numMissing ? `${count(numMissing, "training image")} cannot be read on the server.` : "";
}

function makeNeighbor({ path, label, similarity, image }) {
  const neighbor = make("li");
  const frame = make("div", "image", image ? null : "no image");
  if (image) {
    const thumbnail = make("img");
    thumbnail.src = image;
    thumbnail.alt = `Training image of ${label}`;
    frame.append(thumbnail);
  }
  const place = make("div", "path", path);
  place.title = path;
  neighbor.append(frame, make("b", null, label), `, similarity ${similarity.toFixed(2)}`, place);
  return neighbor;
}

// -------------------------------------------------------------------------------------------------------- correction

function offerCorrection(card) {
  const select = card.querySelector("select");
  const prompt = new Option("Choose …", "");
  prompt.disabled = prompt.selected = true;
  select.replaceChildren(prompt, ...facts.classes.map((name) => new Option(name)), new Option("Another class …", NEW_CLASS));
  select.addEventListener("change", () => {
    show(part(card, "new"), select.value === NEW_CLASS);
    part(card, "new").querySelector("input").required = select.value === NEW_CLASS;
  });
  part(card, "wrong").textContent = card.classList.contains("withheld") ? "Name the class" : "Wrong?";
  show(part(card, "wrong"));
}

async function sendCorrection(item) {
  const { card } = item;
  const form = part(card, "correction");
  const chosen = form.querySelector("select").value;
  const label = chosen === NEW_CLASS ? form.querySelector("input").value.trim() : chosen;
  const thanks = part(card, "thanks");
  const send = form.querySelector("button");
  send.disabled = true;
  try {
    const body = JSON.stringify({ digest: item.answer.digest, label });
    const options = { method: "POST", body, headers: { "Content-Type": "application/json" } };
    await request("/api/feedback", options).catch(async (error) => {
      if (error.status !== 404) throw error;
      await predict(item.file); // the server keeps only recent images
      return request("/api/feedback", options);
    });
    thanks.textContent = `Saved as “${label}”. The next fit can learn from it.`;
    thanks.classList.remove("failed");
    show(form, false);
    part(card, "wrong").textContent = "Change the correction";
    part(card, "wrong").ariaExpanded = "false";
    part(card, "wrong").focus();
  } catch (error) {
    thanks.textContent = `Not saved: ${error.message}`;
    thanks.classList.add("failed");
  } finally {
    send.disabled = false;
  }
  show(thanks);
  announce(thanks.textContent);
}

// ----------------------------------------------------------------------------------------------- drop, paste, choose

/** The files in a drop; folders are read recursively, hidden files are left out. */
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  for (const entry of entries) await collectFiles(entry, files);
  return files;
}

async function collectFiles(entry, files) {
  if (entry.isFile) {
    files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 at once
    if (!batch.length) return;
    batch.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
    for (const child of batch) if (!child.name.startsWith(".")) await collectFiles(child, files);
  }
}

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", async (event) => {
  document.body.classList.remove("dragging");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  addImages(await droppedFiles(event.dataTransfer).catch(() => []));
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) addImages(files);
  else announce("The clipboard holds no image.");
});
byId("files").addEventListener("change", (event) => {
  addImages([...event.target.files]);
  event.target.value = ""; // the same file may be chosen again
});
byId("files").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return; // Chromium opens it with the space bar only, and it looks like a button
  event.preventDefault();
  event.target.click();
});
byId("clear").addEventListener("click", clearCards);

// ------------------------------------------------------------------------------------------------------------ webcam

const video = byId("video");
let webcam = null; // the running session: its stream and what cancels its request

async function startWebcam() {
  const start = byId("webcam-start");
  start.disabled = true;
  show(byId("problem"), false);
  try {
    if (!navigator.mediaDevices) throw new Error("browsers allow it on localhost and over HTTPS only");
    const wanted = { facingMode: "environment", width: { ideal: 960 }, height: { ideal: 720 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
    webcam = { stream, aborted: new AbortController() };
    stream.getVideoTracks()[0].addEventListener("ended", stopWebcam); // unplugged, or permission withdrawn
    video.classList.toggle("mirrored", stream.getVideoTracks()[0].getSettings().facingMode !== "environment");
    video.srcObject = stream;
    show(byId("webcam"));
    byId("webcam-stop").focus();
    watchWebcam(webcam);
  } catch (error) {
    const reasons = { NotAllowedError: "permission was denied", NotFoundError: "there is no camera", NotReadableError: "another program uses it" };
    byId("problem").textContent = `The webcam cannot be used: ${reasons[error.name] ?? error.message}.`;
    show(byId("problem"));
  } finally {
    start.disabled = false;
    show(start, !webcam);
  }
}

function stopWebcam() {
  if (!webcam) return;
  webcam.aborted.abort();
  for (const track of webcam.stream.getTracks()) track.stop();
  webcam = video.srcObject = null;
  show(byId("webcam"), false);
  show(byId("webcam-start"));
  byId("webcam-start").focus();
}

/** Predict frame after frame, one request at a time, until the session ends. */
async function watchWebcam(session) {
  const element = byId("webcam-answer");
  let said = "";
  let saidAt = 0;
  while (webcam === session) {
    try {
      const frame = await grabFrame(WEBCAM_SIDE_PX, 0.9);
      if (!frame) {
        await sleep(WEBCAM_PAUSE_MS);
        continue;
      }
      const answer = await predict(frame, { signal: session.aborted.signal });
      if (webcam !== session) return;
      showAnswer(element, answer);
      const text = answer.decision === "answered" ? answer.label : answer.decision;
      if (text !== said && performance.now() - saidAt > ANNOUNCE_MS) {
        announce(`Webcam: ${text}`);
        [said, saidAt] = [text, performance.now()];
      }
      await sleep(WEBCAM_PAUSE_MS);
    } catch (error) {
      if (webcam !== session) return;
      part(element, "label").textContent = "No result";
      part(element, "reason").textContent = error.message;
      show(part(element, "reason"));
      await sleep(1000);
    }
  }
}

/** The current frame as a JPEG whose longer side has at most `sidePx`; null before the first frame. */
async function grabFrame(sidePx, quality) {
  const { videoWidth: width, videoHeight: height } = video;
  if (!width) return null;
  const scale = Math.min(1, sidePx / Math.max(width, height));
  const canvas = make("canvas");
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
}

async function keepFrame() {
  const frame = await grabFrame(Infinity, 0.95);
  if (!frame) return;
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
  addImages([new File([frame], `webcam ${time}.jpg`, { type: "image/jpeg" })]);
}

byId("webcam-start").addEventListener("click", startWebcam);
byId("webcam-stop").addEventListener("click", stopWebcam);
byId("webcam-keep").addEventListener("click", keepFrame);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden || !webcam) return;
  stopWebcam();
  byId("problem").textContent = "The webcam was switched off because the page was hidden.";
  show(byId("problem"));
});

loadFacts();
