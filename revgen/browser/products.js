"use strict";

/* Products with weight matrices, which take most of the time: in WebAssembly where it has vector instructions. */

const ROWS = 16; // the number of outputs that WebAssembly computes at once
const PAGE_SIZE = 65536;

/**
 * Return the bytes of a WebAssembly module with the function `multiply(x, matrix, y, end, blocks)` of addresses.
 *
 * Each block of the matrix holds the weights of 16 outputs for the first input, then for the second, and so on. `end` is
 * the address after the last input.
 */
function moduleBytes() {
  const [x, matrix, y, end, blocks, input, value] = [0, 1, 2, 3, 4, 5, 10], sums = [6, 7, 8, 9];
  const get = (local) => [0x20, local], set = (local) => [0x21, local], tee = (local) => [0x22, local];
  const load = (local, offset) => [...get(local), 0xfd, 0x00, 4, offset];
  const add = (local, number) => [...get(local), 0x41, ...number, 0x6a];
  const [SPLAT, STORE, MULTIPLY, ADD] = [[0xfd, 0x09, 2, 0], [0xfd, 0x0b, 4], [0xfd, 0xe6, 1], [0xfd, 0xe4, 1]];
  const [LOOP, END, REPEAT_IF, LESS] = [[0x03, 0x40], [0x0b], [0x0d, 0], [0x49]];
  const [FOUR, ROW_SIZE, MINUS_ONE] = [[4], [0xc0, 0], [0x7f]];
  const code = [
    ...LOOP,
    ...[0xfd, 0x0c, ...new Array(16).fill(0), ...sums.flatMap(tee), 0x1a], // all sums are 0
    ...[...get(x), ...set(input)],
    ...LOOP,
    ...[...get(input), ...SPLAT, ...set(value)],
    ...sums.flatMap((sum, k) => [...get(sum), ...get(value), ...load(matrix, 16 * k), ...MULTIPLY, ...ADD, ...set(sum)]),
    ...[...add(matrix, ROW_SIZE), ...set(matrix)],
    ...[...add(input, FOUR), ...tee(input), ...get(end), ...LESS, ...REPEAT_IF],
    ...END,
    ...sums.flatMap((sum, k) => [...get(y), ...get(sum), ...STORE, 16 * k]),
    ...[...add(y, ROW_SIZE), ...set(y)],
    ...[...add(blocks, MINUS_ONE), ...tee(blocks), ...REPEAT_IF],
    ...END,
    ...END,
  ];
  const [I32, V128] = [0x7f, 0x7b];
  const section = (id, content) => [id, ...size(content), ...content];
  const size = ({ length }) => [(length & 0x7f) | 0x80, length >> 7]; // as two bytes
  const body = [2, 1, I32, 5, V128, ...code];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 5, ...new Array(5).fill(I32), 0]), // the type of the function
    ...section(2, [1, 1, 0x65, 1, 0x6d, 2, 0, 1]), // the memory, imported as "e", "m"
    ...section(3, [1, 0]),
    ...section(7, [1, 1, 0x66, 0, 0]), // the function, exported as "f"
    ...section(10, [1, ...size(body), ...body]),
  ]);
}

/** Matrices in the memory of a WebAssembly module. */
class VectorProducts {
  constructor() {
    this.memory = new WebAssembly.Memory({ initial: 1 });
    const module = new WebAssembly.Module(moduleBytes());
    this.multiply = new WebAssembly.Instance(module, { e: { m: this.memory } }).exports.f;
    this.end = 0; // of the memory in use
    this.x = this.y = this.floats = new Float32Array();
  }

  /** Return the address of `length` numbers. */
  allocate(length) {
    const address = this.end;
    this.end += Math.ceil(length / ROWS) * ROWS * 4;
    const missing = this.end - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE_SIZE));
    this.floats = new Float32Array(this.memory.buffer);
    return address;
  }

  pack(weights, inputs, outputs, inputStride, outputStride) {
    const blocks = Math.ceil(outputs / ROWS), address = this.allocate(blocks * ROWS * inputs);
    for (let j = 0; j < outputs; j++) {
      const start = address / 4 + Math.floor(j / ROWS) * ROWS * inputs + (j % ROWS);
      for (let i = 0; i < inputs; i++) this.floats[start + i * ROWS] = weights[i * inputStride + j * outputStride];
    }
    return { address, inputs, outputs, blocks, x: this.allocate(inputs), y: this.allocate(outputs) };
  }

  add(x, xOffset, { address, inputs, outputs, blocks, x: from, y: to }, y, yOffset) {
    const { floats } = this, first = from / 4, result = to / 4;
    for (let i = 0; i < inputs; i++) floats[first + i] = x[xOffset + i];
    this.multiply(from, address, to, from + 4 * inputs, blocks);
    for (let j = 0; j < outputs; j++) y[yOffset + j] += floats[result + j];
  }
}

/** The same in JavaScript. The weights of an output are consecutive. */
class ScalarProducts {
  pack(weights, inputs, outputs, inputStride, outputStride) {
    const values = new Float32Array(inputs * outputs);
    for (let j = 0, k = 0; j < outputs; j++) {
      for (let i = 0; i < inputs; i++) values[k++] = weights[i * inputStride + j * outputStride];
    }
    return { values, inputs, outputs };
  }

  add(x, xOffset, { values, inputs, outputs }, y, yOffset) {
    let j = 0;
    for (; j + 4 <= outputs; j += 4) { // four outputs at once read x once
      const a = j * inputs, b = a + inputs, c = b + inputs, d = c + inputs;
      let sumA = 0, sumB = 0, sumC = 0, sumD = 0;
      for (let i = 0; i < inputs; i++) {
        const value = x[xOffset + i];
        sumA += value * values[a + i];
        sumB += value * values[b + i];
        sumC += value * values[c + i];
        sumD += value * values[d + i];
      }
      y[yOffset + j] += sumA;
      y[yOffset + j + 1] += sumB;
      y[yOffset + j + 2] += sumC;
      y[yOffset + j + 3] += sumD;
    }
    for (; j < outputs; j++) {
      for (let i = 0, k = j * inputs; i < inputs; i++) y[yOffset + j] += x[xOffset + i] * values[k + i];
    }
  }
}

/** Return the fastest products that this browser allows. */
function createProducts() {
  try {
    return new VectorProducts();
  } catch {
    return new ScalarProducts(); // WebAssembly is missing, old, or forbidden
  }
}
