from pathlib import Path

import pytest
from modelops_operator.api.config import BuilderConfig
from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.lock import Lock, LockedWheel, read_lock, resolve
from modelops_operator.builder.target import Target
from packaging.tags import Tag

TARGET = Target("3.11", "linux/amd64")


def lock_of(*packages: str) -> bytes:
    return (
        'lock-version = "1.0"\ncreated-by = "test"\n'
        + "".join(f"[[packages]]\n{text}\n" for text in packages)
    ).encode()


def package(name: str, *filenames: str, marker: str = "") -> str:
    wheels = ", ".join(
        f'{{url = "https://example.org/{file}", size = 3, hashes = {{sha256 = "{index:064}"}}}}'
        for index, file in enumerate(filenames)
    )
    line = f"marker = '''{marker}'''\n" if marker else ""
    return f'name = "{name}"\nversion = "1.0"\n{line}wheels = [{wheels}]\n'


@pytest.mark.unit
@pytest.mark.parametrize(
    ("filenames", "best"),
    [
        (("t-1.0-py3-none-any.whl", "t-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"), 1),
        (("t-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "t-1.0-py3-none-any.whl"), 0),
        (("t-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", "t-1.0-py3-none-any.whl"), 1),
        (("t-1.0-cp38-abi3-manylinux2014_x86_64.whl", "t-1.0-py3-none-any.whl"), 0),
        (("t-1.0-cp311-cp311-musllinux_1_2_x86_64.whl", "t-1.0-py3-none-any.whl"), 1),
        (("t-1.0-cp311-cp311-manylinux_2_39_x86_64.whl", "t-1.0-py3-none-any.whl"), 1),
        (("t-1.0-cp311-cp311-macosx_11_0_arm64.whl", "t-1.0-py2.py3-none-any.whl"), 1),
    ],
)
def test_picks_the_wheel_that_runs_there(filenames: tuple[str, ...], best: int) -> None:
    lock = read_lock(lock_of(package("t", *filenames)), TARGET, origin="the test")
    assert [wheel.filename for wheel in lock.wheels] == [filenames[best]]


@pytest.mark.unit
def test_leaves_out_what_is_for_elsewhere() -> None:
    content = lock_of(
        package("a", "a-1.0-py3-none-any.whl", marker='python_full_version >= "3.12"'),
        package("b", "b-1.0-py3-none-any.whl", marker='sys_platform == "win32"'),
        package("c", "c-1.0-py3-none-any.whl", marker='python_version < "3.12"'),
    )
    lock = read_lock(content, TARGET, origin="the test")
    assert [wheel.name for wheel in lock.wheels] == ["c"]


@pytest.mark.unit
def test_names_a_package_without_a_wheel() -> None:
    content = lock_of(package("t", "t-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"))
    with pytest.raises(
        BuildError, match=r"t 1\.0 has no wheel for Python 3\.11 on linux/amd64"
    ) as caught:
        read_lock(content, TARGET, origin="the test")
    assert caught.value.failure.reason == "RequirementsUnresolvable"
    assert "require another version" in caught.value.failure.message


@pytest.mark.unit
@pytest.mark.parametrize("content", [b"", b"[[packages]]\n", b"\xff", b"packages = 3", b"}"])
def test_tells_of_a_lock_that_cannot_be_read(content: bytes) -> None:
    with pytest.raises(BuildError, match="the lock of the test cannot be read"):
        read_lock(content, TARGET, origin="the test")


@pytest.mark.unit
def test_the_digest_is_of_what_is_installed_not_of_where_it_is_from() -> None:
    def lock(url: str, sha256: str = "aa") -> Lock:
        return Lock((LockedWheel(name="t", version="1", sha256=sha256, size=1, url=url),))

    assert lock("https://a.example/t.whl").digest == lock("https://b.example/t.whl").digest
    assert lock("https://a.example/t.whl").digest != lock("https://a.example/t.whl", "bb").digest


@pytest.mark.unit
def test_arm_wheels_are_for_arm() -> None:
    ranks = Target("3.12", "linux/arm64").ranks
    assert Tag("cp312", "cp312", "manylinux_2_17_aarch64") in ranks
    assert not [tag for tag in ranks if "x86_64" in tag.platform]


@pytest.mark.unit
def test_refuses_platforms_that_nobody_builds_for() -> None:
    with pytest.raises(BuildError, match="windows/amd64 cannot be built"):
        Target("3.11", "windows/amd64")


# --- against the real index --------------------------------------------------------------


@pytest.mark.contract
@pytest.mark.anyio
async def test_resolves_to_wheels_with_hashes() -> None:
    lock = await resolve(["packaging>=24,<26", "tomli==2.0.1"], TARGET, config=BuilderConfig())
    found = {wheel.name: wheel for wheel in lock.wheels}
    assert set(found) == {"packaging", "tomli"}
    assert found["tomli"].version == "2.0.1"
    assert all(len(wheel.sha256) == 64 and wheel.size > 0 for wheel in lock.wheels)
    assert all(wheel.url.startswith("https://") for wheel in lock.wheels)


@pytest.mark.contract
@pytest.mark.anyio
async def test_takes_the_versions_of_the_runtime_where_it_may() -> None:
    preferred = lock_of(package("packaging", "packaging-1.0-py3-none-any.whl")).replace(
        b'"1.0"\nwheels', b'"24.1"\nwheels'
    )
    lock = await resolve(["packaging>=24,<26"], TARGET, config=BuilderConfig(), preferred=preferred)
    assert [wheel.version for wheel in lock.wheels] == ["24.1"]


@pytest.mark.contract
@pytest.mark.anyio
@pytest.mark.parametrize(
    "requirements",
    [
        ["packaging==24.0", "packaging==24.1"],
        ["packaging==999"],
        ["scipy==1.5.0"],  # has no wheel for this Python
    ],
)
async def test_says_in_words_why_there_is_no_solution(requirements: list[str]) -> None:
    with pytest.raises(BuildError, match=r"cannot be met with wheels") as caught:
        await resolve(requirements, TARGET, config=BuilderConfig())
    assert caught.value.failure.reason == "RequirementsUnresolvable"
    assert caught.value.failure.permanent
    assert requirements[0].partition("=")[0] in caught.value.failure.message
    assert "uv pip" not in caught.value.failure.message + caught.value.log


@pytest.mark.contract
@pytest.mark.anyio
async def test_says_when_the_index_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    config = BuilderConfig(index_urls=("http://127.0.0.1:9/simple",))
    with pytest.raises(BuildError, match="does not answer") as caught:
        await resolve(["packaging==24.0"], TARGET, config=config)
    assert caught.value.failure.reason == "PackageIndexUnreachable"
    assert not caught.value.failure.permanent
