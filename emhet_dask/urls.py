"""What lies in an object store: URLs without secrets in them, and errors in words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emhet_dask.errors import EmhetError, InputError, need

__all__ = ["Place", "UrlPlace", "check_url", "is_url", "place_of", "redact", "words_for_url"]

# A secret key may hold '/', '?' or '#', so after 'user:' everything up to the last '@' goes, unless
# 'user' is a host and its port follows.
_USER = r"(?:[^\s/:@]*:(?!\d+(?:/|\s|$))\S*@|[^\s/@]*@)?"
_URL = re.compile(rf"([A-Za-z][\w+.-]*://){_USER}([^\s?#]*)(?:\?[^\s#]*)?(?:#\S*)?")
# Who brings the errors of object stores; most are no OSError.
_CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs"}
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs"}


@dataclass(frozen=True)
class UrlPlace:
    """A place in an object store, joined, printed and read as a path is.

    Attributes
    ----------
    url : str
    """

    url: str

    def __truediv__(self, name: str) -> UrlPlace:
        return UrlPlace(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Return the last part."""
        return self.url.rstrip("/").rpartition("/")[2]

    def absolute(self) -> UrlPlace:
        """Return the place itself, without a slash at its end."""
        return UrlPlace(self.url.rstrip("/"))

    resolve = absolute

    def exists(self) -> bool:
        """Tell whether there is an object of this name, or any below it."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Tell whether there is an object of this name."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Tell whether there are objects below it."""
        return self._kind() == "directory"

    def read_bytes(self) -> bytes:
        """Return what the object holds.

        Raises
        ------
        FileNotFoundError
            When it is not there.
        InputError
            When the store cannot be reached, or the URL holds credentials.
        """
        files, path = self._open()
        with words_for_url(self.url):
            return bytes(files.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return its text; errors are those of `read_bytes`."""
        return self.read_bytes().decode(encoding)

    def _kind(self) -> str | None:
        files, path = self._open()
        with words_for_url(self.url):
            try:
                return str(files.info(path)["type"])
            except FileNotFoundError:
                return None

    def _open(self) -> tuple[Any, str]:
        import fsspec  # noqa: PLC0415 - object stores only

        check_url(self.url)
        files, path = fsspec.core.url_to_fs(self.url.rstrip("/"), use_listings_cache=False)
        return files, str(path)


Place = Path | UrlPlace


def place_of(path: str | os.PathLike[str]) -> Place:
    """Return the place that a path or a URL names.

    Raises
    ------
    InputError
        When there are credentials in a URL, or the package for it is not installed.
    """
    text = os.fspath(path)
    return UrlPlace(check_url(text).rstrip("/")) if is_url(text) else Path(text)


def is_url(path: str) -> bool:
    """Tell whether a path is a URL."""
    return "://" in path


def redact(text: str) -> str:
    """Take credentials out of the URLs in a text.

    Parameters
    ----------
    text : str
        ``"s3://key:secret@host/bucket/x.zarr?X-Amz-Signature=…"``, for instance.

    Returns
    -------
    str
        ``"s3://host/bucket/x.zarr"``: user, password, query and fragment are gone.
    """
    return _URL.sub(r"\1\2", text)


def check_url(url: str) -> str:
    """Return a URL that may be shown, recorded and sent to workers.

    Raises
    ------
    InputError
        When there are credentials or a query in it, or the package for it is not installed.
    """
    bare = redact(url)
    if bare != url:
        raise InputError(
            f"{bare}: was given with a user, password or query, which would be recorded; expected "
            "the bare URL, and credentials in the environment or in ~/.aws/credentials"
        )
    package = _PACKAGES.get(url.partition("://")[0])
    if package is not None:
        need(package, extra="cloud", purpose=url)
    return url


@contextmanager
def words_for_url(url: str) -> Iterator[None]:
    """Say in one line what is wrong with a place in an object store, where the block meets it.

    Raises
    ------
    InputError
        When the block raises an error of the store or of the way there. That something is not
        there, or is there already, comes through as it is, and so does all where `url` is none.
    """
    try:
        yield
    except (EmhetError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        if not is_url(url) or not _is_of_store(error):
            raise
        said = redact(" ".join(str(error).split())) or type(error).__name__
        what = "permission denied" if isinstance(error, PermissionError) else "cannot be reached"
        raise InputError(
            f"{redact(url)}: {what} ({said}); expected a bucket that the credentials of this "
            "environment may use (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL, …)"
        ) from error


def _is_of_store(error: Exception) -> bool:
    return isinstance(error, (OSError, TimeoutError)) or (
        type(error).__module__.partition(".")[0] in _CLIENTS
    )
