"use strict";
/* Where a text may end if it has to end with a sentence; generation/sentences.py explains the rules. */

const FULL_WIDTH = "。！？";
const CLOSERS = "\"'”’“»«)\\]}」』）】》〉";
const SENTENCE_END = new RegExp(`[.!?…${FULL_WIDTH}]+[${CLOSERS}]*`, "gu");
const SPACED_QUOTE = /[ \u00a0\u202f]»/uy;
const UNDECIDED_SPACE = new RegExp(`[.!?…${FULL_WIDTH}][${CLOSERS}]*(?:[ \\u00a0\\u202f]»)?[ \\u00a0\\u202f]$`, "u");
const WHITE_SPACE = /[ \t\n\v\f\r\u0085\u00a0\u2002\u2003\u2009\u2028\u2029\u202f\u3000]/u;
const LAST_WORD = /[\p{L}\p{N}_.'’-]*$/u;
const ABBREVIATION = /^(capt|col|dr|esq|feat|ft|gen|hon|lt|messrs|mlle|mm|mme|mr|mrs|ms|mt|prof|rev|sgt|st|vol|vs)$/i;
const PRONOUNS = "IЯ";
const CONTEXT_CHARS = 64;

/**
 * Return the first position, from `first` on, where a sentence of a text ends, or null.
 *
 * @param {string} text @param {number} first @param {boolean} isFinal whether nothing follows the text
 */
function findSentenceEnd(text, first, isFinal = false) {
  SENTENCE_END.lastIndex = Math.max(0, first - CONTEXT_CHARS);
  for (let match; (match = SENTENCE_END.exec(text)); ) {
    let end = SENTENCE_END.lastIndex;
    SPACED_QUOTE.lastIndex = end;
    if (SPACED_QUOTE.test(text)) end = SPACED_QUOTE.lastIndex;
    if (end < first) continue;
    const rest = text.slice(end, end + 2);
    if (!isFinal && (rest === "" || (rest.length === 1 && /[ \u00a0\u202f]/u.test(rest)))) return null;
    const mark = [...match[0]].findLast((character) => !CLOSERS.includes(character));
    if (rest !== "" && !FULL_WIDTH.includes(mark) && !WHITE_SPACE.test(rest[0])) continue;
    if (match[0] !== "." || !isAbbreviation(text.slice(0, match.index).slice(-CONTEXT_CHARS))) return end;
  }
  return null;
}

/** Return whether a period after this text belongs to its last word. */
function isAbbreviation(/** @type {string} */ text) {
  const word = text.match(LAST_WORD)[0].replace(/^['’-]+|['’-]+$/gu, "");
  const isInitial = [...word].length === 1 && word !== word.toLowerCase() && !PRONOUNS.includes(word);
  return isInitial || word.includes(".") || ABBREVIATION.test(word);
}

/** Finds the end of a sentence in a text that comes in pieces. */
class SentenceStop {
  /** @param {string} context the text before */
  constructor(context) {
    this.before = context.slice(-CONTEXT_CHARS);
    this.first = this.before.length + 1; // the text has at least one character
  }

  /** Go on to the text after `text`, in which no sentence ends that counts, except with its last character. */
  advance(/** @type {string} */ text) {
    if (!text) return;
    this.before = (this.before + text).slice(-CONTEXT_CHARS);
    this.first = this.before.length;
  }

  /** Return where a sentence ends in the next piece, or null. */
  find(/** @type {string} */ text, isFinal = false) {
    const end = findSentenceEnd(this.before + text, this.first, isFinal);
    return end === null ? null : end - this.before.length;
  }

  /** Return whether the end of the next piece may be after the end of the last sentence. */
  isUndecided(/** @type {string} */ text) {
    return UNDECIDED_SPACE.test(this.before + text);
  }
}
