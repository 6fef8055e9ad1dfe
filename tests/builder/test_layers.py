import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from modelops_operator.builder.layers import CONTENT, DIFF_ID, Entry, Layer, write_layer

pytestmark = pytest.mark.unit

PROGRAM = """
import sys
from pathlib import Path
from modelops_operator.builder.layers import Entry, write_layer
names = {"b/x", "a", "b/a/deep", "z" * 150 + "/long", "é/ü"}
entries = [Entry.of(name, name.encode() * 1000) for name in names]
layer, _ = write_layer(entries, Path(sys.argv[1]), content="test")
print(layer.digest)
"""


def test_writes_sorted_names_without_time_or_owner(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from a file")
    source.chmod(0o600)
    entries = [
        Entry.of("opt/z/script", b"#!", executable=True),
        Entry.from_file("opt/a", source),
        Entry.symlink("opt/link", "/usr/bin/python3"),
    ]
    _, blob = write_layer(entries, tmp_path / "layer", content="test")
    assert isinstance(blob.content, Path)
    with tarfile.open(blob.content) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == [
        "opt",
        "opt/a",
        "opt/link",
        "opt/z",
        "opt/z/script",
    ]
    assert [member.mode for member in members] == [0o755, 0o644, 0o777, 0o755, 0o755]
    assert {(member.uid, member.gid, member.mtime, member.uname) for member in members} == {
        (0, 0, 0, "")
    }
    assert members[2].linkname == "/usr/bin/python3"


def test_tells_the_digests_of_what_it_wrote(tmp_path: Path) -> None:
    layer, blob = write_layer([Entry.of("a", b"x" * 3_000_000)], tmp_path / "l", content="test")
    compressed = (tmp_path / "l").read_bytes()
    assert layer.digest == blob.digest == f"sha256:{hashlib.sha256(compressed).hexdigest()}"
    assert layer.size == blob.size == len(compressed)
    plain = gzip.decompress(compressed)
    assert layer.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert compressed[4:8] == bytes(4), "the gzip header has no time"


def test_the_later_of_two_files_of_one_name_is_kept(tmp_path: Path) -> None:
    entries = [Entry.of("a", b"first"), Entry.of("a", b"second")]
    write_layer(entries, tmp_path / "layer", content="test")
    with tarfile.open(tmp_path / "layer") as archive:
        (member,) = archive.getmembers()
        file = archive.extractfile(member)
        assert file is not None
        assert file.read() == b"second"


def test_is_the_same_in_another_folder_process_and_mask(tmp_path: Path) -> None:
    digests = set()
    for seed, mask in (("1", 0o022), ("2", 0o077)):
        folder = tmp_path / seed
        folder.mkdir()
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, folder / "layer"],
            cwd=folder,
            env=os.environ | {"PYTHONHASHSEED": seed, "TMPDIR": str(folder)},
            umask=mask,
            check=True,
            capture_output=True,
            text=True,
        )
        digests.add(result.stdout)
    assert len(digests) == 1


def test_a_descriptor_survives_the_registry() -> None:
    layer = Layer(digest="sha256:1", size=3, diff_id="sha256:2", content="numpy 2.4.6")
    descriptor = layer.descriptor()
    assert descriptor["annotations"] == {DIFF_ID: "sha256:2", CONTENT: "numpy 2.4.6"}
    assert Layer.read(descriptor) == layer
