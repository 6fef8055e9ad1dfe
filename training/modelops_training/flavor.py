"""Writes a model in MLflow's format with the `modelops` flavor: what `Model.log(flavor=)` calls.

The fast files travel under `modelops/`; `python_function` is `python_model.py` over the same
files, with the runtime's light modules it needs beside it, and nothing is ever pickled.
"""

import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import lightgbm
import mlflow.lightgbm
import modelops_runtime
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.utils import environment
from modelops_runtime import flavor as runtime

with warnings.catch_warnings():
    # MLflow complains about its own type hints when this module is imported first.
    warnings.filterwarnings("ignore", message=r".*Any type hint is inferred as AnyType")
    import mlflow.pyfunc

FLAVOR_NAME = runtime.FLAVOR
_PROGRAM = Path(__file__).parent / "python_model.py"
# What python_model.py imports of the runtime; without the package itself nothing is to be installed
# that a public index does not have.
_MODULES = (
    *("__init__.py", "detectors.py", "encoder.py", "flavor.py", "forest.py", "levels.py"),
    *("linear.py", "outlier.py", "predictors.py", "profile.py", "schema.py"),
)
_LIGHT_HALF = "modelops_runtime.zip"
_CHECK = "warn_dependency_requirement_mismatches"
_CHECKING = getattr(environment, _CHECK, None)
_LIBRARIES = ("numpy", "orjson", "pandas")
_OF_FILES: Mapping[str, str] = {runtime.LIGHTGBM: "lightgbm", runtime.TREELITE: "treelite"}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """One model as it will lie in the registry."""

    role: str
    kind: str
    files: Mapping[str, bytes]
    """Name under `modelops/` to content."""
    train_id: str
    signature: ModelSignature
    example: pd.DataFrame


def requirements(files: Collection[str]) -> list[str]:
    """List what loading the model with plain MLflow takes, pinned to what is installed here."""
    # The server's package brings the same client; loading needs no other version of it.
    pinned = [f"mlflow=={version('mlflow-skinny')}"]
    names = sorted({*_LIBRARIES, *(_OF_FILES[name] for name in _OF_FILES.keys() & set(files))})
    return pinned + [f"{name}=={version(name)}" for name in names]


def save_model(
    path: str,
    mlflow_model: Model | None = None,
    *,
    contents: Contents,
    validate_serving_input: bool = False,
) -> None:
    """Lay the model out under `path`, which must not exist or be empty.

    `validate_serving_input` is for `Model.log`, which hands all on.
    """
    del validate_serving_input
    model = mlflow_model or Model()
    with tempfile.TemporaryDirectory() as scratch, _pins_unchecked():
        mlflow.pyfunc.save_model(
            path,
            python_model=str(_PROGRAM),
            code_paths=[str(_light_half(Path(scratch)))],
            mlflow_model=model,
            signature=contents.signature,
            input_example=contents.example,
            pip_requirements=requirements(contents.files),
            # Else MLflow copies the uv.lock of whatever folder training was started in.
            uv_project_path=scratch,
        )
    entry = runtime.write_data(
        Path(path), contents.role, contents.kind, contents.files, train_id=contents.train_id
    )
    model.add_flavor(FLAVOR_NAME, **entry)
    loading = model.flavors[mlflow.pyfunc.FLAVOR_NAME]
    # MLflow notes where the program lay when it was logged, and needs its name only.
    loading[mlflow.pyfunc.MODEL_CODE_PATH] = _PROGRAM.name
    # What is named here MLflow puts on Python's path, which takes an archive as well as a folder.
    loading[mlflow.pyfunc.CODE] = f"{loading[mlflow.pyfunc.CODE]}/{_LIGHT_HALF}"
    if runtime.LIGHTGBM in contents.files:
        model.add_flavor(
            mlflow.lightgbm.FLAVOR_NAME,
            lgb_version=lightgbm.__version__,
            data=f"{runtime.DATA}/{runtime.LIGHTGBM}",
            model_class="lightgbm.basic.Booster",
            code=None,
        )
    model.save(str(Path(path, "MLmodel")))


@contextmanager
def _pins_unchecked() -> Iterator[None]:
    """Keep MLflow from comparing requirements with what is installed, which they are made of.

    It would look at every file of every package here, for a second. Where another release of MLflow
    does it in another way, it does.
    """
    setattr(environment, _CHECK, lambda _requirements: None)
    try:
        yield
    finally:
        # Not what was found a moment ago: of two threads one would leave MLflow without its check.
        setattr(environment, _CHECK, _CHECKING)


def _light_half(folder: Path) -> Path:
    """Pack the modules, the same bytes each time: of a file alone a store makes less ado."""
    source = Path(modelops_runtime.__file__).parent
    packed = folder / _LIGHT_HALF
    with ZipFile(packed, "w") as archive:
        for name in _MODULES:
            # Without the time of the file.
            archive.writestr(ZipInfo(f"{source.name}/{name}"), (source / name).read_bytes())
    return packed
