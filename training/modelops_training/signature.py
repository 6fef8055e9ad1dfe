"""What the models take and give, in MLflow's words: signature, input example, dataset."""

import json
from typing import Any

import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.models import ModelSignature
from mlflow.tracking.context import registry
from mlflow.types import ColSpec, DataType, TensorSpec
from mlflow.types import Schema as Columns
from mlflow.types.utils import _infer_schema
from modelops_runtime.schema import Input, Schema

from modelops_training import inputs
from modelops_training.adoption import Adopted
from modelops_training.training import Models

EXAMPLE_ROWS = 3


def signature(trained: Models, role: str) -> ModelSignature:
    """Describe what a model of this role takes and gives."""
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(_column_type(column, trained), column.name, required=not column.nullable)
        for column in trained.schema.inputs
    ]
    if isinstance(trained, Adopted) and role not in trained.files:
        # Its own library answers there, with whatever shape it has.
        answers = trained.original.model.predict(trained.original.given(trained.features.head()))
        return ModelSignature(inputs=Columns(columns), outputs=_infer_schema(answers))
    return ModelSignature(inputs=Columns(columns), outputs=Columns(_outputs(trained.schema, role)))


def example(trained: Models) -> pd.DataFrame:
    """Take a few rows of the training data, typed as the signature says."""
    rows = trained.frame.loc[:, list(trained.schema.names)].head(EXAMPLE_ROWS)
    return rows.assign(
        **{column.name: _typed(column, rows, trained) for column in trained.schema.inputs}
    )


class Table(MetaDataset):
    """The training data as MLflow lists it.

    `mlflow.data.from_pandas` would make the digest of the first 10,000 rows, and spend more time
    on guessing the schema than the training takes.
    """

    def __init__(self, trained: Models, name: str) -> None:
        columns = [
            *(
                ColSpec(_column_type(column, trained), column.name)
                for column in trained.schema.inputs
            ),
            ColSpec(_label_type(trained.schema), trained.schema.output.name),
        ]
        super().__init__(
            source=CodeDatasetSource(tags=registry.resolve_tags()),
            name=name,
            digest=trained.data_digest[:36],
            schema=Columns([*columns]),
        )
        self._rows = len(trained.frame)

    @property
    def profile(self) -> dict[str, int]:
        """Its size, for MLflow's page on it."""
        return {"num_rows": self._rows}

    def to_dict(self) -> dict[str, str]:
        """Describe it as MLflow stores it."""
        return {**super().to_dict(), "profile": json.dumps(self.profile)}


def _column_type(column: Input, trained: Models) -> DataType:
    values = trained.frame[column.name]
    if column.storage == "datetime":
        return DataType.datetime
    if column.kind == "category":
        # A model of somebody's own takes their frame as it is; ours reads categories as text.
        boolean = isinstance(trained, Adopted) and values.dtype == bool
        return DataType.boolean if boolean else DataType.string
    # MLflow's integers know no gaps, and pandas makes floats of integers with gaps.
    whole = column.integer and not values.isna().any()
    return DataType.long if whole else DataType.double


def _typed(column: Input, rows: pd.DataFrame, trained: Models) -> Any:
    values = rows[column.name]
    kind = _column_type(column, trained)
    if kind is DataType.datetime:
        return values
    if kind is DataType.string:
        return inputs.texts(values, column.name)
    return values.astype({DataType.long: "int64", DataType.boolean: "bool"}.get(kind, "float64"))


def _outputs(schema: Schema, role: str) -> list[ColSpec | TensorSpec]:
    if role == "outlier":
        return [ColSpec(DataType.double, "score"), ColSpec(DataType.boolean, "outlier")]
    if role == "drift":
        figures = [ColSpec(DataType.double, name) for name in ("psi", "missing", "unseen")]
        return [ColSpec(DataType.string, "feature"), *figures]
    prediction = ColSpec(_label_type(schema), "prediction")
    classes = schema.output.classes or ()
    return [prediction, *(ColSpec(DataType.double, f"probability_{each}") for each in classes)]


def _label_type(schema: Schema) -> DataType:
    classes = schema.output.classes
    if classes is None:
        return DataType.double
    kinds = {bool: DataType.boolean, int: DataType.long, float: DataType.double}
    return kinds.get(type(classes[0]), DataType.string)
