"""Options that several commands have."""

from pathlib import Path
from typing import Final

import click

DOCKER_CONFIG: Final = Path.home() / ".docker" / "config.json"
INSECURE: Final = click.option(
    "--insecure", is_flag=True, help="Speak plain http with the registry."
)
CREDENTIALS: Final = click.option(
    "--docker-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DOCKER_CONFIG if DOCKER_CONFIG.is_file() else None,
    help="config.json with credentials; by default that of `docker login`.",
)
AUTHORITIES: Final = click.option(
    "--ca-bundle",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="SSL_CERT_FILE",
    help="Certificates (PEM) to trust instead of the system's.",
)
