"""A Hub on this machine: enough of the Hugging Face Hub's protocol for its client as it is.

Repositories with branches, tags and private ones, tokens, commits of files that are sent inline or by LFS, downloads
with ETags and ranges, the answers to what is not there or not allowed; and what can go wrong on the way, on request.
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
from urllib.parse import unquote, urlsplit

NAME = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"

Tree = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their names, and the branches and tags that point to them."""

    private: bool = False
    gated: bool = False
    trees: dict[str, Tree] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag or a commit. Raises RefusedError."""
        commit = self.refs.get(revision, revision)
        if commit not in self.trees:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def commit(self, branch: str, tree: Tree, message: str) -> str:
        """Put a tree on a branch."""
        self.messages.append(message)
        name = hashlib.sha1(f"{len(self.messages)} {message} {sorted(tree)}".encode()).hexdigest()
        self.trees[name] = tree
        self.refs[branch] = name
        return name

    def files(self, revision: str = "main") -> Tree:
        """The content of each file at a revision."""
        return self.trees[self.resolve(revision)]


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str = "", message: str = "", commit: str = "", **content: str) -> None:
        super().__init__(message)
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self.status, self.headers = status, {name: value for name, value in headers.items() if value}
        self.content = {"error": message} | content


@dataclass
class Faults:
    """What goes wrong: ``down`` is a status for every request; of the files in ``cut``, only so many bytes arrive, for
    so many downloads; those in ``spoilt`` arrive with other bytes, for so many."""

    down: int = 0
    cut: dict[str, tuple[int, int]] = field(default_factory=dict)
    spoilt: dict[str, int] = field(default_factory=dict)


class Hub:
    """The server: start it, point ``HF_ENDPOINT`` at ``url``, look at ``repositories`` and ``requests``."""

    def __init__(self) -> None:
        self.clear()
        self.lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
        self.server.daemon_threads = True
        self.server.server_bind()  # takes a port; connections are refused until ``start``
        self.is_running = False
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def clear(self) -> None:
        """A Hub with a user ``me``, whose token writes, and nothing else."""
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens = {"hf_me": ("me", "write"), "hf_reader": ("me", "read"), "hf_other": ("other", "write")}
        self.organizations = {"me": ["zoo"]}
        self.requests: list[tuple[str, str]] = []
        self.agents: set[str] = set()
        self.ranges: list[int] = []
        self.faults = Faults()

    def start(self) -> None:
        """Answer in a background thread until the process ends. Calling it again does nothing."""
        if not self.is_running:
            self.is_running = True
            self.server.server_activate()
            threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def asked(self, method: str, ending: str) -> int:
        """How many requests of a method there were for a path with that ending."""
        return sum(m == method and path.endswith(ending) for m, path in self.requests)


class Handler(BaseHTTPRequestHandler):
    """One request; ``ROUTES`` says which method answers it."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and data in one packet
    disable_nagle_algorithm = True

    def answer(self) -> None:
        """Find the route, and turn a RefusedError into an answer."""
        path = urlsplit(self.path).path
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, path))
        self.hub.agents.add(self.headers.get("User-Agent", ""))
        try:
            if self.hub.faults.down:
                raise RefusedError(self.hub.faults.down, message="The Hub has a bad day")
            for methods, pattern, name in ROUTES:
                if self.command in methods and (found := re.fullmatch(pattern, path)):
                    with self.hub.lock:
                        answer = getattr(self, name)(**{k: unquote(v) for k, v in found.groupdict().items()})
                    return self.send(*answer) if isinstance(answer, tuple) else self.send_json(answer)
            raise RefusedError(404, message=f"no such endpoint: {self.command} {path}")
        except RefusedError as refusal:
            self.send_json(refusal.content, refusal.status, refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def send(self, status: int, headers: dict[str, str], data: bytes = b"", stop: int | None = None) -> None:
        """Status, headers and data; with ``stop``, the connection ends behind so many bytes."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:stop])
        if stop is not None:
            self.close_connection = True

    def send_json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """A JSON answer."""
        data = json.dumps(content).encode()
        self.send(status, {"Content-Type": "application/json"} | (headers or {}), data)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    @property
    def user(self) -> tuple[str, str] | None:
        """Whose token came with the request, and what it may do. Raises RefusedError for one that is not valid."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return None
        if token == "hf_expired":
            raise RefusedError(401, message='User Access Token "old" is expired')
        if token not in self.hub.tokens:
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def repository(self, name: str, write: bool = False) -> Repository:
        """A repository that the user may read, or write. Raises RefusedError."""
        found, user = self.hub.repositories.get(name), self.user
        mine = user is not None and name.partition("/")[0] in (user[0], *self.hub.organizations.get(user[0], ()))
        if found is None or (found.private and not mine):
            raise RefusedError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and not (user and mine and user[1] == "write"):
            raise RefusedError(403, message="you must use a write token to upload to a repository.")
        if found.gated and not mine and self.command in ("GET", "HEAD") and "/resolve/" in self.path:
            raise RefusedError(403, "GatedRepo", f"Access to model {name} is restricted")
        return found

    # The routes ------------------------------------------------------------------------------

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
        if name in self.hub.repositories:
            raise RefusedError(409, message="You already created this model repo", url=f"{self.hub.url}/{name}")
        made = Repository(private=content.get("private") is True or content.get("visibility") == "private")
        made.commit(
            "main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial commit"
        )
        self.hub.repositories[name] = made
        return {"url": f"{self.hub.url}/{name}", "name": name, "id": name}

    def validate(self) -> Any:
        return {"errors": [], "warnings": []}

    def preupload(self, repo: str, revision: str) -> Any:
        tree = self.repository(repo, write=True).files(revision)
        files = [
            {
                "path": file["path"],
                "uploadMode": mode(file["path"]),
                "shouldIgnore": False,
                "oid": etag(file["path"], tree[file["path"]]) if file["path"] in tree else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        return {"files": files}

    def batch(self, repo: str) -> Any:
        self.repository(repo, write=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            action = {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}
            actions = {} if wanted["oid"] in self.hub.objects else {"upload": action, "verify": action}
            objects.append({"oid": wanted["oid"], "size": wanted["size"], **({"actions": actions} if actions else {})})
        return {"transfer": "basic", "objects": objects}

    def upload(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusedError(400, message="the bytes are not those of the name")
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
        name = repository.commit(revision, tree, message)
        return {"commitUrl": f"{self.hub.url}/{repo}/commit/{name}", "commitOid": name, "success": True}

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
        about = {"private": repository.private, "gated": "auto" if repository.gated else False}
        return {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "tags": [], **about}

    def tree(self, repo: str, revision: str) -> Any:
        entries = []
        for path, data in self.repository(repo).files(revision).items():
            entry: dict[str, Any] = {"type": "file", "oid": etag("", data), "size": len(data), "path": path}
            if mode(path) == "lfs":
                entry["lfs"] = {"oid": etag(path, data), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        return entries

    def resolve(self, repo: str, revision: str, path: str) -> Any:
        repository = self.repository(repo)
        commit = repository.resolve(revision)
        if path not in repository.trees[commit]:
            raise RefusedError(404, "EntryNotFound", "Entry not found", commit)
        data = repository.trees[commit][path]
        quoted = f'"{etag(path, data)}"'
        headers = {"X-Repo-Commit": commit, "ETag": quoted, "Accept-Ranges": "bytes"}
        if mode(path) == "lfs":
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": quoted}
        if self.command == "HEAD":
            return 200, headers, data
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if mode(path) == "lfs":
            self.hub.ranges.append(begin)
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        faults = self.hub.faults
        if faults.spoilt.get(path, 0) > 0:
            faults.spoilt[path] -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        stop, times = faults.cut.get(path, (0, 0))
        if times > 0:
            faults.cut[path] = stop, times - 1
        return 206 if begin else 200, headers, data[begin:], stop if times > 0 else None


def mode(path: str) -> str:
    """How a file is sent and kept."""
    return "lfs" if path.endswith((".safetensors", ".model")) else "regular"


def etag(path: str, data: bytes) -> str:
    """The name of a file's content: by SHA-256 with LFS, else Git's own."""
    if mode(path) == "lfs":
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
    (("GET", "HEAD"), rf"/{NAME}/resolve/{REVISION}/(?P<path>.+)", "resolve"),
]
"""Methods, path, and the method of ``Handler``."""
