"""A small server that answers as the Hugging Face Hub does: repositories, commits, LFS, tags, private ones."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretSecretSecretSecretSecret"


@dataclass
class Repository:
    """A repository: the files of each commit, and the commits that branches and tags name."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    lfs: set[bytes] = field(default_factory=set)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit with these files to a branch; returns its id."""
        content = json.dumps(
            [self.refs.get(branch), sorted((n, hashlib.sha1(f).hexdigest()) for n, f in files.items())]
        )
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits[commit] = files
        self.refs[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or the id itself means."""
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class FakeHub:
    """The state of the server.

    Attributes:
        url: its address.
        storage: the address of large files: the same server as another host, as the Hub has them elsewhere.
        repositories: by their ids.
        requests: method and path of each request.
        authorizations: what requests sent as a token.
        uploads: content by its sha256.
        status: that all requests are answered with, if it is set.
        stall_bytes: of a large file, after which nothing more is sent.
        stalls: set while a download stalls.
        writable: whether the token may write.
    """

    url: str = ""
    storage: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    stall_bytes: int | None = None
    stalls: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)
    writable: bool = True

    def num_requests(self, part: str) -> int:
        """How many requests have a part in their method and path."""
        return sum(part in request for request in self.requests)


class Handler(BaseHTTPRequestHandler):
    """Answers for a `FakeHub`, which is an attribute of a subclass."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.begin():
            return
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self.route):
            self.describe(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.route):
            self.send_file(*match.groups())
        elif match := re.fullmatch(r"/cdn/([0-9a-f]{64})", self.route):
            self.answer(200, self.hub.uploads[match[1]])
        else:
            self.answer(404)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        content = self.body()
        if self.begin():
            return
        oid = self.route.removeprefix("/lfs/")
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.uploads[oid] = content
        self.answer(200)

    def do_POST(self) -> None:
        content = self.body()
        if self.begin():
            return
        if self.route == "/api/validate-yaml":
            text = json.loads(content)["content"]
            is_valid = re.match(r"---\n.*?\n---\n", text, re.DOTALL) and "license: nonsense" not in text
            errors = [] if is_valid else [{"message": '"license" must be one of ...'}]
            self.answer(200 if is_valid else 400, {"errors": errors, "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid username or password."})
        elif not self.hub.writable:
            self.answer(403, {"error": "You don't have the rights to write"})
        elif self.route == "/api/repos/create":
            self.create(json.loads(content))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|tag)/(.+)", self.route):
            getattr(self, match[2])(self.hub.repositories[match[1]], match[3], content, match[1])
        elif self.route.endswith(".git/info/lfs/objects/batch"):
            self.plan_uploads(json.loads(content))
        else:
            self.answer(404)

    def begin(self) -> bool:
        """Note the request; answers it, and returns True, where all are refused."""
        self.route = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {self.path}")
        self.hub.authorizations.append(self.headers.get("Authorization"))
        if self.hub.status is not None:
            self.answer(self.hub.status)
        return self.hub.status is not None

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def find(self, repo: str) -> Repository | None:
        """A repository that the request may see; answers the request if there is none."""
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self.answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def describe(self, repo: str, revision: str | None) -> None:
        if (found := self.find(repo)) is None:
            return
        commit = found.resolve(revision or "main")
        files = [{"rfilename": name} for name in (found.commits[commit] if commit else {})]
        self.answer(200, {"id": repo, "sha": commit, "private": found.private, "siblings": files, "tags": []})

    def send_file(self, repo: str, revision: str, name: str) -> None:
        if (found := self.find(repo)) is None:
            return
        commit = found.resolve(revision)
        if commit is None:
            self.answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return
        headers = {"X-Repo-Commit": commit}
        content = found.commits[commit].get(name)
        if content is None:
            self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", **headers})
        elif content in found.lfs:
            oid = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            self.answer(302, b"", {**headers, **linked, "Location": f"{self.hub.storage}/cdn/{oid}"})
        else:
            self.answer(200, content, {**headers, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.hub.repositories:
            self.answer(409, {"url": f"{self.hub.url}/{repo}"})
            return
        made = self.hub.repositories[repo] = Repository(private=asked.get("visibility") == "private")
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer(200, {"url": f"{self.hub.url}/{repo}", "name": repo, "id": "0"})

    def preupload(self, _repository: Repository, _revision: str, content: bytes, _repo: str) -> None:
        files = [file["path"] for file in json.loads(content)["files"]]
        modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in files}
        answer = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
        self.answer(200, {"files": answer})

    def plan_uploads(self, asked: dict[str, Any]) -> None:
        objects = []
        for wanted in asked["objects"]:
            plan = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
            objects.append(wanted if wanted["oid"] in self.hub.uploads else {**wanted, "actions": plan})
        self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, repository: Repository, revision: str, content: bytes, repo: str) -> None:
        lines = [json.loads(line) for line in content.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent is not None and parent != repository.refs[revision]:
            self.answer(412, {"error": "A commit has happened since"})
            return
        files = dict(repository.commits[repository.refs[revision]])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
                repository.lfs.add(files[value["path"]])
            else:
                assert line["key"] == "file"
                files[value["path"]] = base64.b64decode(value["content"])
        commit = repository.commit(files, revision)
        url = f"{self.hub.url}/{repo}/commit/{commit}"
        self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def tag(self, repository: Repository, revision: str, content: bytes, _repo: str) -> None:
        name = json.loads(content)["tag"]
        if name in repository.refs:
            self.answer(409, {"error": "Tag reference exists already"})
            return
        repository.refs[name] = repository.resolve(revision) or ""
        self.answer(200, {})

    def answer(self, status: int, body: bytes | dict[str, Any] = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        stall = self.hub.stall_bytes
        if self.route.startswith("/cdn/") and stall is not None:
            self.wfile.write(content[:stall])
            self.wfile.flush()
            self.hub.stalls.set()
            self.hub.is_over.wait(60)
            return
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Run a server with no repository."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url, hub.storage = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.is_over.set()
        server.shutdown()
        server.server_close()


def environment(hub: FakeHub, home: Any, **more: str) -> dict[str, str]:
    """The variables with which a process uses the server, and a cache in a folder; without a token."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        **more,
    }


def use_hub(monkeypatch: Any, url: str, home: Any) -> None:
    """Let this process use a server, with its cache in a folder."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_URL_HOSTS", frozenset({"127.0.0.1"}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
