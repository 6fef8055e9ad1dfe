import csv
import io
import marshal
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import CodeType
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelops_operator.builder.bytecode import Compiler, same_version
from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.layers import Entry, write_layer
from modelops_operator.builder.lock import LockedWheel, local_wheel
from modelops_operator.builder.wheels import frame, installed

pytestmark = pytest.mark.unit

MakeWheel = Callable[..., LockedWheel]

PYTHON = "3.11" if same_version("3.11") else "3.12" if same_version("3.12") else "3.13"
SITE = f"opt/venv/lib/python{PYTHON}/site-packages"


def install(wheel: LockedWheel, python: str = PYTHON) -> Mapping[str, tuple[Entry, bytes]]:
    path = Path(urlsplit(wheel.url).path)
    with ExitStack() as stack:
        entries = list(installed([(wheel, path)], python, stack))
        return {entry.path: (entry, entry.open().read()) for entry in entries}


def test_lays_out_modules_scripts_and_data(make_wheel: MakeWheel) -> None:
    wheel = make_wheel(
        {
            "toy/__init__.py": b"X = 1\n",
            "toy/lib.so": b"\x7fELF",
            "toy-1.0.data/purelib/pure.py": b"",
            "toy-1.0.data/platlib/plat.py": b"",
            "toy-1.0.data/scripts/run": b"#!python\nprint()\n",
            "toy-1.0.data/scripts/tool": b"\x7fELF",
            "toy-1.0.data/data/share/toy/file": b"data",
            "toy-1.0.data/headers/toy.h": b"//",
            "toy-1.0.dist-info/entry_points.txt": b"[console_scripts]\n"
            b"toy = toy.cli:App.main\nToy-2=toy:main [extra]\n[other]\nx = y\n",
        },
        modes={"toy/lib.so": 0o104755, "toy/__init__.py": 0o100600},
    )
    files = install(wheel)
    assert {path for path in files if not path.startswith(f"{SITE}/toy-1.0.dist-info")} == {
        f"{SITE}/toy/__init__.py",
        f"{SITE}/toy/__pycache__/__init__.cpython-{PYTHON.replace('.', '')}.pyc",
        f"{SITE}/toy/lib.so",
        f"{SITE}/pure.py",
        f"{SITE}/__pycache__/pure.cpython-{PYTHON.replace('.', '')}.pyc",
        f"{SITE}/plat.py",
        f"{SITE}/__pycache__/plat.cpython-{PYTHON.replace('.', '')}.pyc",
        "opt/venv/bin/run",
        "opt/venv/bin/tool",
        "opt/venv/bin/toy",
        "opt/venv/bin/Toy-2",
        "opt/venv/share/toy/file",
        f"opt/venv/include/site/python{PYTHON}/toy/toy.h",
    }
    assert files[f"{SITE}/toy/lib.so"][0].executable, "and no setuid bit, which entries lack"
    assert not files[f"{SITE}/toy/__init__.py"][0].executable
    assert files["opt/venv/bin/run"][1] == b"#!/opt/venv/bin/python3\nprint()\n"
    assert files["opt/venv/bin/tool"][1] == b"\x7fELF"
    script = files["opt/venv/bin/toy"]
    assert script[0].executable
    assert script[1].startswith(b"#!/opt/venv/bin/python3\nimport sys\n\nfrom toy.cli import App\n")
    assert b"sys.exit(App.main())" in script[1]


def test_the_record_lists_every_file_with_its_hash(make_wheel: MakeWheel) -> None:
    wheel = make_wheel(
        {
            "toy.py": b"X = 1\n",
            "with,comma.txt": b"",
            "toy-1.0.dist-info/entry_points.txt": b"[console_scripts]\ntoy = toy:main\n",
        }
    )
    files = install(wheel)
    record = files[f"{SITE}/toy-1.0.dist-info/RECORD"][1].decode()
    rows = list(csv.reader(io.StringIO(record)))
    listed = {
        name.replace("../../..", "opt/venv") if name.startswith("..") else f"{SITE}/{name}"
        for name, _, _ in rows
    }
    assert listed == set(files)
    sizes = {name: int(size) for name, _, size in rows if size}
    assert sizes["toy.py"] == 6
    assert sizes["../../../bin/toy"] == len(files["opt/venv/bin/toy"][1])
    assert not [
        name for name, hash_, _ in rows if not hash_ and not name.endswith(("pyc", "RECORD"))
    ]


def test_byte_code_has_the_final_path_and_is_never_checked(make_wheel: MakeWheel) -> None:
    files = install(make_wheel({"toy.py": b"def f(): pass\n", "bad.py": b"def (:\n"}))
    name = f"{SITE}/__pycache__/toy.cpython-{PYTHON.replace('.', '')}.pyc"
    pyc = files[name][1]
    assert pyc[4:8] == b"\x01\0\0\0"
    code = marshal.loads(pyc[16:])
    assert isinstance(code, CodeType)
    assert code.co_filename == f"/{SITE}/toy.py"
    assert f"{SITE}/bad.py" in files
    assert not [path for path in files if "bad" in path and path.endswith(".pyc")]


def test_leaves_byte_code_out_where_it_would_not_run(make_wheel: MakeWheel) -> None:
    files = install(make_wheel({"toy.py": b"", "__pycache__/toy.cpython-39.pyc": b""}), "3.99")
    assert not [path for path in files if path.endswith(".pyc")]


def test_byte_code_does_not_depend_on_what_was_compiled_by_others() -> None:
    source = b"def f(a):\n    return a in {'x', 'y', 3}, 'long text with spaces', (1, 2.5)\n"
    results = set()
    for _ in range(2):
        with Compiler() as compiler:
            results.add(compiler.compile(source, "/opt/a.py"))
    assert len(results) == 1


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "/etc/evil", "toy/../../evil", "a\\b.py", "C:evil", "line\nbreak.py"],
)
def test_refuses_names_that_leave_their_place(make_wheel: MakeWheel, name: str) -> None:
    with pytest.raises(BuildError, match="holds a file of the name") as caught:
        install(make_wheel({name: b""}))
    assert caught.value.failure.reason == "PackageCorrupt"


def record_of(content: bytes) -> dict[str, object]:
    info = "toy-1.0.dist-info"
    files = {
        "toy.py": b"X = 1\n",
        "toy.so": b"\x7fELF",
        "toy-1.0.data/scripts/run": b"#!",
        f"{info}/METADATA": b"",
        f"{info}/RECORD": content,
    }
    return {"files": files, "bare": True}


def corrupt(error: BuildError) -> bool:
    return error.failure.reason == "PackageCorrupt" and error.failure.permanent


@pytest.mark.parametrize(
    ("wheel", "why"),
    [
        ({"files": {"link": b"/etc/passwd"}, "modes": {"link": 0o120777}}, "not a plain file"),
        ({"files": {"device": b""}, "modes": {"device": 0o060644}}, "not a plain file"),
        ({"files": {"toy-1.0.data/elsewhere/x": b""}}, "place is not known"),
        ({"files": {"toy-1.0.data/x": b""}}, "place is not known"),
        ({"files": {"toy.py": b""}, "bare": True}, "0 folders of metadata"),
        ({"files": {"other-1.dist-info/METADATA": b""}}, "2 folders of metadata"),
        ({"files": {"toy-1.0.dist-info/METADATA": b""}, "bare": True}, "no RECORD"),
        (
            {"files": {"toy-1.0.dist-info/entry_points.txt": b"[console_scripts]\n../x = a:b"}},
            "console script",
        ),
        (
            {"files": {"toy-1.0.dist-info/entry_points.txt": b"[console_scripts]\nx = a:b;c"}},
            "console script",
        ),
        ({"files": {"toy-1.0.dist-info/entry_points.txt": b"no section"}}, "is damaged"),
        (record_of(b"toy.py,,7\n"), "'toy.py', of another size than it says"),
        (record_of(b"toy.py,sha256=abc,6\n"), "'toy.py', with another hash than it says"),
        (record_of(b"toy.so,sha256=abc,4\n"), "'toy.so', with another hash than it says"),
        (
            record_of(b"toy-1.0.data/scripts/run,sha256=abc,2\n"),
            "'toy-1.0.data/scripts/run', with another hash than it says",
        ),
        (record_of(b"\xff"), "is damaged"),
    ],
)
def test_refuses_wheels_that_are_not_sound(
    make_wheel: MakeWheel, wheel: Mapping[str, object], why: str
) -> None:
    with pytest.raises(BuildError, match=f"{why}(?s:.*)require another version", check=corrupt):
        install(make_wheel(**wheel))


@pytest.mark.parametrize(
    ("name", "limit", "why"),
    [
        ("toy.py", "LARGEST_SOURCE", "'toy.py', which is larger than any source"),
        ("toy-1.0.dist-info/entry_points.txt", "LARGEST_SOURCE", "is larger than any source"),
        ("toy.bin", "LARGEST_WHEEL", "unpacks to more than any package may have"),
    ],
)
def test_refuses_bombs_before_they_go_off(
    make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch, name: str, limit: str, why: str
) -> None:
    wheel = make_wheel({name: bytes(5000)})
    monkeypatch.setattr(f"modelops_operator.builder.wheels.{limit}", 4999)
    with pytest.raises(BuildError, match=why) as caught:
        install(wheel)
    assert caught.value.failure.reason == "PackageCorrupt"


def test_a_bomb_that_hides_its_size_is_damaged(make_wheel: MakeWheel) -> None:
    """What unpacks to more than the archive says is read no further than that."""
    path = Path(urlsplit(make_wheel({"toy.bin": b"1" * 5000}).url).path)
    content = path.read_bytes()
    assert content.count((5000).to_bytes(4, "little")) == 4
    path.write_bytes(content.replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(BuildError, match=r"another size|is damaged"):
        install(local_wheel(path))


def test_refuses_what_is_no_archive(make_wheel: MakeWheel) -> None:
    wheel = make_wheel({"toy.py": b""})
    Path(urlsplit(wheel.url).path).write_bytes(b"not a zip")
    with pytest.raises(BuildError, match="is damaged"):
        install(wheel)


class Dying(Compiler):
    """A compiler that is killed, as by the kernel when memory is short."""

    def __init__(self) -> None:
        super().__init__()
        self._process.kill()
        self._process.wait()


def test_a_compiler_that_dies_is_no_fault_of_the_wheel(
    make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelops_operator.builder.wheels.Compiler", Dying)
    with pytest.raises(BuildError, match="more memory") as caught:
        install(make_wheel({"toy.py": b"X = 1"}))
    assert not caught.value.failure.permanent


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A wheel with everything that a wheel may have."""
    path = tmp_path_factory.mktemp("sound") / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {
            "toy/__init__.py": b"X = 1\n" * 40,
            "toy/data.bin": bytes(range(256)),
            "toy-1.0.data/scripts/run": b"#!python\nprint()\n",
            "toy-1.0.dist-info/METADATA": b"Name: toy\nVersion: 1.0\n",
            "toy-1.0.dist-info/entry_points.txt": b"[console_scripts]\ntoy = toy:main\n",
            "toy-1.0.dist-info/RECORD": b"toy/__init__.py,,240\ntoy/data.bin,sha256="
            b"QK_y6dLYki5Hr9RkjmlnSXFYeF-9Hahw5xECZr-USIA,256\n",
        }.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path.read_bytes()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.integers(0, 2**16),
)
def test_whatever_the_bytes_it_is_laid_out_in_its_place_or_refused(
    sound: bytes, tmp_path: Path, edits: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(sound if cut % 4 else sound[: cut % len(sound)])
    for place, value in edits:
        if content:
            content[place % len(content)] = value
    path = tmp_path / "toy-1.0-py3-none-any.whl"
    path.write_bytes(content)
    wheel = local_wheel(path)
    refusal, entries = None, list[Entry]()
    with ExitStack() as stack:
        try:
            entries += installed([(wheel, path)], PYTHON, stack)
            write_layer(entries, tmp_path / "layer", content="toy")
        except BuildError as error:
            refusal = error.failure
    if refusal:
        assert (refusal.reason, path.name in refusal.message) == ("PackageCorrupt", True)
        return
    for entry in entries:
        assert entry.path.startswith("opt/venv/")
        assert ".." not in entry.path.split("/")


def test_the_frame_is_a_virtual_environment_of_the_base_images_python() -> None:
    files = {entry.path: entry for entry in frame("3.11")}
    assert files["opt/venv/bin/python3"].link == "/usr/bin/python3.11"
    assert b"home = /usr/bin\n" in files["opt/venv/pyvenv.cfg"].open().read()
