"""What users see of the package, wherever it is installed."""

import ast
import doctest
import importlib
import importlib.metadata
import inspect
import json
import pkgutil
import sys
from pathlib import Path

import keras
import pytest

import kerasnorm
from tests.kerasnorm.probes import HAS_RENORM

PACKAGE = Path(kerasnorm.__file__).parent
MODULES = [
    "kerasnorm",
    *(m.name for m in pkgutil.walk_packages(kerasnorm.__path__, "kerasnorm.")),
]
OTHER_BACKENDS = {"tensorflow", "jax", "torch"} - {keras.backend.backend()}
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [
    kerasnorm.KBatchNorm,
    kerasnorm.KDropout,
    kerasnorm.KGaussianDropout,
    kerasnorm.KSpatialDropout,
]


def test_public_names():
    assert kerasnorm.__all__ == [
        "KBatchNorm",
        "KBatchNormalization",
        "KDropout",
        "KGaussianDropout",
        "KSpatialDropout",
        "MonteCarloPrediction",
        "ShiftMonitor",
        "__version__",
        "convert",
        "fold",
        "functional",
        "load_model",
        "load_weights",
        "monte_carlo",
        "monte_carlo_model",
        "recalibrate",
        "recompute",
    ]
    assert all(hasattr(kerasnorm, name) for name in kerasnorm.__all__)
    assert kerasnorm.KBatchNormalization is kerasnorm.KBatchNorm


def test_nothing_else_is_public_at_the_top():
    public = {name for name in vars(kerasnorm) if not name.startswith("_")}
    submodules = {name.split(".")[1] for name in MODULES[1:]}
    assert public - submodules <= set(kerasnorm.__all__)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_registered_names(layer_class):
    name = f"kerasnorm>{layer_class.__name__}"
    assert keras.saving.get_registered_name(layer_class) == name
    assert keras.saving.get_registered_object(name) is layer_class


@pytest.mark.parametrize(
    ("ours", "builtin", "added"),
    [
        (
            kerasnorm.KBatchNorm,
            keras.layers.BatchNormalization,
            ["moving_average", "bessel_correction", "virtual_batch_size"],
        ),
        (kerasnorm.KDropout, keras.layers.Dropout, ["scale_at", "monte_carlo"]),
        (kerasnorm.KGaussianDropout, keras.layers.GaussianDropout, []),
    ],
)
def test_arguments_are_those_of_the_built_in_layer_and_then_our_own(
    ours, builtin, added
):
    def arguments(layer_class, *kinds):
        return [
            (p.name, p.default)
            for p in inspect.signature(layer_class).parameters.values()
            if p.kind in kinds
        ]

    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    theirs = [
        argument
        for argument in arguments(ours, positional)
        if HAS_RENORM or not argument[0].startswith("renorm")
    ]
    assert theirs == arguments(builtin, positional)
    keyword = [name for name, _ in arguments(ours, inspect.Parameter.KEYWORD_ONLY)]
    assert keyword == added


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "module", [m for m in MODULES if not OTHER_BACKENDS & set(m.split("."))]
)
def test_doctests(module):
    failed, _ = doctest.testmod(importlib.import_module(module))
    assert failed == 0


@pytest.mark.parametrize("layer_class", LAYERS)
def test_layers_are_documented_with_an_example(layer_class):
    text = inspect.getdoc(layer_class)
    assert doctest.DocTestParser().get_examples(text)
    sections = ["Args:", "Call arguments:", "Input shape:", "Output shape:"]
    sections += ["Weights", "Raises:", "Example", "References:"]
    positions = [text.find(f"\n{section}") for section in sections]
    assert -1 not in positions
    assert positions == sorted(positions)
    arguments = set(inspect.signature(layer_class).parameters) - {"kwargs"}
    described = text[positions[0] : positions[1]]
    assert {name for name in arguments if name not in described} == set()


def imported(path):
    """Yield the full names of all that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES]
)
def test_imports_keras_numpy_and_the_backend_only(path):
    allowed = {"keras", "kerasnorm", "numpy"} | sys.stdlib_module_names
    allowed -= {"argparse", "logging"}
    for framework in ("tensorflow", "jax", "torch"):
        if path.with_suffix("").is_relative_to(PACKAGE / "backend" / framework):
            allowed |= {framework}
    if path.name == "reports.py":
        allowed |= {"matplotlib", "tensorflow"}
    assert {name.split(".")[0] for name in imported(path)} <= allowed


ROOMS_ABOVE = {
    "functional": ["backend", "layers", "transforms", "monitor"],
    "backend": ["layers", "transforms", "monitor"],
    "layers": ["transforms", "monitor"],
    "transforms": ["monitor"],
    "monitor": ["transforms"],
}


@pytest.mark.parametrize("room", ROOMS_ABOVE)
def test_no_room_imports_one_above_it(room):
    above = {f"kerasnorm.{name}" for name in ROOMS_ABOVE[room]}
    for path in FILES:
        if path.relative_to(PACKAGE).with_suffix("").is_relative_to(room):
            rooms = {".".join(name.split(".")[:2]) for name in imported(path)}
            assert not rooms & above, path


def test_no_other_room_imports_the_functions_of_one_backend():
    for path in FILES:
        if not path.is_relative_to(PACKAGE / "backend"):
            names = [n for n in imported(path) if n.startswith("kerasnorm.backend.")]
            assert not {n.split(".")[2] for n in names} & {"tensorflow", "jax", "torch"}


def test_types_are_published():
    assert (PACKAGE / "py.typed").is_file()


def test_an_installed_wheel_holds_kerasnorm_only():
    distribution = importlib.metadata.distribution("kerasnorm")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    editable = origin.get("dir_info", {}).get("editable", False)
    if editable or not distribution.read_text("WHEEL"):
        pytest.skip("kerasnorm is imported from its source.")
    assert distribution.version == kerasnorm.__version__
    tops = {file.parts[0] for file in distribution.files}
    assert tops == {"kerasnorm", f"kerasnorm-{kerasnorm.__version__}.dist-info"}
