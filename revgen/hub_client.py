"""The client library of the Hub, guarded: tokens are never printed, and the headers of a server are checked.

The client names files in the cache by headers of the server's responses. Before it does, a server that is broken or
malicious is found out here: a strange ETag or commit, a redirect to another scheme, or a file that is too large.
"""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from revgen.corpus.disk import check_free_space
from revgen.display.formatting import format_size
from revgen.errors import HubError, OptionError, RevgenError, one_line
from revgen.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

match_repo_id = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII).fullmatch
match_etag = re.compile(r'(W/)?"?[\w=+~-][\w.=+~-]{0,127}"?', re.ASCII).fullmatch
match_commit = re.compile(r"[0-9a-f]{40}").fullmatch
match_token = re.compile(r"[!-~]+").fullmatch


class NotOnHubError(HubError):
    """The repository or revision does not exist, or the token does not give access to it."""


def is_repository(name: str) -> bool:
    """Return whether a name has the form of a repository id, ``"owner/name"``."""
    return bool(match_repo_id(name))


def make_api(token: str | None) -> HfApi:
    """Return the client, with this token or the user's own: ``clean_token`` describes the warning and the error."""
    from huggingface_hub import HfApi

    return HfApi(token=clean_token(token), library_name="revgen", library_version=__version__)


def clean_token(token: str | None) -> str | None:
    """Return a token without the white space around it, which causes a warning.

    Raises OptionError if it, or the user's own token if it is None, has characters that no request can send.
    """
    from huggingface_hub import get_token

    if token is not None and token != token.strip():
        warnings.warn("the white space around the token was removed", stacklevel=4)
        token = token.strip()
    effective = get_token() if token is None else token
    if effective and not match_token(effective):
        raise OptionError("token has characters that no request can send: copy it again from the Hub")
    return token


def convert_error(error: Exception, error_class: type[RevgenError], message: str, token: str | None) -> RevgenError:
    """Return an error to raise instead of an error of the client library, without the token.

    Its cause is the library's error, unless a server has repeated the token in it.
    """
    from huggingface_hub import get_token

    converted = error_class(message)
    converted.__cause__ = error
    if (token := token or get_token()) and token in f"{message} {error} {error!r} {error.__cause__!r}":
        converted = error_class(message.replace(token, "…"))
        converted.__suppress_context__ = True
    return converted


def download(api: HfApi, repo_id: str, file: str, max_bytes: int | None, **options: Any) -> Path:
    """Download a file to the cache if it is not there yet, and return its path.

    ``options`` are the keyword arguments of ``hf_hub_download``. Raises HubError for a response that is not one of the
    Hub, for a file of more than ``max_bytes``, and for one that the disk has no room for.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import tqdm

    cache = Path(constants.HF_HUB_CACHE)

    def check_size(size: int) -> None:
        if not 0 <= size <= (size if max_bytes is None else max_bytes):
            limit = "" if max_bytes is None else f", more than {format_size(max_bytes)}"
            raise HubError(f"{repo_id}: {file} has {format_size(size)}{limit}")
        if cache.exists():
            check_free_space(cache, size)

    class LimitedBar(tqdm):
        """A progress bar that ends the download of a file that is larger than the server said."""

        received = 0

        def update(self, n: float | None = 1) -> bool | None:
            """Add ``n`` bytes. Raises HubError if there are too many."""
            self.received += int(n or 0)
            if max_bytes is not None:
                check_size(self.received)
            elif n:
                check_free_space(cache, int(n))
            return bool(super().update(n))

    with _checked_responses(repo_id, check_size):
        path = Path(api.hf_hub_download(repo_id, file, tqdm_class=LimitedBar, **options))
    if not path.resolve().is_relative_to(cache.resolve()):
        raise HubError(f"{repo_id}: {file} is a link that leads out of the cache")
    return path


@contextmanager
def _checked_responses(repo_id: str, check_size: Any) -> Iterator[None]:
    """Check the headers of each response before the client uses them. Raises HubError."""
    from huggingface_hub import get_session

    def check(response: Any) -> None:
        headers, url = response.headers, str(response.request.url)
        if (location := headers.get("Location")) is not None:
            scheme = urlsplit(urljoin(url, location)).scheme
            if scheme not in ("https", urlsplit(url).scheme):
                raise HubError(f"{repo_id}: the server redirects to an address that starts with {scheme!r}")
        if response.request.method != "HEAD":
            return
        for name, matches in (("ETag", match_etag), ("X-Linked-Etag", match_etag), ("X-Repo-Commit", match_commit)):
            if (value := headers.get(name)) is not None and not matches(value):
                raise HubError(f"{repo_id}: the server sent an invalid {name}, {value!r}")
        size = headers.get("X-Linked-Size") or (None if response.is_redirect else headers.get("Content-Length"))
        if size is not None and (response.is_success or response.is_redirect):
            if not re.fullmatch(r"\d{1,18}", size):
                raise HubError(f"{repo_id}: the server sent an invalid size, {size!r}")
            check_size(int(size))

    hooks = get_session().event_hooks["response"]
    hooks.append(check)
    try:
        yield
    finally:
        hooks.remove(check)


@contextmanager
def convert_errors(repo_id: str, revision: str | None, api: HfApi | None = None) -> Iterator[None]:
    """Convert any exception of the client library to a RevgenError with a one-line message."""
    try:
        yield
    except RevgenError:
        raise
    except Exception as error:  # network errors have other classes in other versions of the client
        error_class, explanation = _explain(error, repo_id, revision)
        token = api.token if api is not None and isinstance(api.token, str) else None
        raise convert_error(error, error_class, f"{one_line(repo_id, 100)}: {explanation}", token)  # noqa: B904


def _explain(error: BaseException, repo_id: str, revision: str | None) -> tuple[type[HubError | OptionError], str]:
    """Return the class of the error to raise, and its message."""
    from huggingface_hub import errors

    login = "log in with hf auth login, set HF_TOKEN or pass token=…"
    if isinstance(error, errors.HFValidationError):
        return OptionError, f"the name of a repository must be owner/name: {_first_line(error)}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        if isinstance(error.__cause__, Exception) and not isinstance(error.__cause__, errors.LocalEntryNotFoundError):
            return _explain(error.__cause__, repo_id, revision)
        return NotOnHubError, "not in the cache, and local_files_only=True allows no download"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubError, "not in the cache, and HF_HUB_OFFLINE allows no download"
    if isinstance(error, errors.RevisionNotFoundError):
        return NotOnHubError, f"the repository has no revision {revision!r}"
    if isinstance(error, errors.EntryNotFoundError):
        return HubError, f"not a revgen model: {_missing_file(error)} is missing"
    if isinstance(error, errors.GatedRepoError):
        return HubError, f"the repository is gated: request access on its page, then {login}"
    if isinstance(error, errors.HfHubHTTPError):
        status, reason = error.response.status_code, " ".join((error.server_message or "").split())
        if status == 401 and re.search("expired|credentials|username or password", reason, re.IGNORECASE):
            return HubError, f"the Hub does not accept the token ({reason}): {login}"
        if isinstance(error, errors.RepositoryNotFoundError):
            return NotOnHubError, f"no such directory, and no such repository on the Hub; if it is private, {login}"
        if status == 403:
            return (
                HubError,
                f"the token does not allow this ({reason or 'forbidden'}): use a token with write access ({login})",
            )
        return HubError, f"the Hub answered with status {status}: {reason or _first_line(error)}"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        file = f" {error.filename}" if error.filename else ""
        return HubError, f"could not write to the cache{file}: {error.strerror}"
    if isinstance(error, OSError) and error.errno is None and "Consistency check failed" in str(error):
        return HubError, "the download was interrupted: try again"
    return HubError, f"the Hub could not be reached: {type(error).__name__}: {_first_line(error)}"


DISK_ERRORS: Sequence[int] = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
)


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if there is no message."""
    return next(iter(str(error).split("\n")), "")[:300] or type(error).__name__


def _missing_file(error: BaseException) -> str:
    """Return the name of the file that the client did not find."""
    return next(iter(re.findall(r"/resolve/[^/]+/(\S+?)\.?(?:\s|$)", str(error))), "a file")
