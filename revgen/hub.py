"""The Hugging Face Hub: models pushed to it and pulled from it, with its own client.

A model is a repository that holds the files of a model directory. Pulled files lie in the cache that all libraries of
the Hub share, by commit; what is there is loaded without a network. Nothing that comes from the Hub is executed.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revgen.arguments import checked
from revgen.card import HISTORY_FILE, draw_history, make_card
from revgen.errors import CheckpointError, HubError, OptionError, RevgenError, UnknownNameError
from revgen.files import expand_user
from revgen.generation.decoding import generate
from revgen.model import Model
from revgen.registry import is_model, missing_level_message, unknown_name_message
from revgen.storage import CARD, CONFIG, load_directory, read_config, save
from revgen.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PRETRAINED = Path(__file__).parent / "pretrained"
ORGANIZATION = "REVGEN_HUB_ORG"
"""The environment variable that names where pretrained models are looked for; empty: nowhere."""

TIMEOUT = 10.0  # seconds
IN_ONE_PIECE = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII).fullmatch


class AbsentError(HubError):
    """There is no such repository or revision, or not for this token."""


def is_repository(name: str) -> bool:
    """Whether a name has the form of a repository's, ``"me/name"``."""
    return bool(IN_ONE_PIECE(name))


def repository_of(name: str) -> str:
    """The repository that a name stands for: itself, or that of the pretrained model. Raises AbsentError where the
    organization is empty."""
    owner = os.environ.get(ORGANIZATION, "revgen")
    if not owner and "/" not in name:
        raise AbsentError(f"{name} is not looked for on the Hub, as {ORGANIZATION} is empty")
    return name if "/" in name else f"{owner}/{name}"


def pretrained_names() -> set[str]:
    """Return the names of the pretrained models that ship in the package."""
    return {path.parent.name for path in PRETRAINED.glob("*/config.json")}


def find_directory(name: str | Path, *, revision: str | None, token: str | None, local_files_only: bool) -> Path:
    """Return the directory of a model with weights: in the package, on disk, in the cache of the Hub or on the Hub.

    ``LanguageModel.from_pretrained`` describes the parameters.
    """
    if revision is None:
        if isinstance(name, str) and name in pretrained_names():
            return PRETRAINED / name
        if os.path.isdir(name):  # noqa: PTH112  unlike Path, it takes a name of any length
            return Path(name)
        if (directory := _model_directory_of(name)) is not None:
            raise CheckpointError(f"{name} is not a model directory: give the directory {directory}")
        if os.path.isfile(name):  # noqa: PTH113
            raise CheckpointError(f"{name} is a file, not a model directory")
    if isinstance(name, str) and is_repository(name):
        return pull(name, revision=revision, token=token, local_files_only=local_files_only)
    if isinstance(name, Path) or "/" in name:
        raise CheckpointError(f"{name}: there is no such directory")
    known = ", ".join(sorted(pretrained_names())) or "none"
    if not is_model(name):
        unknown = unknown_name_message("pretrained model or directory", name, sorted(pretrained_names()))
        raise UnknownNameError(missing_level_message(name) or unknown)
    with suppress(AbsentError):
        return pull_pretrained(name, revision=revision, token=token, local_files_only=local_files_only)
    raise UnknownNameError(
        f"{name} has no pretrained weights: train it with revgen.create({name!r}).fit(…); pretrained are {known}",
        command=f"{name} has no pretrained weights: train it with revgen fit {name}; pretrained are {known}",
    )


def _model_directory_of(name: str | Path) -> Path | None:
    """Return the model directory that directly contains a path, None if there is none."""
    parent = Path(name).parent
    try:
        return parent if parent != Path() and (parent / CONFIG).is_file() else None
    except OSError:  # the name is too long
        return None


@checked
def pull(
    repo_id: str, *, revision: str | None = None, token: str | None = None, local_files_only: bool = False
) -> Path:
    """The model directory of a repository in the cache, downloaded as far as it is not there.

    Only the files that the model needs are, all of one commit. ``revision`` is a branch, a tag or a commit; the default
    branch where not given. ``token`` is the one that ``hf auth login`` or ``HF_TOKEN`` gave where not given. Without a
    network, or with ``local_files_only=True``, what was pulled before is found again.

    Raises HubError with one line that says what is wrong, CheckpointError where the repository holds no sound model.
    """
    api = _api(token)
    with _plainly(repo_id, revision):
        if not local_files_only and not _is_cached(repo_id, revision):
            # It says at once what is wrong, where a download would try again for half a minute.
            api.model_info(repo_id, revision=revision, timeout=TIMEOUT)
        # The one request for the file by which the Hub counts downloads; it fixes the commit of all the others.
        config = Path(api.hf_hub_download(repo_id, CONFIG, revision=revision, local_files_only=local_files_only))
    directory = config.parent
    content = read_config(directory)
    for entry in (content["tokenizer"], content["weights"]):
        with _plainly(repo_id, directory.name):
            where: dict[str, Any] = {"revision": directory.name, "local_files_only": local_files_only}
            file = Path(api.hf_hub_download(repo_id, entry["file"], **where))
            if _sha256(file) == entry["sha256"]:
                continue
            if not local_files_only:  # damaged on its way, or in the cache
                file = Path(api.hf_hub_download(repo_id, entry["file"], force_download=True, **where))
        if _sha256(file) != entry["sha256"]:
            raise HubError(
                f"{repo_id}: {entry['file']} does not have the checksum that its {CONFIG} names, so it is damaged or "
                "belongs to another model"
            )
    return directory


def pull_pretrained(name: str, *, revision: str | None, token: str | None, local_files_only: bool) -> Path:
    """``pull`` from the organization of the pretrained models, by a model's name alone; what is in the cache is taken
    without asking. Raises AbsentError where there is no such model."""
    repo_id = repository_of(name)
    try:
        return pull(repo_id, revision=revision, local_files_only=True)
    except HubError:
        if local_files_only:
            raise
    try:
        return pull(repo_id, revision=revision, token=token)
    except AbsentError:
        raise
    except HubError as error:
        raise HubError(f"{name} has no weights in the package or the cache; {error}") from None


@checked
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
    """Put a model, or a model directory as it is, into a repository in one commit; the address of the commit.

    The repository is made where there is none (``"name"`` alone is one of yours), and so is the branch ``revision``;
    ``private`` counts for a new one. A card is written with ``overwrite_card=True``, or where the repository has
    none: that of the directory where it was changed by hand, else one made anew, with samples and the history of
    training as a picture. Training text that the model remembers stays here. Raises HubError.
    """
    api = _api(token)
    with tempfile.TemporaryDirectory() as temporary:
        if isinstance(model, Model):
            directory = save(model, Path(temporary))
        else:
            directory = Path(model)
            model = load_directory(directory)
        with _plainly(repo_id, revision):
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            there = [file.rfilename for file in api.model_info(repo_id, revision=revision).siblings or ()]
            files: dict[str, bytes | Path] = {name: directory / name for name in _needed(directory)}
            if overwrite_card or CARD not in there:
                files |= _card(model, directory, repo_id)
            return _commit(api, repo_id, files, revision, commit_message or f"Push {model.name}")


def push_all(directories: Iterable[str | Path], owner: str, **options: Any) -> list[str]:
    """Push model directories to a user or an organization, each under its own name; the addresses of the commits.

    ``options`` are those of ``push``. All of the directories are read before the first is pushed.
    """
    paths = [expand_user(directory) for directory in directories]
    for path in paths:
        load_directory(path)
    return [push(path, f"{owner}/{path.resolve().name}", **options) for path in paths]


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache, at one commit."""

    name: str
    revisions: tuple[str, ...]
    """The branches and tags that point to the commit, as far as they were asked for."""
    commit: str
    size: int
    """Bytes on disk."""
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """All of it, in plain values."""
        return dataclasses.asdict(self) | {"path": str(self.path)}


def cached() -> list[CachedModel]:
    """The models of this library in the cache, sorted by name."""
    found = []
    for repo in _cache_info().repos if _cache_exists() else ():
        for commit in repo.revisions:
            if _is_ours(commit.snapshot_path):
                refs = tuple(sorted(commit.refs))
                found.append(
                    CachedModel(repo.repo_id, refs, commit.commit_hash, commit.size_on_disk, commit.snapshot_path)
                )
    return sorted(found, key=lambda model: (model.name, model.commit))


def remove(name: str) -> int:
    """Take all commits of a model out of the cache; returns how many bytes that frees. Raises HubError."""
    commits = [model.commit for model in cached() if model.name == name]
    if not commits:
        raise HubError(f"{name} is not in the cache; revgen cache lists what is")
    strategy = _cache_info().delete_revisions(*commits)
    strategy.execute()
    return int(strategy.expected_freed_size)


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="revgen", library_version=__version__)


def _is_cached(repo_id: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo_id, CONFIG, revision=revision), str)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _needed(directory: Path) -> list[str]:
    """The files that a model is made from; training text that it remembers is not passed on."""
    content = read_config(directory)
    return [CONFIG, content["tokenizer"]["file"], content["weights"]["file"]]


def _card(model: Model, directory: Path, repo_id: str) -> dict[str, bytes | Path]:
    """The card for the repository, and the picture on it."""
    own = directory / CARD
    if own.is_file() and own.read_text("utf-8", "replace") != make_card(model):
        return {CARD: own}
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


def _is_ours(snapshot: Path) -> bool:
    try:
        return "revgen_version" in json.loads((snapshot / CONFIG).read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


@contextmanager
def _plainly(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turn whatever the client raises into a HubError of one line that says what to do."""
    try:
        yield
    except RevgenError:
        raise
    except Exception as error:  # its transport is another from version to version, and so are its errors
        kind, line = _explained(error, repo_id, revision)
        raise kind(f"{repo_id}: {line}") from error


def _explained(error: BaseException, repo_id: str, revision: str | None) -> tuple[type[HubError | OptionError], str]:
    """The kind of error, and what went wrong in words."""
    from huggingface_hub import errors

    login = "log in with hf auth login, set HF_TOKEN or pass token=…"
    if isinstance(error, errors.HFValidationError):
        return OptionError, f"no name for a repository, which is owner/name: {_line(error)}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        if isinstance(error.__cause__, Exception) and not isinstance(error.__cause__, errors.LocalEntryNotFoundError):
            return _explained(error.__cause__, repo_id, revision)
        return AbsentError, "it is not in the cache, and the Hub was not to be asked"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubError, "it is not in the cache, and the Hub is not asked while HF_HUB_OFFLINE is set"
    if isinstance(error, errors.RevisionNotFoundError):
        return AbsentError, f"it has no revision {revision!r}"
    if isinstance(error, errors.EntryNotFoundError):
        return HubError, f"no model of revgen: it lacks {_file(error)}"
    if isinstance(error, errors.GatedRepoError):
        return HubError, f"a gated repository: ask for access on its page, then {login}"
    if isinstance(error, errors.HfHubHTTPError):
        status, said = error.response.status_code, " ".join((error.server_message or "").split())
        if status == 401 and re.search("expired|credentials|username or password", said, re.IGNORECASE):
            return HubError, f"the Hub does not accept the token ({said}): {login}"
        if isinstance(error, errors.RepositoryNotFoundError):
            return AbsentError, (
                f"there is no such directory, and on the Hub no such repository, or it is private: then {login}"
            )
        if status == 403:
            return HubError, f"the token does not allow this ({said or 'forbidden'}): {login}, with one that may write"
        return HubError, f"the Hub answered {status}: {said or _line(error)}"
    if isinstance(error, OSError) and error.errno in DISK:
        where = f" {error.filename}" if error.filename else ""
        return HubError, f"could not write to the cache{where}: {error.strerror}"
    if isinstance(error, OSError) and error.errno is None and "Consistency check failed" in str(error):
        return HubError, "the download was cut off: load again"
    return HubError, f"the Hub could not be reached: {type(error).__name__}: {_line(error)}"


DISK: Sequence[int] = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def _line(error: BaseException) -> str:
    """The first line of an error's message, or its name."""
    return next(iter(str(error).split("\n")), "")[:300] or type(error).__name__


def _file(error: BaseException) -> str:
    """The file that the client did not find."""
    return next(iter(re.findall(r"/resolve/[^/]+/(\S+?)\.?(?:\s|$)", str(error))), "a file that it needs")
