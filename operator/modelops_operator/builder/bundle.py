"""The runtime bundle: the serving runtime's wheel and the lock of what it needs.

It travels inside the builder's image, a folder for each version, so that building an image of
models resolves nothing and every image of one runtime has the same libraries.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.metadata import Metadata
from packaging.requirements import Requirement

from modelops_operator.api.reasons import Reason
from modelops_operator.builder.failures import broken
from modelops_operator.builder.lock import Lock, read_lock
from modelops_operator.builder.target import Target

LOCK_FILE: Final = "pylock.toml"
SERVE: Final = "serve"
"""The extra of the runtime that serves."""
FAST: Final = "fast"
"""The extra that serves compiled forms faster."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of the serving runtime."""

    version: str
    wheel: Path
    lock_content: bytes

    def requirements(self, *, fast: bool) -> list[str]:
        """Give what the runtime requires to serve, for resolving together with models."""
        extras = (SERVE, FAST) if fast else (SERVE,)
        with zipfile.ZipFile(self.wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
            metadata = Metadata.from_email(archive.read(name), validate=False)
        return [
            _unconditional(requirement)
            for requirement in metadata.requires_dist or ()
            if requirement.marker is None
            or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        ]

    def lock(self, target: Target) -> Lock:
        """Give the lock of the runtime alone."""
        origin = f"the serving runtime {self.version}"
        return read_lock(self.lock_content, target, origin=origin).with_local([self.wheel])


def read_bundle(folder: Path, version: str) -> Bundle:
    """Read the bundle of one version; raise BuildError when the folder has none."""
    wheels = sorted((folder / version).glob("modelops_runtime-*.whl"))
    lock = folder / version / LOCK_FILE
    if len(wheels) != 1 or not lock.is_file():
        there = sorted(path.name for path in folder.glob("*/")) if folder.is_dir() else []
        raise broken(
            Reason.RUNTIME_NOT_FOUND,
            f"this builder does not carry the serving runtime {version}, only "
            f"{', '.join(there) or 'none'} in {folder}; deploy a builder that has it, or set "
            "`runtime.version`",
        )
    return Bundle(version, wheels[0], lock.read_bytes())


def write_bundle(folder: Path, version: str, wheel: Path, lock_content: bytes) -> Path:
    """Write a bundle in the form that `read_bundle` reads; give its folder."""
    place = folder / version
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("*.whl"):
        old.unlink()
    (place / wheel.name).write_bytes(wheel.read_bytes())
    (place / LOCK_FILE).write_bytes(lock_content)
    return place


def _unconditional(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"
