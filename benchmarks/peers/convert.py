"""Converts a fitted pipeline for the thin service: trees as ONNX, codes of categories as tables."""

import json
import sys
from pathlib import Path

import joblib
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType as ScikitTensorType


def main(folder: Path) -> None:
    pipeline = joblib.load(folder / "pipeline.joblib")
    encoder = pipeline[0]
    names = list(encoder.feature_names_in_)
    shape = [None, len(names)]
    tables: dict[str, dict[str, int]] = {}
    if hasattr(encoder, "named_transformers_"):
        categories = encoder.named_transformers_["categories"]
        for name, levels in zip(categories.feature_names_in_, categories.categories_, strict=True):
            tables[name] = {level: code for code, level in enumerate(levels)}
        model = convert_lightgbm(
            pipeline[-1], initial_types=[("rows", FloatTensorType(shape))], zipmap=False
        )
    else:
        model = to_onnx(
            pipeline,
            initial_types=[("rows", ScikitTensorType(shape))],
            options={"zipmap": False},
        )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "columns.json").write_text(json.dumps([(name, tables.get(name)) for name in names]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
