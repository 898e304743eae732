"""Fixtures that every floor's tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files that other programs wrote; they lie beside the checkout, never inside it."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder shared/data with other programs' files is not beside this checkout")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Let tests that interrupt work do so, also where the suite was started in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
