"""The command `modelops`."""

from importlib import import_module

import click

_COMMANDS = ("build", "history", "image", "report", "serve")


class _Commands(click.Group):
    """Imports a command when it is asked for: all of them together take seconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"modelops_operator.cli.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Serve registered models here, build and look at their images, as the operator does."""


if __name__ == "__main__":
    main()
