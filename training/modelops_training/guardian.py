"""Waits beside a process that moves aliases, and has the move finished should that process die.

A program of its own that imports nothing but the standard library, so that it is there at once and
costs nothing. It gets a line before the first alias moves, which is what the program of its first
argument wants to know, and another when the move has ended; what comes instead of the second, when
its starter is gone, is the end of its input.
"""

import signal
import subprocess
import sys


def main() -> int:
    """Wait, deaf to the signals that stop the starter, as is then the program that it runs."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    told = line.endswith("\n")  # else its starter died before it could say, or while it said
    if not told or sys.stdin.readline():
        return 0
    # -P: the program's folder is no place to import from.
    program = [sys.executable, "-P", sys.argv[1]]
    return subprocess.run(program, input=line, text=True, check=False).returncode  # noqa: S603  # ours


if __name__ == "__main__":
    sys.exit(main())
