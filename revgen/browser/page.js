"use strict";
/*
 * The page: its buttons, the versions of the text, and the loop that shows them between two frames. The models run in
 * the page (page_offline.js) or on a server (page_server.js), which define `describeModels` and `createWriter`.
 */

/** The buttons, the history of versions, and the loop that samples. */
class App {
  constructor() {
    /** @type {Description} */
    this.description = null;
    this.writer = null;
    this.view = new TextView($("text"), (i) => this.openAlternatives(i));
    this.alternatives = new AlternativesList({
      choose: (alternative) => this.choose(alternative),
      move: (step) => this.openAlternatives(this.openIndex + step),
      close: () => this.view.focus(this.openIndex),
    });
    /** @type {Version[]} */
    this.versions = [];
    this.position = -1;
    this.openIndex = 0;
    /** @type {?{isStopped: boolean, aborter: AbortController, finished: Promise<void>}} */
    this.run = null;
    this.bind();
  }

  get version() {
    return this.versions[this.position];
  }

  /** @returns {Request} */
  get request() {
    return requestInFields(this.description);
  }

  /** The minimum number of tokens of a text: that of the model, in proportion to the length. */
  minimum(/** @type {number} */ length) {
    const { min_tokens: minimum = 0, max_tokens: maximum = 300 } = this.description.defaults ?? {};
    return Math.floor((length * minimum) / maximum);
  }

  /** Show a model, and generate with it from now on. The texts of the model before are forgotten. */
  async setModel(/** @type {Description} */ description) {
    await this.stop();
    this.description = description;
    this.writer = createWriter(description);
    [this.versions, this.position] = [[], -1];
    showModel(description);
    $("result").hidden = true;
    $("hint").hidden = false;
    $("error").hidden = true;
    $("generate").disabled = false;
  }

  bind() {
    $("form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.run) this.stop();
      else this.generate();
    });
    $("new-seed").addEventListener("click", () => setSeed(newSeed()));
    $("continue").addEventListener("click", () => this.continue());
    $("undo").addEventListener("click", () => this.move(-1));
    $("redo").addEventListener("click", () => this.move(1));
    $("copy").addEventListener("click", () => this.copy());
    $("colors").addEventListener("click", () => this.setColors($("colors").ariaPressed !== "true"));
    addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(/** @type {KeyboardEvent} */ event) {
    const isField = /^(TEXTAREA|INPUT|SELECT)$/.test(event.target.tagName) && event.target.type !== "range";
    const key = event.key.toLowerCase();
    const hasCommand = event.ctrlKey || event.metaKey;
    if ($("about").open) return;
    if (hasCommand && key === "enter") this.generate();
    else if (key === "escape" && this.run) this.stop();
    else if (hasCommand && !isField && key === "z") this.move(event.shiftKey ? 1 : -1);
    else if (hasCommand && !isField && key === "y") this.move(1);
    else return;
    event.preventDefault();
  }

  /** Generate a new text. If nothing has changed, take a new seed: the same seed gives the same text. */
  async generate() {
    if ($("seed").value === "") setSeed(newSeed());
    if (this.version && JSON.stringify(this.version.request) === JSON.stringify(this.request)) setSeed(newSeed());
    const { request } = this;
    setSeed(request.seed);
    $("length").value = request.length;
    await this.write({ request, tokens: [], target: request.length, minimum: this.minimum(request.length) });
  }

  /** Make the text longer. */
  async continue() {
    const { request, tokens } = this.version;
    const { length } = this.request;
    const [target, minimum] = [length, this.minimum(length)].map((n) => tokens.length + n);
    await this.write({ request, tokens: [...tokens], target, minimum });
  }

  async openAlternatives(i) {
    await this.stop();
    const token = this.version.tokens[i];
    if (!token) return;
    this.openIndex = i;
    this.alternatives.open(token, this.view.element(i));
  }

  /** Replace a token, and sample the rest of the text again. */
  async choose(/** @type {Alternative} */ alternative) {
    const { version, openIndex: i } = this;
    const token = version.tokens[i];
    if (alternative.id === token.id) return this.view.focus(i);
    const chosen = { ...token, ...alternative, done: alternative.id === EOS };
    const tokens = [...version.tokens.slice(0, i), chosen];
    const finished = this.write({ ...version, tokens, rate: undefined });
    this.view.focus(i);
    await finished;
  }

  /** Show a version as the newest, and sample tokens until it has its length, ends, or is stopped. */
  async write(/** @type {Version} */ version) {
    while (this.run) await this.stop();
    this.versions.splice(this.position + 1, Infinity, version);
    this.position = this.versions.length - 1;
    $("error").hidden = true;
    const run = (this.run = { isStopped: false, aborter: new AbortController(), finished: Promise.resolve() });
    const firstNew = version.tokens.length;
    this.refresh();
    announce("Generating");
    run.finished = this.sample(version, run).catch(showError);
    await run.finished;
    this.run = null;
    this.refresh();
    announce(`${run.isStopped ? "Stopped" : "Done"}: ${count(version.tokens.length - firstNew, "new token")}`);
  }

  async sample(/** @type {Version} */ version, run) {
    const { tokens } = version;
    await nextFrame();
    let deadline = performance.now() + SLICE_MS;
    const pause = async () => {
      if (performance.now() < deadline) return;
      this.refresh();
      await nextFrame();
      deadline = performance.now() + SLICE_MS;
    };
    let start = performance.now();
    let numRead = tokens.length;
    for await (const token of this.writer.write(version, () => this.request, run.aborter.signal)) {
      if (run.isStopped) break;
      if (token) tokens.push(token);
      else [start, numRead] = [performance.now(), tokens.length];
      await pause();
    }
    version.rate = (1000 * textOf(tokens.slice(numRead)).length) / (performance.now() - start);
  }

  /** Stop sampling, and wait until it has stopped. */
  async stop() {
    if (!this.run) return;
    this.run.isStopped = true;
    this.run.aborter.abort();
    await this.run.finished;
  }

  /** Show the version before or after the current one. */
  async move(step) {
    await this.stop();
    if (!this.versions[this.position + step]) return;
    this.position += step;
    setFields(this.version.request, this.description);
    this.refresh();
    announce(step < 0 ? "Undone" : "Redone");
  }

  async copy() {
    const { request, tokens } = this.version;
    await copyText(request.prompt + textOf(tokens));
    const name = $("copy").lastElementChild;
    name.textContent = "Copied";
    announce("Copied");
    setTimeout(() => {
      name.textContent = "Copy";
    }, 1600);
  }

  setColors(isOn) {
    $("colors").ariaPressed = String(isOn);
    $("text").classList.toggle("colored", isOn);
    $("legend").hidden = !isOn;
    remember("colors", isOn);
  }

  /** Bring the document up to date with the current version. */
  refresh() {
    const { version } = this;
    const isRunning = Boolean(this.run);
    const isEndVisible = !$("result").hidden && $("text").getBoundingClientRect().bottom <= innerHeight;
    $("hint").hidden = true;
    $("result").hidden = false;
    this.view.show(version);
    document.body.classList.toggle("running", isRunning);
    $("text").setAttribute("aria-busy", String(isRunning));
    $("generate").textContent = isRunning ? "Stop" : "Generate";
    $("generate").classList.toggle("stop", isRunning);
    $("undo").disabled = this.position <= 0;
    $("redo").disabled = this.position >= this.versions.length - 1;
    $("continue").hidden = isRunning || Boolean(version.tokens.at(-1)?.done);
    const rate = version.rate && !isRunning ? ` · ${count(Math.round(version.rate), "character")} per second` : "";
    $("stats").textContent = count(version.tokens.length, "token") + rate;
    // Not scrollIntoView, which would also scroll a page that shows this one in a frame.
    if (isRunning && isEndVisible) scrollBy(0, Math.max(0, $("stats").getBoundingClientRect().bottom - innerHeight));
  }
}

const textOf = (/** @type {Token[]} */ tokens) => tokens.map(({ text }) => text).join("");

/** Copy a text. The old way is for browsers that keep the clipboard from pages that were opened as files. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.body.appendChild(document.createElement("textarea"));
    field.value = text;
    field.className = "sr";
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

/** Keep a choice for the next visit, where the browser allows it. */
function remember(name, value) {
  try {
    localStorage.setItem(`revgen-${name}`, value);
  } catch {
    /* private mode */
  }
}

function recall(name) {
  try {
    return localStorage.getItem(`revgen-${name}`);
  } catch {
    return null;
  }
}

function showError(/** @type {unknown} */ error) {
  $("error").textContent = `Something went wrong: ${error instanceof Error ? error.message : error}`;
  $("error").hidden = false;
  console.error(error);
}

/** Follow the system's color scheme until a reader chooses another one. */
function setUpTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const update = () => {
    $("theme").ariaPressed = String(root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  };
  if (["light", "dark"].includes(recall("theme"))) root.dataset.theme = recall("theme");
  system.addEventListener("change", update);
  $("theme").addEventListener("click", () => {
    root.dataset.theme = $("theme").ariaPressed === "true" ? "light" : "dark";
    remember("theme", root.dataset.theme);
    update();
  });
  update();
}

function setUpAbout() {
  const dialog = $("about");
  $("about-open").addEventListener("click", () => dialog.showModal());
  $("about-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close();
  });
}

/** Let a reader choose among several models. */
function setUpModels(/** @type {Description[]} */ descriptions, /** @type {App} */ app) {
  $("model").hidden = descriptions.length < 2;
  $("name").classList.toggle("sr", descriptions.length > 1); // the list shows it
  $("model").append(...descriptions.map(({ name }) => new Option(name)));
  $("model").addEventListener("change", () => app.setModel(descriptions[$("model").selectedIndex]).catch(showError));
}

/** Show the page, and then create the model: decoding its weights takes a moment. */
async function main() {
  setUpTheme();
  setUpAbout();
  $("form").addEventListener("input", showValues);
  const descriptions = await describeModels();
  showModel(descriptions[0]);
  await nextFrame();
  await new Promise((resolve) => setTimeout(resolve)); // the frame is painted
  const app = new App();
  setUpModels(descriptions, app);
  await app.setModel(descriptions[0]);
  window.revgen = { model: app.writer.model, app }; // for the console
  app.setColors(recall("colors") === "true");
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) await app.generate();
}

main().catch(showError);
