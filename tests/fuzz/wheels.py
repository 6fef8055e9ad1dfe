"""Throws made-up wheels at the reader, led by the lines that they reach: `make fuzz`.

Half of them are archives of made-up files, which get past the checks of the archive itself; the
others are bytes. Each is laid out in its place or refused, and nothing else.
"""

import contextlib
import io
import sys
import warnings
import zipfile
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["modelops_operator.builder.wheels", "configparser"]):
    from modelops_operator.builder import wheels

from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.layers import Entry, write_layer
from modelops_operator.builder.lock import local_wheel

PYTHON = "3.99"
"""Nobody's, so that nothing is compiled: that would cost a process for each wheel."""
INFO = "toy-1.0.dist-info"
NAMES = (
    f"{INFO}/METADATA",
    f"{INFO}/RECORD",
    f"{INFO}/entry_points.txt",
    "toy-1.0.data/scripts/run",
    "toy/__init__.py",
)
PLACES = ["", "/", "../", "toy/../../", "toy-1.0.data/", "toy-1.0.data/data/", f"{INFO}/"]


def archive(data: atheris.FuzzedDataProvider) -> bytes:
    """Make an archive whose names, modes and contents are made up."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name in NAMES:
            if data.ConsumeProbability() < 0.9:
                target.writestr(zipfile.ZipInfo(name), data.ConsumeBytes(60))
        for _ in range(data.ConsumeIntInRange(0, 4)):
            place = data.PickValueInList(PLACES)
            member = zipfile.ZipInfo(place + data.ConsumeUnicodeNoSurrogates(20) + "x")
            member.external_attr = data.ConsumeIntInRange(0, 2**32 - 1)
            with contextlib.suppress(ValueError):  # what nobody can write need not be read
                target.writestr(member, data.ConsumeBytes(40))
    return file.getvalue()


def read(folder: Path, data: bytes) -> None:
    """Lay a wheel out. Raises AssertionError for a fault of the reader's, and what it let pass."""
    provider = atheris.FuzzedDataProvider(data)
    path = folder / "toy-1.0-py3-none-any.whl"
    made_up = provider.ConsumeBool()
    path.write_bytes(archive(provider) if made_up else provider.ConsumeBytes(len(data)))
    refusal, entries = None, list[Entry]()
    with ExitStack() as stack:
        try:
            entries += wheels.installed([(local_wheel(path), path)], PYTHON, stack)
            write_layer(entries, folder / "layer", content="toy")
        except BuildError as error:
            refusal = error.failure
    if refusal:
        assert refusal.reason == "PackageCorrupt", refusal
        assert path.name in refusal.message, refusal
    for entry in entries:
        assert entry.path.startswith("opt/venv/"), entry
        assert ".." not in entry.path.split("/"), entry
        assert not entry.link, entry


def main() -> None:
    """Fuzz as long as the options of libFuzzer say."""
    warnings.simplefilter("ignore")  # names that come twice
    with TemporaryDirectory() as folder:
        atheris.Setup(sys.argv, lambda data: read(Path(folder), data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
