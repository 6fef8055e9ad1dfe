"""A stand-in for a Databricks workspace with Unity Catalog, as MLflow's client speaks to it.

Registered models and their versions, and their files in one of two ways: by presigned addresses,
as in a workspace's own storage, or in an Azure Data Lake, which it lends signatures for.
"""

import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

from aiohttp import web
from anyio.from_thread import start_blocking_portal

from tests.registries.tokens import Certificate

MODELS: Final = "/api/2.0/mlflow/unity-catalog/registered-models"
VERSIONS: Final = "/api/2.0/mlflow/unity-catalog/model-versions"
DIRECTORIES: Final = "/api/2.0/fs/directories/"
STORAGE: Final = "storage"
"""File system of the data lake; presigned addresses lead below it too."""
PENDING, READY = "PENDING_REGISTRATION", "READY"
ECHOED: Final = {"deployment_job_id", "description", "model_id", "run_id", "source"}
"""What is told as it was given."""

Answer = dict[str, Any]
Fields = Mapping[str, Any]  # a request's body, or its query


class Refusal(Exception):  # noqa: N818 - an answer of the service, and no error of ours
    """What the service does not do: status, code, and a text for people."""


class Failure(NamedTuple):
    """An answer to give instead of the truth, once, where the path begins with the prefix."""

    prefix: str
    status: int
    code: str


def _invalid(message: str) -> Refusal:
    return Refusal(400, "INVALID_PARAMETER_VALUE", message)


def _missing(what: str, code: str = "RESOURCE_DOES_NOT_EXIST") -> Refusal:
    return Refusal(404, code, f"{what} does not exist")


@dataclass
class Version:
    """A model version; its facts are as on the wire, but for tags and aliases."""

    facts: Answer
    tags: dict[str, str]
    files: dict[str, bytes] = field(default_factory=dict)
    """By their paths within the version."""

    @property
    def folder(self) -> str:
        """Give the path that its files are below."""
        return f"Models/{self.facts['name'].replace('.', '/')}/{self.facts['version']}"

    def must_be(self, status: str) -> None:
        if (found := self.facts["status"]) != status:
            raise Refusal(400, "INVALID_STATE", f"The model version is {found}, and not {status}")

    def children(self, folder: str, path: str) -> dict[str, int | None]:
        """Give the sizes of what lies in a folder, by paths below `path`; None for folders."""
        prefix = f"{folder}/" if folder else ""
        found: dict[str, int | None] = {}
        for file, content in sorted(self.files.items()):
            if file.startswith(prefix):
                name, within, _ = file.removeprefix(prefix).partition("/")
                found[f"{path}/{name}"] = None if within else len(content)
        if folder and not found:
            raise _missing(f"Directory {path}", "NOT_FOUND")
        return found

    def read(self, path: str, headers: Mapping[str, str]) -> web.Response:
        """Give a file, or the range of it that the headers ask for."""
        if path not in self.files:
            raise _missing(f"File {path}", "BlobNotFound")
        content = self.files[path]
        if not (asked := headers.get("x-ms-range") or headers.get("Range")):
            return web.Response(body=content)
        begin, end = (int(bound) for bound in asked.removeprefix("bytes=").split("-"))
        if begin >= len(content):
            raise Refusal(416, "InvalidRange", f"The file has {len(content)} bytes")
        part = content[begin : end + 1]
        told = f"bytes {begin}-{begin + len(part) - 1}/{len(content)}"
        return web.Response(status=206, body=part, headers={"Content-Range": told})


@dataclass
class Model:
    """A registered model; its facts are as on the wire, but for tags and aliases."""

    facts: Answer
    tags: dict[str, str]
    aliases: dict[str, str] = field(default_factory=dict)
    """Alias to version."""
    versions: dict[str, Version] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    """Of the versions to come: each is given once."""


CALLS: dict[tuple[str, str], Callable[["Workspace", Fields], Answer | None]] = {}
"""Method and path, and what answers."""
Call = TypeVar("Call", bound=Callable[["Workspace", Fields], Answer | None])


def call(method: str, *paths: str) -> Callable[[Call], Call]:
    """Let a function answer requests; a Refusal that it raises is told to the client."""

    def register(function: Call) -> Call:
        CALLS.update({(method, path): function for path in paths})
        return function

    return register


@dataclass
class Workspace:
    """Has one user, who may do everything."""

    certificate: Certificate | None = None
    """What the data lake shows; without one, files go by presigned addresses."""
    token: str = "dapi-of-the-tests"
    address: str = "127.0.0.1"
    page: int = 200
    """Most entries in one answer of a list."""
    failures: list[Failure] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request."""
    models: dict[str, Model] = field(default_factory=dict)
    """By their full names."""
    host: str = ""
    """`http://address:port`, while it is served."""

    def __post_init__(self) -> None:
        self._lake = ""
        self._grants: dict[str, tuple[str, Sequence[str]]] = {}
        self._appended: dict[str, dict[int, bytes]] = {}

    @contextmanager
    def serving(self) -> Iterator[dict[str, str]]:
        """Listen in a thread; give the environment that leads a client here."""
        listening = self._listening()
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(listening):
            trust = {"REQUESTS_CA_BUNDLE": str(self.certificate.path)} if self.certificate else {}
            yield {"DATABRICKS_HOST": self.host, "DATABRICKS_TOKEN": self.token} | trust

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            for context in (None, self.certificate.served()) if self.certificate else (None,):
                await web.TCPSite(runner, self.address, 0, ssl_context=context).start()
            addresses = [f"{self.address}:{address[1]}" for address in runner.addresses]
            self.host, self._lake = f"http://{addresses[0]}", addresses[-1]
            yield
        finally:
            # TLS would wait for the goodbye of clients, which keep their connections.
            for connection in runner.server.connections if runner.server else ():
                if connection.transport:
                    connection.transport.abort()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        if request.path == "/.well-known/databricks-config":
            return web.json_response({"oidc_endpoint": f"{self.host}/oidc"})
        self.asked.append((request.method, request.path))
        try:
            self._admit(request.path, request.headers.get("Authorization", ""))
            if request.path.startswith(f"/{STORAGE}"):
                return self._stored(request, await request.read())
            given = await request.json() if request.can_read_body else request.query
            start, directories, rest = request.path.partition(DIRECTORIES)
            key = request.method, directories or start
            if key not in CALLS:
                raise _missing(f"API {request.method} {request.path}", "ENDPOINT_NOT_FOUND")
            return web.json_response(CALLS[key](self, {"path": rest, **given}) or {})
        except Refusal as refusal:
            status, code, message = refusal.args
            body = {"error_code": code, "message": message}
            return web.json_response(body, status=status, headers={"x-ms-error-code": code})

    def _admit(self, path: str, authorization: str) -> None:
        for failure in self.failures:
            if path.startswith(failure.prefix):
                self.failures.remove(failure)
                raise Refusal(failure.status, failure.code, "A test asked for this")
        if path.startswith(f"/{STORAGE}"):
            return  # a signature stands for the token
        if not authorization.startswith("Bearer "):
            raise Refusal(401, "UNAUTHENTICATED", "Credential was not sent")
        if authorization != f"Bearer {self.token}":
            raise Refusal(403, "PERMISSION_DENIED", "Invalid access token.")

    # --- models and versions ------------------------------------------------------------------

    @call("POST", f"{MODELS}/create")
    def _create_model(self, fields: Fields) -> Answer:
        # Unity Catalog keeps the names of its objects in small letters.
        name = str(fields["name"]).lower()
        if re.fullmatch(r"[^.\s/]+(\.[^.\s/]+){2}", name) is None:
            raise _invalid(f"{name} is not a valid name. Please specify all three levels of it")
        if name in self.models:
            raise Refusal(400, "RESOURCE_ALREADY_EXISTS", f"Registered model '{name}' exists")
        self.models[name] = Model(_facts(fields, name=name), _tags(fields.get("tags", ()), {}))
        return self._described(fields)

    @call("POST", f"{VERSIONS}/create")
    def _create_version(self, fields: Fields) -> Answer:
        model, tags = self._model(fields), _tags(fields.get("tags", ()), {})
        known = {"name": model.facts["name"], "version": str(next(model.numbers))}
        version = Version(_facts(fields, **known, status=PENDING), tags)
        store = f"abfss://{STORAGE}@{self._lake}" if self.certificate else "dbfs:"
        version.facts["storage_location"] = f"{store}/{version.folder}"
        model.versions[known["version"]] = version
        return self._described(known)

    @call("POST", f"{VERSIONS}/finalize")
    def _finalize(self, fields: Fields) -> Answer:
        self._version(fields).facts["status"] = READY
        return self._described(fields)

    @call("GET", f"{MODELS}/get", f"{VERSIONS}/get")
    def _described(self, fields: Fields) -> Answer:
        subject, number = self._subject(fields), fields.get("version")
        items = self._model(fields).aliases.items()
        aliases = [{"alias": alias, "version": at} for alias, at in items if number in {None, at}]
        tags = [{"key": key, "value": value} for key, value in subject.tags.items()]
        told = subject.facts | {"tags": tags, "aliases": aliases}
        return {"model_version" if number else "registered_model": told}

    @call("GET", f"{MODELS}/search")
    def _search_models(self, fields: Fields) -> Answer:
        if not 0 <= int(fields.get("max_results", 0)) <= 200:
            raise _invalid(f"max_results is {fields['max_results']}, which is not in [0, 200]")
        # Lists have neither aliases nor tags.
        facts = [model.facts for _, model in sorted(self.models.items())]
        return self._page("registered_models", facts, fields)

    @call("GET", f"{VERSIONS}/search")
    def _search_versions(self, fields: Fields) -> Answer:
        asked = fields.get("filter", "")
        if not (condition := re.fullmatch(r"\s*(name|run_id)\s*=\s*'([^']+)'\s*", asked)):
            raise _invalid(f"Unsupported filter query: `{asked}`; it must be `name = 'model_name'`")
        key, wanted = condition.groups()
        versions = [one for model in self.models.values() for one in model.versions.values()]
        facts = [version.facts for version in versions if version.facts.get(key) == wanted]
        return self._page("model_versions", facts, fields)

    @call("PATCH", f"{MODELS}/update", f"{VERSIONS}/update")
    def _update(self, fields: Fields) -> Answer:
        facts = self._subject(fields).facts
        facts |= _facts(fields, creation_timestamp=facts["creation_timestamp"])
        return self._described(fields)

    @call("DELETE", f"{MODELS}/delete")
    def _delete_model(self, fields: Fields) -> None:
        del self.models[self._model(fields).facts["name"]]

    @call("DELETE", f"{VERSIONS}/delete")
    def _delete_version(self, fields: Fields) -> None:
        model, number = self._model(fields), self._version(fields).facts["version"]
        del model.versions[number]
        model.aliases = {alias: at for alias, at in model.aliases.items() if at != number}

    @call("POST", f"{MODELS}/set-tag", f"{VERSIONS}/set-tag")
    def _set_tag(self, fields: Fields) -> None:
        self._subject(fields).tags = _tags([fields], self._subject(fields).tags)

    @call("DELETE", f"{MODELS}/delete-tag", f"{VERSIONS}/delete-tag")
    def _delete_tag(self, fields: Fields) -> None:
        self._subject(fields).tags.pop(fields["key"], None)

    @call("POST", f"{MODELS}/alias")
    def _set_alias(self, fields: Fields) -> None:
        self._model(fields).aliases[fields["alias"]] = self._version(fields).facts["version"]

    @call("DELETE", f"{MODELS}/alias")
    def _delete_alias(self, fields: Fields) -> None:
        self._model(fields).aliases.pop(fields["alias"], None)

    @call("GET", f"{MODELS}/alias")
    def _version_by_alias(self, fields: Fields) -> Answer:
        if not (version := self._model(fields).aliases.get(fields["alias"])):
            raise _missing(f"Alias '{fields['alias']}' of registered model '{fields['name']}'")
        return self._described({"name": fields["name"], "version": version})

    @call("POST", f"{VERSIONS}/emit-lineage")
    def _emit_lineage(self, fields: Fields) -> None:
        self._version(fields)

    def _model(self, fields: Fields) -> Model:
        if not (model := self.models.get(str(fields["name"]).lower())):
            raise _missing(f"Registered model '{fields['name']}'")
        return model

    def _version(self, fields: Fields) -> Version:
        if not (version := self._model(fields).versions.get(str(fields["version"]))):
            raise _missing(f"Version {fields['version']} of registered model '{fields['name']}'")
        return version

    def _subject(self, fields: Fields) -> Model | Version:
        return self._version(fields) if "version" in fields else self._model(fields)

    def _page(self, name: str, entries: Sequence[Answer], fields: Fields) -> Answer:
        begin = int(fields.get("page_token") or 0)
        end = begin + min(self.page, int(fields.get("max_results", 0)) or self.page)
        token = str(end) if end < len(entries) else ""
        return {name: entries[begin:end], "next_page_token": token}

    # --- files --------------------------------------------------------------------------------

    @call("GET", f"{MODELS}:is-databricks-sdk-models-artifact-repository-enabled")
    def _by_sdk(self, _: Fields) -> Answer:
        return {"is_databricks_sdk_models_artifact_repository_enabled": False}

    @call("GET", f"{VERSIONS}/get-download-uri")
    def _download_uri(self, fields: Fields) -> Answer:
        return {"artifact_uri": self._version(fields).facts["storage_location"]}

    @call("POST", f"{VERSIONS}/generate-temporary-credentials")
    def _credentials(self, fields: Fields) -> Answer:
        version = self._version(fields)
        writes = fields["operation"] == "MODEL_VERSION_OPERATION_READ_WRITE"
        version.must_be(PENDING if writes else READY)
        credentials: Answer = {"storage_mode": "DEFAULT_STORAGE"}
        if self.certificate:
            methods = ("GET", "HEAD", "PUT", "PATCH") if writes else ("GET", "HEAD")
            sas = f"sv=2023-11-03&sr=d&sig={self._signed(version.folder, *methods)}"
            credentials = {"azure_user_delegation_sas": {"sas_token": sas}}
        return {"credentials": credentials | {"expiration_time": int(time.time() + 3600) * 1000}}

    @call("POST", "/api/2.0/fs/create-upload-url")
    def _upload_url(self, fields: Fields) -> Answer:
        self._place(fields["path"])[0].must_be(PENDING)
        return self._url("PUT", fields["path"])

    @call("POST", "/api/2.0/fs/create-download-url")
    def _download_url(self, fields: Fields) -> Answer:
        version, file = self._place(fields["path"])
        if file not in version.files:
            raise _missing(f"File {fields['path']}", "NOT_FOUND")
        return self._url("GET", fields["path"])

    @call("GET", DIRECTORIES)
    def _directory(self, fields: Fields) -> Answer:
        version, folder = self._place(fields["path"])
        entries = [
            {"path": path, "is_directory": size is None, "file_size": size}
            for path, size in version.children(folder, f"/{fields['path'].strip('/')}").items()
        ]
        return self._page("contents", entries, fields)

    def _place(self, path: str) -> tuple[Version, str]:
        """Find the version whose files a path leads to, and what of the path is within it."""
        kind, *names = path.strip("/").split("/")
        if kind != "Models" or len(names) < 4:
            raise _missing(f"Path {path}", "NOT_FOUND")
        version = self._version({"name": ".".join(names[:3]), "version": names[3]})
        return version, "/".join(names[4:])

    def _url(self, method: str, path: str) -> Answer:
        signature = self._signed(path.strip("/"), method)
        return {"url": f"{self.host}/{STORAGE}/{quote(path.strip('/'))}?sig={signature}"}

    def _signed(self, path: str, *methods: str) -> str:
        signature = secrets.token_urlsafe()
        self._grants[signature] = path, methods
        return signature

    def _granted(self, method: str, path: str, signature: str) -> tuple[Version, str]:
        """Find the place of a path, if a signature is for the path or a folder above it."""
        if signature not in self._grants:
            raise Refusal(403, "AuthenticationFailed", "Nobody was given this signature")
        above, methods = self._grants[signature]
        if method not in methods or not f"{path}/".startswith(f"{above}/"):
            raise Refusal(403, "AuthorizationPermissionMismatch", f"Not signed: {method} {path}")
        return self._place(path)

    def _stored(self, request: web.Request, body: bytes) -> web.Response:
        """Do what Data Lake Storage Gen2 calls Path List, Create, Update and Read."""
        asked, path = request.query, request.path.removeprefix(f"/{STORAGE}").strip("/")
        path = asked.get("directory", path)
        version, file = self._granted(request.method, path, asked.get("sig", ""))
        headers = {"ETag": '"0x1"', "Last-Modified": "Sat, 28 Nov 2026 18:00:00 GMT"}
        match request.method, asked.get("resource") or asked.get("action"):
            case "GET", "filesystem":
                return self._paths(version, file, path, asked.get("continuation"))
            case "PUT", "file" | None:
                version.files[file], self._appended[path] = body, {}
                return web.Response(status=201, headers=headers)
            case "PATCH", "append":
                self._appended[path][int(asked["position"])] = body
                return web.Response(status=202, headers=headers)
            case "PATCH", "flush":
                parts = sorted(self._appended.pop(path).items())
                version.files[file] = b"".join(part for _, part in parts)
                return web.Response(headers=headers)
            case _:
                return version.read(file, request.headers)

    def _paths(self, version: Version, folder: str, path: str, token: str | None) -> web.Response:
        # A file is listed as itself.
        alone = {path: len(version.files[folder])} if folder in version.files else None
        entries = [
            {
                "name": name,
                "isDirectory": str(size is None).lower(),
                "contentLength": str(size or 0),
            }
            for name, size in (alone or version.children(folder, path)).items()
        ]
        found = self._page("paths", entries, {"page_token": token})
        return web.json_response(found, headers={"x-ms-continuation": found["next_page_token"]})


def _facts(fields: Fields, **known: Any) -> Answer:
    now = time.time_ns() // 1_000_000
    times = {"creation_timestamp": now, "last_updated_timestamp": now}
    return {key: fields[key] for key in ECHOED & fields.keys()} | times | known


def _tags(added: Iterable[Fields], present: Mapping[str, str]) -> dict[str, str]:
    """Add tags, within https://docs.databricks.com/aws/en/database-objects/tags."""
    tags = {**present, **{tag["key"]: tag.get("value", "") for tag in added}}
    for key, value in tags.items():
        if set(key) & set(".,-=/:"):
            reserved = "contains one or more of the reserved characters: List(., ,, -, =, /, :)"
            raise _invalid(f"Tag name {key} {reserved}")
        if (key.strip(" "), value.strip(" ")) != (key, value):
            raise _invalid(f"Tag {key!r} has leading or trailing spaces in its name or value")
        if not 0 < len(key) <= 255 or len(value) > 1000:
            raise _invalid(f"Tag {key!r} is longer than 255 characters, or its value than 1000")
    if len(tags) > 50:
        raise _invalid(f"An object has at most 50 tags, and not {len(tags)}")
    return tags
