"""The preparation of a training run: tokenizer, token ids, recipe and checkpoints. ``training.loop`` trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from revgen.arguments import check_type
from revgen.corpus import Corpus
from revgen.corpus.summary import summarize
from revgen.corpus.tokens import tokenize_train_valid
from revgen.errors import OptionError, RevgenError, TrainingError
from revgen.history import History
from revgen.options import as_float, check_at_least
from revgen.training.callbacks import Callback, as_callback
from revgen.training.checkpoint import CheckpointConfig, Checkpointer
from revgen.training.cpu import flush_denormals, keep_freed_memory
from revgen.training.loop import Trainer
from revgen.training.progress import Progress
from revgen.training.ranks import Ranks, init_distributed
from revgen.training.recipe import Recipe
from revgen.training.run import TrainingRun, make_batches
from revgen.training.trainable import TrainableModel

COMPILATION_MESSAGE = "compiling the layers for this processor: this happens once and takes a few seconds"


def fit(
    model: TrainableModel,
    texts: Corpus,
    valid: Corpus | float | None,
    recipe: Recipe,
    *,
    extend_vocabulary: bool,
    gradient_accumulation_steps: int,
    checkpoint: str | Path | CheckpointConfig | None,
    resume: bool,
    callbacks: Sequence[Any],
    progress: bool,
    sample_prompt: str,
) -> History:
    """Train a model, as ``NeuralModel.fit`` describes. The model does not change until all text has been read."""
    if resume and checkpoint is None:
        raise OptionError("resume=True needs the directory of the run to resume: checkpoint=…")
    check_at_least("gradient_accumulation_steps", gradient_accumulation_steps, 1)
    check_type("checkpoint", checkpoint, str | Path | CheckpointConfig | None)
    if isinstance(checkpoint, str | Path):
        checkpoint = CheckpointConfig(checkpoint)
    checkpointer = Checkpointer(checkpoint) if checkpoint is not None else None
    wrapped_callbacks = [as_callback(callback) for callback in callbacks]
    ranks = init_distributed(model.device)
    with checkpointer.claim() if checkpointer is not None and ranks.is_first else nullcontext():
        return _fit(
            model,
            texts,
            valid,
            recipe,
            ranks,
            extend_vocabulary,
            gradient_accumulation_steps,
            checkpointer,
            resume,
            wrapped_callbacks,
            progress and ranks.is_first,
            sample_prompt,
        )


def _fit(
    model: TrainableModel,
    texts: Corpus,
    valid: Corpus | float | None,
    recipe: Recipe,
    ranks: Ranks,
    extend_vocabulary: bool,
    gradient_accumulation_steps: int,
    checkpointer: Checkpointer | None,
    resume: bool,
    callbacks: Sequence[Callback],
    show_progress: bool,
    sample_prompt: str,
) -> History:
    """Train a model in one of several processes. ``checkpointer`` has claimed its directory."""
    with ranks.rank_zero_first():
        tokenizer = model.tokenizer_for(texts, extend_vocabulary, show_progress)
        labels = model.labels_for(texts)
        train, held_out = tokenize_train_valid(texts, valid, tokenizer, recipe.seed, labels, show_progress)
    summary = summarize(texts, train, None if isinstance(valid, Corpus) else held_out, tokenizer)
    num_parts = ranks.size * gradient_accumulation_steps
    saved = checkpointer.read_latest() if checkpointer is not None and resume else {}
    fine_tunes = bool(saved.get("fine_tunes", model.is_fitted))
    recipe = recipe.resumed(saved).resolve(
        len(train), model.learning_rate, fine_tunes, model.device, num_parts, model.max_batch_size, model.optimizer
    )
    make_batches(train, recipe, 0)  # raises CorpusError if the text is too short

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        sizes = model.suggest_sizes(recipe, len(train)) | (saved.get("configuration") or {})
        model.prepare(tokenizer, recipe.seed, labels, sizes)
        progress = Progress(show_progress)
        progress.say(str(summary))
        train, held_out = model.training_tokens(train, held_out, recipe.seed, progress.say)
        run = TrainingRun(model, train, recipe, ranks, gradient_accumulation_steps)
        run.fine_tunes = fine_tunes
        trainer = Trainer(run, held_out, callbacks, checkpointer, progress, sample_prompt)
        if checkpointer is not None:
            checkpointer.begin(run, resume)
            for problem in checkpointer.notes:
                trainer.add_note(problem)
        for hint in summary.hints:
            if hint not in run.history.notes:
                trainer.add_note(hint)
        if run.is_compiled:
            note = run.network.compile_layers(partial(trainer.progress.say, COMPILATION_MESSAGE))
            if note is not None and note not in run.history.notes:
                trainer.add_note(note)
        model.metadata["spelled"] = max(round(summary.unknown_fraction, 6), as_float(model.metadata.get("spelled", 0)))
        if texts.sources:
            model.metadata["documents"] = texts.documents
        with flush_denormals(), keep_freed_memory(), report_failed_process(ranks):
            return trainer.train()


@contextmanager
def report_failed_process(ranks: Ranks) -> Iterator[None]:
    """Raise TrainingError if one of several processes fails, often because another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if ranks.size == 1 or isinstance(error, RevgenError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"training failed in process {ranks.rank + 1} of {ranks.size}, perhaps because another one ended: {reason}"
        ) from error
