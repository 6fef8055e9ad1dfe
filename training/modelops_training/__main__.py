"""`modelops-train`: trains the three models of the employment data and registers them.

For a table of your own, call `modelops_training.train` and `register`.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

# The package brings what trains and registers when it is first asked for: not for `--help`.
import modelops_training as package
from modelops_training import TrainingError
from modelops_training.data import REFERENCE_YEAR, TARGET, UNITS, YEAR, YEARS, employment
from modelops_training.silence import silent_mlflow

if TYPE_CHECKING:
    from modelops_training import Registration, Trained

_RECALL = "outlier_recall_"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 after a message on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return _repair(options) if options.repair else _train(options)
    except (TrainingError, ValueError) as error:
        sys.stderr.write(f"modelops-train: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelops-train",
        description=(
            "Train a predictor, a drift detector and an outlier detector on the employment data, "
            "and register them in MLflow under one training id."
        ),
    )
    parser.add_argument("--tracking-uri", help="MLflow server, or its own setting if not given")
    parser.add_argument("--experiment", help="experiment of the run; default: the model's name")
    parser.add_argument(
        "--name", default="employment", help="registered model of the predictor (%(default)s)"
    )
    parser.add_argument(
        "--alias", default="candidate", help="set on all three versions (%(default)s)"
    )
    parser.add_argument(
        "--years",
        default=str(REFERENCE_YEAR),
        type=_years,
        help=f"train on these, as 2015 or 2015,2016 (%(default)s); there are {YEARS}",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the predictor's trees (%(default)s)"
    )
    parser.add_argument(
        "--no-register", action="store_true", help="train and measure only; MLflow is not asked"
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="only finish an alias move of this --name that was cut short",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    return parser


def _years(text: str) -> tuple[int, ...]:
    try:
        years = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2015 or 2015,2016") from None
    if strange := sorted(set(years) - set(YEARS)):
        raise argparse.ArgumentTypeError(f"no data for {strange}; there are {YEARS}")
    return years


def _repair(options: argparse.Namespace) -> int:
    with silent_mlflow():
        move = package.repair(options.name, tracking_uri=options.tracking_uri)
    if options.json:
        _print(json.dumps({"repaired": None if move is None else dict(move.versions)}))
    elif move is None:
        _print(f"{options.name}: no alias move was cut short")
    else:
        moved = ", ".join(f"{name} {version}" for name, version in move.versions)
        _print(f"{options.name}: alias {move.alias} leads to {moved} now")
    return 0


def _train(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    frame = employment(options.years).drop(columns=YEAR)
    trained = package.train(
        frame,
        TARGET,
        overrides={name: {"unit": unit} for name, unit in UNITS.items()},
        seed=options.seed,
    )
    later = {year: employment([year]) for year in YEARS if year > max(options.years)}
    registration = None
    if options.no_register:
        measured: Mapping[int, Mapping[str, float]] = {
            year: trained.evaluate(rows) for year, rows in later.items()
        }
    else:
        with silent_mlflow():
            registration = package.register(
                trained,
                options.name,
                alias=options.alias,
                evaluation=later,
                dataset=f"employment_MA {','.join(map(str, options.years))}",
                notes="Whether somebody in Massachusetts has work: data to try the platform with, "
                "and nothing to decide about people by.",
                experiment=options.experiment,
                tracking_uri=options.tracking_uri,
            )
        measured = registration.evaluation
    seconds = {
        **trained.seconds,
        **(registration.seconds if registration else {}),
        "total": round(time.perf_counter() - started, 3),
        "cpu": round(_cpu(), 3),
    }
    if options.json:
        _print(json.dumps(_summary(trained, measured, registration, seconds)))
    else:
        _show(options.years, trained, measured, registration, seconds)
    return 0


def _cpu() -> float:
    """CPU time in seconds since the process began, that of its children included."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _summary(
    trained: "Trained",
    measured: Mapping[int, Mapping[str, float]],
    registration: "Registration | None",
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "train_id": trained.train_id,
        "data_digest": trained.data_digest,
        "metrics": dict(trained.metrics),
        "evaluation": {str(year): dict(metrics) for year, metrics in measured.items()},
        "registration": asdict(registration) if registration else None,
        "seconds": dict(seconds),
    }


def _show(
    years: Sequence[int],
    trained: "Trained",
    measured: Mapping[int, Mapping[str, float]],
    registration: "Registration | None",
    seconds: Mapping[str, float],
) -> None:
    recall = {name: value for name, value in trained.metrics.items() if name.startswith(_RECALL)}
    names = [name for name in trained.metrics if name not in {"parity_difference", *recall}]
    _print("data".ljust(20) + "".join(name.rjust(20) for name in names))
    rows = {f"{','.join(map(str, years))} held out": trained.metrics} | {
        f"{year}": metrics for year, metrics in measured.items()
    }
    for label, metrics in rows.items():
        _print(label.ljust(20) + "".join(f"{metrics[name]:.4f}".rjust(20) for name in names))
    told = (f"{name.removeprefix(_RECALL)} {share:.1%}" for name, share in recall.items())
    _print(f"outliers found, of those injected: {', '.join(told)}\n")
    if registration:
        for version in registration.versions:
            _print(f"{version.role:<12}{version.name:<28}version {version.version}")
        _print(
            f"training {registration.train_id}, run {registration.run_id}, "
            f"alias {registration.alias}, at {registration.tracking_uri}"
        )
    else:
        _print(f"training {trained.train_id}, not registered")
    _print("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))


def _print(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
