"""The second flavor of our models: plain files that serve, without a pickle and without code.

A registered model has a folder `modelops` beside its MLmodel. Its `flavor.json` says what the
model is and what the digests of the other files are; `flavors.modelops` in MLmodel carries the
same. Readers use the former and need no YAML parser.

    predictor   schema.json, model.treelite, model.lgb.txt, parity.json       kind "treelite"
                schema.json, linear.json, encoder.json, parity.json           kind "linear"
    outlier     schema.json, detector.json, parity.json                       kind "mahalanobis"
    drift       schema.json, profile.json, parity.json                        kind "profile"

A predictor's encoder.json is what its pipeline does before the trees or the sum; without one they
read the schema's matrix as it is. The native file model.lgb.txt is there for LightGBM only.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Final

import orjson

FLAVOR: Final = "modelops"
"""Name of the flavor in MLmodel."""
FLAVOR_VERSION: Final = 1
DATA: Final = "modelops"
"""Name of the folder in the model."""
DESCRIPTION: Final = "flavor.json"

SCHEMA: Final = "schema.json"
PARITY: Final = "parity.json"
ENCODER: Final = "encoder.json"
LINEAR: Final = "linear.json"
TREELITE: Final = "model.treelite"
LIGHTGBM: Final = "model.lgb.txt"
PROFILE: Final = "profile.json"
DETECTOR: Final = "detector.json"

REQUIRED: Final[Mapping[str, frozenset[str]]] = {
    "predictor": frozenset({SCHEMA, PARITY}),
    "outlier": frozenset({SCHEMA, DETECTOR, PARITY}),
    "drift": frozenset({SCHEMA, PROFILE, PARITY}),
}
"""Files that a model of each role has to have."""
HEADS: Final = frozenset({LINEAR, TREELITE})
"""A predictor has one of these."""

_PICKLES: Final = re.compile(
    r"\.(pkl|pickle|pck|pcl|p|joblib|dill|cloudpickle|skops|npy|npz|pt|pth|bin|h5|keras)"
    r"(\.(gz|bz2|xz|lzma|zst))?$",
    re.IGNORECASE,
)
_MAGIC: Final = {
    b"PK\x03\x04": "an archive",  # skops, torch and npz files are zips that may hold pickles
    b"\x1f\x8b": "compressed",
    b"BZh": "compressed",
    b"\xfd7zXZ": "compressed",
    b"\x28\xb5\x2f\xfd": "compressed",
    b"\x93NUMPY": "a NumPy file, which may hold a pickle",
}
_HEAD: Final = 8
"""Bytes that tell what a file is."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class FlavorError(ValueError):
    """The files are not what the flavor says; the message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorInfo:
    """What a model says of itself."""

    role: str
    """predictor, drift or outlier."""
    kind: str
    files: Mapping[str, str]
    """The SHA-256 (hexadecimal) of each file in `directory`, by name."""
    directory: Path
    """The folder `modelops` of the model."""
    train_id: str | None = None
    """Shared by the models of one training."""

    def load(self, name: str) -> bytes:
        """Read a file and compare its digest. Raises FlavorError."""
        if name not in self.files:
            raise FlavorError(f"{self.directory}: a {self.role} model needs {name}")
        path = self.directory / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FlavorError(f"{path}: {error.strerror}") from error
        _compare(path, sha256(content).hexdigest(), self.files[name])
        return content


def exists(model_dir: Path) -> bool:
    """Whether the model in this folder has our flavor."""
    return (model_dir / DATA / DESCRIPTION).is_file()


def read(model_dir: Path) -> FlavorInfo:
    """Read what the model in this folder says of itself; nothing is verified yet.

    Raises FlavorError when flavor.json is missing or not understood.
    """
    path = model_dir / DATA / DESCRIPTION
    try:
        data = orjson.loads(path.read_bytes())
        version = data["version"]
        if version != FLAVOR_VERSION:
            raise FlavorError(f"{path}: version {version} is not known, only {FLAVOR_VERSION}")
        info = FlavorInfo(
            role=data["role"],
            kind=data["kind"],
            files={_plain_name(name, path): str(digest) for name, digest in data["files"].items()},
            directory=path.parent,
            train_id=data.get("train_id"),
        )
    except OSError as error:
        raise FlavorError(f"{path}: {error.strerror}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise FlavorError(f"{path}: not understood ({error!r})") from error
    if info.role not in REQUIRED:
        raise FlavorError(f"{path}: role {info.role!r} is not one of {', '.join(REQUIRED)}")
    return info


def verify(info: FlavorInfo) -> None:
    """Compare all files with their digests.

    Raises FlavorError for a file that differs, is missing, is not listed, is not a plain file,
    or is or may hold a pickle.
    """
    lacking = REQUIRED[info.role] - info.files.keys()
    if info.role == "predictor" and not HEADS & info.files.keys():
        lacking |= {TREELITE}
    if lacking:
        raise FlavorError(
            f"{info.directory}: a {info.role} model needs {', '.join(sorted(lacking))}"
        )
    found = set(_walk(info.directory)) - {DESCRIPTION}
    if extra := sorted(found - info.files.keys()):
        raise FlavorError(f"{info.directory / extra[0]}: is not listed in {DESCRIPTION}")
    for name, digest in info.files.items():
        _examine(info.directory / name, digest)


def write_data(
    directory: Path,
    role: str,
    kind: str,
    files: Mapping[str, bytes],
    train_id: str | None = None,
) -> dict[str, Any]:
    """Write the folder `modelops` into a model's directory; give the keys for `flavors.modelops`.

    The same input always gives the same bytes. Raises FlavorError for what `verify` would refuse.
    """
    folder = directory / DATA
    folder.mkdir(parents=True)
    digests = {name: sha256(files[name]).hexdigest() for name in sorted(files)}
    description = {
        "version": FLAVOR_VERSION,
        "role": role,
        "kind": kind,
        "files": digests,
        **({"train_id": train_id} if train_id is not None else {}),
    }
    for name, content in files.items():
        (folder / _plain_name(name, folder)).write_bytes(content)
    (folder / DESCRIPTION).write_bytes(orjson.dumps(description, option=orjson.OPT_INDENT_2))
    verify(read(directory))
    return description


def pickles(model_dir: Path) -> list[str]:
    """Name the files of a model that may be pickles, by their path inside it."""
    found = (path for path in model_dir.rglob("*") if _PICKLES.search(path.name))
    return sorted(path.relative_to(model_dir).as_posix() for path in found)


def _plain_name(name: str, place: Path) -> str:
    if not _NAME.match(name) or name == DESCRIPTION:
        raise FlavorError(f"{place}: {name!r} is not a file name that is taken")
    return name


def _walk(directory: Path) -> Iterator[str]:
    for path in directory.rglob("*"):
        if path.is_symlink() or not path.is_file():
            raise FlavorError(f"{path}: is not a plain file")
        yield path.relative_to(directory).as_posix()


def _examine(path: Path, digest: str) -> None:
    """Compare a file with its digest and refuse a pickle, however large it is: piece by piece."""
    try:
        with path.open("rb") as file:
            _compare(path, file_digest(file, "sha256").hexdigest(), digest)
            file.seek(0)
            head = file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - 1))
            _refuse_pickle(path, head, file.read())
    except OSError as error:
        raise FlavorError(f"{path}: {error.strerror}") from error


def _compare(path: Path, found: str, digest: str) -> None:
    if found != digest:
        raise FlavorError(f"{path}: its sha256 is {found}, {DESCRIPTION} says {digest}")


def _refuse_pickle(path: Path, head: bytes, end: bytes) -> None:
    if _PICKLES.search(path.name):
        raise FlavorError(f"{path}: may be a pickle by its name; pickles run code when read")
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise FlavorError(f"{path}: is {what}; only plain files are taken")
    # Protocol 2 and later begin with PROTO; every pickle ends with STOP.
    if len(head) > 2 and head[0] == 0x80 and head[1] <= 8 and end == b".":
        raise FlavorError(f"{path}: is a pickle; pickles run code when read")
