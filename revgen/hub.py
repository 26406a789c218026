"""Push models to the Hugging Face Hub and pull them from it, with the client library ``huggingface_hub``.

A repository has the files of a model directory. Pulled files are stored in the cache that all Hub libraries share, in
one directory for each commit, and load from there without a network. Nothing that comes from the Hub is executed.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revgen import generation_file, pretrained
from revgen.arguments import validate_call
from revgen.card import HISTORY_FILE, draw_history, make_card
from revgen.display.formatting import format_size
from revgen.errors import CheckpointError, HubError, UnknownNameError
from revgen.files import expand_user, hash_file, read_file
from revgen.generation.decoding import generate
from revgen.hub_client import NotOnHubError, convert_errors, download, is_repository, make_api
from revgen.model import Model
from revgen.pending import CARD, CONFIG, GENERATION_CONFIG
from revgen.registry import is_model, missing_level_message, unknown_name_message
from revgen.schema import MAX_CONFIG_BYTES, read_json
from revgen.storage import MAX_TOKENIZER_BYTES, load_directory, read_config, save

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ORGANIZATION_VARIABLE = "REVGEN_HUB_ORG"
"""The environment variable that names the organization of the pretrained models. If it is empty, revgen does not
search the Hub for them."""

TIMEOUT = 10.0  # seconds
MAX_CARD_BYTES = 4 << 20


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
        known += sorted(config.parent.name for config in Path().glob("*/config.json"))
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
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    api = make_api(token)
    with convert_errors(repo_id, revision, api):
        if not local_files_only and not _is_cached(repo_id, revision):
            # If the Hub cannot be reached, this fails at once; a download would retry for half a minute.
            api.model_info(repo_id, revision=revision, timeout=TIMEOUT)
        # The Hub counts downloads by requests for this file. Its commit is the commit of all other files.
        options: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
        config = download(api, repo_id, CONFIG, MAX_CONFIG_BYTES, **options)
    directory = config.parent
    content = read_config(directory)
    options["revision"] = directory.name
    if try_to_load_from_cache(repo_id, GENERATION_CONFIG, revision=directory.name) is None:
        with convert_errors(repo_id, directory.name, api), suppress(EntryNotFoundError):  # the cache remembers it
            download(api, repo_id, GENERATION_CONFIG, MAX_CONFIG_BYTES, **options)
    for entry, max_bytes in ((content["tokenizer"], MAX_TOKENIZER_BYTES), (content["weights"], None)):
        with convert_errors(repo_id, directory.name, api):
            file = download(api, repo_id, entry["file"], max_bytes, **options)
            if hash_file(file) == entry["sha256"]:
                continue
            if not local_files_only:  # the file was damaged during the download or in the cache
                file = download(api, repo_id, entry["file"], max_bytes, force_download=True, **options)
            is_valid = hash_file(file) == entry["sha256"]
        if not is_valid:
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
    samples: bool = True,
    progress: bool = True,
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
        samples: show texts that the model generates in a new card. Models of n-grams copy parts of their training text.
        progress: print the names and the sizes of the files to standard error before they are pushed.
    """
    api = make_api(token)
    with tempfile.TemporaryDirectory() as temporary:
        if isinstance(model, Model):
            directory = save(model, Path(temporary))
        else:
            directory = Path(model)
            model = load_directory(directory)
        with convert_errors(repo_id, revision, api):
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            existing = [file.rfilename for file in api.model_info(repo_id, revision=revision).siblings or ()]
            files: dict[str, bytes | Path] = {name: directory / name for name in _model_files(directory)}
            if model.generation_config:
                files[GENERATION_CONFIG] = generation_file.to_bytes(model)
            if overwrite_card or CARD not in existing:
                files |= _card_files(model, directory, repo_id, samples)
            if progress:
                sizes = {name: len(c) if isinstance(c, bytes) else c.stat().st_size for name, c in files.items()}
                listed = ", ".join(f"{name} ({format_size(size)})" for name, size in sizes.items())
                print(f"pushing to {repo_id}: {listed}", file=sys.stderr)
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
    for repo in _cached_repositories():
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
    from huggingface_hub import scan_cache_dir

    with _cache_errors():
        strategy = scan_cache_dir().delete_revisions(*commits)
        strategy.execute()
    return int(strategy.expected_freed_size)


def _is_cached(repo_id: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo_id, CONFIG, revision=revision), str)


def _model_files(directory: Path) -> list[str]:
    """Return the names of the files to push, without the index of the training text."""
    content = read_config(directory)
    return [CONFIG, content["tokenizer"]["file"], content["weights"]["file"]]


def _root(directory: Path) -> Path:
    """Return the folder that contains the files of a model directory; in the cache, they are links to others."""
    directory = directory.resolve()
    return directory.parents[1] if directory.parent.name == "snapshots" else directory


def _card_files(model: Model, directory: Path, repo_id: str, with_samples: bool) -> dict[str, bytes | Path]:
    """Return the card of a repository and its image, by file name."""
    card_file = directory / CARD
    if card_file.exists():
        if not card_file.resolve().is_relative_to(_root(directory)):
            raise CheckpointError(f"{card_file} is a link that leads out of the directory: replace it by a file")
        card = read_file(card_file, MAX_CARD_BYTES)
        if card.decode("utf-8", "replace") != make_card(model):  # the user edited it
            return {CARD: card}
    history = draw_history(model)
    samples: Any = []
    if with_samples and "samples" not in model.metadata:
        samples = generate(model, None, 3, {"seed": 1} | ({} if model.generation_config else {"temperature": 0.7}))
        if model.copies_training_text:
            warnings.warn(
                f"the samples in the card of {model.name} may be parts of its training text, which n-grams copy; "
                "samples=False leaves them out",
                stacklevel=2,
            )
    files: dict[str, bytes | Path] = {HISTORY_FILE: history.encode()} if history else {}
    files[CARD] = make_card(
        model, load_as=repo_id, samples=samples, history_file=HISTORY_FILE if history else None
    ).encode()
    return files


def _commit(api: HfApi, repo_id: str, files: dict[str, bytes | Path], revision: str | None, commit_message: str) -> str:
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    return str(api.create_commit(repo_id, operations, commit_message=commit_message, revision=revision).commit_url)


def _cached_repositories() -> Iterable[Any]:
    from huggingface_hub import constants, scan_cache_dir

    with _cache_errors():
        return scan_cache_dir().repos if Path(constants.HF_HUB_CACHE).is_dir() else ()


@contextmanager
def _cache_errors() -> Iterator[None]:
    """Convert an error of the file system to a HubError."""
    from huggingface_hub import constants

    try:
        yield
    except OSError as error:
        raise HubError(f"the cache {constants.HF_HUB_CACHE} cannot be read: {error.strerror or error}") from None


def _is_revgen_model(snapshot: Path) -> bool:
    try:
        return "revgen_version" in read_json(snapshot / CONFIG)
    except CheckpointError:
        return False
