"""A results folder for each test."""

import pytest

from tests.runtime.results.folder import Folder


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "out")
