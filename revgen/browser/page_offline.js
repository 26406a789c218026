"use strict";
/* The model in the page: `MODEL` describes it, and the engine runs it. */

/** Return the descriptions of the models. */
const describeModels = async () => [MODEL];

/** Return an object that writes the texts of a model. */
const createWriter = (/** @type {Description} */ description) => new Writer(createModel(description));

/** The session of the engine, which follows the version that is shown. */
class Writer {
  /** @param {any} model */
  constructor(model) {
    this.model = model;
    this.session = null;
    this.key = "";
    /** @type {number[]} The ids that the session has generated. */
    this.ids = [];
  }

  /**
   * Continue a version: yield null after each token that the session must read again, then each new token.
   *
   * @param {Version} version @param {() => Request} currentRequest the values of the fields at any time
   */
  *write(version, currentRequest) {
    yield* this.follow(version);
    const { request: { prompt }, tokens, target, minimum } = version;
    const sentences = new SentenceStop(prompt + textOf(tokens));
    /** @type {Token[]} Tokens that may be after the end of the last sentence. */
    let held = [];
    while (this.ids.length < target && !tokens.at(-1)?.done) {
      const request = currentRequest();
      const isLong = this.ids.length >= minimum;
      const token = this.next(request, isLong);
      held.push(token);
      const text = textOf(held);
      if (request.isSentence && isLong) {
        const isFinal = token.done || this.ids.length >= target;
        const end = sentences.find(text, isFinal);
        if (end !== null) return yield* this.end(held, end, tokens);
        if (!isFinal && sentences.isUndecided(text)) continue;
      }
      yield* held;
      sentences.advance(text);
      held = [];
    }
  }

  /** Yield the first `end` characters of the last tokens, and forget the others. @param {Token[]} tokens all before */
  *end(/** @type {Token[]} */ last, /** @type {number} */ end, tokens) {
    for (const token of last) {
      if (end > 0) yield end < token.text.length ? { ...token, text: token.text.slice(0, end), done: true } : token;
      else if (token.done) yield token;
      end -= token.text.length;
    }
    if (!tokens.at(-1)?.done) this.rewind(tokens);
  }

  /** Forget what the session has generated after these tokens. */
  rewind(/** @type {Token[]} */ tokens) {
    this.session.rewind(tokens.length);
    this.ids.length = Math.min(tokens.length, this.ids.length);
  }

  /** Bring the session to the end of a version. */
  *follow(/** @type {Version} */ { request: { prompt, label, seed }, tokens }) {
    const key = JSON.stringify([prompt, label, seed]);
    if (key !== this.key) {
      this.session = this.model.start({ prompt, label, seed });
      [this.key, this.ids] = [key, []];
    }
    let common = 0;
    while (common < this.ids.length && this.ids[common] === tokens[common]?.id) common++;
    if (common < this.ids.length) this.session.rewind(common);
    this.ids.length = common;
    for (const { id } of tokens.slice(common)) {
      this.session.next({});
      this.session.choose(id);
      this.ids.push(id);
      yield null;
    }
  }

  /** Sample a token. @returns {Token} */
  next(/** @type {Request} */ { temperature, topP }, mayEnd = true) {
    const { top_k: topK, min_p: minP } = this.model.defaults;
    const token = this.session.next({ temperature, topP, topK: topK ?? 0, minP: minP ?? 0, mayEnd });
    this.ids.push(token.id);
    return token;
  }
}
