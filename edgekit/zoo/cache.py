"""Published weight files in the libraries' own caches, and fetching them into it.

The cache folders are looked up at every call and without torch, so that a listing is quick and a changed
environment counts.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

from edgekit.errors import WeightsError
from edgekit.files import cache_home, user_path

TIMEOUT_S = 8.0


def torch_checkpoints() -> Path:
    """Where torch.hub keeps files it fetched by URL."""
    home = os.environ.get("TORCH_HOME") or Path(_xdg_cache()) / "torch"
    return user_path(home) / "hub" / "checkpoints"


def hub_cache() -> Path:
    """Where the Hugging Face hub's client keeps repositories."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return user_path(cache)
    home = os.environ.get("HF_HOME") or Path(_xdg_cache()) / "huggingface"
    return user_path(home) / "hub"


def _xdg_cache() -> str:
    return str(cache_home())


def _hub_snapshot(hub_id: str) -> Path:
    """The folder of a repository's revision: the commit the client noted, else named like the revision."""
    repository, _, revision = hub_id.partition("@")
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    noted = folder / "refs" / (revision or "main")
    return folder / "snapshots" / (noted.read_text().strip() if noted.is_file() else noted.name)


def cached(file_name: str, hub_id: str, hub_files: tuple[str, ...]) -> Path | None:
    """The file in a cache, or None. The hub's comes first: it is timm's default."""
    if hub_id:
        snapshot = _hub_snapshot(hub_id)
        for name in hub_files:
            if (snapshot / name).is_file():
                return snapshot / name
    if file_name and (torch_checkpoints() / file_name).is_file():
        return torch_checkpoints() / file_name
    return None


def expected_path(file_name: str, hub_id: str, hub_files: tuple[str, ...]) -> Path:
    """Where the file would be if it were in the cache."""
    if hub_id:
        return _hub_snapshot(hub_id) / hub_files[0]
    return torch_checkpoints() / file_name


def fetch(url: str, file_name: str, hub_id: str, hub_files: tuple[str, ...]) -> Path:
    """Download into the cache.

    Raises:
        WeightsError: no network, no such file, or bytes that do not match the hash in the name.
    """
    if hub_id:
        return _fetch_hub(hub_id, hub_files)
    from torch.hub import download_url_to_file

    reachable(url)
    path = torch_checkpoints() / file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    found = re.search(r"-([a-f0-9]{8,})\.", file_name)
    try:
        with _socket_timeout(TIMEOUT_S):
            download_url_to_file(url, str(path), found and found.group(1), progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        raise WeightsError(" ".join(str(error).split())) from error
    return path


def _fetch_hub(hub_id: str, hub_files: tuple[str, ...]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise WeightsError("HF_HUB_OFFLINE is set")
    reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    repository, _, revision = hub_id.partition("@")
    reason: Exception | None = None
    for name in hub_files:
        try:
            return Path(
                hf_hub_download(
                    repository, name, revision=revision or None, cache_dir=hub_cache(), etag_timeout=TIMEOUT_S
                )
            )
        except EntryNotFoundError as error:
            reason = error
        except Exception as error:
            # The client lets its transport's exceptions through, and they change from release to release.
            raise WeightsError(" ".join(str(error).split())[:160]) from error
    raise WeightsError(f"{repository} has none of {', '.join(hub_files)}") from reason


def reachable(url: str) -> None:
    """Raise WeightsError at once where a download would retry for minutes: no route to the host or proxy."""
    target = urlparse(url)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(target.hostname or ""):
        target = urlparse(proxy)
    host = target.hostname or ""
    try:
        port = target.port or (80 if target.scheme == "http" else 443)
        socket.create_connection((host, port), timeout=TIMEOUT_S / 2).close()
    except (OSError, ValueError) as error:
        raise WeightsError(f"no connection to {host}") from error


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
