"""What a person sees while a model trains: a bar, and a line and a sample for each epoch."""

from __future__ import annotations

import sys

from tqdm import tqdm

from revgen.history import EpochMetrics


class Progress:
    """A bar with loss, tokens a second and the time left, on a terminal's standard error; lines go there too.

    Silent where ``shown`` is False.
    """

    def __init__(self, shown: bool) -> None:
        self.shown = shown
        self.bar = tqdm(
            total=1.0,
            disable=None if shown else True,  # None: no bar where there is no terminal
            leave=False,
            mininterval=0.3,
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}",
        )

    def on_step_end(self, progress: float, loss: float, tokens_per_second: float) -> None:
        """One training step is done, and so is this share of the whole run."""
        if not self.bar.disable:
            self.bar.set_postfix_str(f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s", refresh=False)
            self.bar.update(min(progress, 1.0) - self.bar.n)

    def on_epoch_end(self, epoch: EpochMetrics) -> None:
        """One epoch is done."""
        valid = "" if epoch.nats_per_char is None else f", validation {epoch.nats_per_char:.4f} nats/char"
        self.say(
            f"epoch {epoch.epoch}: training {epoch.train_loss:.4f} nats/token{valid}"
            f"{' *' if epoch.best else ''}, {epoch.tokens_per_second:,.0f} tokens/s, {epoch.seconds:.0f} s"
        )
        if epoch.sample:
            self.say(f"    {epoch.sample!r}")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self.shown:
            self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
