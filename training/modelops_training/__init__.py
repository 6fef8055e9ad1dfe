"""Trains, evaluates and registers a predictor with its drift and outlier detectors.

    trained = train(frame, "employed")
    register(trained, "employment")

`train` makes three models from one table; `register` logs them to MLflow, registers them and sets
the alias `candidate` on all three, or on none. The operator releases them together.
"""

from modelops_training.errors import (
    AliasError,
    DataError,
    ParityError,
    RegistrationError,
    TrainingError,
)
from modelops_training.registration import Registration, Version, register, repair
from modelops_training.training import Trained, train

__all__ = [
    "AliasError",
    "DataError",
    "ParityError",
    "Registration",
    "RegistrationError",
    "Trained",
    "TrainingError",
    "Version",
    "register",
    "repair",
    "train",
]
