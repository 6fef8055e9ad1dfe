"""Package indexes as companies have them, and what they do wrong: small ones, of our own wheels."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from modelops_operator.api.config import BuilderConfig, OperatorConfig, RegistryConfig
from modelops_operator.builder.bundle import read_bundle
from modelops_operator.builder.connections import connected
from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.image import Repository
from modelops_operator.builder.lock import Lock, LockedWheel, resolve
from modelops_operator.builder.locks import Locks
from modelops_operator.builder.target import Target
from modelops_operator.builder.wheels import WheelStore

from tests.builder.conftest import Configure, RunningMlflow
from tests.builder.releases import build, release, spec_of
from tests.registries.proxy import serving
from tests.registries.servers import RunningRegistry
from tests.registries.tokens import Certificate

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

TARGET = Target("3.11", "linux/amd64")
SECRET = "Basic " + b64encode(b"reader:secret").decode()
MakeWheel = Callable[..., LockedWheel]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let uv know nothing from before and try nothing twice."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")


def path_of(wheel: LockedWheel) -> Path:
    return Path(urlsplit(wheel.url).path)


@asynccontextmanager
async def index(
    *wheels: LockedWheel,
    secret: str = "",
    yanked: str = "",
    status: int = 200,
    delay: float = 0,
    tls: Certificate | None = None,
) -> AsyncIterator[str]:
    """Serve wheels as PEP 503 says; gives the address of the index."""
    files = {path_of(wheel).name: path_of(wheel).read_bytes() for wheel in wheels}

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        if secret and request.headers.get("authorization") != secret:
            return web.Response(status=401, headers={"www-authenticate": "Basic"})
        if status != 200:
            return web.Response(status=status)
        *_, name, last = request.path.split("/")
        if last in files:
            return web.Response(body=files[last])
        links = "".join(
            f'<a href="/files/{file}#sha256={sha256(content).hexdigest()}"{attribute}>{file}</a>'
            for file, content in files.items()
            if file.startswith(f"{name}-")
        )
        return web.Response(text=links, content_type="text/html", status=200 if links else 404)

    attribute = f' data-yanked="{yanked}"' if yanked else ""
    async with serving(answer, tls.served() if tls else None) as origin:
        yield f"{origin}/simple"


async def lock(*requirements: str, indexes: tuple[str, ...], ca_bundle: Path | None = None) -> Lock:
    config = BuilderConfig(index_urls=indexes, ca_bundle=ca_bundle)
    return await resolve(requirements, TARGET, config=config)


def versions(found: Lock) -> Mapping[str, str]:
    return {wheel.name: wheel.version for wheel in found.wheels}


def keep_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the Secret as the chart mounts it."""
    secrets = folder / "netrc"
    secrets.write_text("machine 127.0.0.1 login reader password secret\n")
    monkeypatch.setenv("NETRC", str(secrets))


async def test_the_first_of_several_indexes_that_has_a_package_gives_it(
    make_wheel: MakeWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = make_wheel({}, "toy", "1.0"), make_wheel({}, "toy", "2.0")
    other = make_wheel({}, "other", "1.0")
    keep_secret(tmp_path, monkeypatch)
    async with index(ours, secret=SECRET) as private, index(theirs, other) as public:
        found = await lock("toy<3", "other<2", indexes=(public, private))
        # uv asks those of --index before the default one.
        assert versions(found) == {"toy": "1.0", "other": "1.0"}
        async with connected(RegistryConfig(host="x"), None) as connections:
            store = WheelStore(tmp_path, await connections.index())
            fetched = [await store.fetch(wheel) for wheel in found.wheels]
    assert [path.read_bytes() for path in fetched] == [
        path_of(other).read_bytes(),
        path_of(ours).read_bytes(),
    ]


async def test_a_folder_of_wheels_will_do_without_any_index(
    make_wheel: MakeWheel, tmp_path: Path
) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for wheel in (make_wheel({}, "toy", "1.0"), make_wheel({}, "toy", "2.0")):
        path_of(wheel).rename(folder / path_of(wheel).name)
    found = await lock("toy<3", indexes=(folder.as_uri(),))
    assert versions(found) == {"toy": "2.0"}
    async with connected(RegistryConfig(host="x"), None) as connections:
        store = WheelStore(tmp_path, await connections.index())
        (wheel,) = (await store.sized(found)).wheels
        path = await store.fetch(wheel)
        assert (path.parent, path.stat().st_size) == (folder, wheel.size)
        path.write_bytes(b"another")
        with pytest.raises(BuildError, match="find out who changed it"):
            await store.fetch(wheel)
        path.unlink()
        with pytest.raises(BuildError, match="wheels does not have it any more") as caught:
            await store.fetch(wheel)
    assert caught.value.failure.reason == "PackageCorrupt"


async def test_the_runtimes_own_wheels_come_from_there_as_well(
    make_wheel: MakeWheel, configure: Configure, mlflow: RunningMlflow, tmp_path: Path
) -> None:
    """Its lock names addresses of PyPI, which such a cluster does not reach."""
    runtime = make_wheel({}, "modelops_runtime", "0.1.0", requires="toy==1.0")
    toy = make_wheel({"toy.py": b""})
    place = tmp_path / "bundle" / "0.1.0"
    place.mkdir(parents=True)
    path_of(runtime).rename(place / runtime.filename)
    wheel = f'{{url = "https://pypi.invalid/{toy.filename}", hashes = {{sha256 = "{toy.sha256}"}}}}'
    package = f'{{name = "toy", version = "1.0", wheels = [{wheel}]}}'
    (place / "pylock.toml").write_text(
        f'lock-version = "1.0"\ncreated-by = "us"\npackages = [{package}]\n'
    )
    ours = {"runtimeBundle": str(place.parent), "indexUrls": [path_of(toy).parent.as_uri()]}
    config = OperatorConfig.model_validate(configure(builder=ours))
    models = release(mlflow, tmp_path / "models", "away", "away")
    built = await build(config, spec_of(models, config, "away"))
    assert built.form == "Fast"
    assert built.lock == read_bundle(place.parent, "0.1.0").lock(TARGET).digest


async def test_an_index_is_reached_by_the_proxy_that_the_environment_names(
    make_wheel: MakeWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What answers here is asked for an address that nobody else could find."""
    toy = make_wheel({})
    async with index(toy) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.removesuffix("/simple"))
        found = await lock("toy==1.0", indexes=("http://index.invalid/simple",))
        assert found.wheels[0].url.startswith("http://index.invalid/")
        async with connected(RegistryConfig(host="x"), None) as connections:
            store = WheelStore(tmp_path, await connections.index())
            fetched = await store.fetch(found.wheels[0])
    assert fetched.read_bytes() == path_of(toy).read_bytes()


async def test_an_index_that_only_the_configured_certificates_vouch_for(
    make_wheel: MakeWheel,
    certificate: Certificate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelops_operator.builder.wheels.ATTEMPTS", 1)
    toy = make_wheel({})
    async with index(toy, tls=certificate) as address:
        found = await lock("toy==1.0", indexes=(address,), ca_bundle=certificate.path)
        assert versions(found) == {"toy": "1.0"}
        async with connected(RegistryConfig(host="x"), certificate.path) as connections:
            store = WheelStore(tmp_path, await connections.index())
            fetched = await store.fetch(found.wheels[0])
        assert fetched.read_bytes() == path_of(toy).read_bytes()
        fetched.unlink()
        with pytest.raises(BuildError, match=r"certificate.*`builder\.caBundle`") as resolving:
            await lock("toy==1.0", indexes=(address,))
        async with connected(RegistryConfig(host="x"), None) as connections:
            store = WheelStore(tmp_path, await connections.index())
            with pytest.raises(BuildError, match=r"CERTIFICATE.*`builder\.caBundle`") as fetching:
                await store.fetch(found.wheels[0])
    for caught in (resolving, fetching):
        assert caught.value.failure.reason == "PackageIndexUnreachable"


async def test_a_lock_is_kept_although_the_index_moves_on(
    make_wheel: MakeWheel, registry: RunningRegistry
) -> None:
    """The same model gives the same image a year later, from another builder too."""

    async def answer(question: str, *wheels: LockedWheel) -> Mapping[str, str]:
        async with index(*wheels) as address, registry.connect() as client:
            locks = Locks(Repository(client, "locks/cache"))
            return versions(await locks.answer(question, lambda: lock("toy<3", indexes=(address,))))

    first = make_wheel({}, "toy", "1.0")
    assert await answer("toy<3", first) == {"toy": "1.0"}
    assert await answer("toy<3", make_wheel({}, "toy", "2.0"), first) == {"toy": "1.0"}
    assert await answer("toy<3, anew", make_wheel({}, "toy", "2.0"), first) == {"toy": "2.0"}


async def test_an_index_that_wants_credentials_is_told(
    make_wheel: MakeWheel, tmp_path: Path
) -> None:
    async with index(make_wheel({}), secret=SECRET) as address:
        with pytest.raises(BuildError, match="check the index's credentials") as resolving:
            await lock("toy==1.0", indexes=(address,))
        wheel = LockedWheel(
            name="toy", version="1.0", sha256="0", size=0, url=f"{address}/toy-1.0.whl"
        )
        async with connected(RegistryConfig(host="x"), None) as connections:
            with pytest.raises(BuildError, match="check the index's credentials") as fetching:
                await WheelStore(tmp_path, await connections.index()).fetch(wheel)
    for caught in (resolving, fetching):
        assert caught.value.failure.reason == "PackageIndexDenied"
        assert caught.value.failure.permanent


@pytest.mark.parametrize("fault", [{"delay": 3}, {"status": 503}, {"status": 502}])
async def test_an_index_that_is_slow_or_broken_is_tried_again(
    make_wheel: MakeWheel, fault: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "1")
    async with index(make_wheel({}), **fault) as address:
        with pytest.raises(BuildError, match="does not answer") as caught:
            await lock("toy==1.0", indexes=(address,))
    assert caught.value.failure.reason == "PackageIndexUnreachable"
    assert not caught.value.failure.permanent


async def test_an_index_is_asked_again_when_it_wants_to_be(
    make_wheel: MakeWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, pauses = make_wheel({}), list[float]()
    for name in "ab":
        (tmp_path / name).mkdir()
    sleep = asyncio.sleep

    async def skip(seconds: float) -> None:
        pauses.extend([seconds] if seconds else [])
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", skip)
    answers = ["7", "9", "", "3600"]

    async def answer(_: web.Request) -> web.Response:
        if asked := answers.pop(0):
            return web.Response(status=429, headers={"retry-after": asked})
        return web.Response(body=path_of(wheel).read_bytes())

    async with serving(answer) as origin, connected(RegistryConfig(host="x"), None) as connections:
        far = replace(wheel, url=f"{origin}/toy.whl")
        client = await connections.index()
        path = await WheelStore(tmp_path / "a", client).fetch(far)
        assert path.read_bytes() == path_of(wheel).read_bytes()
        with pytest.raises(BuildError, match="it answers 429") as caught:
            await WheelStore(tmp_path / "b", client).fetch(far)
    assert pauses == [7.0, 9.0]
    assert not caught.value.failure.permanent


async def test_a_package_that_nobody_has_is_told(make_wheel: MakeWheel) -> None:
    async with index(make_wheel({})) as address:
        with pytest.raises(BuildError, match="nobody-has-it was not found") as caught:
            await lock("nobody-has-it==1.0", indexes=(address,))
    assert caught.value.failure.reason == "RequirementsUnresolvable"
    assert caught.value.failure.permanent


async def test_what_was_yanked_is_taken_where_it_is_pinned_only(make_wheel: MakeWheel) -> None:
    """As PEP 592 has it: a model registered before goes on being built."""
    async with index(make_wheel({}), yanked="it loses data") as address:
        assert versions(await lock("toy==1.0", indexes=(address,))) == {"toy": "1.0"}
        with pytest.raises(BuildError, match=r"yanked.*it loses data") as caught:
            await lock("toy<2", indexes=(address,))
    assert caught.value.failure.reason == "RequirementsUnresolvable"
    assert caught.value.failure.permanent
