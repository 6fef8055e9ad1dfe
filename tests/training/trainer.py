"""A trainer to be killed: registers one small model for each line on stdin, in a fork of its own.

It registers one itself first, at the tracking URI that is its argument, so that forks find imported
what takes seconds to import; then it says `ready 0`. A line is a tracking URI and a seed. The
answer is `forked` with the process id of the fork, which leads a process group, and, when it ended,
`ended` with its exit status.
"""

import os
import sys

import numpy as np
import pandas as pd
from modelops_training import register, train

NAME = "victim"


def table() -> pd.DataFrame:
    """A table that trains in no time."""
    random = np.random.default_rng(0)
    size = random.normal(size=200)
    return pd.DataFrame(
        {"size": size, "colour": random.choice(["a", "b"], 200), "big": size + 0.1 > 0}
    ).assign(big=lambda frame: frame["big"] ^ (random.random(200) < 0.1))


def main() -> None:
    """Serve lines until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # MLflow prints; stdout was for the answers
    frame = table()
    register(train(frame, "big", rounds=2), NAME, tracking_uri=sys.argv[1])
    answers.write("ready 0\n")
    for line in sys.stdin:
        uri, seed = line.split()
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            status = 1
            try:
                register(train(frame, "big", rounds=2, seed=int(seed)), NAME, tracking_uri=uri)
                status = 0
            finally:
                os._exit(status)
        answers.write(f"forked {child}\n")
        _, ended = os.waitpid(child, 0)
        answers.write(f"ended {ended}\n")


if __name__ == "__main__":
    main()
