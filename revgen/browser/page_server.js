"use strict";
/* The models of a server, which the page reaches by the OpenAI protocol. */

const EOS = "</s>"; // the ids of tokens are their names in the protocol
const NUM_ALTERNATIVES = 8;
const SEED_LIMIT = 2 ** 32;

/** Return the response to a request. Throws an error with the message of the server. */
async function send(path, options = {}) {
  const key = sessionStorage.getItem("revgen-key");
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server cannot be reached. Try again in a moment.");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw Object.assign(new Error(error?.message ?? `the server answered with status ${response.status}`), {
    status: response.status,
  });
}

/** Return the descriptions of the models. If the server requires a key, ask for it. */
async function describeModels() {
  for (;;) {
    try {
      return await (await send("page/models")).json();
    } catch (error) {
      if (error.status !== 401) throw error;
      sessionStorage.setItem("revgen-key", await askForKey(Boolean(sessionStorage.getItem("revgen-key"))));
    }
  }
}

/** Ask for the API key in a dialog, and return it. */
function askForKey(/** @type {boolean} */ wasRefused) {
  $("key-refused").hidden = !wasRefused;
  $("key").value = "";
  $("key-dialog").showModal();
  return new Promise((resolve) => {
    $("key-dialog").addEventListener("close", () => resolve($("key").value), { once: true });
  });
}

const createWriter = (/** @type {Description} */ description) => new Writer(description);

/** The completions of one model. */
class Writer {
  constructor(/** @type {Description} */ model) {
    this.model = model;
  }

  /**
   * Continue a version: yield each new token when it arrives.
   *
   * @param {Version} version @param {() => Request} currentRequest @param {AbortSignal} signal
   */
  async *write({ request, tokens, target, minimum }, currentRequest, signal) {
    if (tokens.at(-1)?.done || tokens.length >= target) return;
    const { temperature, topP, isSentence } = currentRequest();
    const sentences = new SentenceStop(request.prompt + textOf(tokens));
    const body = {
      model: this.model.name,
      prompt: request.prompt + textOf(tokens),
      max_tokens: target - tokens.length,
      min_tokens: Math.max(minimum - tokens.length, 0),
      stop_at_sentence: isSentence,
      temperature,
      top_p: topP,
      seed: (request.seed + tokens.length) % SEED_LIMIT,
      label: request.label,
      logprobs: NUM_ALTERNATIVES,
    };
    try {
      for await (const { text, logprobs, finish_reason: reason } of this.choices({ ...body, stream: true }, signal)) {
        yield* toTokens(text, logprobs);
        sentences.advance(text);
        const isSentenceEnd = isSentence && sentences.find("", true) !== null;
        if (reason === "stop" && !isSentenceEnd) yield await this.end({ ...body, prompt: request.prompt + textOf(tokens) }, signal);
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }

  /** Yield the choices in the events of a completion. */
  async *choices(body, signal) {
    const response = await send("v1/completions", { method: "POST", body: JSON.stringify(body), signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let unread = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the server closed the connection.");
      const events = (unread + value).split("\n\n");
      unread = events.pop();
      for (const data of events.map((event) => event.replace(/^data: /, ""))) {
        if (data === "[DONE]") return;
        const { error, choices } = JSON.parse(data);
        if (error) throw new Error(error.message);
        yield* choices;
      }
    }
  }

  /**
   * Return the end of a text as a token. The protocol has no token for it, so sample other continuations, whose first
   * tokens come with the alternatives at this position.
   */
  async end(body, signal) {
    const sampling = { temperature: 1.5, top_p: 1, min_p: 0, min_tokens: 0, stop_at_sentence: false };
    const options = { ...body, ...sampling, max_tokens: 1, n: 8, logprobs: 20 };
    const response = await send("v1/completions", { method: "POST", body: JSON.stringify(options), signal });
    const { choices } = await response.json();
    const logprobs = choices.map((choice) => choice.logprobs.top_logprobs[0]).find(Boolean);
    const likely = toAlternatives(logprobs ?? { [EOS]: 0 }, "");
    const { probability } = likely.find(({ id }) => id === EOS) ?? likely.at(-1); // at most that of the last
    return { id: EOS, text: "", probability, alternatives: likely.slice(0, NUM_ALTERNATIVES), done: true };
  }
}

/** Yield the tokens of a piece of text. The offsets of tokens count whole characters of the text so far. */
function* toTokens(text, { tokens, token_logprobs: logprobs, top_logprobs: tops, text_offset: offsets }) {
  const characters = [...text];
  const end = (i) => (i + 1 < tokens.length ? offsets[i + 1] - offsets[0] : characters.length);
  for (const [i, name] of tokens.entries()) {
    const piece = characters.slice(i ? offsets[i] - offsets[0] : 0, end(i)).join("");
    const repeated = piece && name.endsWith(piece) ? name.slice(0, name.length - piece.length) : "";
    const token = { id: name, text: piece, probability: Math.exp(logprobs[i]) };
    const alternatives = toAlternatives(tops[i], repeated);
    yield { ...token, alternatives: alternatives.length ? alternatives : [token], done: false };
  }
}

/** Return the alternatives, the most likely first, to a token that repeats the end of the prompt. */
function toAlternatives(/** @type {Record<string, number>} */ logprobs, /** @type {string} */ repeated) {
  return Object.entries(logprobs)
    .filter(([name]) => name === EOS || (name.startsWith(repeated) && name !== repeated))
    .map(([name, logprob]) => {
      const text = name === EOS ? "" : name.slice(repeated.length);
      return { id: name, text, probability: Math.exp(logprob) };
    })
    .sort((one, other) => other.probability - one.probability);
}
