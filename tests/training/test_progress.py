"""The lines that training prints."""

from __future__ import annotations

import math
from dataclasses import replace

from revgen.history import EpochMetrics
from revgen.training.progress import describe_losses

EPOCH = EpochMetrics(epoch=1, train_loss=2.0, learning_rate=0.1, tokens_per_second=100.0, seconds=1.0, best=True)


def test_both_losses_have_the_same_unit() -> None:
    epoch = replace(EPOCH, nats_per_char=0.5, perplexity=math.exp(1.5))
    assert describe_losses(epoch) == (
        "training loss 2.0000, validation loss 1.5000 nats/token (0.5000 nats/char, best)"
    )


def test_only_the_training_loss_is_printed_without_validation() -> None:
    assert describe_losses(EPOCH) == "training loss 2.0000 nats/token"


def test_an_infinite_loss_is_not_called_the_best() -> None:
    epoch = replace(EPOCH, nats_per_char=math.inf, perplexity=math.inf)
    assert describe_losses(epoch) == "training loss 2.0000, validation loss inf nats/token (inf nats/char)"
