"""Fetch published files with pooch, which checks their published MD5 and keeps what is already there."""

from collections.abc import Callable
from pathlib import Path

from ensync.errors import EnsyncError, reason
from ensync.storage.published import PUBLISHED

Progress = Callable[[str, int, int], None]
TRIES = 2
TIMEOUT = 30  # seconds without an answer


def fetch(name: str, directory: str | Path | None = None, progress: Progress = lambda *_: None, url: str | None = None) -> Path:
    """Return the directory that holds the published files of `name`, fetching those that are missing or damaged.

    directory: where to keep them (default: ensync/downloads in the user's cache directory); url: of a mirror, ending in "/".
    Errors: EnsyncError when a file cannot be fetched or is not the published one; nothing half-fetched stays.
    """
    import pooch  # brings requests, which takes time to import and is only needed here

    published = PUBLISHED[name]
    place = Path(directory) if directory else Path(pooch.os_cache("ensync")) / "downloads" / name
    registry = {file: f"md5:{md5}" for file, md5 in published.files.items()}
    keeper = pooch.create(path=place, base_url=url or published.url, registry=registry, retry_if_failed=TRIES, allow_updates=True)
    pooch.get_logger().setLevel("ERROR")
    for file in registry:
        _fetch_one(keeper, file, progress)
    return place


def _fetch_one(keeper, file: str, progress: Progress) -> None:
    import pooch
    import requests

    url = keeper.get_url(file)
    by_hand = f"check the network, or copy {file} by hand and give its directory with --from"
    try:
        keeper.fetch(file, downloader=pooch.HTTPDownloader(progressbar=_Bar(f"fetching {file}", progress), timeout=TIMEOUT))
    except ValueError as error:  # pooch's word for a wrong checksum
        raise EnsyncError(f"{url} does not have the published MD5 {keeper.registry[file].removeprefix('md5:')}", "the published file", by_hand) from error
    except requests.RequestException as error:
        raise EnsyncError(f"{url} cannot be fetched ({_brief(error)})", "an answer from that server", by_hand) from error
    except OSError as error:
        raise EnsyncError(f"{keeper.abspath} cannot be written because {reason(error)}", "room for the download", "make room or set XDG_CACHE_HOME") from error


def _brief(error: Exception) -> str:
    text = str(getattr(error, "reason", None) or error)
    return text.splitlines()[0][:200] if text else type(error).__name__


class _Bar:
    """The progress bar that pooch drives, passed on to a callback."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress, self.total, self.done = what, progress, 0, 0

    def update(self, count: int) -> None:
        """Count `count` more bytes."""
        self.done += count
        self.progress(self.what, self.done, self.total)

    def reset(self) -> None:
        """Begin again: pooch ends with reset and one update of the whole."""
        self.done = 0

    def close(self) -> None:
        """Nothing to close."""
