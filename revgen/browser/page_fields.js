"use strict";
/*
 * The fields of the page, and what it shows about a model.
 */

const numberIn = (/** @type {string} */ id) => {
  const { value, defaultValue, min, max } = $(id);
  return Math.min(Math.max(Number(value || defaultValue), Number(min)), Number(max));
};
const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 10000;
const setSeed = (seed) => {
  $("seed").value = seed;
};

/** Return the request that the fields describe.
 * @param {Description} description @returns {Request} */
function requestInFields({ labels = [] }) {
  return {
    prompt: $("prompt").value,
    label: labels[$("label").selectedIndex - 1] ?? null,
    seed: Math.floor(numberIn("seed")),
    temperature: numberIn("temperature"),
    topP: numberIn("top-p"),
    length: Math.floor(numberIn("length")),
    isSentence: $("ending").selectedIndex === 1,
  };
}

/** Show the values of a request in the fields.
 * @param {Request} request @param {Description} description */
function setFields({ prompt, label, seed, temperature, topP, length, isSentence }, { labels = [] }) {
  $("prompt").value = prompt;
  $("label").selectedIndex = labels.indexOf(label) + 1;
  $("temperature").value = temperature;
  $("top-p").value = topP;
  $("length").value = length;
  $("ending").selectedIndex = isSentence ? 1 : 0;
  setSeed(seed);
  showValues();
}

/** Show the values of the sliders, and let the prompt's field grow with its text. */
function showValues() {
  for (const id of ["temperature", "top-p"]) {
    const { value, min, max } = $(id);
    $(`${id}-value`).textContent = Number(value).toFixed(2);
    $(id).style.setProperty("--fill", `${(100 * (value - min)) / (max - min)}%`);
  }
  if (!CSS.supports("field-sizing", "content")) {
    $("prompt").style.height = "auto";
    $("prompt").style.height = `${$("prompt").scrollHeight}px`;
  }
}

/** Return what is known about a model as pairs of a name and a text. */
function facts(/** @type {Description} */ { architecture, level, info = {} }) {
  const bytes = (n) => (n < 1e6 ? `${Math.round(n / 1e3)} KB` : `${(n / 1e6).toFixed(1)} MB`);
  const duration = (s) => (s < 90 ? count(Math.round(s), "second") : count(Math.round(s / 60), "minute"));
  const trained = [info.epochs && count(info.epochs, "epoch"), info.seconds && duration(info.seconds)];
  return [
    ["Architecture", architecture],
    ["Level", level],
    ["Parameters", info.parameters?.toLocaleString("en")],
    ["Weights", info.weights_bytes && bytes(info.weights_bytes)],
    ["Vocabulary", info.vocabulary && count(info.vocabulary, "token")],
    ["Score", info.bits_per_char && `${info.bits_per_char.toFixed(3)} bits per character of held-out text`],
    ["Trained", trained.filter(Boolean).join(", ")],
    ["Data", info.data],
    ["License", info.licence],
    ["Made with", info.version && `revgen ${info.version}`],
  ].filter(([, value]) => value);
}

/** Show the name of a model, its card, and its defaults in the fields. A prompt that has been typed is kept. */
function showModel(/** @type {Description} */ description) {
  const { name, architecture, level, labels = [], prompt, defaults = {}, info = {} } = description;
  document.title = name;
  for (const id of ["name", "about-title"]) $(id).textContent = name;
  const [sentence] = info.description?.match(/^.*?\.(?=\s|$)/s) ?? [];
  const unit = { char: "character", word: "word" }[level] ?? "token";
  $("tagline").textContent = sentence ?? `A language model (${architecture}) that writes one ${unit} at a time.`;
  $("about-description").textContent = info.description ?? "";
  $("about-facts").replaceChildren(
    ...facts(description).flatMap((pair) =>
      pair.map((text, i) => Object.assign(document.createElement(i ? "dd" : "dt"), { textContent: text })),
    ),
  );
  const sample = info.samples?.[0];
  $("about-sample").hidden = !sample;
  $("about-sample").lastElementChild.textContent = sample?.trim() ?? "";
  $("length-unit").textContent = level === "char" ? "characters" : "tokens";
  $("length").max = defaults.max_length ?? 10000;
  $("length").defaultValue = defaults.max_tokens ?? 300; // of an empty field
  $("label-field").hidden = !labels.length;
  $("label").replaceChildren(...["any", ...labels].map((label) => new Option(String(label))));
  const request = {
    prompt: $("prompt").value || (prompt ?? ""),
    label: null,
    seed: defaults.seed ?? newSeed(),
    temperature: defaults.temperature ?? 1,
    topP: defaults.top_p ?? 1,
    length: Number($("length").defaultValue),
    isSentence: defaults.stop_at_sentence ?? false,
  };
  setFields(request, description);
}
