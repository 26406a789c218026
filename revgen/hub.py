"""Push models to the Hugging Face Hub and pull them from it, with the client library ``huggingface_hub``.

A repository has the files of a model directory. Pulled files are stored in the cache that all Hub libraries share, in
one directory for each commit, and load from there without a network. Nothing that comes from the Hub is executed.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revgen import pretrained
from revgen.arguments import validate_call
from revgen.card import HISTORY_FILE, draw_history, make_card
from revgen.errors import CheckpointError, HubError, OptionError, RevgenError, UnknownNameError
from revgen.files import expand_user
from revgen.generation.decoding import generate
from revgen.model import Model
from revgen.pending import CARD, CONFIG
from revgen.registry import is_model, missing_level_message, unknown_name_message
from revgen.storage import load_directory, read_config, save
from revgen.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ORGANIZATION_VARIABLE = "REVGEN_HUB_ORG"
"""The environment variable that names the organization of the pretrained models. If it is empty, revgen does not
search the Hub for them."""

TIMEOUT = 10.0  # seconds
match_repo_id = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII).fullmatch


class NotOnHubError(HubError):
    """The repository or revision does not exist, or the token does not give access to it."""


def is_repository(name: str) -> bool:
    """Return whether a name has the form of a repository id, ``"owner/name"``."""
    return bool(match_repo_id(name))


def resolve_repo_id(name: str) -> str:
    """Return the repository id of a pretrained model, or a repository id unchanged.

    Raises NotOnHubError for the name of a pretrained model if the organization is empty.
    """
    owner = os.environ.get(ORGANIZATION_VARIABLE, "revgen")
    if not owner and "/" not in name:
        raise NotOnHubError(f"{name} was not searched for on the Hub, because {ORGANIZATION_VARIABLE} is empty")
    return name if "/" in name else f"{owner}/{pretrained.add_corpus(name)}"


def find_directory(name: str | Path, *, revision: str | None, token: str | None, local_files_only: bool) -> Path:
    """Return the directory of a model: in the package, on disk, or in the Hub cache, after a download if needed.

    ``LanguageModel.from_pretrained`` describes the parameters.
    """
    if revision is None:
        if isinstance(name, str) and (directory := pretrained.find(name)):
            return directory
        if os.path.isdir(name):  # noqa: PTH112  Path.is_dir rejects names that are too long
            return Path(name)
        if (directory := _model_directory_of(name)) is not None:
            raise CheckpointError(f"{name} is not a model directory: give the directory {directory}")
        if os.path.isfile(name):  # noqa: PTH113
            raise CheckpointError(f"{name} is a file, not a model directory")
    if isinstance(name, str) and is_repository(name):
        return pull(name, revision=revision, token=token, local_files_only=local_files_only)
    if isinstance(name, Path) or "/" in name:
        raise CheckpointError(f"{name}: no such directory")
    model = name.partition(".")[0]
    if not is_model(model):
        known = [other.removesuffix(f".{pretrained.DEFAULT_CORPUS}") for other in pretrained.names()]
        message = unknown_name_message("pretrained model or directory", name, known)
        raise UnknownNameError(missing_level_message(name) or message)
    try:
        return pull_pretrained(name, revision=revision, token=token, local_files_only=local_files_only)
    except HubError as error:
        # Someone who names a corpus or an organization expects the weights to be on the Hub.
        if not isinstance(error, NotOnHubError) and (name != model or ORGANIZATION_VARIABLE in os.environ):
            raise
    corpora = [other.partition(".")[2] for other in pretrained.names() if other.startswith(f"{model}.")]
    hint = f"; it has weights for {', '.join(corpora)}" if corpora else ""
    raise UnknownNameError(
        f"{name} has no pretrained weights: train it with revgen.create({model!r}).fit(…){hint}",
        command=f"{name} has no pretrained weights: train it with revgen fit {model}{hint}",
    )


def _model_directory_of(name: str | Path) -> Path | None:
    """Return the model directory that directly contains a path, or None."""
    parent = Path(name).parent
    try:
        return parent if parent != Path() and (parent / CONFIG).is_file() else None
    except OSError:  # the name is too long
        return None


@validate_call
def pull(
    repo_id: str, *, revision: str | None = None, token: str | None = None, local_files_only: bool = False
) -> Path:
    """Download the files of a model that are not in the cache yet, and return its directory in the cache.

    Only the files that the model needs are downloaded, all from the same commit. Models in the cache can be pulled
    without a network. Raises HubError with a one-line message, and CheckpointError if the repository has no valid
    model.

    Args:
        repo_id: the repository, ``"owner/name"``.
        revision: a branch, a tag or a commit; by default, the default branch.
        token: an access token; by default, the token from ``hf auth login`` or ``HF_TOKEN``.
        local_files_only: use only the cache.
    """
    api = make_api(token)
    with convert_errors(repo_id, revision):
        if not local_files_only and not _is_cached(repo_id, revision):
            # If the Hub cannot be reached, this fails at once; a download would retry for half a minute.
            api.model_info(repo_id, revision=revision, timeout=TIMEOUT)
        # The Hub counts downloads by requests for this file. Its commit is the commit of all other files.
        config = Path(api.hf_hub_download(repo_id, CONFIG, revision=revision, local_files_only=local_files_only))
    directory = config.parent
    content = read_config(directory)
    for entry in (content["tokenizer"], content["weights"]):
        with convert_errors(repo_id, directory.name):
            options: dict[str, Any] = {"revision": directory.name, "local_files_only": local_files_only}
            file = Path(api.hf_hub_download(repo_id, entry["file"], **options))
            if _sha256(file) == entry["sha256"]:
                continue
            if not local_files_only:  # the file was damaged during the download or in the cache
                file = Path(api.hf_hub_download(repo_id, entry["file"], force_download=True, **options))
        if _sha256(file) != entry["sha256"]:
            raise HubError(
                f"{repo_id}: {entry['file']} does not have the checksum in its {CONFIG}: it is damaged, or belongs to "
                "another model"
            )
    return directory


def pull_pretrained(name: str, *, revision: str | None, token: str | None, local_files_only: bool) -> Path:
    """Return the model directory of a pretrained model. If the model is in the cache, no request is sent.

    Raises NotOnHubError if there is no such model.
    """
    repo_id = resolve_repo_id(name)
    try:
        return pull(repo_id, revision=revision, local_files_only=True)
    except HubError:
        if local_files_only:
            raise
    try:
        return pull(repo_id, revision=revision, token=token)
    except NotOnHubError:
        raise
    except HubError as error:
        raise HubError(f"{name} has no weights in the package or the cache; {error}") from None


@validate_call
def push(
    model: Model | str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    overwrite_card: bool = False,
) -> str:
    """Push a model, or the files of a model directory, to a repository in one commit, and return the commit's URL.

    If the repository has no card yet, a card is pushed too: the card in the directory if a user has edited it, or else
    a new card with samples and an image of the training history. The index of the training text is never pushed.
    Raises HubError.

    Args:
        model: a model or a model directory.
        repo_id: the repository, ``"owner/name"``, or ``"name"`` for your own; it is created if it does not exist.
        private: whether a new repository is private.
        revision: the branch; it is created if it does not exist.
        commit_message: the commit message.
        token: an access token; by default, the token from ``hf auth login`` or ``HF_TOKEN``.
        overwrite_card: push a card even if the repository already has one.
    """
    api = make_api(token)
    with tempfile.TemporaryDirectory() as temporary:
        if isinstance(model, Model):
            directory = save(model, Path(temporary))
        else:
            directory = Path(model)
            model = load_directory(directory)
        with convert_errors(repo_id, revision):
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            existing = [file.rfilename for file in api.model_info(repo_id, revision=revision).siblings or ()]
            files: dict[str, bytes | Path] = {name: directory / name for name in _model_files(directory)}
            if overwrite_card or CARD not in existing:
                files |= _card_files(model, directory, repo_id)
            return _commit(api, repo_id, files, revision, commit_message or f"Push {model.name}")


def push_all(directories: Iterable[str | Path], owner: str, **options: Any) -> list[str]:
    """Push each model directory to the repository ``owner/directory``, and return the URLs of the commits.

    ``options`` are the keyword arguments of ``push``. All directories are loaded, and so checked, before the first one
    is pushed.
    """
    paths = [expand_user(directory) for directory in directories]
    for path in paths:
        load_directory(path)
    return [push(path, f"{owner}/{path.resolve().name}", **options) for path in paths]


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache at one commit."""

    name: str
    revisions: tuple[str, ...]
    """The branches and tags that pointed to the commit when it was pulled."""
    commit: str
    size: int
    """The size on disk in bytes."""
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dataclasses.asdict(self) | {"path": str(self.path)}


def list_cached() -> list[CachedModel]:
    """Return the revgen models in the cache, sorted by name."""
    models = []
    for repo in _cache_info().repos if _cache_exists() else ():
        for commit in repo.revisions:
            if _is_revgen_model(commit.snapshot_path):
                refs = tuple(sorted(commit.refs))
                models.append(
                    CachedModel(repo.repo_id, refs, commit.commit_hash, commit.size_on_disk, commit.snapshot_path)
                )
    return sorted(models, key=lambda model: (model.name, model.commit))


def remove_cached(name: str) -> int:
    """Remove all commits of a model from the cache and return the number of bytes freed. Raises HubError."""
    commits = [model.commit for model in list_cached() if model.name == name]
    if not commits:
        raise HubError(f"{name} is not in the cache; revgen cache lists the models in it")
    strategy = _cache_info().delete_revisions(*commits)
    strategy.execute()
    return int(strategy.expected_freed_size)


def make_api(token: str | None) -> HfApi:
    """Return a client of the Hub, with a token or the one of the user."""
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="revgen", library_version=__version__)


def _is_cached(repo_id: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo_id, CONFIG, revision=revision), str)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model_files(directory: Path) -> list[str]:
    """Return the names of the files to push, without the index of the training text."""
    content = read_config(directory)
    return [CONFIG, content["tokenizer"]["file"], content["weights"]["file"]]


def _card_files(model: Model, directory: Path, repo_id: str) -> dict[str, bytes | Path]:
    """Return the card of a repository and its image, by file name."""
    card_file = directory / CARD
    if card_file.is_file() and card_file.read_text("utf-8", "replace") != make_card(model):  # the user edited it
        return {CARD: card_file}
    history = draw_history(model)
    samples: Any = [] if "samples" in model.metadata else generate(model, "", 3, {"temperature": 0.7, "seed": 1})
    files: dict[str, bytes | Path] = {HISTORY_FILE: history.encode()} if history else {}
    files[CARD] = make_card(
        model, load_as=repo_id, samples=samples, history_file=HISTORY_FILE if history else None
    ).encode()
    return files


def _commit(api: HfApi, repo_id: str, files: dict[str, bytes | Path], revision: str | None, commit_message: str) -> str:
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    return str(api.create_commit(repo_id, operations, commit_message=commit_message, revision=revision).commit_url)


def _cache_exists() -> bool:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).is_dir()


def _cache_info() -> Any:
    from huggingface_hub import scan_cache_dir

    return scan_cache_dir()


def _is_revgen_model(snapshot: Path) -> bool:
    try:
        return "revgen_version" in json.loads((snapshot / CONFIG).read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


@contextmanager
def convert_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    """Convert any exception of the client library to a RevgenError with a one-line message."""
    try:
        yield
    except RevgenError:
        raise
    except Exception as error:  # network errors have other classes in other versions of the client
        error_class, message = _explain(error, repo_id, revision)
        raise error_class(f"{repo_id}: {message}") from error


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
