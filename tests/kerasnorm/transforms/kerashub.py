"""KerasHub's models in small, what whole-model functions make of them, and a table.

`python -m tests.kerasnorm.transforms.kerashub` writes the table of docs/kerashub.md.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import keras_hub
import numpy as np

import kerasnorm
from kerasnorm.transforms._layers import COUNTERPARTS, NORMALIZATIONS
from tests.kerasnorm.probes import numpy, randomised_model
from tests.oracle import Array

MODELS = keras_hub.models
PAGE = Path(__file__).parents[3] / "docs" / "kerashub.md"
IMAGE = (32, 32, 3)
TOKENS = 8
TEXT = {
    "vocabulary_size": 30,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "dropout": 0.2,
}


def resnet(block_type: str = "bottleneck_block", **options: Any) -> keras.Model:
    deep = block_type.endswith("_vd")
    return MODELS.ResNetBackbone(
        input_conv_filters=[8, 8, 8] if deep else [8],
        input_conv_kernel_sizes=[3, 3, 3] if deep else [7],
        stackwise_num_filters=[64, 16, 16],
        stackwise_num_blocks=[1, 1, 1],
        stackwise_num_strides=[1, 2, 2],
        block_type=block_type,
        image_shape=IMAGE,
        **options,
    )


def mobilenet() -> keras.Model:
    return MODELS.MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[16, 16], [24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [1, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=32,
        input_num_filters=8,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=32,
        image_shape=IMAGE,
    )


def mobilenet_v5() -> keras.Model:
    def stacks(first: Any, second: Any, third: Any) -> list[list[Any]]:
        return [[first], [second, third]]

    return MODELS.MobileNetV5Backbone(
        stackwise_block_types=stacks("er", "uir", "mqa"),
        stackwise_num_blocks=[1, 2],
        stackwise_num_filters=stacks(8, 16, 16),
        stackwise_strides=stacks(2, 2, 1),
        stackwise_act_layers=stacks("relu", "relu", "relu"),
        stackwise_exp_ratios=stacks(4.0, 6.0, 6.0),
        stackwise_se_ratios=stacks(0.0, 0.0, 0.0),
        stackwise_dw_kernel_sizes=stacks(0, 5, 5),
        stackwise_dw_start_kernel_sizes=stacks(0, 0, 0),
        stackwise_dw_end_kernel_sizes=stacks(0, 0, 0),
        stackwise_exp_kernel_sizes=stacks(3, 0, 0),
        stackwise_pw_kernel_sizes=stacks(1, 0, 0),
        stackwise_num_heads=stacks(0, 0, 2),
        stackwise_key_dims=stacks(0, 0, 8),
        stackwise_value_dims=stacks(0, 0, 8),
        stackwise_kv_strides=stacks(0, 0, 1),
        stackwise_use_cpe=stacks(False, False, False),
        num_features=32,
        act_layer="relu",
        norm_layer="batch_norm",
        use_msfa=False,
        image_shape=IMAGE,
    )


def efficientnet(kinds: list[str], ratios: list[float]) -> keras.Model:
    return MODELS.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 3,
        stackwise_depth_coefficients=[1.0] * 3,
        stackwise_kernel_sizes=[3, 3, 5],
        stackwise_num_repeats=[1, 2, 1],
        stackwise_input_filters=[16, 8, 12],
        stackwise_output_filters=[8, 12, 16],
        stackwise_expansion_ratios=[1, 4, 4],
        stackwise_strides=[1, 2, 2],
        stackwise_squeeze_and_excite_ratios=ratios,
        stackwise_block_types=kinds,
        stackwise_force_input_filters=[0] * 3,
        stackwise_nores_option=[False] * 3,
        num_features=32,
        dropout=0.2,
        input_shape=IMAGE,
    )


def csp_darknet() -> keras.Model:
    return MODELS.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2],
        stackwise_strides=[2, 2],
        stackwise_num_filters=[16, 32],
        block_type="dark_block",
        stage_type="csp",
        expand_ratio=[1.0, 1.0],
        bottle_ratio=[0.5, 0.5],
        block_ratio=[0.5, 0.5],
        image_shape=IMAGE,
    )


def xception() -> keras.Model:
    return MODELS.XceptionBackbone(
        stackwise_conv_filters=[[8, 16], [24, 24], [32, 32]],
        stackwise_pooling=[False, True, False],
        image_shape=(64, 64, 3),
    )


def hgnet_v2() -> keras.Model:
    return MODELS.HGNetV2Backbone(
        depths=[1, 2],
        embedding_size=8,
        hidden_sizes=[16, 32],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[[8, 8, 16, 1, 3, 3], [16, 8, 32, 2, 3, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        image_shape=IMAGE,
    )


def deeplab_v3() -> keras.Model:
    backbone = MODELS.DeepLabV3Backbone(
        image_encoder=resnet(),
        spatial_pyramid_pooling_key="P4",
        low_level_feature_key="P2",
        upsampling_size=4,
        dilation_rates=[2, 3],
        projection_filters=8,
        image_shape=IMAGE,
    )
    return MODELS.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=3)


def retinanet() -> keras.Model:
    return MODELS.RetinaNetBackbone(
        image_encoder=resnet(),
        min_level=3,
        max_level=4,
        use_p5=False,
        use_fpn_batch_norm=True,
        image_shape=IMAGE,
    )


def segformer() -> keras.Model:
    encoder = MODELS.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.0,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[8, 16],
        image_shape=IMAGE,
    )
    backbone = MODELS.SegFormerBackbone(image_encoder=encoder, projection_filters=8)
    return MODELS.SegFormerImageSegmenter(backbone=backbone, num_classes=3)


def vit() -> keras.Model:
    backbone = MODELS.ViTBackbone(
        image_shape=IMAGE,
        patch_size=(8, 8),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        dropout_rate=0.1,
        attention_dropout=0.1,
    )
    return MODELS.ViTImageClassifier(backbone=backbone, num_classes=3, dropout=0.2)


def text(family: str, task: str) -> keras.Model:
    backbone = getattr(MODELS, f"{family}Backbone")(max_sequence_length=TOKENS, **TEXT)
    options = {} if task == "CausalLM" else {"num_classes": 3}
    return getattr(MODELS, family + task)(backbone=backbone, **options)


ZOO: dict[str, Callable[[], keras.Model]] = {
    "ResNet": lambda: MODELS.ImageClassifier(
        backbone=resnet(), num_classes=3, dropout=0.3
    ),
    "ResNet v2": lambda: resnet(use_pre_activation=True),
    "ResNet-vd": lambda: resnet("bottleneck_block_vd"),
    "MobileNet": mobilenet,
    "MobileNetV5": mobilenet_v5,
    "EfficientNet v1": lambda: efficientnet(["v1"] * 3, [0.25] * 3),
    "EfficientNet, fused": lambda: efficientnet(
        ["fused", "fused", "unfused"], [0.0, 0.0, 0.25]
    ),
    "CSPDarkNet": csp_darknet,
    "DenseNet": lambda: MODELS.DenseNetBackbone(
        stackwise_num_repeats=[2, 2], growth_rate=8, image_shape=IMAGE
    ),
    "Xception": xception,
    "HGNetV2": hgnet_v2,
    "DeepLabV3": deeplab_v3,
    "RetinaNet": retinanet,
    "SegFormer": segformer,
    "ViT": vit,
    "BERT": lambda: text("Bert", "TextClassifier"),
    "RoBERTa": lambda: text("Roberta", "TextClassifier"),
    "GPT-2": lambda: text("GPT2", "CausalLM"),
    "T5": lambda: MODELS.T5Backbone(**TEXT),
}


class Measured(NamedTuple):
    """What is known of one model: a row of the table."""

    name: str
    kind: str
    replaced: str
    made: str
    inference: float
    training: float
    monte_carlo: str
    folded: str
    fold_error: float


def measure(name: str) -> Measured:
    """Convert one model there and back, train it, draw masks, fold it."""
    keras.utils.set_random_seed(1)
    model = randomised_model(ZOO[name]())
    x = inputs_of(model)
    expected = outputs(model, x)
    assert np.isfinite(expected).all()
    assert expected.std() > 1e-3
    ours = kerasnorm.convert(model)
    assert not [la for la in all_layers(ours) if type(la) in COUNTERPARTS]
    back = kerasnorm.convert(ours, to="keras")
    assert kinds(back) == kinds(model)
    np.testing.assert_array_equal(outputs(back, x), expected)
    drawn = draws(ours, x)
    counts = Counter(type(la) for la in all_layers(model) if type(la) in COUNTERPARTS)
    report: list[str] = []
    folded = kerasnorm.fold(ours, report.append)
    assert len(report) == sum(counts.values()), "A layer has no line in the report."
    done = Counter(line.partition(": ")[2].split(",")[0].split()[0] for line in report)
    inside = [line for line in report if ": kept, since it is part of " in line]
    assert len(inside) == done["kept"]
    return Measured(
        name,
        type(model).__name__,
        ", ".join(f"{n} {kind.__name__}" for kind, n in counts.items()),
        type(ours).__name__,
        distance(outputs(ours, x), expected),
        training_distance(model, ours, x),
        drawn,
        ", ".join(f"{done[key]} {key}" for key in sorted(done)),
        distance(outputs(folded, x), expected),
    )


def training_distance(theirs: keras.Model, ours: keras.Model, x: Any) -> float:
    """Return the largest error of the statistics and outputs of a step in training.

    Dropout is off: the masks of one are not those of the other.
    """
    for model in (theirs, ours):
        for layer in all_layers(model):
            if isinstance(getattr(layer, "rate", None), float):
                layer.rate = 0.0
    one, other = (outputs(model, x, training=True) for model in (ours, theirs))
    errors = [distance(one, other)]
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        errors.append(distance(numpy(a), numpy(b)))
    return max(errors)


def draws(model: keras.Model, x: Any) -> str:
    """Return whether Monte Carlo dropout draws masks, or that there is nothing to."""
    rates = [getattr(la, "rate", 0) for la in all_layers(model) if is_dropout(la)]
    if not any(rates):
        return "no dropout"
    one = keras.tree.flatten(model.output)[0]
    single = keras.Model(model.input, one)
    # So many that a layer which drops a tenth of the images has dropped most of them.
    variance = kerasnorm.monte_carlo(single, x, samples=16, seed=1).variance
    assert (variance > 0).mean() > 0.5
    return "yes"


def is_dropout(layer: keras.layers.Layer) -> bool:
    return type(layer) in COUNTERPARTS.values() and type(layer) not in NORMALIZATIONS


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    layers: list[keras.layers.Layer] = model._flatten_layers(include_self=False)
    return layers


def kinds(model: keras.Model) -> list[type]:
    return [type(layer) for layer in all_layers(model)]


def inputs_of(model: keras.Model, samples: int = 4) -> Any:
    """Return a batch for a model: pictures, or tokens with no padding."""
    rng = np.random.default_rng(0)

    def array(tensor: Any) -> Any:
        shape = (samples, *(TOKENS if s is None else s for s in tensor.shape[1:]))
        if "mask" in tensor.name:
            return np.ones(shape, "int32")
        if "int" in tensor.dtype:
            size = 2 if "segment" in tensor.name else TEXT["vocabulary_size"]
            return rng.integers(0, size, shape).astype("int32")
        return rng.uniform(0, 1, shape).astype("float32")

    return keras.tree.map_structure(array, model.input)


def outputs(model: keras.Model, x: Any, training: bool = False) -> Array:
    found = keras.tree.flatten(model(x, training=training))
    result: Array = np.concatenate([numpy(y).astype("float64").ravel() for y in found])
    return result


def distance(one: Array, other: Array) -> float:
    """Return the largest error, as a share of the largest value."""
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-6))


def table(rows: list[Measured]) -> str:
    """Return the table of the page."""
    lines = [
        "| model | class | replaced | `convert`: class, error | error in training "
        "| `monte_carlo` | `fold` | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        made = "the same" if row.made == row.kind else f"`{row.made}`"
        lines.append(
            f"| {row.name} | `{row.kind}` | {row.replaced} | {made}, "
            f"{row.inference:.0e} | {row.training:.0e} | {row.monte_carlo} "
            f"| {row.folded} | {row.fold_error:.0e} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all models and write the table into the page."""
    rows = table([measure(name) for name in ZOO])
    text = PAGE.read_text()
    mark = "<!-- table -->"
    page = re.sub(
        f"{mark}.*?{mark}", lambda _: f"{mark}\n{rows}\n{mark}", text, flags=re.S
    )
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
