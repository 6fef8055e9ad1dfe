"""What is in a model's folder is what its flavor says, and no pickle."""

import pickle
from pathlib import Path

import orjson
import pytest
from modelops_runtime import flavor
from modelops_runtime.flavor import FlavorError

pytestmark = pytest.mark.unit

FILES = {"schema.json": b"{}", "profile.json": b"{}", "parity.json": b"[]"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    flavor.write_data(tmp_path, "drift", "profile", FILES, train_id="t1")
    return tmp_path


def test_reads_what_was_written(model: Path) -> None:
    info = flavor.read(model)
    assert (info.role, info.kind, info.train_id) == ("drift", "profile", "t1")
    assert info.load("parity.json") == b"[]"
    assert flavor.exists(model)
    flavor.verify(info)


def test_the_keys_for_mlmodel_are_those_of_the_file(tmp_path: Path) -> None:
    keys = flavor.write_data(tmp_path, "drift", "profile", FILES)
    assert keys == orjson.loads((tmp_path / "modelops" / "flavor.json").read_bytes())
    assert "train_id" not in keys
    assert keys["version"] == flavor.FLAVOR_VERSION


def test_a_flipped_byte_is_refused_by_name(model: Path) -> None:
    (model / "modelops" / "profile.json").write_bytes(b"[]")
    info = flavor.read(model)
    with pytest.raises(FlavorError, match=r"profile\.json: its sha256 is"):
        flavor.verify(info)
    with pytest.raises(FlavorError, match=r"profile\.json: its sha256 is"):
        info.load("profile.json")


def test_a_missing_file_is_refused_by_name(model: Path) -> None:
    (model / "modelops" / "profile.json").unlink()
    with pytest.raises(FlavorError, match=r"profile\.json: No such file"):
        flavor.verify(flavor.read(model))


@pytest.mark.parametrize("extra", ["more.json", "model.pkl", "deep/more.json"])
def test_an_extra_file_is_refused_by_name(model: Path, extra: str) -> None:
    path = model / "modelops" / extra
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(FlavorError, match=extra.partition("/")[0]):
        flavor.verify(flavor.read(model))


def test_a_link_is_refused(model: Path) -> None:
    path = model / "modelops" / "parity.json"
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(FlavorError, match=r"parity\.json: is not a plain file"):
        flavor.verify(flavor.read(model))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.pkl", b""),
        ("m.PICKLE", b""),
        ("m.joblib.gz", b""),
        ("m.skops", b""),
        ("m.npy", b""),
        *((f"m{protocol}", pickle.dumps([1], protocol)) for protocol in range(2, 6)),
        ("zip", b"PK\x03\x04more"),
        ("gz", b"\x1f\x8bmore"),
        ("numpy", b"\x93NUMPYmore"),
    ],
)
def test_pickles_are_refused_by_name_and_by_content(
    tmp_path: Path, name: str, content: bytes
) -> None:
    with pytest.raises(FlavorError, match=name):
        flavor.write_data(tmp_path, "drift", "profile", {**FILES, name: content})


@pytest.mark.parametrize("name", ["../up", "a/b", "", "flavor.json", ".hidden", "a\n"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FlavorError, match="not a file name"):
        flavor.write_data(tmp_path, "drift", "profile", {**FILES, name: b""})


@pytest.mark.parametrize("role", ["predictor", "outlier", "drift"])
def test_each_role_needs_its_files(tmp_path: Path, role: str) -> None:
    with pytest.raises(FlavorError, match=f"a {role} model needs"):
        flavor.write_data(tmp_path, role, "x", {"schema.json": b"{}"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not understood"),
        (b"[]", "not understood"),
        (b'{"version": 2}', "version 2 is not known"),
        (b'{"version": 1, "role": "x", "kind": "y", "files": {}}', "role 'x' is not one of"),
        (b'{"version": 1, "role": "drift", "kind": "y", "files": []}', "not understood"),
    ],
)
def test_a_description_that_is_not_understood_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "modelops").mkdir()
    (tmp_path / "modelops" / "flavor.json").write_bytes(content)
    with pytest.raises(FlavorError, match=message):
        flavor.read(tmp_path)


def test_a_model_without_the_flavor_is_told(tmp_path: Path) -> None:
    assert not flavor.exists(tmp_path)
    with pytest.raises(FlavorError, match=r"flavor\.json: No such file"):
        flavor.read(tmp_path)
