"""CatBoost's trees in treelite's form, read from the model's own JSON."""

import json
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import treelite
from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

from modelops_training.errors import NoFastForm

# CatBoost's losses, by what makes an answer of the sum over its trees.
_LINKS: Final = {
    "Logloss": "sigmoid",
    "CrossEntropy": "sigmoid",
    "MultiClass": "softmax",
    "MultiClassOneVsAll": "multiclass_ova",
    "Poisson": "exponential",
    "Tweedie": "exponential",
}
_TASKS: Final = {"sigmoid": "kBinaryClf"}
_PLAIN: Final = {
    *("RMSE", "MAE", "Quantile", "MAPE", "Huber", "Expectile", "LogCosh", "Lq"),
}


def convert(model: Any) -> treelite.Model:
    """Read the trees of a fitted model. Raises NoFastForm.

    Its inputs have to be rounded to 32 bits first; a value right of a border is larger than it.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.json")
        model.save_model(str(path), format="json")
        data = json.loads(path.read_bytes())
    if data["features_info"].keys() - {"float_features"}:
        raise NoFastForm(
            "CatBoost keeps statistics of categories, texts or embeddings in the model, which"
            " compiled trees do not know; encode categories before it, in a Pipeline"
        )
    loss = data["model_info"]["params"]["loss_function"]["type"]
    if loss not in _LINKS and loss not in _PLAIN:
        raise NoFastForm(f"CatBoost's loss {loss!r} has no compiled form")
    scale, bias = data["scale_and_bias"]
    outputs = len(bias)
    known = {
        place: feature["nan_value_treatment"] == "AsTrue"
        for place, feature in enumerate(data["features_info"]["float_features"])
    }
    trees = data.get("trees") or [_nested(tree, outputs) for tree in data["oblivious_trees"]]
    builder = _builder(len(known), len(trees), outputs, bias, _LINKS.get(loss, "identity"))
    for tree in trees:
        builder.start_tree()
        _add(builder, tree, known, scale, count())
        builder.end_tree()
    made: treelite.Model = builder.commit()
    return made


def _builder(features: int, trees: int, outputs: int, bias: list[float], link: str) -> Any:
    several = outputs > 1
    return ModelBuilder(
        threshold_type="float64",
        leaf_output_type="float64",
        metadata=Metadata(
            num_feature=features,
            task_type="kMultiClf"
            if several
            else "kBinaryClf"
            if link == "sigmoid"
            else "kRegressor",
            average_tree_output=False,
            num_target=1,
            num_class=[outputs],
            leaf_vector_shape=(1, outputs),
        ),
        tree_annotation=TreeAnnotation(
            num_tree=trees, target_id=[0] * trees, class_id=[-1 if several else 0] * trees
        ),
        postprocessor=PostProcessorFunc(name=link),
        base_scores=[float(each) for each in bias],
    )


def _nested(tree: dict[str, Any], outputs: int) -> dict[str, Any]:
    """Write a tree whose levels all ask one question as a tree of nodes."""
    splits, values = tree["splits"] or [], tree["leaf_values"]

    def node(depth: int, leaf: int) -> dict[str, Any]:
        if depth < 0:
            found = values[leaf * outputs : (leaf + 1) * outputs]
            return {"value": found if outputs > 1 else found[0]}
        # The answer to the first question is the lowest bit of the leaf's number.
        return {
            "split": splits[depth],
            "left": node(depth - 1, leaf),
            "right": node(depth - 1, leaf | 1 << depth),
        }

    return node(len(splits) - 1, 0)


def _add(
    builder: Any, node: dict[str, Any], known: dict[int, bool], scale: float, keys: Any
) -> None:
    """Add a node and all below it, which need numbers before they are there."""
    waiting = [(next(keys), node)]
    while waiting:
        key, node = waiting.pop()
        builder.start_node(key)
        if "split" in node:
            split = node["split"]
            place = split["float_feature_index"]
            left, right = next(keys), next(keys)
            builder.numerical_test(
                feature_id=place,
                threshold=split["border"],
                default_left=not known[place],
                opname="<=",
                left_child_key=left,
                right_child_key=right,
            )
            waiting += [(left, node["left"]), (right, node["right"])]
        else:
            value = node["value"]
            builder.leaf(_scaled(value, scale))
        builder.end_node()


def _scaled(value: list[float] | float, scale: float) -> list[float] | float:
    return [scale * each for each in value] if isinstance(value, list) else scale * value
