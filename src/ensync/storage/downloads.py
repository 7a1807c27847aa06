"""Fetch published files with pooch, which checks their published MD5 and keeps what is already
there.
"""

import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from ensync.core.errors import EnsyncError, reason
from ensync.storage.published import PUBLISHED
from ensync.storage.request import BYTES, Progress

if TYPE_CHECKING:
    import pooch

TRIES = 2
TIMEOUT = 30  # seconds without an answer


def fetch(
    name: str,
    directory: str | Path | None = None,
    progress: Progress = lambda *_: None,
    url: str | None = None,
) -> Path:
    """Return the directory that holds the published files of `name`, fetching those that are
    missing or damaged.

    directory: where to keep them (default: ensync/downloads in the user's cache directory); url: of
    a mirror, ending in "/". Errors: EnsyncError when a file cannot be fetched or is not the
    published one; nothing half-fetched stays.
    """
    import pooch  # brings requests, which takes time to import and is only needed here

    published = PUBLISHED[name]
    place = Path(directory) if directory else Path(pooch.os_cache("ensync")) / "downloads" / name
    registry = {file: f"md5:{md5}" for file, md5 in published.files.items()}
    keeper = pooch.create(
        path=place,
        base_url=url or published.url,
        registry=registry,
        retry_if_failed=TRIES,
        allow_updates=True,
    )
    pooch.get_logger().setLevel("ERROR")
    for file in registry:
        _fetch_one(keeper, file, progress)
    return place


def _fetch_one(keeper: "pooch.Pooch", file: str, progress: Progress) -> None:
    import pooch
    import requests

    url = keeper.get_url(file)
    by_hand = (
        "check the network, or run this where there is one, such as a login node (the files "
        f"stay in {keeper.abspath}), "
        f"or copy {file} by hand and give its directory with --from"
    )
    try:
        keeper.fetch(
            file,
            downloader=pooch.HTTPDownloader(
                progressbar=_Bar(f"fetching {file}", progress), timeout=TIMEOUT
            ),
        )
    except requests.RequestException as error:  # before ValueError, which some of these are
        raise EnsyncError(
            f"{url} cannot be fetched ({_why(error)})", "an answer from that server", by_hand
        ) from error
    except ValueError as error:  # pooch's word for a wrong checksum
        raise EnsyncError(
            f"{url} does not have the published MD5 {keeper.registry[file].removeprefix('md5:')}",
            "the published file",
            by_hand,
        ) from error
    except OSError as error:
        known = next(
            (each for each in _within(error) if isinstance(each, OSError) and each.errno), error
        )
        raise EnsyncError(
            f"{keeper.abspath} cannot be written because {reason(known)}",
            "room for the download",
            "make room or set XDG_CACHE_HOME",
        ) from error


def _why(error: Exception) -> str:
    """Return in words why a server did not give a file."""
    from requests import exceptions

    answer = getattr(error, "response", None)
    if answer is not None:
        return f"{answer.status_code} {answer.reason}"
    causes = list(_within(error))
    reasons: list[tuple[type[BaseException] | tuple[type[BaseException], ...], str]] = [
        (exceptions.InvalidProxyURL, "http_proxy or https_proxy is not the address of a proxy"),
        (exceptions.ProxyError, "the proxy of http_proxy or https_proxy does not connect"),
        ((exceptions.Timeout, TimeoutError), f"no answer within {TIMEOUT} s"),
        ((exceptions.SSLError, ssl.SSLError), "the certificate of the server cannot be verified"),
        (
            socket.gaierror,
            "the name of the server cannot be resolved: there may be no network here",
        ),
        (ConnectionRefusedError, "the connection was refused"),
        (
            (
                exceptions.ChunkedEncodingError,
                exceptions.ContentDecodingError,
                ConnectionResetError,
                HTTPException,
            ),
            "the connection broke off",
        ),
    ]
    told = [words for kind, words in reasons if any(isinstance(cause, kind) for cause in causes)]
    told += [reason(cause) for cause in causes if isinstance(cause, OSError) and cause.errno]
    return told[0] if told else "there was no connection"


def _within(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it was made from, however a library packs them."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inside = [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
        waiting += [each for each in inside if isinstance(each, BaseException)]


class _Bar:
    """The progress bar that pooch drives, passed on to a callback."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress, self.total, self.done = what, progress, 0, 0

    def update(self, count: int) -> None:
        """Count `count` more bytes."""
        self.done += count
        self.progress(self.what, self.done, self.total, BYTES)

    def reset(self) -> None:
        """Begin again: pooch ends with reset and one update of the whole."""
        self.done = 0

    def close(self) -> None:
        """Nothing to close."""
