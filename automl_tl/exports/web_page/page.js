// The page of a web export: classifies images in the browser with ONNX Runtime Web. No framework, no external request.
import * as ort from "./ort.js";
import { decode } from "./pixels.js";

const TOP_K = 5;

const byId = (id) => document.getElementById(id);
const part = (card, name) => card.querySelector(`.${name}`);
const show = (element, visible = true) => (element.hidden = !visible);
const inFull = new Intl.NumberFormat("en");
const count = (number, noun, plural = `${noun}s`) => `${inFull.format(number)} ${number === 1 ? noun : plural}`;

let facts = null;
let session = null;
let results = []; // one per image, in the order of their choice: file, card, probabilities or error
let running = Promise.resolve(); // images are classified one after the other

/** Make an element with text. */
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text != null) element.textContent = text;
  return element;
}

/** 0.925 is "92.5%"; only exactly 1 is "100%", only exactly 0 is "0%". */
function percent(fraction) {
  if (fraction > 0 && fraction < 0.0005) return "<0.1%";
  const text = (100 * fraction).toFixed(1).replace(/\.0$/, "");
  return `${text === "100" && fraction < 1 ? "99.9" : text}%`;
}

// ------------------------------------------------------------------------------------------------------------- model

async function download(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: the server answered with status ${response.status}`);
  return response;
}

async function load() {
  try {
    facts = await (await download("facts.json")).json();
    showFacts();
    const model = await (await download("model.onnx")).arrayBuffer();
    ort.env.wasm.numThreads = 1; // more need headers that static servers do not send
    ort.env.wasm.wasmPaths = { wasm: new URL("ort.wasm", import.meta.url).href };
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
    facts.mib = model.byteLength / 2 ** 20;
    showFacts();
    byId("files").disabled = false;
    show(byId("problem"), false);
    document.body.dataset.ready = "";
  } catch (error) {
    byId("problem").textContent = `The model cannot be loaded: ${error.message}. Serve all files of its folder, and reload.`;
  }
}

function showFacts() {
  const { classes, preprocessing, backbone, precision, mib } = facts;
  byId("summary").textContent = `Puts an image into one of ${count(classes.length, "class", "classes")}. Images stay on this device.`;
  const rows = {
    Backbone: backbone,
    Precision: precision,
    Size: mib && `${mib.toFixed(1)} MiB`,
    Input: `${preprocessing.side_px} × ${preprocessing.side_px} px, the center of an image`,
  };
  const items = Object.entries(rows).filter(([, value]) => value);
  byId("facts").replaceChildren(...items.flatMap(([name, value]) => [make("dt", null, name), make("dd", null, value)]));
  byId("classes").open = classes.length <= 24;
  byId("classes").querySelector("summary").textContent = count(classes.length, "class", "classes");
  byId("classes").querySelector("ul").replaceChildren(...classes.map((name) => make("li", null, name)));
}

/** Probabilities of the classes for an image file. */
async function classify(file) {
  const { side_px: sidePx, crop_fraction: cropFraction } = facts.preprocessing;
  const { rgb, width, height } = await decode(file, Math.round(sidePx / cropFraction));
  const { probabilities } = await session.run({ images: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });
  return Array.from(probabilities.data);
}

// ------------------------------------------------------------------------------------------------------------- cards

function addImages(files) {
  if (!files.length || !session) return;
  const added = files.map((file) => ({ file, card: makeCard(file) }));
  byId("cards").prepend(...added.map(({ card }) => card));
  results.push(...added);
  showCounts();
  for (const result of added) running = running.then(() => classifyCard(result));
  running = running.then(() => (byId("status").textContent = `${byId("counts").textContent} ${spoken(added.at(-1))}`));
}

function makeCard(file) {
  const card = byId("card").content.cloneNode(true).firstElementChild;
  const image = part(card, "photo").firstElementChild;
  image.addEventListener("error", () => {
    part(card, "photo").textContent = (/\.(\w{1,5})$/.exec(file.name)?.[1] ?? "file").toUpperCase();
  });
  image.src = URL.createObjectURL(file);
  part(card, "file").textContent = part(card, "file").title = file.name;
  card.firstElementChild.ariaLabel = file.name;
  return card;
}

async function classifyCard(result) {
  const { file, card } = result;
  if (!card.isConnected) return; // the results were cleared
  await new Promise((resolve) => setTimeout(resolve)); // let the browser paint
  try {
    result.probabilities = await classify(file);
    showProbabilities(card, result.probabilities);
  } catch (error) {
    result.error = error.message;
    card.classList.add("failed");
    part(card, "label").textContent = "No result";
    part(card, "reason").textContent = error.message;
    show(part(card, "reason"));
  }
  card.classList.remove("pending");
  showCounts();
}

function ranked(probabilities) {
  return probabilities.map((_, index) => index).sort((one, other) => probabilities[other] - probabilities[one]);
}

function showProbabilities(card, probabilities) {
  const [best, ...others] = ranked(probabilities);
  const value = make("span", "probability", percent(probabilities[best]));
  part(card, "label").replaceChildren(facts.classes[best], " ", value);
  part(card, "bars").replaceChildren(...[best, ...others].slice(0, TOP_K).map((index) => makeBar(index, probabilities[index])));
}

function makeBar(index, probability) {
  const bar = make("li");
  const track = make("span", "track");
  track.ariaHidden = "true";
  track.append(make("span", "fill"));
  track.firstChild.style.setProperty("--share", probability);
  bar.append(make("span", "name", facts.classes[index]), track, make("span", "value", percent(probability)));
  bar.firstChild.title = facts.classes[index];
  return bar;
}

function spoken({ file, probabilities, error }) {
  const [best] = probabilities ? ranked(probabilities) : [];
  return `${file.name}: ${error ?? (probabilities ? `${facts.classes[best]}, ${percent(probabilities[best])}` : "")}`;
}

function showCounts() {
  const numFailed = results.filter(({ error }) => error).length;
  const numClassified = results.filter(({ probabilities }) => probabilities).length;
  const parts = [`${inFull.format(numClassified)} classified`, ...(numFailed ? [`${inFull.format(numFailed)} without result`] : [])];
  byId("counts").textContent = `${count(results.length, "image")}: ${parts.join(", ")}.`;
  show(byId("results"), results.length > 0);
}

function clear() {
  for (const image of byId("cards").querySelectorAll(".photo img")) URL.revokeObjectURL(image.src);
  byId("cards").replaceChildren();
  results = [];
  showCounts();
  byId("status").textContent = "Results cleared.";
  byId("files").focus();
}

/** Save what was classified as CSV with one probability per class. */
function downloadCsv() {
  const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const rows = results.map(({ file, probabilities, error }) => [
    file.name,
    probabilities ? facts.classes[ranked(probabilities)[0]] : "",
    error ?? "",
    ...(probabilities ?? facts.classes.map(() => "")),
  ]);
  const lines = [["file", "label", "error", ...facts.classes], ...rows].map((row) => row.map(quoted).join(","));
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

// ----------------------------------------------------------------------------------------------- drop, paste, choose

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
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dragging");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  addImages([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => addImages([...(event.clipboardData?.files ?? [])]));
byId("files").addEventListener("change", (event) => {
  addImages([...event.target.files]);
  event.target.value = ""; // the same file may be chosen again
});
byId("files").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return; // Chromium opens it with the space bar only, and it looks like a button
  event.preventDefault();
  event.target.click();
});
byId("download").addEventListener("click", downloadCsv);
byId("clear").addEventListener("click", clear);

load();
