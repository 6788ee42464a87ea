"""The time left of a long training, after each epoch and every minute."""

import math
import time
from collections.abc import Callable

from compression.training import AnySplit, Recipe

LINE_EVERY_S = 60.0


class Progress:
    """Reports the time left of a training that begins at epoch `first`."""

    def __init__(
        self, title: str, recipe: Recipe, train: AnySplit, first: int, report: Callable[[str], None]
    ) -> None:
        """Start the clock; `report` receives the lines."""
        size = train.at(slice(0, 1))[0].shape[-1]
        self.title, self.report = title, report
        self.work = [recipe.relative_work(epoch, size) for epoch in range(first, recipe.epochs)]
        self.first, self.steps = first, 0
        self.steps_per_epoch = math.ceil(len(train) / recipe.batch_size)
        self.started = self.said = time.monotonic()

    def on_step(self) -> None:
        """Count a step, and report it where nothing was reported for a minute."""
        self.steps += 1
        if time.monotonic() - self.said >= LINE_EVERY_S:
            epoch, step = divmod(self.steps - 1, self.steps_per_epoch)
            epochs = self.first + len(self.work)
            self.say(
                f"epoch {self.first + epoch + 1}/{epochs}, step {step + 1}/{self.steps_per_epoch}"
            )

    def say(self, what: str) -> None:
        """Report `what`, and about how many minutes are left."""
        epoch, step = divmod(self.steps - 1, self.steps_per_epoch)
        done = sum(self.work[:epoch]) + self.work[epoch] * (step + 1) / self.steps_per_epoch
        self.said = time.monotonic()
        left_s = (self.said - self.started) * (sum(self.work) / done - 1)
        self.report(f"{self.title}: {what}, about {left_s / 60:.1f} min left")
