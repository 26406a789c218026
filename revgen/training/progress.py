"""The output of training on a terminal: a progress bar, and the metrics and a sample of each epoch."""

from __future__ import annotations

import math

from revgen.display.progress import progress_bar, progress_stream
from revgen.history import EpochMetrics


class Progress:
    """A progress bar with the loss, the speed and the time left, and lines of text above the bar.

    The bar appears only on a terminal and in a notebook. If ``shown`` is False, nothing is printed.
    """

    def __init__(self, shown: bool) -> None:
        self.shown = shown
        self.bar = progress_bar(
            shown, total=1.0, leave=False, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        )

    def on_step_end(self, progress: float, loss: float, tokens_per_second: float) -> None:
        """Move the bar to the fraction ``progress`` of the run."""
        if not self.bar.disable:
            self.bar.set_postfix_str(f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s", refresh=False)
            self.bar.update(min(progress, 1.0) - self.bar.n)

    def on_epoch_end(self, epoch: EpochMetrics) -> None:
        """Print the metrics and the sample of an epoch."""
        speed = f"{epoch.tokens_per_second:,.0f} tokens/s, {epoch.seconds:.0f} s"
        self.say(f"epoch {epoch.epoch}: {describe_losses(epoch)}, {speed}")
        if epoch.sample:
            self.say(f"    {epoch.sample!r}")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self.shown:
            self.bar.write(line, file=progress_stream())

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()


def describe_losses(epoch: EpochMetrics) -> str:
    """Return the losses of an epoch in words, in the same unit, and the validation loss per character as well."""
    if epoch.perplexity is None or epoch.nats_per_char is None:
        return f"training loss {epoch.train_loss:.4f} nats/token"
    best = ", best" if epoch.best and math.isfinite(epoch.nats_per_char) else ""
    losses = f"training loss {epoch.train_loss:.4f}, validation loss {math.log(epoch.perplexity):.4f} nats/token"
    return f"{losses} ({epoch.nats_per_char:.4f} nats/char{best})"
