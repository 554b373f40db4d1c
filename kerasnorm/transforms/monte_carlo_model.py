"""A model that averages another one's predictions: `monte_carlo_model`."""

from typing import Any

import keras
from keras import ops

from kerasnorm import _validation, functional
from kerasnorm._keras import export_in_progress
from kerasnorm._words import arithmetic_is
from kerasnorm.functional import Tensor
from kerasnorm.layers._export import check_draws_of_a_seed, check_seed_is_exported
from kerasnorm.transforms._configs import check_is_model
from kerasnorm.transforms.monte_carlo import (
    are_seen_to_be_probabilities,
    batch_seed,
    check_has_one_output,
    draw_masks,
    dropout_layers,
)


def monte_carlo_model(
    model: keras.Model, samples: int = 50, from_logits: bool = False
) -> keras.Model:
    """Make a model that averages a model's predictions over random dropout masks.

    It takes `[inputs, seed]` and returns the fields of `MonteCarloPrediction` by name.
    They are those of `kerasnorm.monte_carlo(model, inputs, samples, seed)` with all
    inputs in one batch: the seed is all that the masks depend on. `export` takes it
    like any other model. A file draws the masks that this model draws, since the seed
    is one of its inputs.

    The variables are those of `model`, and the new model follows their changes. A call
    changes none.

    Args:
        model: Sequential or functional model with one output, also in a dictionary or
            list, and dropout layers as `kerasnorm.monte_carlo` takes them.
        samples: Number of masks to average over, at least 1. Defaults to 50. On the
            PyTorch backend an exported file grows with it.
        from_logits: Whether the outputs are logits, as in `kerasnorm.monte_carlo`.
            Defaults to `False`.

    Returns:
        A functional model of `[inputs, seed]`, where `inputs` are those of `model` and
        `seed` is an int32 tensor of shape `()` or `(1,)`. Its outputs are a dictionary
        of `mean`, `variance`, `predictive_entropy`, `expected_entropy` and
        `mutual_information`. The three last are there only where the model is seen to
        end in a softmax over the last axis, or in one sigmoid for each prediction, or
        where `from_logits` is `True`.

    Raises:
        ValueError: If the model is subclassed or not built, has several outputs, no
            dropout layer, or one of Keras's, or if `samples` is below 1.
        TypeError: If an argument is of a wrong type.

    Example:

    >>> import keras, kerasnorm
    >>> model = keras.Sequential([
    ...     keras.Input((8,)), kerasnorm.KDropout(0.5),
    ...     keras.layers.Dense(3, activation="softmax")])
    >>> averaged = kerasnorm.monte_carlo_model(model, samples=20)
    >>> x = keras.random.normal((4, 8), seed=1)
    >>> prediction = averaged([x, keras.ops.convert_to_tensor(0, "int32")])
    >>> tuple(prediction["mean"].shape), tuple(prediction["mutual_information"].shape)
    ((4, 3), (4,))
    """
    check_is_model(model)
    samples = _validation.check_positive_integer("samples", samples)
    from_logits = _validation.check_boolean("from_logits", from_logits)
    dropout_layers(model)
    inputs = keras.tree.map_structure(_input_like, _inputs_of(model))
    check_has_one_output(model, model.outputs)
    seed = keras.Input(batch_shape=(1,), dtype="int32", name="seed")
    layer = MonteCarloAverage(model, samples, from_logits)
    averaged = MonteCarloModel(
        [inputs, seed], layer(inputs, seed), name=f"monte_carlo_{model.name}"
    )
    averaged(averaged.input)  # to ONNX Keras exports only what was called
    return averaged


@keras.saving.register_keras_serializable(package="kerasnorm")
class MonteCarloModel(keras.Model):
    """What `monte_carlo_model` returns: a functional model, and how it is exported."""

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Export the model, as `keras.Model.export`, with a seed of shape `(1,)`.

        To ONNX the default of `opset_version` is 18, the first with what masks need.

        Raises:
            ValueError: If a file in this format cannot draw the model's masks, or if
                on the PyTorch backend the batch size is not known.
        """
        check_draws_of_a_seed(format)
        if input_signature is None:
            # Keras would give the seed a batch size, and on JAX that of the inputs.
            input_signature = [keras.tree.map_structure(_spec_of, self.input)]
        if format == "onnx" and keras.backend.backend() == "tensorflow":
            kwargs.setdefault("opset_version", 18)
        super().export(filepath, format, verbose, input_signature, **kwargs)


@keras.saving.register_keras_serializable(package="kerasnorm")
class MonteCarloAverage(keras.layers.Layer):
    """The layer of `monte_carlo_model`, which has its arguments."""

    def __init__(
        self, model: keras.Model, samples: int, from_logits: bool, **kwargs: Any
    ) -> None:
        # With the default policy it would cast the model's variables and inputs.
        policy = {"dtype": model.variable_dtype, "autocast": False}
        super().__init__(**{**policy, **kwargs})
        self.model, self.samples, self.from_logits = model, samples, from_logits

    def call(self, inputs: Any, seed: Tensor) -> dict[str, Tensor]:
        """Return the averages of one batch."""
        check_seed_is_exported()
        export = export_in_progress()
        with arithmetic_is(export is not None and export[0] == "litert"):
            seed = batch_seed(ops.reshape(seed, (-1,))[0])
            averages = draw_masks(
                self.model, inputs, seed, self.samples, self.from_logits
            )
        return {name: averages[name] for name in self._names()}

    def compute_output_spec(self, inputs: Any, seed: Any) -> dict[str, Any]:
        """Return the shapes of the averages, for which nothing needs to be drawn."""
        (y,) = keras.tree.flatten(self.model.compute_output_spec(inputs))
        dtype = functional.widened(y.dtype)
        shapes = dict.fromkeys(self._names(), y.shape[: max(len(y.shape) - 1, 1)])
        shapes |= {"mean": y.shape, "variance": y.shape}
        return {name: keras.KerasTensor(s, dtype) for name, s in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "samples": self.samples,
            "from_logits": self.from_logits,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MonteCarloAverage":
        """Make the layer that `get_config` describes."""
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})

    def _names(self) -> tuple[str, ...]:
        has_entropies = self.from_logits or are_seen_to_be_probabilities(self.model)
        entropies = ("predictive_entropy", "expected_entropy", "mutual_information")
        return ("mean", "variance", *(entropies if has_entropies else ()))


def _inputs_of(model: keras.Model) -> Any:
    """Return the model's symbolic inputs in their structure."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError(
            "`model` must be a Sequential or functional model that is built. Received: "
            f"{model.name!r}, which has no symbolic inputs. Make one of it: with "
            "x = keras.Input(SHAPE), keras.Model(x, model(x))."
        )
    return inputs[0] if isinstance(model, keras.Sequential) else model.input


def _input_like(tensor: Any) -> Any:
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        name=tensor.name,
    )


def _spec_of(tensor: Any) -> keras.InputSpec:
    return keras.InputSpec(tensor.dtype, tensor.shape, name=tensor.name)
