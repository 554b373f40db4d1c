"""What batch normalization sees while a model trains: `ShiftMonitor`."""

import warnings
from numbers import Integral
from pathlib import Path
from typing import Any

import keras

from kerasnorm import _model_inputs, _validation
from kerasnorm.layers.batch_norm import KBatchNorm, warn_of_keras_own
from kerasnorm.monitor.observation import disagreement, find_layers, observe_run
from kerasnorm.monitor.reports import CsvReport, Report, TensorBoardReport, draw

OLD_SHARE = 0.05
"""What is left of the statistics before `fit` above this share is named as a cause."""


class ShiftMonitor(keras.callbacks.Callback):
    """Record how far batch statistics are from the moving ones in every KBatchNorm.

    For each record the model runs once at inference on a fixed probe batch. The record
    has the 15th, 50th and 85th percentiles of the inputs and outputs of every
    `kerasnorm.KBatchNorm` in the model (Ioffe & Szegedy 2015, figure 1), and of its
    moving statistics over the features; nested and wrapped layers are included. It
    compares the mean m_k and the variance v_k of the inputs, for each feature k, with
    the layer's moving mean M_k and moving variance V_k:

    - mean shift: sqrt(average over k of (m_k - M_k)^2 / (V_k + epsilon)), 0 where
      they agree: by how many standard deviations the normalized inputs are off;
    - variance ratio: median over k of (v_k + epsilon) / (V_k + epsilon), 1 where they
      agree.

    What is masked does not count. If a layer is called more than once in a run, as a
    shared one is, the inputs of all calls count together. A probe of n independent
    samples is itself off by about 1 / sqrt(n) standard deviations. The run changes
    neither weights nor random state, so a model trains to the same weights with the
    monitor as without.

    One warning names the worst layer, and what to do, at the end of the first epoch in
    which a layer's latest record has a mean shift or a |log(variance ratio)| / 2 above
    `tolerance`; another one follows if that comes to be true of a further layer.
    Frozen layers are never named: they use the moving statistics in training too.
    Another warning tells if the model has a `BatchNormalization` of Keras as well.

    Args:
        x: The probe: inputs of the model, an array or a structure of arrays as
            `model.predict` takes them. Take some hundred samples, best from the
            validation set.
        frequency: `"epoch"`, or the number of training steps from one record to the
            next. Defaults to `"epoch"`.
        csv_path: File to write the records to. It is replaced when training begins and
            whole after each record. Defaults to `None`, no file.
        log_dir: Directory for TensorBoard, tags `mean_shift/<layer>` and so on. Needs
            the `tensorboard` package. Defaults to `None`, no summaries.
        tolerance: In standard deviations, not negative. Defaults to 0.5.

    Attributes:
        history: The records of the last `fit`, a list of dictionaries with the keys
            `step` (training steps since `fit` began), `epoch` (from 0), `layer`,
            `input_15`, `input_50`, `input_85`, the same for `output`, `moving_mean`
            and `moving_variance`, `mean_shift` and `variance_ratio`: the columns of
            the CSV file. Where two layers have one name, the second is `name#2`.
        step: Training steps since `fit` began. To go on after an interruption, set
            `history` and `step` to what they were once `fit` has begun; the CSV file
            has the records from then on.

    Raises:
        ValueError: If an argument is out of its domain, `x` does not fit the model, or
            the model has no KBatchNorm.
        TypeError: If an argument is of a wrong type.
        ImportError: If what `log_dir` or `plot` needs is not installed.

    Example:

    >>> import keras, kerasnorm
    >>> x = keras.random.normal((512, 4), mean=3.0, seed=1)
    >>> model = keras.Sequential(
    ...     [kerasnorm.KBatchNorm(momentum=0.5), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> monitor = kerasnorm.ShiftMonitor(x[:256], frequency=8)
    >>> history = model.fit(x, x[:, :1], epochs=2, callbacks=[monitor], verbose=0)
    >>> [row["step"] for row in monitor.history]
    [8, 16, 24, 32]
    >>> monitor.history[-1]["mean_shift"] < 0.5
    True

    References:
        - Ioffe & Szegedy 2015, arXiv:1502.03167, section 4.1, figure 1.
    """

    def __init__(
        self,
        x: Any,
        *,
        frequency: str | int = "epoch",
        csv_path: str | Path | None = None,
        log_dir: str | Path | None = None,
        tolerance: float = 0.5,
    ) -> None:
        super().__init__()
        advice = "Of a dataset take one batch, without the targets."
        _model_inputs.check_arrays("x", x, advice)
        self.x = x
        self.frequency = _check_frequency(frequency)
        self.csv_path = None if csv_path is None else Path(csv_path)
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.tolerance = _validation.check_real(
            "tolerance", tolerance, "a float not below 0", minimum=0.0
        )
        self.history: list[dict[str, Any]] = []
        self.step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the layers and begin the files."""
        self.history = []
        self._latest: list[dict[str, Any]] = []
        self._layers = find_layers(self.model)
        if not self._layers:
            raise ValueError(
                _validation.message(
                    "model",
                    "a model with a KBatchNorm",
                    self.model.name,
                    "`kerasnorm.convert` makes them of the built-in layers.",
                )
            )
        warn_of_keras_own(self.model, "recorded")
        _model_inputs.check_inputs_fit("x", self.model, self.x)
        self._warned: set[str] = set()
        self.step = self._steps_before_epoch = self._epoch = 0
        self._reports: list[Report] = []
        if self.csv_path is not None:
            self._reports.append(CsvReport(self.csv_path))
        if self.log_dir is not None:
            self._reports.append(TensorBoardReport(self.log_dir))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch."""
        self._epoch = epoch
        self._steps_before_epoch = self.step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the steps; one call may stand for several. Record."""
        before, self.step = self.step, self._steps_before_epoch + batch + 1
        if self.frequency != "epoch":
            every = int(self.frequency)
            if self.step // every > before // every:
                self._record()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record, if `frequency` is `"epoch"`; warn."""
        if self.frequency == "epoch":
            self._record()
        self._warn()

    def on_train_end(self, logs: Any = None) -> None:
        """Close the files."""
        for report in self._reports:
            report.close()

    def plot(self, path: str | Path) -> None:
        """Draw the percentiles of each layer's inputs and outputs over the steps.

        One panel for each layer; its title is red where the last record is beyond
        `tolerance`.

        Args:
            path: The picture's file; its suffix gives the format. Needs matplotlib.
        """
        if not self.history:
            raise ValueError(
                "`history` must have records to plot. Received: history=[]. Give the "
                "monitor to `fit` first, with a `frequency` that training reaches."
            )
        draw(self.history, self.tolerance, Path(path))

    def _record(self) -> None:
        with _model_inputs.inputs_that_fit("x", self.model, self.x):
            observations = observe_run(self.model, self.x, self._layers)
        self._latest = [
            {"step": self.step, "epoch": self._epoch, "layer": name, **seen.summary()}
            for name, seen in observations.items()
        ]
        self.history += self._latest
        for report in self._reports:
            report.write(self._latest)

    def _warn(self) -> None:
        apart = {
            row["layer"]: row
            for row in self._latest
            if disagreement(row) > self.tolerance
            and self._layers[row["layer"]].trainable
        }
        if apart.keys() <= self._warned:
            return
        self._warned |= apart.keys()
        worst = max(apart.values(), key=disagreement)
        warnings.warn(
            f"Training and inference disagree in {len(apart)} of "
            f"{len(self._latest)} KBatchNorm layers at step {worst['step']}, most in "
            f"'{worst['layer']}': mean shift {worst['mean_shift']:.2f} standard "
            f"deviations, variance ratio {worst['variance_ratio']:.2f}; `tolerance` is "
            f"{self.tolerance:g}. {self._cause(self._layers[worst['layer']])} "
            "kerasnorm.recalibrate(model, data) sets the statistics before inference.",
            stacklevel=2,
        )

    def _cause(self, layer: KBatchNorm) -> str:
        """Say what is likely to hold the moving statistics back, and what helps."""
        rest = layer.momentum**self.step
        if layer.moving_average == "exponential" and rest > OLD_SHARE:
            return (
                f"At momentum {layer.momentum:g} the moving statistics still consist "
                f"to {rest:.0%} of what they were before `fit`: train for more steps, "
                'or use moving_average="debiased" or a smaller momentum.'
            )
        return (
            "The batches are small or unlike the probe, dropout stands before the "
            "layer, or its inputs still change fast: compare the data, use larger "
            "batches or a smaller learning rate."
        )


def _check_frequency(frequency: Any) -> str | int:
    domain = "'epoch' or a positive integer, the steps between two records"
    is_integer = isinstance(frequency, Integral) and not isinstance(frequency, bool)
    if not is_integer and not isinstance(frequency, str):
        raise _validation.wrong_type("frequency", domain, frequency)
    if frequency != "epoch" and not (is_integer and frequency > 0):
        raise ValueError(_validation.message("frequency", domain, frequency))
    return int(frequency) if is_integer else frequency
