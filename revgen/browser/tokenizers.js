"use strict";

const BOS = 0, EOS = 1, UNK = 2;
const REPLACEMENT = "\ufffd";
const HEX_BASE = 16, UNICODE_SIZE = 0x110000;

/**
 * A tokenizer has `encode(text)`, which returns ids, and `decode(pending, id)`, which returns `{text, pending}`: the
 * text that a token completes, and the digits or bytes of a character that is still incomplete. `texts` holds the text
 * of each token, or "" for special tokens and for parts of characters.
 *
 * @param {object} description the tokenizer in the model's description
 */
function createTokenizer(description) {
  return description.level === "subword" ? new SubwordTokenizer(description) : new HexFallbackTokenizer(description);
}

/** Characters or words; a character without a token is spelled in hexadecimal digits, the last one marked. */
class HexFallbackTokenizer {
  constructor({ level, tokens, firstDigit }) {
    this.isWord = level === "word";
    this.firstDigit = firstDigit ?? Infinity; // early vocabularies have no digits
    this.texts = tokens.map((token, id) => (id <= UNK || this.isDigit(id) ? "" : token));
    this.ids = new Map(this.texts.map((text, id) => [text, id]));
    this.ids.delete("");
  }

  isLastDigit(id) {
    return id >= this.firstDigit + HEX_BASE && this.isDigit(id);
  }

  isDigit(id) {
    return id >= this.firstDigit && id < this.firstDigit + 2 * HEX_BASE;
  }

  encode(text) {
    const ids = [];
    // A word with its inner apostrophes, a run of line ends, a run of spaces, or any other single character.
    const words = this.isWord ? text.match(/[\p{L}\p{N}_]+(?:['’][\p{L}\p{N}_]+)*|\n+| +|./gsu) ?? [] : text;
    for (const word of words) {
      const known = this.ids.get(word);
      if (known !== undefined) ids.push(known);
      else for (const character of word) ids.push(...this.spell(character));
    }
    return ids;
  }

  spell(character) {
    const known = this.ids.get(character);
    if (known !== undefined) return [known];
    if (this.firstDigit === Infinity) return [UNK];
    const digits = [...character.codePointAt(0).toString(16)].map((digit) => parseInt(digit, 16));
    digits[digits.length - 1] += HEX_BASE;
    return digits.map((digit) => this.firstDigit + digit);
  }

  decode(pending, id) {
    if (!this.isDigit(id)) {
      const text = id === UNK ? REPLACEMENT : this.texts[id];
      return { text: (pending.length ? REPLACEMENT : "") + text, pending: [] };
    }
    const digits = [...pending, id - this.firstDigit];
    if (digits.at(-1) < HEX_BASE) return { text: "", pending: digits };
    const point = digits.reduce((number, digit) => number * HEX_BASE + (digit % HEX_BASE), 0);
    return { text: point < UNICODE_SIZE ? String.fromCodePoint(point) : REPLACEMENT, pending: [] };
  }

  /** Return whether a token may follow pending digits, if at most `remaining` tokens do. */
  maySpell(pending, id, remaining) {
    if (!this.isDigit(id)) return pending.length === 0;
    const digit = id - this.firstDigit;
    const number = pending.reduce((value, part) => value * HEX_BASE + part, 0) * HEX_BASE + (digit % HEX_BASE);
    if (digit >= HEX_BASE) return number < UNICODE_SIZE;
    const isSurrogate = number >= 0xd80 && number <= 0xdff; // all digits but the last
    return number * HEX_BASE < UNICODE_SIZE && !isSurrogate && remaining > 1;
  }
}

/** SentencePiece's unigram model: the segmentation with the highest score (Kudo 2018). Other characters are bytes. */
class SubwordTokenizer {
  constructor({ pieces, scores, userDefined, firstByte, splitsSpaces }) {
    this.firstByte = firstByte;
    this.unsupported = splitsSpaces ? /([ \u2581\0]+)/u : /([\u2581\0]+)/u;
    this.scores = Float32Array.from(scores);
    this.userDefined = new Set(userDefined);
    this.ids = new Map();
    this.longest = 1;
    this.texts = pieces.map((piece, id) => {
      if (id <= UNK || this.isByte(id)) return "";
      this.ids.set(piece, id);
      this.longest = Math.max(this.longest, [...piece].length);
      return piece.replaceAll("\u2581", " ");
    });
    const normal = pieces.map((_, id) => id).filter((id) => this.texts[id] && !this.userDefined.has(id));
    this.lowest = Math.fround(normal.reduce((score, id) => Math.min(score, this.scores[id]), Infinity) - 10);
    this.highest = normal.reduce((score, id) => Math.max(score, this.scores[id]), -Infinity);
    this.bytes = this.texts.map((text, id) => this.bytesOf(text, id));
  }

  isByte(id) {
    return id >= this.firstByte && id < this.firstByte + 256;
  }

  bytesOf(text, id) {
    if (this.isByte(id)) return [id - this.firstByte];
    return [...new TextEncoder().encode(id === UNK ? REPLACEMENT : text)];
  }

  encode(text) {
    const parts = text.replace(/\p{Cs}/gu, REPLACEMENT).split(this.unsupported);
    return parts.flatMap((part, i) => (i % 2 ? this.spell(part) : this.segment([...part.replaceAll(" ", "\u2581")])));
  }

  spell(text) {
    return Array.from(new TextEncoder().encode(text), (byte) => this.firstByte + byte);
  }

  /** Return the score of a piece. A user-defined piece is better than any other segmentation of its characters. */
  score(id) {
    return this.userDefined.has(id) ? this.bytes[id].length * this.highest - 0.1 : this.scores[id];
  }

  /** Return the ids of the best segmentation, with SentencePiece's precision: scores are in float32. */
  segment(characters) {
    const best = Array.from({ length: characters.length + 1 }, () => ({ score: 0, start: -1, id: UNK }));
    const update = (end, start, id, sum) => {
      const score = this.userDefined.has(id) ? sum : Math.fround(sum);
      if (best[end].start < 0 || score > best[end].score) best[end] = { score: Math.fround(sum), start, id };
    };
    for (let start = 0; start < characters.length; start++) {
      let piece = "", isKnown = false;
      for (let end = start + 1; end <= Math.min(start + this.longest, characters.length); end++) {
        piece += characters[end - 1];
        const id = this.ids.get(piece);
        if (id === undefined) continue;
        isKnown ||= end === start + 1;
        update(end, start, id, this.score(id) + best[start].score);
      }
      if (!isKnown) update(start + 1, start, UNK, this.lowest + best[start].score);
    }
    const ids = [];
    for (let end = characters.length; end > 0; end = best[end].start) {
      const { start, id } = best[end];
      ids.push(...(id === UNK ? this.spell(characters.slice(start, end).join("")).reverse() : [id]));
    }
    return ids.reverse();
  }

  decode(pending, id) {
    const bytes = [...pending, ...this.bytes[id]];
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const text = decoder.decode(Uint8Array.from(bytes), { stream: id !== EOS });
    return { text, pending: id === EOS ? [] : incompleteEnd(bytes) };
  }
}

/** Return the bytes at the end of an array that begin a character of UTF-8, but do not complete it. */
function incompleteEnd(bytes) {
  for (let length = Math.min(3, bytes.length); length > 0; length--) {
    const end = bytes.slice(-length);
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    if (decoder.decode(Uint8Array.from(end), { stream: true }) === "") return end;
  }
  return [];
}
