"use strict";

/**
 * @typedef {object} Options
 * @property {number} [temperature] 1 by default; 0 takes the most likely token
 * @property {number} [topK] keep the k most likely tokens
 * @property {number} [topP] keep the smallest set of most likely tokens with at least this probability
 * @property {number} [minP] keep tokens that are at least this fraction as likely as the most likely token
 * @property {boolean} [mayEnd] whether the document may end here, true by default
 * @property {number} [remaining] the number of tokens that may still follow, this one included
 */

/**
 * @typedef {object} Token
 * @property {number} id
 * @property {string} text the characters that the token completes; "" while a character is incomplete
 * @property {number} probability under the model, before temperature and filters
 * @property {{id: number, text: string, probability: number}[]} alternatives the most likely tokens, at most 8
 * @property {boolean} done whether the token ends the document
 */

const NUM_ALTERNATIVES = 8;
const MAX_LOGIT = 1e30;
const MAX_SNAPSHOT_INTERVAL = 64;
const SNAPSHOT_SIZE = 256; // the number of values that are kept for each token, on average

/**
 * Create a model from the description in the page.
 *
 * @param {object} description `MODEL`, with the weights as base64 in `data` and the generated functions in `programs`
 * @returns {LanguageModel}
 */
function createModel(description) {
  return new LanguageModel(description);
}

class LanguageModel {
  constructor(description) {
    const { name, architecture, level, labels, prompt, defaults, info } = description;
    Object.assign(this, { name, architecture, level, labels, prompt, defaults, info });
    this.tokenizer = createTokenizer(description.tokenizer);
    this.vocab = this.tokenizer.texts.length;
    this.suppressed = new Set(description.suppressed);
    this.spells = description.tokenizer.firstDigit != null && !this.suppressed.has(description.tokenizer.firstDigit);
    const arrays = decodeArrays(description.data, description.arrays);
    this.network = createNetwork(description.network, arrays, description.programs);
    this.prefixes = new Set(this.tokenizer.texts.flatMap((text) => properPrefixes(text)));
    this.longest = this.tokenizer.texts.reduce((length, text) => Math.max(length, [...text].length), 0);
  }

  /**
   * Begin a document.
   *
   * @param {{prompt?: string, label?: string|number|null, seed?: number|null}} [options] the seed is random by default
   * @returns {Session}
   */
  start({ prompt = "", label = null, seed = null } = {}) {
    return new Session(this, prompt, label, seed);
  }

  /** Return the logits after each of these ids, which usually begin with 0, the start of a document. */
  logits(ids) {
    const state = this.network.initialState();
    return Array.from(ids, (id) => Float32Array.from(this.network.step(id, state)));
  }

  /** Return the number that a label adds to each id. */
  labelOffset(label) {
    if (label !== null && !this.labels.includes(label)) throw new RangeError(`unknown label: ${label}`);
    return label === null ? 0 : (1 + this.labels.indexOf(label)) * this.vocab;
  }

  /** Return the ids of a prompt without the longest end that begins a longer token, and the text of that end. */
  trim(ids) {
    let removed = 0, removedText = "", text = "";
    for (let i = 1; i <= ids.length; i++) {
      const last = this.tokenizer.texts[ids[ids.length - i]];
      text = last + text;
      if (!last || [...text].length >= this.longest) break;
      if (this.prefixes.has(text)) [removed, removedText] = [i, text];
    }
    return [ids.slice(0, ids.length - removed), removedText];
  }
}

/** Return the non-empty beginnings of a text, in whole characters, without the text itself. */
function properPrefixes(text) {
  const characters = [...text];
  return characters.slice(1).map((_, i) => characters.slice(0, i + 1).join(""));
}

/**
 * One text while it is generated.
 *
 * Each record holds a token, and the ids to read for it: tokens that spell the end of the prompt again, then its own.
 * The state and the logits are those after the first `numRead` records; records are read when they are needed.
 */
class Session {
  constructor(model, prompt, label, seed) {
    this.model = model;
    this.prompt = prompt;
    this.seed = BigInt(seed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
    this.offset = model.labelOffset(label);
    const [ids, healing] = model.trim(model.tokenizer.encode(prompt));
    this.healing = healing;
    this.records = [];
    this.numRead = 0;
    this.state = model.network.initialState();
    this.read([BOS, ...ids]);
    this.snapshots = [];
    this.interval = Math.min(MAX_SNAPSHOT_INTERVAL, Math.ceil((stateSize(this.state) + model.vocab) / SNAPSHOT_SIZE));
    this.keep();
  }

  /** The ids of the generated tokens. */
  get tokens() {
    return this.records.map((record) => record.id);
  }

  /** The generated text, without the prompt. An incomplete character at the end is U+FFFD. */
  get text() {
    const rest = this.model.tokenizer.decode(this.pending(this.records.length), EOS).text;
    return this.records.map((record) => record.text).join("") + rest;
  }

  /** Whether the document has ended. */
  get done() {
    return this.records.at(-1)?.id === EOS;
  }

  /**
   * Generate the next token.
   *
   * @param {Options} [options]
   * @returns {Token} the last token again if the document has ended
   */
  next(options = {}) {
    if (this.done) return this.toToken(this.records.at(-1));
    const n = this.records.length;
    this.readRecords();
    const pending = this.pending(n), ids = [];
    let healing = n ? "" : this.healing;
    for (;;) {
      const logits = this.allowedLogits(healing, pending, options);
      const position = BigInt(n) * 256n + BigInt(ids.length); // the prompt's end has fewer than 256 tokens
      const id = sample(filteredProbabilities(logits, options), randomNumber(this.seed, position));
      const text = this.model.tokenizer.texts[id];
      ids.push(id);
      if (!text || text.length > healing.length) {
        this.records.push(this.newRecord(ids, healing.length, pending, this.alternatives(logits, healing.length, pending)));
        break;
      }
      healing = healing.slice(text.length);
      this.read([id]);
    }
    if (ids.length > 1) this.restore(0);
    return this.toToken(this.records[n]);
  }

  /**
   * Replace the last token.
   *
   * @param {number} id usually one of its alternatives
   * @returns {Token}
   */
  choose(id) {
    const last = this.records.at(-1), n = this.records.length - 1, healed = last.ids.slice(0, -1);
    this.rewind(n);
    this.readRecords();
    this.read(healed);
    const record = this.newRecord([...healed, id], last.skip, this.pending(n), last.alternatives);
    if (healed.length) this.restore(n);
    this.records.push(record);
    return this.toToken(record);
  }

  /** Go back to the first `n` generated tokens. */
  rewind(n) {
    this.records.length = Math.min(n, this.records.length);
    if (this.numRead > this.records.length) this.restore(this.records.length);
  }

  // Tokens

  newRecord(ids, skip, before, alternatives) {
    const id = ids.at(-1);
    const { text, pending } = this.model.tokenizer.decode(before, id);
    const [probability] = probabilitiesOf(this.logits, [id]);
    return { id, ids, text: text.slice(skip), probability, alternatives, pending, skip };
  }

  /** Return the most likely tokens, without the first `skip` characters of their texts. */
  alternatives(logits, skip, before) {
    const ids = mostLikely(logits, NUM_ALTERNATIVES), p = probabilitiesOf(this.logits, ids);
    return ids.map((id, i) => {
      const text = this.model.tokenizer.decode(before, id).text.slice(skip);
      return { id, text, probability: p[i] };
    });
  }

  toToken({ id, text, probability, alternatives }) {
    return { id, text, probability, alternatives, done: id === EOS };
  }

  /** Return the parts of an incomplete character after the first `n` tokens. */
  pending(n) {
    return n ? this.records[n - 1].pending : [];
  }

  /** Return the logits with -Infinity for tokens that may not follow. */
  allowedLogits(healing, pending, { remaining = Infinity, mayEnd = true }) {
    const { tokenizer, suppressed, spells } = this.model, { texts } = tokenizer;
    const fits = (text) => text && (text.startsWith(healing) || healing.startsWith(text));
    const isAllowed = (id) =>
      (mayEnd || id !== EOS) && (healing ? fits(texts[id]) : !spells || tokenizer.maySpell(pending, id, remaining));
    const logits = new Float64Array(this.logits.length);
    for (let id = 0; id < logits.length; id++) {
      const isPossible = this.logits[id] === this.logits[id] && !suppressed.has(id) && isAllowed(id);
      logits[id] = isPossible ? Math.min(this.logits[id], MAX_LOGIT) : -Infinity;
    }
    if (logits.every((x) => x === -Infinity)) this.allowSomething(logits, healing, pending);
    return logits;
  }

  /** Change logits in which no token is possible: repeat the prompt, complete a character, or end the document. */
  allowSomething(logits, healing, pending) {
    const { tokenizer } = this.model;
    const ids = Array.from(logits.keys());
    if (healing) {
      const prefixes = ids.filter((id) => tokenizer.texts[id] && healing.startsWith(tokenizer.texts[id]));
      logits[prefixes.reduce((a, b) => (tokenizer.texts[b].length > tokenizer.texts[a].length ? b : a))] = 0;
    } else if (pending.length && tokenizer.maySpell) {
      for (const id of ids) if (tokenizer.isLastDigit(id) && tokenizer.maySpell(pending, id, 1)) logits[id] = 0;
    } else {
      logits[EOS] = 0;
    }
  }

  // States

  read(ids) {
    for (const id of ids) this.logits = this.model.network.step(id + this.offset, this.state);
  }

  readRecords() {
    while (this.numRead < this.records.length) {
      this.read(this.records[this.numRead++].ids);
      if (this.numRead % this.interval === 0) this.keep();
    }
  }

  /** Keep a copy of the state and the logits, from which `restore` continues. */
  keep() {
    this.snapshots.push({ numRead: this.numRead, state: copyState(this.state), logits: this.logits.slice() });
  }

  /** Go back to the last snapshot after at most `n` records. */
  restore(n) {
    while (this.snapshots.at(-1).numRead > n) this.snapshots.pop();
    const { numRead, state, logits } = this.snapshots.at(-1);
    Object.assign(this, { numRead, state: copyState(state), logits });
  }
}
