"""The predictions of a teacher, which a network learns in addition to the text (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from revgen.architectures.out_of_fold import FOLDS, out_of_fold, whole_documents, write_logprobs
from revgen.corpus.tokens import Tokens
from revgen.language_model import LanguageModel

if TYPE_CHECKING:
    from torch import Tensor


def predict(
    teacher: LanguageModel,
    train: Tokens,
    held_out: Tokens | None,
    seed: int,
    device: str,
    say: Callable[[str], None],
) -> tuple[Tokens, Tokens | None, Tensor]:
    """Return training and held-out tokens that carry rows, and the teacher's log-probabilities (rows, vocab).

    A teacher that counts predicts each training document by the counts of the other ones. The rows of held-out tokens
    are not used. ``say`` prints a message. Raises CorpusError if the file of the log-probabilities cannot be written.
    """
    from revgen.networks.residual import number_tokens

    documents, tokenizer = [*train.documents()], teacher.tokenizer
    if teacher.copies_training_text:
        say(f"{teacher.name} predicts the training text: {FOLDS} times, it counts all but one of the folds")
        parts = out_of_fold(teacher, documents, tokenizer, FOLDS, seed, keep_networks=True)
    else:
        say(f"{teacher.name} predicts the training text")
        parts = whole_documents(teacher, documents)
    logprobs = write_logprobs(parts, documents, tokenizer, device)
    vocab = len(tokenizer)
    return number_tokens(train, 0, vocab), held_out and number_tokens(held_out, 0, vocab), logprobs
