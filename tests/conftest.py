"""Fixtures that every floor's tests share."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
# Of the object store in tests; must be in nothing that is written.
SECRET = "secret-that-nobody-may-see"


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


@pytest.fixture(scope="session")
def _object_store() -> Iterator[str]:
    """Run an object store of this process on loopback; return its address."""
    pytest.importorskip("s3fs", reason="object stores need the extra cloud")
    server = pytest.importorskip("moto.server", reason="no object store to test with: moto[server]")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(_object_store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty bucket, which this process and its children may use."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", _object_store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"
