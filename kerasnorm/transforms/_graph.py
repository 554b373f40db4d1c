"""The graph in a functional model's configuration.

The format is Keras's own. `tests/kerasnorm/test_keras.py` says what is relied on.
"""

import collections
from collections.abc import Callable
from typing import Any

from kerasnorm.transforms._configs import Config

Reference = tuple[str, int, int]
"""A tensor: the name of the layer that made it, the call, the output, from 0."""


class Graph:
    """The layers of a functional model and their calls, as its configuration has them.

    Args:
        config: The configuration, which is changed in place.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.entries: dict[str, Config] = {e["name"]: e for e in config["layers"]}

    def calls(self, name: str) -> list[Config]:
        """Return the calls of a layer in this model."""
        calls: list[Config] = self.entries[name]["inbound_nodes"]
        return calls

    def is_called_once(self, name: str) -> bool:
        """Return whether the layer stands at one place in the model."""
        return len(self.calls(name)) == 1

    def inputs(self, call: Config) -> list[Reference]:
        """Return the tensors that a call takes."""
        found: list[Reference] = []

        def note(reference: Reference) -> Reference:
            found.append(reference)
            return reference

        _map_call(call, note)
        return found

    def input(self, call: Config) -> Reference:
        """Return the first tensor that a call takes, or the one named `inputs`."""
        by_name = call.get("kwargs", {}).get("inputs")
        return self.inputs(call if by_name is None else by_name)[0]

    def consumers(self, name: str) -> list[str | None]:
        """Return the layers that take a layer's output; `None` for the model's own."""
        consumers: collections.Counter[str | None] = collections.Counter()
        for consumer, entry in self.entries.items():
            for call in entry["inbound_nodes"]:
                consumers[consumer] += [r[0] for r in self.inputs(call)].count(name)

        def note(reference: Reference) -> Reference:
            consumers[None] += reference[0] == name
            return reference

        _map_outputs(self.config["output_layers"], note)
        return list(consumers.elements())

    def bypass(self, name: str) -> None:
        """Take a layer out: what took its output then takes its input."""
        sources = [self.input(call) for call in self.calls(name)]
        del self.entries[name]

        def source(reference: Reference) -> Reference:
            return sources[reference[1]] if reference[0] == name else reference

        for entry in self.entries.values():
            entry["inbound_nodes"] = [
                _map_call(call, source) for call in entry["inbound_nodes"]
            ]
        self.config["layers"] = list(self.entries.values())
        self.config["output_layers"] = _map_outputs(
            self.config["output_layers"], source
        )


def _map_call(value: Any, change: Callable[[Reference], Reference]) -> Any:
    """Change the references among the arguments of a call."""
    if isinstance(value, (list, tuple)):
        return type(value)(_map_call(item, change) for item in value)
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__keras_tensor__":
        history = list(change(tuple(value["config"]["keras_history"])))
        return {**value, "config": {**value["config"], "keras_history": history}}
    return {key: _map_call(item, change) for key, item in value.items()}


def _map_outputs(value: Any, change: Callable[[Reference], Reference]) -> Any:
    """Change the references in the structure of a model's outputs."""
    if isinstance(value, dict):
        return {key: _map_outputs(item, change) for key, item in value.items()}
    if len(value) == 3 and isinstance(value[0], str):
        return list(change(tuple(value)))
    return type(value)(_map_outputs(item, change) for item in value)
