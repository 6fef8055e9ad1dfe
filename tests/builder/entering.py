"""Running a program in an image that was unpacked."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="entering an image takes root")


def in_image(root: Path, variables: Iterable[str], command: Iterable[str]) -> list[str]:
    """Give the command that runs another one in an image's files, as the user that pods have.

    `variables` are written as NAME=value. Its mounts end with it; the network is the machine's.
    """
    mounts = " && ".join(f"mount --rbind /{name} '{root}/{name}'" for name in ("dev", "proc"))
    return [
        *("unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"),
        *("/usr/bin/env", "-i", *variables),
        *("/usr/sbin/chroot", "--userspec=65532:65532", str(root), *command),
    ]
