"""The predictions of a teacher, which a network learns in addition to the text (Hinton et al. 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from revgen.architectures.out_of_fold import read_logprobs
from revgen.corpus.tokens import Tokens
from revgen.errors import OptionError, VocabularyError
from revgen.language_model import LanguageModel

if TYPE_CHECKING:
    from torch import Tensor


def check_teacher(student: Any, teacher: LanguageModel) -> None:
    """Raise OptionError or VocabularyError if a teacher cannot teach a student; give a new student its tokenizer."""
    if student.labels or teacher.labels:
        raise OptionError("teacher does not combine with labels: its predictions do not depend on them")
    if student.level != teacher.level:
        raise OptionError(f"teacher must have the level {student.level!r} of {student.name}, not {teacher.level!r}")
    if not student.has_tokenizer:
        student.tokenizer = teacher.tokenizer
    if student.tokenizer != teacher.tokenizer:
        raise VocabularyError(
            f"teacher and {student.name} have different tokenizers: create the network with "
            f"revgen.create('{student.name}', tokenizer=teacher.tokenizer)"
        )


def predict(
    teacher: LanguageModel, train: Tokens, held_out: Tokens | None, device: str
) -> tuple[Tokens, Tokens | None, Tensor]:
    """Return training and held-out tokens that carry rows, and the teacher's log-probabilities (rows, vocab).

    The rows of held-out tokens are not used. Raises CorpusError if the file of the log-probabilities cannot be written.
    """
    from revgen.networks.residual import LogprobFile, number_tokens

    vocab = len(teacher.tokenizer)
    documents = [*train.documents()]
    file, row = LogprobFile(sum(map(len, documents)), vocab), 0
    for ids in documents:
        for logprobs in read_logprobs(teacher, np.asarray(ids)):
            row = file.write(row, logprobs)
    numbered = None if held_out is None else number_tokens(held_out, 0, vocab)
    return number_tokens(train, 0, vocab), numbered, file.to_tensor(device)
