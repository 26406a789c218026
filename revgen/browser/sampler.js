"use strict";

const MIN_TEMPERATURE = 1e-30;
const MIN_PROBABILITY = 2 ** -126;

function softmax(logits) {
  const highest = logits.reduce((x, y) => Math.max(x, y), -Infinity);
  const p = new Float64Array(logits.length);
  let total = 0;
  for (let id = 0; id < p.length; id++) total += p[id] = Math.exp(logits[id] - highest);
  for (let id = 0; id < p.length; id++) p[id] /= total;
  return p;
}

/** Return the probabilities of some tokens. */
function probabilitiesOf(logits, ids) {
  const highest = logits.reduce((x, y) => Math.max(x, y), -Infinity);
  const total = logits.reduce((sum, x) => sum + Math.exp(x - highest), 0);
  return ids.map((id) => Math.exp(logits[id] - highest) / total);
}

/** Return the probabilities to sample with: temperature, top-k, top-p and min-p change the logits in this order. */
function filteredProbabilities(logits, { temperature = 1, topK = 0, topP = 1, minP = 0 } = {}) {
  const highest = logits.reduce((x, y) => Math.max(x, y), -Infinity);
  if (temperature === 0) return Float64Array.from(logits, () => 0).fill(1, logits.indexOf(highest), logits.indexOf(highest) + 1);
  const scaled = logits.map((x) => (x - highest) / Math.max(temperature, MIN_TEMPERATURE));
  if (topK > 0 && topK < scaled.length) keepAbove(scaled, scaled.slice().sort().at(-topK));
  if (topP < 1) keepMostLikely(scaled, topP);
  if (minP > 0) keepAbove(scaled, Math.log(minP)); // the highest is 0
  return softmax(scaled);
}

function keepAbove(logits, threshold) {
  for (let id = 0; id < logits.length; id++) if (logits[id] < threshold) logits[id] = -Infinity;
}

/** Keep the smallest set of most likely tokens with at least this probability. */
function keepMostLikely(logits, total) {
  const p = softmax(logits);
  // All tokens below this probability together have less than 1 - total, so none of them is needed.
  const candidates = Array.from(p.keys()).filter((id) => p[id] >= (1 - total) / p.length);
  candidates.sort((one, other) => p[other] - p[one]);
  const kept = new Set();
  let sum = 0;
  for (const id of candidates) {
    if (sum >= Math.max(total, MIN_PROBABILITY)) break;
    sum += p[id];
    kept.add(id);
  }
  for (let id = 0; id < logits.length; id++) if (!kept.has(id)) logits[id] = -Infinity;
}

/** Sample by inverse transform: `uniform` is a random number in [0, 1). */
function sample(p, uniform) {
  const threshold = uniform * p.reduce((sum, x) => sum + x, 0);
  let sum = 0, last = 0;
  for (let id = 0; id < p.length; id++) {
    sum += p[id];
    if (p[id] > 0) last = id;
    if (sum > threshold) return id;
  }
  return last; // rounding
}

/** Return the ids of the k highest logits, the highest first, without impossible tokens. */
function mostLikely(logits, k) {
  const ids = [];
  for (let id = 0; id < logits.length; id++) {
    if (logits[id] === -Infinity || (ids.length === k && logits[id] <= logits[ids[k - 1]])) continue;
    let rank = ids.length;
    while (rank > 0 && logits[ids[rank - 1]] < logits[id]) rank--;
    ids.splice(rank, 0, id);
    ids.length = Math.min(ids.length, k);
  }
  return ids;
}

/**
 * Return the random number in [0, 1) at a position of the sequence of a seed: SplitMix64 (Steele, Lea & Flood 2014).
 *
 * It computes any number of the sequence directly, so a text that was shortened continues as it did before.
 */
function randomNumber(seed, position) {
  const mix = (x, shift, factor) => BigInt.asUintN(64, (x ^ (x >> shift)) * factor);
  let x = BigInt.asUintN(64, seed + (position + 1n) * 0x9e3779b97f4a7c15n);
  x = mix(mix(x, 30n, 0xbf58476d1ce4e5b9n), 27n, 0x94d049bb133111ebn);
  return Number((x ^ (x >> 31n)) >> 11n) / 2 ** 53;
}
