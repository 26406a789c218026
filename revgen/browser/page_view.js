"use strict";
/*
 * What the page shows: the text, whose tokens are elements, and the list of alternatives. `EOS`, the id of the end, is
 * defined before. Text of the model enters the document only through `textContent`.
 */

/**
 * @typedef {{id: number|string, text: string, probability: number}} Alternative
 * @typedef {Alternative & {alternatives: Alternative[], done: boolean}} Token
 * @typedef {{prompt: string, label: ?string, seed: number, temperature: number, topP: number, length: number,
 *   isSentence: boolean}} Request
 * @typedef {{request: Request, tokens: Token[], target: number, minimum: number, rate?: number}} Version
 *   A text: the request, the tokens so far, the number of tokens at which sampling stops, the number before which the
 *   text does not end, and characters per second.
 * @typedef {{name: string, architecture: string, level: string, labels?: string[], prompt?: string, defaults?: object,
 *   info?: object}} Description
 *   A model.
 */

const SLICE_MS = 12; // of the 16 ms between two frames; the rest is for layout and input
const PROBABILITY_BINS = [0.01, 0.05, 0.2, 0.5];
const MAX_SEED = 2 ** 32;

/** @param {string} id */
const $ = (id) => document.getElementById(id);
const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const announce = (text) => {
  $("status").textContent = text;
};
const nextFrame = () => new Promise((resolve) => (document.hidden ? setTimeout : requestAnimationFrame)(resolve));

/** Return a probability for people: "42 %", "3.1 %", "< 0.1 %". */
function percent(p) {
  if (p < 0.001) return "< 0.1 %";
  if (p > 0.999 && p < 1) return "> 99.9 %";
  return `${(100 * p).toFixed(p < 0.0995 || p > 0.995 ? 1 : 0)} %`;
}

/** Return the text of a token such that every character can be seen, and whether it is a description. */
function describe(/** @type {Alternative} */ { id, text }) {
  const names = { " ": "space", "\n": "new line", "\n\n": "blank line", "\t": "tab" };
  if (id === EOS) return ["end of the text", true];
  if (text === "") return ["part of a character", true];
  if (Object.hasOwn(names, text)) return [names[text], true];
  const spaced = text.replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
  const visible = spaced.replaceAll("\n", "↵").replaceAll("\t", "⇥");
  return [/^\p{M}/u.test(visible) ? `◌${visible}` : visible, false];
}

/** Return the step that each arrow key makes in a text, which may be read from right to left. */
function arrowSteps(/** @type {HTMLElement} */ element) {
  const forward = getComputedStyle(element).direction === "rtl" ? -1 : 1;
  return { ArrowLeft: -forward, ArrowRight: forward };
}

/** The text in the document: the prompt, and one element for each token. */
class TextView {
  constructor(/** @type {HTMLElement} */ root, open) {
    this.root = root;
    this.open = open;
    /** @type {Token[]} */
    this.tokens = [];
    this.prompt = root.appendChild(document.createElement("span"));
    this.prompt.className = "prompt";
    root.addEventListener("click", ({ target }) => {
      if (target.classList.contains("token") && getSelection().isCollapsed) this.open(this.index(target));
    });
    root.addEventListener("keydown", (event) => this.onKey(event));
    root.addEventListener("focusout", ({ target }) => {
      for (const name of ["role", "aria-label", "tabindex"]) if (target !== root) target.removeAttribute(name);
    });
  }

  element(i) {
    return this.root.children[i + 1];
  }
  index(element) {
    return [...this.root.children].indexOf(element) - 1;
  }

  /** Show a version. Elements of tokens that are shown already are kept. */
  show(/** @type {Version} */ { request, tokens }) {
    if (this.prompt.textContent !== request.prompt) this.prompt.textContent = request.prompt;
    let common = 0;
    while (common < this.tokens.length && this.tokens[common] === tokens[common]) common++;
    while (this.root.children.length > common + 1) this.root.lastChild.remove();
    this.root.append(...tokens.slice(common).map((token) => this.render(token)));
    this.tokens = [...tokens];
  }

  render(/** @type {Token} */ token) {
    const element = document.createElement("span");
    element.className = "token";
    element.classList.toggle("end", token.id === EOS);
    element.classList.toggle("newline", token.text.startsWith("\n"));
    element.dataset.p = String(PROBABILITY_BINS.filter((bound) => token.probability >= bound).length);
    element.textContent = token.text;
    return element;
  }

  /** Move the focus to a token, which is a button for as long as it has the focus. Others are plain text. */
  focus(i) {
    const element = this.element(i);
    const token = this.tokens[i];
    if (!element) return;
    element.tabIndex = -1;
    element.setAttribute("role", "button");
    element.setAttribute("aria-label", `${describe(token)[0]}, ${percent(token.probability)}`);
    element.focus();
  }

  onKey(/** @type {KeyboardEvent} */ event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.tokens.length) return;
    const i = this.index(event.target);
    const last = this.tokens.length - 1;
    const steps = arrowSteps(this.root);
    const lines = { ArrowUp: -1, ArrowDown: 1 };
    if (event.key === "Home") this.focus(0);
    else if (event.key === "End" || (i < 0 && event.key.startsWith("Arrow"))) this.focus(last);
    else if (event.key in steps) this.focus(Math.min(Math.max(i + steps[event.key], 0), last));
    else if (event.key in lines) this.focus(this.onNextLine(i, lines[event.key]));
    else if (i >= 0 && [" ", "Enter"].includes(event.key)) this.open(i);
    else return;
    event.preventDefault();
  }

  /** Return the index of the token above or below a token. */
  onNextLine(i, step) {
    const boxOf = (j) => this.element(j).getBoundingClientRect();
    const box = boxOf(i);
    const isSameLine = (one, other) => Math.abs(one.top - other.top) < box.height / 2;
    const distance = ({ left, right }) => Math.abs(left + right - box.left - box.right);
    let nearest = i;
    let line = null;
    for (let j = i + step; j in this.tokens; j += step) {
      const other = boxOf(j);
      if (isSameLine(other, box)) continue;
      line ??= other;
      if (!isSameLine(other, line)) break;
      if (nearest === i || distance(other) < distance(boxOf(nearest))) nearest = j;
    }
    return nearest;
  }
}

/** The list of the alternatives to one token. */
class AlternativesList {
  constructor({ choose, move, close }) {
    this.choose = choose;
    this.move = move;
    this.onClose = close;
    this.root = $("alternatives");
    this.list = $("alternatives-list");
    this.anchor = null;
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    const index = ({ target }) => [...this.list.children].indexOf(target.closest("li"));
    this.list.addEventListener("click", (event) => this.pick(index(event)));
    this.list.addEventListener("pointermove", (event) => index(event) < 0 || this.select(index(event)));
    for (const [id, step] of Object.entries({ previous: -1, next: 1 })) {
      $(id).addEventListener("pointerdown", (event) => event.preventDefault()); // the list keeps the focus
      $(id).addEventListener("click", () => this.move(step));
    }
    this.list.addEventListener("focusout", () => this.close());
    addEventListener("resize", () => this.close());
  }

  open(/** @type {Token} */ token, /** @type {HTMLElement} */ anchor) {
    this.close();
    [this.token, this.anchor] = [token, anchor];
    anchor.classList.add("open");
    const [name, isDescription] = describe(token);
    const quoted = isDescription ? name : `“${name.replace(/^·+|·+$/g, "")}”`;
    $("alternatives-title").textContent = `Instead of ${quoted} (${percent(token.probability)})`;
    this.list.replaceChildren(...token.alternatives.map((alternative, i) => this.item(alternative, i)));
    this.root.hidden = false;
    this.place(anchor.getClientRects()[0] ?? anchor.getBoundingClientRect());
    const sampled = token.alternatives.findIndex(({ id }) => id === token.id);
    this.select(Math.max(sampled, 0));
    this.list.focus({ preventScroll: true });
    this.root.scrollIntoView({ block: "nearest" });
    if (getComputedStyle(this.root).position === "fixed") {
      scrollBy(0, Math.max(anchor.getBoundingClientRect().bottom + 12 - this.root.getBoundingClientRect().top, 0));
    }
  }

  item(/** @type {Alternative} */ alternative, i) {
    const [name, isDescription] = describe(alternative);
    const [item, text, probability] = ["li", "span", "span"].map((tag) => document.createElement(tag));
    item.id = `alternative-${i}`;
    item.setAttribute("role", "option");
    item.classList.toggle("special", isDescription);
    item.classList.toggle("now", alternative.id === this.token.id);
    item.style.setProperty("--bar", `${100 * alternative.probability}%`);
    text.textContent = name;
    text.dir = "auto";
    probability.textContent = percent(alternative.probability);
    item.append(text, " ", probability);
    return item;
  }

  /** Put the list below the token, or above it if there is more room. Style sheets override this on a phone. */
  place(/** @type {DOMRect} */ box) {
    const { offsetWidth: width, offsetHeight: height } = this.root;
    const left = Math.min(Math.max(box.left - 16, 8), document.documentElement.clientWidth - width - 8);
    const isAbove = box.bottom + height + 14 > innerHeight && box.top - height - 14 > 0;
    this.root.style.left = `${left + scrollX}px`;
    this.root.style.top = `${(isAbove ? box.top - height - 6 : box.bottom + 6) + scrollY}px`;
  }

  select(i) {
    this.selected = i;
    [...this.list.children].forEach((item, j) => item.setAttribute("aria-selected", String(i === j)));
    this.list.setAttribute("aria-activedescendant", `alternative-${i}`);
  }

  pick(i) {
    const { token } = this;
    const alternative = token.alternatives[i];
    this.close();
    if (alternative) this.choose(alternative);
  }

  onKey(/** @type {KeyboardEvent} */ event) {
    const size = this.list.children.length;
    const digit = Number.parseInt(event.key, 10);
    const steps = arrowSteps(this.anchor);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowDown") this.select((this.selected + 1) % size);
    else if (event.key === "ArrowUp") this.select((this.selected + size - 1) % size);
    else if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "Home") this.select(0);
    else if (event.key === "End") this.select(size - 1);
    else if (event.key === "Enter" || event.key === " ") this.pick(this.selected);
    else if (digit >= 1 && digit <= size) this.pick(digit - 1);
    else if (event.key === "Escape" || event.key === "Tab") {
      this.close();
      this.onClose();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  close() {
    if (this.root.hidden) return;
    this.root.hidden = true;
    this.anchor.classList.remove("open");
  }
}
