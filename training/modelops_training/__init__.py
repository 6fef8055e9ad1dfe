"""Trains, evaluates and registers a predictor with its drift and outlier detectors.

    register(model, X, y, "employment", with_detectors=True)  # a fitted model of your own
    register(train(frame, "employed"), "employment")          # the model that `train` makes

`train` makes three models from one table; `register` logs them to MLflow, registers them and sets
the alias `candidate` on all three, or on none. The operator releases them together.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelops_training.errors import (
    AliasError,
    DataError,
    NoFastForm,
    ParityError,
    RegistrationError,
    TrainingError,
    TrainingWarning,
)

if TYPE_CHECKING:
    from modelops_training.adoption import Adopted, adopt
    from modelops_training.registration import Registration, Version, register, repair
    from modelops_training.training import Trained, train

__all__ = [
    "Adopted",
    "AliasError",
    "DataError",
    "NoFastForm",
    "ParityError",
    "Registration",
    "RegistrationError",
    "Trained",
    "TrainingError",
    "TrainingWarning",
    "Version",
    "adopt",
    "register",
    "repair",
    "train",
]

_MODULES = {
    **dict.fromkeys(("Adopted", "adopt"), "adoption"),
    **dict.fromkeys(("Registration", "Version", "register", "repair"), "registration"),
    **dict.fromkeys(("Trained", "train"), "training"),
}


def __getattr__(name: str) -> Any:
    """Import on demand: who only reads the data does not wait seconds for MLflow and LightGBM."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _uncollected():
        globals()[name] = found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Import without Python's looking for garbage: through all of it, several times over."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # What is new becomes old without being looked at.
            gc.freeze()
            gc.unfreeze()
        gc.enable()
