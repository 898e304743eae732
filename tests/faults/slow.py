"""A decoder that takes its time, so that others can be faster. Light: workers import it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from tests.smooth_run import SmoothModel

SECONDS = "SECONDS_PER_VOLUME"


@dataclass(frozen=True)
class SlowModel(SmoothModel):
    seconds: float = 0.0

    def volumes(self, latents):
        for volume in super().volumes(latents):
            time.sleep(self.seconds)
            yield volume


def decoder(run, options):
    """Stand in for what builds the model of a run in ``emhet decode``."""
    seconds = float(os.environ.get(SECONDS, "0"))
    return SlowModel(options.box or run.box, options.flip, seconds), "formula 1.0"
