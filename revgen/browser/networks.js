"use strict";

/**
 * A network has `initialState()` and `step(token, state)`, which overwrites the state and returns the logits of the next
 * token. A state is a typed array, or an array of states.
 *
 * @param {object} description the network in the model's description
 * @param {TypedArray[]} arrays the weights
 * @param {Function[]} programs the generated functions
 */
function createNetwork(description, arrays, programs) {
  const weights = description.arrays.map((i) => arrays[i]);
  if (description.kind === "trie") return new Trie(description, weights);
  const parts = description.parts.map((part) => createNetwork(part, arrays, programs));
  if (description.kind === "mixture") return new Mixture(description.weights, parts);
  const step = programs[description.program](weights, createProducts());
  return { step, initialState: () => description.state.map(createArray) };
}

/** Return an array of the state before the first token. JSON has no infinity, so null is -Infinity. */
function createArray({ type, size, values }) {
  const numbers = values.map((value) => value ?? -Infinity);
  return new TYPES[type](size).fill(numbers[0]).map((fill, i) => (numbers.length > 1 ? numbers[i] : fill));
}

// Functions for generated code

function modulo(x, y) {
  return x - Math.floor(x / y) * y;
}

function copy(source, from, target, to, size) {
  for (let i = 0; i < size; i++) target[to + i] = source[from + i];
}

/** Copy elements into an array of this shape; `strides` are the steps in the source along each axis. */
function copyStrided(source, from, target, to, shape, strides, axis = 0) {
  const size = shape[axis], stride = strides[axis];
  if (axis === shape.length - 1) {
    for (let i = 0; i < size; i++) target[to++] = source[from + i * stride];
  } else {
    for (let i = 0; i < size; i++) to = copyStrided(source, from + i * stride, target, to, shape, strides, axis + 1);
  }
  return to;
}

/** Add the products (batch, rows, inner) @ (batch, inner, columns) to an array. */
function addBatchedProduct(x, xOffset, y, yOffset, target, offset, batch, rows, inner, columns) {
  for (let row = 0; row < batch * rows; row++) {
    const first = yOffset + Math.floor(row / rows) * inner * columns, to = offset + row * columns;
    for (let k = 0; k < inner; k++) {
      const value = x[xOffset + row * inner + k], from = first + k * columns;
      for (let j = 0; j < columns; j++) target[to + j] += value * y[from + j];
    }
  }
}

/** The weighted mean of the probabilities of several networks. */
class Mixture {
  constructor(weights, networks) {
    this.weights = weights;
    this.networks = networks;
  }

  initialState() {
    return this.networks.map((network) => network.initialState());
  }

  step(token, state) {
    const parts = this.networks.map((network, i) => softmax(network.step(token, state[i])));
    return parts[0].map((_, id) => Math.log(parts.reduce((sum, p, i) => sum + this.weights[i] * p[id], 0)));
  }
}

/**
 * N-grams with backoff: p(w | h) = P(h w) if the n-gram h w is known, else B(h) p(w | h without its first word).
 *
 * The state has the depth and the index of the longest known context, and the number of tokens read.
 */
class Trie {
  constructor({ orders, endsUnseen }, weights) {
    const column = (name) => [null, ...orders.map((order) => weights[order[name]] ?? null)]; // by order, from 1
    this.order = orders.length;
    this.endsUnseen = endsUnseen;
    this.begins = column("begins");
    this.words = column("words");
    this.suffixes = column("suffixes");
    this.p = column("logp").map((values) => values && Float64Array.from(values, Math.exp));
    this.backoff = column("backoff").map((values) => values && Float64Array.from(values, Math.exp));
  }

  initialState() {
    return new Float64Array(3);
  }

  /** Return the index of the context without its first word. */
  suffix(depth, index) {
    return depth === 1 ? 0 : this.suffixes[depth][index];
  }

  advance(depth, index, word) {
    if (this.order === 1) return [0, 0];
    if (depth === this.order - 1) index = this.suffix(depth--, index);
    while (depth > 0) {
      const child = this.find(depth + 1, index, word);
      if (child >= 0) return [depth + 1, child];
      index = this.suffix(depth--, index);
    }
    return [1, word];
  }

  /** Return the index of the n-gram of a context and a word, or -1 if it is unknown. */
  find(n, context, word) {
    const words = this.words[n];
    let low = this.begins[n][context], high = this.begins[n][context + 1];
    const end = high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (words[middle] < word) low = middle + 1;
      else high = middle;
    }
    return low < end && words[low] === word ? low : -1;
  }

  step(token, state) {
    let [depth, index] = this.advance(state[0], state[1], token);
    state.set([depth, index, state[2] + 1]);
    const p = Float64Array.from(this.p[1]);
    if (this.endsUnseen && depth < Math.min(state[2], this.order - 1)) {
      return p.fill(-Infinity).fill(0, EOS, EOS + 1);
    }
    const contexts = [];
    for (; depth > 0; index = this.suffix(depth--, index)) contexts.unshift([depth + 1, index]);
    for (const [n, context] of contexts) {
      const backoff = this.backoff[n][context];
      for (let i = 0; i < p.length; i++) p[i] *= backoff;
      for (let i = this.begins[n][context]; i < this.begins[n][context + 1]; i++) p[this.words[n][i]] = this.p[n][i];
    }
    return p.map(Math.log);
  }
}

const TYPES = { float16: Uint16Array, float32: Float32Array, float64: Float64Array, uint16: Uint16Array, uint32: Uint32Array };

/** Return the arrays whose types and sizes are in `specs`, from consecutive bytes in base64, little-endian. */
function decodeArrays(base64, specs) {
  const binary = atob(base64), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  let offset = 0;
  return specs.map(([type, size]) => {
    const end = offset + size * TYPES[type].BYTES_PER_ELEMENT;
    const array = new TYPES[type](bytes.slice(offset, end).buffer);
    offset = end;
    return type === "float16" ? toFloat32(array) : array;
  });
}

const POWERS = Float32Array.from({ length: 32 }, (_, exponent) => 2 ** (exponent - 25));

/** Convert the bits of finite values in float16 to float32. */
function toFloat32(halves) {
  const numbers = new Float32Array(halves.length);
  for (let i = 0; i < numbers.length; i++) {
    const bits = halves[i], exponent = (bits >> 10) & 31, fraction = bits & 0x3ff;
    const magnitude = exponent ? (1024 + fraction) * POWERS[exponent] : fraction * 2 ** -24;
    numbers[i] = bits & 0x8000 ? -magnitude : magnitude;
  }
  return numbers;
}

function copyState(state) {
  return Array.isArray(state) ? state.map(copyState) : state.slice();
}

function stateSize(state) {
  return Array.isArray(state) ? state.reduce((size, part) => size + stateSize(part), 0) : state.length;
}
