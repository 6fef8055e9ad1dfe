"""The command line: `python -m sandbox {up,down,status,build,path,push-base}`."""

import argparse
import json
import sys
import time

from sandbox import base_image, platform, toolchain
from sandbox.places import SandboxError


def main() -> int:
    """Run one command; JSON goes to the standard output, progress to the error output."""
    options = _parser().parse_args()
    started = time.monotonic()
    try:
        answer = options.run(options)
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if answer is not None:
        print(answer if isinstance(answer, str) else json.dumps(answer, indent=2))
    if options.command not in {"status", "path"}:
        sys.stderr.write(f"  {options.command} took {time.monotonic() - started:.1f} s\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=platform.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, about in (
        ("up", lambda options: platform.up(options.name), "start or repair a sandbox"),
        ("down", lambda options: platform.down(options.name), "remove it with all its data"),
        ("status", lambda options: platform.status(options.name), "tell addresses and health"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("--name", default="dev")
        command.set_defaults(run=run)
    build = commands.add_parser("build", help="build and fetch all programs, start nothing")
    build.add_argument("--tests", action="store_true", help="also what only the tests start")
    build.set_defaults(run=lambda options: platform.build(tests=options.tests))
    path = commands.add_parser("path", help="print the folders of the programs, for PATH")
    path.set_defaults(run=lambda _: toolchain.folders())
    push = commands.add_parser("push-base", help="push the Python base image to any registry")
    push.add_argument("registry", help="host:port")
    push.add_argument("--insecure", action="store_true", help="speak plain http")
    push.set_defaults(
        run=lambda options: {
            base_image.PYTHON: base_image.push(options.registry, insecure=options.insecure)
        }
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
