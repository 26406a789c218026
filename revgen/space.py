"""A static Space of the Hugging Face Hub: the exported page of a model, beside the model's repository."""

from __future__ import annotations

from revgen.arguments import validate_call
from revgen.card import make_space_card
from revgen.hub_client import convert_errors, make_api
from revgen.model import Model
from revgen.pending import CARD


@validate_call
def push_space(
    model: Model,
    page: str,
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    overwrite_card: bool = False,
) -> str:
    """Push the page of a model to the Space that has the name of its repository, and return the address of the Space.

    ``page`` is the HTML from ``browser.page.make_page``; ``hub.push`` describes the other parameters. A Space has one
    branch, and shows the page that was pushed last. Raises HubError.
    """
    from huggingface_hub import CommitOperationAdd

    api = make_api(token)
    with convert_errors(repo_id, None, api):
        address = api.create_repo(repo_id, private=private, exist_ok=True, repo_type="space", space_sdk="static")
        repo_id = address.repo_id
        files = {"index.html": page.encode()}
        existing = [file.rfilename for file in api.space_info(repo_id).siblings or ()]
        if overwrite_card or CARD not in existing:
            files[CARD] = make_space_card(model, repo_id).encode()
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(
            repo_id, operations, commit_message=commit_message or f"Push the page of {model.name}", repo_type="space"
        )
    return str(address)
