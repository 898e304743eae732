import stat
import threading

import pytest

from emhet_dask.errors import InputError
from emhet_dask.runtime import certificates
from emhet_dask.runtime.certificates import (
    certificate_path,
    kept_certificates,
    known_certificates,
)
from emhet_dask.runtime.clients import connect
from tests.runtime.loopback import loopback_cluster

pytest.importorskip("cryptography", reason="certificates are made with cryptography")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EMHET_TLS_DIR", str(tmp_path / "tls"))
    return tmp_path / "tls"


def test_one_file_is_made_that_only_its_owner_can_read_and_used_again(folder):
    assert known_certificates() is None
    kept_certificates()
    (path,) = folder.iterdir()
    assert path == certificate_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = path.read_bytes()
    kept_certificates()
    assert path.read_bytes() == before
    assert "KEY" not in repr(known_certificates())


def test_without_a_variable_it_lies_beside_the_users_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("EMHET_TLS_DIR")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert certificate_path() == tmp_path / "emhet" / "tls" / "emhet.pem"


def test_many_at_once_agree_on_one(folder):
    threads = [threading.Thread(target=kept_certificates) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = folder.iterdir()
    assert path.read_text().count("PRIVATE KEY") == 2  # begin and end


def test_one_that_is_about_to_end_is_replaced(monkeypatch):
    kept_certificates()
    before = certificate_path().read_bytes()
    monkeypatch.setattr(certificates, "RENEWED_DAYS_BEFORE", 400)
    kept_certificates()
    assert certificate_path().read_bytes() != before
    assert stat.S_IMODE(certificate_path().stat().st_mode) == 0o600


def test_a_key_that_others_can_read_is_refused():
    kept_certificates()
    certificate_path().chmod(0o644)
    with pytest.raises(InputError, match="others may read this key"):
        kept_certificates()


def test_a_file_that_is_none_is_named(folder):
    folder.mkdir()
    certificate_path().write_text("no certificate")
    certificate_path().chmod(0o600)
    with pytest.raises(InputError, match="not a certificate with its key"):
        kept_certificates()


@pytest.fixture
def encrypted():
    with loopback_cluster(1, protocol="tls://", security=kept_certificates()) as cluster:
        yield cluster.scheduler_address


def test_an_encrypted_scheduler_is_found_with_what_is_kept(encrypted):
    with connect(encrypted, tls=True) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_who_speaks_plainly_or_shows_another_certificate_is_refused(
    encrypted, tmp_path, monkeypatch
):
    with pytest.raises(InputError, match="is not a Dask scheduler"):
        with_short_patience(monkeypatch, encrypted.replace("tls://", "tcp://"))
    monkeypatch.setenv("EMHET_TLS_DIR", str(tmp_path / "other"))
    kept_certificates()
    with pytest.raises(InputError, match="is not a Dask scheduler"):
        with_short_patience(monkeypatch, encrypted)


def with_short_patience(monkeypatch, address):
    monkeypatch.setattr("emhet_dask.runtime.clients.CONNECT_SECONDS", 2)
    with connect(address):
        pass
