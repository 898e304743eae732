"""Certificates for encrypted traffic, made once and kept where only their owner can read them.

One file holds a certificate and its key. Client, scheduler and workers all show it and all trust
nothing else, so that who can read the file is who may take part. ``python -m
emhet_dask.runtime.certificates`` makes it where there is none, and prints where it lies.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from distributed import Security

from emhet_dask.errors import InputError, need

__all__ = ["certificate_path", "kept_certificates", "known_certificates", "temporary_certificates"]

FOLDER_VARIABLE = "EMHET_TLS_DIR"
FILE_NAME = "emhet.pem"
# A certificate is for a year. It is replaced while runs that began with it can still end.
RENEWED_DAYS_BEFORE = 30


def certificate_path() -> Path:
    """Return where the certificate is kept: in ``EMHET_TLS_DIR``, or beside the user's settings."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given).expanduser().absolute() / FILE_NAME
    settings = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(settings).expanduser() / "emhet" / "tls" / FILE_NAME


def temporary_certificates() -> Security:
    """Make certificates that live in memory, for workers that this process starts itself.

    Raises
    ------
    InputError
        When the package cryptography is not installed.
    """
    need("cryptography", extra="hpc", purpose="--tls")
    return Security.temporary()


def known_certificates() -> Security | None:
    """Return the certificates of Dask's configuration, or those that are kept, or None.

    Raises
    ------
    InputError
        When a file of certificates is there but cannot be used.
    """
    configured = Security()
    try:
        if configured.get_connection_args("client").get("ssl_context") is not None:
            return configured
    except OSError as error:
        raise InputError(
            f"distributed.comm.tls in Dask's configuration: certificates cannot be read ({error})"
        ) from error
    path = certificate_path()
    return _security(path) if path.exists() else None


def kept_certificates() -> Security:
    """Return the certificates that are kept; make them where there are none, or none that last.

    Returns
    -------
    distributed.Security
        Encryption is required; certificate, key and authority are one file.

    Raises
    ------
    InputError
        When the file cannot be written, others can read it, or cryptography is not installed.
    """
    path = certificate_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            # Many ranks may be here at once. The first to link its file wins.
            _write(path, put=os.link)
        elif _days_left(path) < RENEWED_DAYS_BEFORE:
            _write(path, put=os.replace)
    except OSError as error:
        raise InputError(
            f"--tls: {path}: {error.strerror}; {FOLDER_VARIABLE} names another folder"
        ) from error
    return _security(path)


def _security(path: Path) -> Security:
    _private(path)
    security = Security(
        require_encryption=True,
        tls_ca_file=str(path),
        **{
            f"tls_{role}_{part}": str(path)
            for role in ("client", "scheduler", "worker")
            for part in ("cert", "key")
        },
    )
    try:
        security.get_connection_args("client")
    except OSError as error:
        raise InputError(
            f"--tls: {path}: not a certificate with its key; delete it, and a new one is made"
        ) from error
    return security


def _private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise InputError(
            f"--tls: {path}: others may read this key (mode {mode:o}); delete it, and a new one is "
            "made"
        )


def _write(path: Path, *, put: Callable[[str, Path], None]) -> None:
    made = temporary_certificates().get_tls_config_for_role("client")
    # Made with mode 600.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{made['cert']}{made['key']}")
        with suppress(FileExistsError):
            put(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _days_left(path: Path) -> float:
    need("cryptography", extra="hpc", purpose="--tls")
    from cryptography import x509  # noqa: PLC0415 - in an extra

    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except ValueError:
        return RENEWED_DAYS_BEFORE  # `_security` says what is wrong with it
    return (ends - dt.datetime.now(tz=dt.UTC)) / dt.timedelta(days=1)


if __name__ == "__main__":
    kept_certificates()
    print(certificate_path())
