"""`modelops-register`: registers a fitted model from a file, with the rows it was fitted on.

For jobs that end with it. In a program of your own call `modelops_training.register`, which has
more to set.
"""

import argparse
import gc
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# The package brings what registers when it is first asked for: not for `--help`.
import modelops_training as package
from modelops_training import DataError, TrainingError, TrainingWarning
from modelops_training.silence import silent_mlflow

if TYPE_CHECKING:
    import pandas as pd

    from modelops_training import Registration

_COMMAND = "modelops-register"


def run() -> NoReturn:
    """Be the whole process, and end it.

    What is loaded for it is garbage at no time, so Python need not look through it again and again,
    nor take it apart at the end.
    """
    options = _parser().parse_args()
    gc.disable()
    code = _run(options, loaded=_keep)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _keep() -> None:
    gc.freeze()
    gc.enable()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 after a message on stderr."""
    return _run(_parser().parse_args(arguments), loaded=lambda: None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_COMMAND,
        description="Register a fitted model in MLflow, and detectors beside it if asked.",
    )
    parser.add_argument(
        "model", type=Path, help="the model, as joblib or pickle wrote it: its code is run"
    )
    parser.add_argument(
        "rows", type=Path, help="Parquet file of the rows that it was fitted on, target included"
    )
    parser.add_argument("--target", required=True, help="column that it predicts")
    parser.add_argument("--name", required=True, help="registered model of the predictor")
    parser.add_argument("--tracking-uri", help="MLflow server, or its own setting if not given")
    parser.add_argument("--experiment", help="experiment of the run; default: the model's name")
    parser.add_argument("--alias", default="candidate", help="set on all versions (%(default)s)")
    parser.add_argument(
        "--with-detectors", action="store_true", help="make a drift and an outlier detector, too"
    )
    parser.add_argument("--times", metavar="COLUMN", help="dates of the rows, and no feature")
    several: dict[str, Any] = {"action": "append", "default": [], "metavar": "COLUMN"}
    parser.add_argument("--sensitive", **several, help="whose values are never logged; repeatable")
    parser.add_argument(
        "--known-ahead", **several, help="that may tell the target by itself; repeatable"
    )
    parser.add_argument("--notes", default="", help="what the model is for, and what not")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    return parser


def _run(options: argparse.Namespace, loaded: Callable[[], None]) -> int:
    heard: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as heard:
            # What the libraries tell each other is not for whoever called this.
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", TrainingWarning)
            registration = _register(options, loaded)
    except (TrainingError, ValueError) as error:
        _tell(str(error))
        return 1
    finally:
        for each in heard:
            _tell(f"warning: {each.message}")
    if options.json:
        _print(json.dumps(asdict(registration)))
    else:
        for version in registration.versions:
            _print(f"{version.role:<12}{version.name:<28}version {version.version}")
        _print(
            f"training {registration.train_id}, run {registration.run_id}, "
            f"alias {registration.alias}, at {registration.tracking_uri}"
        )
    return 0


def _register(options: argparse.Namespace, loaded: Callable[[], None]) -> "Registration":
    rows = _rows(options.rows)
    left_out = [each for each in (options.target, options.times) if each is not None]
    named = {*left_out, *options.sensitive, *options.known_ahead}
    if absent := sorted(named - set(rows.columns)):
        raise DataError(f"{options.rows} has no column {absent[0]!r}; it has {list(rows.columns)}")
    model, register = _model(options.model), package.register
    loaded()
    with silent_mlflow():
        return register(
            model,
            _features(model, rows, left_out),
            rows[options.target],
            options.name,
            alias=options.alias,
            experiment=options.experiment,
            tracking_uri=options.tracking_uri,
            with_detectors=options.with_detectors,
            overrides={column: {"sensitive": True} for column in options.sensitive},
            known_ahead=options.known_ahead,
            times=rows[options.times] if options.times else None,
            notes=options.notes,
            dataset=options.rows.name,
        )


def _features(model: Any, rows: "pd.DataFrame", left_out: Sequence[str]) -> "pd.DataFrame":
    """Give the columns that the model was fitted on, where it tells them, or all others."""
    from modelops_training.original import Original, found  # noqa: PLC0415  # not for `--help`

    names = Original(found(model)).names
    if names and set(names) <= set(rows.columns):
        return rows[list(names)]
    return rows.drop(columns=list(left_out))


def _model(path: Path) -> Any:
    import joblib  # noqa: PLC0415  # not for `--help`

    try:
        return joblib.load(path)
    except Exception as error:  # whatever code of others raises
        raise DataError(
            f"{path} cannot be read as joblib or pickle ({type(error).__name__}: {error}): write it"
            " with `joblib.dump`, and have the libraries here that it was fitted with"
        ) from error


def _rows(path: Path) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415  # not for `--help`

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet ({error}): write it with `to_parquet`, in the types"
            " that the model was fitted on"
        ) from error


def _tell(text: str) -> None:
    sys.stderr.write(f"{_COMMAND}: {text}\n")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    run()
