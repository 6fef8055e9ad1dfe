"""What an image is for: a minor version of Python on an operating system and a processor."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags

from modelops_operator.api.reasons import Reason
from modelops_operator.builder.failures import broken

GLIBC: Final = (2, 36)
"""Version of the C library in the base images (Debian 12): the newest that wheels may ask for."""
_LEGACY: Final = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
_PROCESSORS: Final = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Target:
    """Where the packages of an image will run."""

    python: str
    """Minor version, such as 3.11."""
    platform: str
    """Such as linux/amd64."""

    def __post_init__(self) -> None:
        if self.platform not in {f"linux/{name}" for name in _PROCESSORS}:
            raise broken(
                Reason.BUILD_FAILED,
                f"images for {self.platform} cannot be built; set `platforms` to linux/amd64 or "
                "linux/arm64",
            )

    @property
    def architecture(self) -> str:
        """Give the processor as OCI names it: amd64 or arm64."""
        return self.platform.partition("/")[2]

    @property
    def uv_platform(self) -> str:
        """Give the platform as uv names it."""
        return f"{_PROCESSORS[self.architecture]}-manylinux_{GLIBC[0]}_{GLIBC[1]}"

    @cached_property
    def ranks(self) -> Mapping[Tag, int]:
        """Give every wheel tag that runs here, with 0 for the best."""
        minor = int(self.python.partition(".")[2])
        version = (3, minor)
        platforms = self._platforms()
        tags = (
            *cpython_tags(version, platforms=platforms),
            *compatible_tags(version, interpreter=f"cp3{minor}", platforms=platforms),
        )
        return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}

    def wants(self, marker: str | None) -> bool:
        """Tell whether a requirement with this environment marker applies here."""
        return marker is None or Marker(marker).evaluate(
            {
                "implementation_name": "cpython",
                # The first release of the minor version: it asks for every backport.
                "implementation_version": f"{self.python}.0",
                "os_name": "posix",
                "platform_machine": _PROCESSORS[self.architecture],
                "platform_python_implementation": "CPython",
                "platform_release": "",
                "platform_system": "Linux",
                "platform_version": "",
                "python_full_version": f"{self.python}.0",
                "python_version": self.python,
                "sys_platform": "linux",
                "extra": "",
            }
        )

    def _platforms(self) -> list[str]:
        processor = _PROCESSORS[self.architecture]
        oldest = 5 if processor == "x86_64" else 17
        names = []
        for minor in range(GLIBC[1], oldest - 1, -1):
            names.append(f"manylinux_2_{minor}_{processor}")
            if legacy := _LEGACY.get((2, minor)):
                names.append(f"{legacy}_{processor}")
        return [*names, f"linux_{processor}"]
