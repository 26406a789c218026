"""A local server that implements as much of the Hugging Face Hub's protocol as its client library needs.

The server has public and private repositories with branches and tags, access tokens, commits of files that are sent
inline or by LFS, downloads with ETags and ranges, and error responses. Tests can also make requests fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NAME = r"(?P<repo>(?:spaces/)?[^/]+/[^/]+)"
DATASET = r"(?P<repo>datasets/[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"

Tree = dict[str, bytes]


@dataclass
class Repository:
    """The commits by their hashes, and the branches and tags that point to them. The name of a Space has a prefix."""

    private: bool = False
    gated: bool = False
    trees: dict[str, Tree] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def resolve(self, revision: str) -> str:
        """Return the commit hash of a branch or tag, or a commit hash unchanged. Raises RefusedError."""
        commit = self.refs.get(revision, revision)
        if commit not in self.trees:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def commit(self, branch: str, tree: Tree, message: str) -> str:
        """Commit a tree to a branch, and return the hash of the commit."""
        self.messages.append(message)
        commit = hashlib.sha1(f"{len(self.messages)} {message} {sorted(tree)}".encode()).hexdigest()
        self.trees[commit] = tree
        self.refs[branch] = commit
        return commit

    def files(self, revision: str = "main") -> Tree:
        """Return the content of each file at a revision."""
        return self.trees[self.resolve(revision)]


class RefusedError(Exception):
    """An error response."""

    def __init__(self, status: int, code: str = "", message: str = "", commit: str = "", **content: str) -> None:
        super().__init__(message)
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self.status = status
        self.headers: dict[str, str | None] = {name: value for name, value in headers.items() if value}
        self.content = {"error": message} | content


@dataclass
class Faults:
    """The failures that the server simulates."""

    down: int = 0
    """The status of the response to every request; 0 if the server is up."""
    truncated: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By file name: the number of bytes after which the connection closes, and the number of such downloads."""
    corrupted: dict[str, int] = field(default_factory=dict)
    """By file name: the number of downloads that have a wrong byte."""
    headers: dict[str, dict[str, str | None]] = field(default_factory=dict)
    """By file name: headers that replace those of the response, or None to leave a header out."""
    redirects: dict[str, str] = field(default_factory=dict)
    """By file name: the address that the server redirects to."""


class Hub:
    """The server. Set ``HF_ENDPOINT`` to ``url``, start the server, and inspect ``repositories`` and ``requests``."""

    def __init__(self) -> None:
        self.clear()
        self.lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
        self.server.daemon_threads = True
        self.server.server_bind()  # reserves a port; connections are refused until ``start``
        self.is_running = False
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def clear(self) -> None:
        """Remove all repositories, requests and faults. The users are ``me``, with two tokens, and ``other``."""
        self.repositories: dict[str, Repository] = {}
        """By name; the names of data sets start with ``datasets/``."""
        self.card_data: dict[str, dict[str, Any]] = {}
        """The metadata of the cards of data sets."""
        self.objects: dict[str, bytes] = {}
        self.tokens = {"hf_me": ("me", "write"), "hf_reader": ("me", "read"), "hf_other": ("other", "write")}
        self.organizations = {"me": ["zoo"]}
        self.requests: list[tuple[str, str]] = []
        self.agents: set[str] = set()
        self.ranges: list[int] = []
        self.faults = Faults()

    def start(self) -> None:
        """Serve requests in a background thread until the process ends. A second call does nothing."""
        if not self.is_running:
            self.is_running = True
            self.server.server_activate()
            threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def count_requests(self, method: str, suffix: str) -> int:
        """Return the number of requests with this method for paths with this suffix."""
        return sum(m == method and path.endswith(suffix) for m, path in self.requests)


class Handler(BaseHTTPRequestHandler):
    """The handler of one request. ``ROUTES`` names the method for each path."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and data in one packet
    disable_nagle_algorithm = True

    def handle_request(self) -> None:
        """Call the method for the path, and send its result or the RefusedError that it raises."""
        path = urlsplit(self.path).path.replace("/api/spaces/", "/api/models/spaces/")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, path))
        self.hub.agents.add(self.headers.get("User-Agent", ""))
        try:
            if self.hub.faults.down:
                raise RefusedError(self.hub.faults.down, message="The server is overloaded")
            for methods, pattern, name in ROUTES:
                if self.command in methods and (match := re.fullmatch(pattern, path)):
                    with self.hub.lock:
                        response = getattr(self, name)(**{k: unquote(v) for k, v in match.groupdict().items()})
                    return self.send(*response) if isinstance(response, tuple) else self.send_json(response)
            raise RefusedError(404, message=f"no such endpoint: {self.command} {path}")
        except RefusedError as error:
            self.send_json(error.content, error.status, error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815

    def send(self, status: int, headers: dict[str, str | None], data: bytes = b"", stop: int | None = None) -> None:
        """Send a response. With ``stop``, close the connection after this number of bytes."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:stop])
        if stop is not None:
            self.close_connection = True

    def send_json(self, content: Any, status: int = 200, headers: dict[str, str | None] | None = None) -> None:
        """Send a JSON response."""
        data = json.dumps(content).encode()
        content_type: dict[str, str | None] = {"Content-Type": "application/json"}
        self.send(status, content_type | (headers or {}), data)

    def log_message(self, *_: Any) -> None:
        """Do not print requests."""

    @property
    def user(self) -> tuple[str, str] | None:
        """The user and the role of the request's token, or None without one. Raises RefusedError if it is invalid."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return None
        if token == "hf_expired":
            raise RefusedError(401, message='User Access Token "old" is expired')
        if token not in self.hub.tokens:
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def repository(self, name: str, write: bool = False) -> Repository:
        """Return a repository. Raises RefusedError if the user may not read it, or with ``write``, may not write it."""
        repository, user = self.hub.repositories.get(name), self.user
        owner = name.removeprefix("datasets/").removeprefix("spaces/").partition("/")[0]
        is_owner = user is not None and owner in (user[0], *self.hub.organizations.get(user[0], ()))
        if repository is None or (repository.private and not is_owner):
            raise RefusedError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and not (user and is_owner and user[1] == "write"):
            raise RefusedError(403, message="you must use a write token to upload to a repository.")
        if repository.gated and not is_owner and self.command in ("GET", "HEAD") and "/resolve/" in self.path:
            raise RefusedError(403, "GatedRepo", f"Access to model {name} is restricted")
        return repository

    # Routes

    def whoami(self) -> Any:
        if self.user is None:
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        name, role = self.user
        return {"name": name, "type": "user", "orgs": [], "auth": {"accessToken": {"role": role, "displayName": "t"}}}

    def create(self) -> Any:
        content = json.loads(self.body)
        if self.user is None:
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        owner = content.get("organization") or self.user[0]
        if owner not in (self.user[0], *self.hub.organizations.get(self.user[0], ())) or self.user[1] != "write":
            raise RefusedError(
                403, message=f"You don't have the rights to create a model under the namespace {owner!r}"
            )
        name = f"{owner}/{content['name']}"
        if content.get("type") == "space":
            if content.get("sdk") not in ("static", "docker", "gradio"):
                raise RefusedError(400, message="a Space needs an sdk")
            name = f"spaces/{name}"
        if name in self.hub.repositories:
            raise RefusedError(409, message="You already created this model repo", url=f"{self.hub.url}/{name}")
        repository = Repository(private=content.get("private") is True or content.get("visibility") == "private")
        repository.commit(
            "main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial commit"
        )
        self.hub.repositories[name] = repository
        return {"url": f"{self.hub.url}/{name}", "name": name, "id": name}

    def validate(self) -> Any:
        return {"errors": [], "warnings": []}

    def preupload(self, repo: str, revision: str) -> Any:
        tree = self.repository(repo, write=True).files(revision)
        files = [
            {
                "path": file["path"],
                "uploadMode": upload_mode(file["path"]),
                "shouldIgnore": False,
                "oid": etag(file["path"], tree[file["path"]]) if file["path"] in tree else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        return {"files": files}

    def batch(self, repo: str) -> Any:
        self.repository(repo, write=True)
        objects = []
        for lfs_object in json.loads(self.body)["objects"]:
            action = {"href": f"{self.hub.url}/lfs/{lfs_object['oid']}", "header": {}}
            actions = {} if lfs_object["oid"] in self.hub.objects else {"upload": action, "verify": action}
            objects.append(
                {"oid": lfs_object["oid"], "size": lfs_object["size"], **({"actions": actions} if actions else {})}
            )
        return {"transfer": "basic", "objects": objects}

    def upload(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusedError(400, message="the bytes do not have this hash")
        self.hub.objects[oid] = self.body
        return {}

    def verify(self, oid: str) -> Any:
        if oid not in self.hub.objects:
            raise RefusedError(404, message="no such object")
        return {}

    def commit(self, repo: str, revision: str) -> Any:
        repository = self.repository(repo, write=True)
        if revision not in repository.refs:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        tree, message = dict(repository.files(revision)), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                tree[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del tree[value["path"]]
        commit = repository.commit(revision, tree, message)
        return {"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit, "success": True}

    def branch(self, repo: str, revision: str) -> Any:
        repository = self.repository(repo, write=True)
        if revision in repository.refs:
            raise RefusedError(409, message=f"Reference already exists: {revision}")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.refs[revision] = repository.resolve(start)
        return {}

    def tag(self, repo: str, revision: str) -> Any:
        repository = self.repository(repo, write=True)
        repository.refs[json.loads(self.body)["tag"]] = repository.resolve(revision)
        return {}

    def info(self, repo: str, revision: str = "main") -> Any:
        repository = self.repository(repo)
        commit = repository.resolve(revision)
        siblings = [{"rfilename": path} for path in repository.trees[commit]]
        flags = {"private": repository.private, "gated": "auto" if repository.gated else False}
        name = repo.removeprefix("datasets/")
        card = self.hub.card_data.get(repo, {})
        return {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": [], "cardData": card, **flags}

    def tree(self, repo: str, revision: str) -> Any:
        entries = []
        for path, data in self.repository(repo).files(revision).items():
            entry: dict[str, Any] = {"type": "file", "oid": etag("", data), "size": len(data), "path": path}
            if upload_mode(path) == "lfs":
                entry["lfs"] = {"oid": etag(path, data), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        return entries

    def missing_folder(self, repo: str, revision: str) -> Any:
        raise RefusedError(404, "EntryNotFound", "Entry not found", self.repository(repo).resolve(revision))

    def paths_info(self, repo: str, revision: str) -> Any:
        paths = parse_qs(self.body.decode())["paths"]
        return [entry for entry in self.tree(repo, revision) if entry["path"] in paths]

    def resolve(self, repo: str, revision: str, path: str) -> Any:
        repository = self.repository(repo)
        commit = repository.resolve(revision)
        if path not in repository.trees[commit]:
            raise RefusedError(404, "EntryNotFound", "Entry not found", commit)
        data = repository.trees[commit][path]
        quoted = f'"{etag(path, data)}"'
        headers: dict[str, str | None] = {"X-Repo-Commit": commit, "ETag": quoted, "Accept-Ranges": "bytes"}
        if upload_mode(path) == "lfs":
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": quoted}
        headers |= self.hub.faults.headers.get(path, {})
        if (target := self.hub.faults.redirects.get(path)) is not None:
            return 302, headers | {"Location": target}, b""
        if self.command == "HEAD":
            return 200, headers, data
        first, _, last = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last) + 1 if last else len(data), len(data))
        if upload_mode(path) == "lfs":
            self.hub.ranges.append(begin)
        is_part = begin > 0 or last != ""
        if is_part:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        faults = self.hub.faults
        if faults.corrupted.get(path, 0) > 0:
            faults.corrupted[path] -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        stop, times = faults.truncated.get(path, (0, 0))
        if times > 0:
            faults.truncated[path] = stop, times - 1
        return 206 if is_part else 200, headers, data[begin:end], stop if times > 0 else None


def upload_mode(path: str) -> str:
    """Return how the Hub stores a file: "lfs" or "regular"."""
    return "lfs" if path.endswith((".safetensors", ".model")) else "regular"


def etag(path: str, data: bytes) -> str:
    """Return the hash of a file's content: SHA-256 with LFS, or else the hash of its Git blob."""
    if upload_mode(path) == "lfs":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


ROUTES = [
    (("GET",), r"/api/whoami-v2", "whoami"),
    (("POST",), r"/api/repos/create", "create"),
    (("POST",), r"/api/validate-yaml", "validate"),
    (("POST",), rf"/api/models/{NAME}/preupload/{REVISION}", "preupload"),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", "batch"),
    (("PUT",), r"/lfs/(?P<oid>[0-9a-f]{64})", "upload"),
    (("POST",), r"/lfs/(?P<oid>[0-9a-f]{64})", "verify"),
    (("POST",), rf"/api/models/{NAME}/commit/{REVISION}", "commit"),
    (("POST",), rf"/api/models/{NAME}/branch/{REVISION}", "branch"),
    (("POST",), rf"/api/models/{NAME}/tag/{REVISION}", "tag"),
    (("GET",), rf"/api/models/{NAME}", "info"),
    (("GET",), rf"/api/models/{NAME}/revision/{REVISION}", "info"),
    (("GET",), rf"/api/models/{NAME}/tree/{REVISION}", "tree"),
    (("GET",), rf"/api/{DATASET}", "info"),
    (("GET",), rf"/api/{DATASET}/revision/{REVISION}", "info"),
    (("GET",), rf"/api/{DATASET}/tree/{REVISION}", "tree"),
    (("GET",), rf"/api/{DATASET}/tree/{REVISION}/.+", "missing_folder"),
    (("POST",), rf"/api/{DATASET}/paths-info/{REVISION}", "paths_info"),
    (("GET", "HEAD"), rf"/{DATASET}/resolve/{REVISION}/(?P<path>.+)", "resolve"),
    (("GET", "HEAD"), rf"/{NAME}/resolve/{REVISION}/(?P<path>.+)", "resolve"),
]
"""HTTP methods, the pattern of the path, and the name of the method of ``Handler``."""
