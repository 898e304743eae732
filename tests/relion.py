"""RELION's own programs, for tests that need them."""

import shutil
import subprocess

import pytest


def needs_relion(program):
    """Return a mark that skips where ``relion_<program>`` is not installed."""
    return pytest.mark.skipif(
        shutil.which(f"relion_{program}") is None,
        reason=f"relion_{program} is not on the PATH (Debian: apt-get install relion)",
    )


def relion(program, *arguments, folder):
    """Run a program; RELION ends with status 0 after some errors, but says so."""
    done = subprocess.run(
        [f"relion_{program}", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    return done.stdout
