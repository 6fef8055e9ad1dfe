"""The Python base image: Debian's Python and what its wheels link to, nothing else."""

import asyncio
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelops_operator.adapters.oci import Blob, Registry
from modelops_operator.builder.image import Image, Repository, publish
from modelops_operator.builder.layers import Layer

from sandbox.places import SandboxError, cache_folder, locked

PYTHON: Final = "3.11"
SUITE: Final = "bookworm"
USER: Final = 65532
_PACKAGES: Final = ("python3", "ca-certificates", "libgomp1", "libstdc++6", "dash")
_UNUSED: Final = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/perl5/*",
    "/usr/lib/x86_64-linux-gnu/perl*",
    "/usr/lib/x86_64-linux-gnu/gconv/*",
    "/var/lib/apt/*",
    "/var/lib/dpkg/info/*",
    "/var/cache/*",
)
_SCRIPT: Final = f"""set -eu
cd "$1"
cat usr/share/ca-certificates/mozilla/*.crt > etc/ssl/certs/ca-certificates.crt
ln -sf dash usr/bin/sh
printf 'root:x:0:0:root:/root:/usr/sbin/nologin\\n' > etc/passwd
printf 'modelops:x:{USER}:{USER}:modelops:/home/modelops:/usr/sbin/nologin\\n' >> etc/passwd
printf 'root:x:0:\\nmodelops:x:{USER}:\\n' > etc/group
mkdir -p home/modelops tmp
chown {USER}:{USER} home/modelops
chmod 1777 tmp
rm -rf etc/apt etc/machine-id etc/hostname etc/resolv.conf usr/bin/perl* dev proc sys run
mkdir dev proc sys run
rm -rf {" ".join(f".{path}" for path in _UNUSED)}
"""
_RECIPE: Final = hashlib.sha256(repr((PYTHON, SUITE, _PACKAGES, _SCRIPT, 1)).encode()).hexdigest()


def layer_file() -> Path:
    """Give the compressed layer, made if nobody did: about 30 s, once for the machine.

    Raises:
        SandboxError: mmdebstrap failed.
    """
    target = cache_folder() / "base" / f"python{PYTHON}-{_RECIPE[:16]}.tar.gz"
    with locked(cache_folder() / "base" / "base.lock"):
        if not target.exists():
            _make(target)
    return target


def push(registry: str, *, insecure: bool) -> str:
    """Push the base image to `registry`/modelops/base and give its reference by digest."""
    path = layer_file()
    digest, plain = path.with_suffix(".digests").read_text().split()
    blob = Blob(digest=digest, size=path.stat().st_size, content=path)
    title = f"Python {PYTHON} on Debian {SUITE}"
    layer = Layer(digest=digest, size=blob.size, diff_id=plain, content=title)
    config = {
        "User": f"{USER}:{USER}",
        "WorkingDir": "/home/modelops",
        "Env": [
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "LANG=C.UTF-8",
            "PYTHONUNBUFFERED=1",
            "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        ],
        "Cmd": ["/usr/bin/python3"],
        "Labels": {"org.opencontainers.image.title": title},
    }
    return asyncio.run(
        _push(registry, f"modelops/base:python{PYTHON}", layer, blob, config, insecure=insecure)
    )


def push_program(registry: str, name: str, program: tuple[Layer, Blob]) -> str:
    """Push an image that holds one static program, which it runs, to a plain registry."""
    layer, blob = program
    config = {"Entrypoint": ["/pause"], "User": f"{USER}:{USER}"}
    return asyncio.run(_push(registry, name, layer, blob, config, insecure=True))


async def _push(
    registry: str,
    name: str,
    layer: Layer,
    blob: Blob,
    config: Mapping[str, Any],
    *,
    insecure: bool,
) -> str:
    path, _, tag = name.partition(":")
    image = Image(layers=(layer,), architecture="amd64", config=config)
    async with Registry(registry, insecure=insecure) as client:
        await client.ensure(path, blob)
        digest = await publish(Repository(client, path), image, tag=tag, annotations={})
    return f"{registry}/{path}@{digest}"


def _make(target: Path) -> None:
    started = time.monotonic()
    sys.stderr.write("  making the Python base image (once for this machine) ...\n")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        script = Path(scratch) / "finish.sh"
        script.write_text(_SCRIPT)
        tree = Path(scratch) / "layer.tar"
        outcome = subprocess.run(
            [
                "mmdebstrap",
                "--mode=root",
                "--variant=extract",
                f"--include={','.join(_PACKAGES)}",
                "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
                f'--customize-hook=sh "{script}" "$1"',
                SUITE,
                str(tree),
            ],
            env={**os.environ, "SOURCE_DATE_EPOCH": "315532800", "TMPDIR": scratch},
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode:
            tail = "\n".join(outcome.stderr.splitlines()[-15:])
            raise SandboxError(f"mmdebstrap failed to make the Python base image:\n{tail}")
        packed = Path(scratch) / "layer.tar.gz"
        with (
            tree.open("rb") as source,
            packed.open("wb") as raw,
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as output,
        ):
            shutil.copyfileobj(source, output, 1 << 20)
        digests = f"{_sha256(packed)} {_sha256(tree)}"
        target.with_suffix(".digests").write_text(digests)
        packed.rename(target)
    size = target.stat().st_size / 1e6
    sys.stderr.write(f"  made it in {time.monotonic() - started:.0f} s: {size:.0f} MB\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
