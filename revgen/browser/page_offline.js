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
    while (version.tokens.length < version.target && !version.tokens.at(-1)?.done) yield this.next(currentRequest());
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
  next(/** @type {Request} */ { temperature, topP }) {
    const token = this.session.next({ temperature, topP });
    this.ids.push(token.id);
    return token;
  }
}
