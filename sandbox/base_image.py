"""The Python base image: Debian's Python and what its wheels link to, nothing else."""

import asyncio
import gzip
import hashlib
import shutil
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelops_operator.adapters.oci import Blob, Registry
from modelops_operator.builder.image import Image, Repository, publish
from modelops_operator.builder.layers import Layer

from sandbox.places import cache_folder, scratch
from sandbox.programs import run

PYTHON: Final = "3.11"
SUITE: Final = "bookworm"
USER: Final = 65532
_PACKAGES: Final = ("python3", "ca-certificates", "libgomp1", "libstdc++6", "dash")
_PROGRAMS: Final = ("dash", "python3", f"python{PYTHON}")
"""What stays in /usr/bin; the packages depend on more, for their installation only."""
_UNUSED: Final = (
    "boot",
    "dev/*",
    "etc/alternatives",
    "etc/apt",
    "etc/cron*",
    "etc/debconf.conf",
    "etc/dpkg",
    "etc/fstab",
    "etc/hostname",
    "etc/logrotate.d",
    "etc/machine-id",
    "etc/rmt",
    "etc/resolv.conf",
    "media",
    "mnt",
    "opt",
    "srv",
    "usr/games",
    "usr/include",
    "usr/lib/dpkg",
    "usr/lib/mime",
    "usr/lib/python3/dist-packages",
    f"usr/lib/python{PYTHON}/ensurepip",
    f"usr/lib/python{PYTHON}/lib2to3",
    f"usr/lib/python{PYTHON}/pydoc_data",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl*",
    "usr/lib/ssl/misc",
    "usr/lib/systemd",
    "usr/libexec/*",
    "usr/local/*",
    "usr/sbin/*",
    "usr/share/[!z]*",
    "var/*",
)
_FOLDERS: Final = {
    "dev": 0o755,
    "home/modelops": 0o755,
    "proc": 0o755,
    "run": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr/local/bin": 0o755,
    "var/tmp": 0o1777,
}
_FILES: Final = {
    "etc/passwd": f"""root:x:0:0:root:/root:/usr/sbin/nologin
modelops:x:{USER}:{USER}:modelops:/home/modelops:/usr/sbin/nologin
""",
    "etc/group": f"root:x:0:\nmodelops:x:{USER}:\n",
}
_RECIPE: Final = hashlib.sha256(
    repr((PYTHON, SUITE, _PACKAGES, _PROGRAMS, _UNUSED, _FOLDERS, _FILES, 2)).encode()
).hexdigest()


def layer_file() -> Path:
    """Give the compressed layer, made if nobody did: about 30 s, once for the machine.

    Raises:
        SandboxError: mmdebstrap failed.
    """
    target = cache_folder() / "base" / f"python{PYTHON}-{_RECIPE[:16]}.tar.gz"
    if not target.exists():
        with scratch(target.parent, "base") as draft:
            if not target.exists():
                _make(target, draft)
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
        _push(registry, f"modelops/base:python{PYTHON}", (layer, blob), config, insecure=insecure)
    )


def push_pause(registry: str, name: str, layer: tuple[Layer, Blob]) -> str:
    """Push the image of the program that holds a pod's namespaces, over plain http."""
    config = {"Entrypoint": ["/pause"], "User": f"{USER}:{USER}"}
    return asyncio.run(_push(registry, name, layer, config, insecure=True))


async def _push(
    registry: str,
    name: str,
    content: tuple[Layer, Blob],
    config: Mapping[str, Any],
    *,
    insecure: bool,
) -> str:
    path, _, tag = name.partition(":")
    layer, blob = content
    image = Image(layers=(layer,), architecture="amd64", config=config)
    async with Registry(registry, insecure=insecure) as client:
        await client.ensure(path, blob)
        digest = await publish(Repository(client, path), image, tag=tag, annotations={})
    return f"{registry}/{path}@{digest}"


def _make(target: Path, draft: Path) -> None:
    started = time.monotonic()
    sys.stderr.write("  making the Python base image (once for this machine) ...\n")
    root = draft / "root"
    _extract(root)
    _tidy(root)
    _compile(root)
    packed = draft / "layer.tar.gz"
    with packed.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as output:
        _pack(root, output)
    with gzip.open(packed) as plain:
        diff_id = f"sha256:{hashlib.file_digest(plain, 'sha256').hexdigest()}"
    target.with_suffix(".digests").write_text(f"{_sha256(packed)} {diff_id}")
    packed.rename(target)
    size = target.stat().st_size / 1e6
    sys.stderr.write(f"  made it in {time.monotonic() - started:.0f} s: {size:.0f} MB\n")


def _extract(root: Path) -> None:
    """Unpack the packages and what they depend on; none of their scripts runs."""
    run(
        "making the Python base image",
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=extract",
        "--skip=cleanup/apt/cache",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        f"--include={','.join(_PACKAGES)}",
        SUITE,
        str(root),
    )


def _tidy(root: Path) -> None:
    authorities = sorted(root.glob("usr/share/ca-certificates/mozilla/*.crt"))
    bundle = "".join(path.read_text() for path in authorities)
    # Scanners look here for the packages of images in which nothing was installed.
    described = {
        f"var/lib/dpkg/status.d/{package.name.partition('_')[0]}": run(
            "reading a package", "dpkg-deb", "--field", str(package)
        )
        for package in sorted(root.glob("var/cache/apt/archives/*.deb"))
    }
    for pattern in _UNUSED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in root.glob("usr/bin/*"):
        if path.name not in _PROGRAMS:
            path.unlink()
    (root / "usr/bin/sh").symlink_to("dash")
    for name, mode in _FOLDERS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    files = {**_FILES, **described, "etc/ssl/certs/ca-certificates.crt": bundle}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _compile(root: Path) -> None:
    """Compile the standard library: a pod's root is read-only, it would do so at every start."""
    library = f"/usr/lib/python{PYTHON}"
    program = ["chroot", str(root), f"/usr/bin/python{PYTHON}", "-I", "-m", "compileall"]
    run(
        "compiling Python's standard library",
        *program,
        "-q",
        "--invalidation-mode=unchecked-hash",
        library,
    )


def _pack(root: Path, output: gzip.GzipFile) -> None:
    """Write the tree as an archive that is the same for the same files."""

    def normal(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        ours = entry.name == "home/modelops"
        entry.uid = entry.gid = USER if ours else 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            archive.add(path, str(path.relative_to(root)), recursive=False, filter=normal)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
