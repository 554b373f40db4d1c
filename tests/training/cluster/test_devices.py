"""Which devices and workers a job is given."""

import json

import pytest
import tensorflow as tf

from training.cluster.devices import strategy
from training.config import TrainConfig
from training.errors import UserError


@pytest.mark.parametrize(
    ("tf_config", "complaint"),
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("", "Received: : Invalid JSON"),
        ("[]", r"Received: \[\]: Input should be an object"),
        ({"cluster": {"worker": ["a:1"]}}, "task: Field required"),
        (
            {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}},
            r"there is no worker 1 among \['a:1'\]",
        ),
        (
            {"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}},
            r"cluster.worker.0: String should match",
        ),
        (
            {"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}},
            "task.type: Input should be 'chief' or 'worker'",
        ),
    ],
)
def test_a_tf_config_that_is_missing_or_bad(
    monkeypatch: pytest.MonkeyPatch, tf_config: object, complaint: str
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if tf_config is not None:
        text = tf_config if isinstance(tf_config, str) else json.dumps(tf_config)
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=complaint) as raised:
        strategy(TrainConfig(distribute="multiworker"))
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU to mirror on"
)
def test_mirroring_on_a_cpu_needs_the_number_of_its_parts() -> None:
    with pytest.raises(UserError, match=r"this machine has none.*--replicas N"):
        strategy(TrainConfig(distribute="mirrored"))
