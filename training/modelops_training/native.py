"""Models without a fast form, as MLflow's own flavors keep them.

What only exists as Python objects is pickled: reading it runs its code, so it is served in a pod
that is told to (`spec.serving.runtime: Pyfunc`), with the library that made it.
"""

import io
import sys
from importlib import import_module
from importlib.metadata import packages_distributions, version
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Final

import cloudpickle
import pandas as pd
from mlflow.models import Model, ModelSignature
from modelops_runtime.signature import WHY_NOT_FASTER
from sklearn.base import BaseEstimator

from modelops_training.errors import DataError
from modelops_training.original import Original

_ALWAYS: Final = ("cloudpickle", "numpy", "pandas")
_CYTHON: Final = "_cython_"
"""Begins the name of what every module compiled by Cython brings along, by its release."""
_ARGUMENTS: Final = {"lightgbm": "lgb_model", "xgboost": "xgb_model", "catboost": "cb_model"}
"""What MLflow's flavor of each library calls the model."""


class _Names(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Notes the packages that reading the pickle again would import."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.packages: set[str] = set()

    def persistent_id(self, thing: Any) -> None:
        """Look at each object on its way; none is kept elsewhere."""
        names = (getattr(thing, "__module__", None), type(thing).__module__)
        self.packages |= {name.partition(".")[0] for name in names if isinstance(name, str)}
        if isinstance(thing, ModuleType):
            self.packages.add(thing.__name__.partition(".")[0])


def requirements(original: Original) -> list[str]:
    """Pin what the model's own objects come from, as it is installed here.

    MLflow would start a process to find out, which takes seconds. Raises DataError for code that
    no package brings: a server could not import it.
    """
    names = _Names()
    try:
        names.dump(original.model)
    except Exception as error:
        raise DataError(f"{original.title} cannot be pickled: {error}") from error
    owners = packages_distributions()
    found = {owner for name in names.packages for owner in owners.get(name, [])[:1]}
    built_in = {*sys.stdlib_module_names, "__main__", "builtins"}
    brought = {name for name in names.packages if name.startswith(_CYTHON)}
    if lost := sorted(names.packages - owners.keys() - built_in - brought):
        raise DataError(
            f"{original.title} needs the module {lost[0]!r}, which no installed package brings, so"
            " a server cannot import it: make it a package, or define its code in the notebook"
        )
    found -= {"mlflow", "mlflow-skinny", "modelops-training", "modelops-runtime"}
    pinned = sorted({*found, *_ALWAYS})
    return [f"mlflow=={version('mlflow-skinny')}", *(f"{name}=={version(name)}" for name in pinned)]


def log(
    original: Original,
    signature: ModelSignature,
    example: pd.DataFrame,
    *,
    tags: dict[str, str],
    why: str | None,
) -> str:
    """Log the model under the active run, by the flavor of its library; gives its id.

    `why` it is not compiled is written down for the server, which tells it.
    """
    model, library = original.model, original.library
    settings: dict[str, Any] = {
        "signature": signature,
        "input_example": example,
        "pip_requirements": requirements(original),
    }
    if library in _ARGUMENTS:
        settings[_ARGUMENTS[library]] = model
    elif isinstance(model, BaseEstimator):
        library, settings["sk_model"] = "sklearn", model
        # The default differs between a desk (skops, which reads known types only) and Databricks.
        settings["serialization_format"] = "cloudpickle"
    else:
        library = "pyfunc"
    with TemporaryDirectory() as empty:
        if library == "pyfunc":
            # Else MLflow copies the uv.lock of whatever folder training was started in.
            settings |= {"uv_project_path": empty, "python_model": _asking(model)}
        info = Model.log(
            artifact_path=None,
            name="predictor",
            flavor=import_module(f"mlflow.{library}"),
            tags=tags,
            metadata={WHY_NOT_FASTER: why},
            **settings,
        )
    return str(info.model_id)


def _asking(model: Any) -> Any:
    """Wrap what has a `predict`: a class made here is pickled whole, as servers lack this code."""
    from mlflow.pyfunc.model import PythonModel  # noqa: PLC0415  # `flavor` has silenced it

    if isinstance(model, PythonModel):
        return model

    class Asking(PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            del context, params
            return model.predict(model_input)

    return Asking()
