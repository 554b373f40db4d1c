"""TensorFlow Serving's REST contract, as a table, against a server with real models."""

import base64
import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from tests.service.serving.served import AVAILABLE, Client, half, serve


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Client]:
    directory = tmp_path_factory.mktemp("rest") / "models"
    shutil.copytree(models, directory)
    (directory / "with space").symlink_to(directory / "half")
    with serve(directory) as (client, _):
        yield client


@dataclass(frozen=True)
class Says:
    """An error with this message."""

    message: str


@dataclass(frozen=True)
class Matches:
    """An error whose message a pattern describes."""

    pattern: str


@dataclass(frozen=True)
class Text:
    """A body, byte for byte."""

    text: str


def row(error: str, element: str = "0") -> Says:
    return Says(
        f"Failed to process element: {element} of 'instances' list. "
        f"Error: INVALID_ARGUMENT: {error}"
    )


def named(signature: str, **body: Any) -> dict[str, Any]:
    return {"signature_name": signature, **body}


def b64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


H = "/v1/models/half"
E = "/v1/models/echo"
P = "/v1/models/pair"
T = "/v1/models/text"
X = "/v1/models/troubles"
C = "/v1/models/examples"
NOT_THERE = "Servable not found for request: "

# Method, path, body (bytes as they are, all else as JSON), status, expected.
GETS = [
    (H, 200, AVAILABLE),
    ("/V1/Models/half", 200, AVAILABLE),
    (f"{H}/versions/1", 200, AVAILABLE),
    (f"{H}/Versions/1", 200, AVAILABLE),
    (f"{H}/versions/0001", 200, AVAILABLE),
    (f"{H}/labels/any", 200, AVAILABLE),
    (f"{H}?verbose=1", 200, AVAILABLE),
    ("/v1/models/%68alf", 200, AVAILABLE),
    ("/v1/models/with%20space", 200, AVAILABLE),
    ("/v1/models/HALF", 404, Says("Could not find any versions of model HALF")),
    ("/v1/models/nope", 404, Says("Could not find any versions of model nope")),
    (
        "/v1/models/with+space",
        404,
        Says("Could not find any versions of model with+space"),
    ),
    (f"{H}/versions/7", 404, Says("Could not find version 7 of model half")),
    ("/v1/models/nope/versions/7", 404, Says("Could not find version 7 of model nope")),
    (
        f"{H}/versions/9223372036854775808",
        400,
        Says("Failed to convert version: 9223372036854775808 to numeric."),
    ),
    (
        f"{H}/versions/{'9' * 5000}",
        400,
        Says(f"Failed to convert version: {'9' * 5000} to numeric."),
    ),
    ("/v1/models", 400, Says("Missing model name in request.")),
    ("/v1/models/metadata", 404, Says("Could not find any versions of model metadata")),
    (f"{H}/versions/7/metadata", 404, Says(f"{NOT_THERE}Specific(half, 7)")),
    ("/v1/models/nope/metadata", 404, Says(f"{NOT_THERE}Latest(nope)")),
    (
        f"{H}/labels/L/metadata",
        400,
        Says("Unrecognized servable version label: L"),
    ),
    *(
        (path, 400, Says(f"Malformed request: GET {path}"))
        for path in (
            "/v1/",
            "/v1/foo",
            "/v1/models/",
            f"{H}/",
            f"{H}/versions/one",
            f"{H}/versions/-1",
            f"{H}/versions/",
            f"{H}/labels/",
            f"{H}/versions/1/labels/a",
            f"{H}/metadata/",
            f"{H}:predict",
            "/v1/models/a/b",
            "/v1/models/../half",
            "/v1/models/a:b",
        )
    ),
    # Encoded, a path is a name like others, and no model has it.
    *(
        (
            f"/v1/models/{encoded}",
            404,
            Says(f"Could not find any versions of model {name}"),
        )
        for encoded, name in (
            ("..%2fhalf", "../half"),
            ("half%2f1", "half/1"),
            ("%2e%2e", ".."),
            ("half%00", "half\0"),
            ("%zz", "%zz"),
            ("%ff", "\ufffd"),
            ("a%ed%a0%80", "a\ufffd\ufffd\ufffd"),
            ("caf%C3%A9", "café"),
            ("half%3a", "half:"),
        )
    ),
]
NO_PREDICTION = [
    ("PUT", H, 400, Says(f"Malformed request: PUT {H}")),
    ("DELETE", H, 400, Says(f"Malformed request: DELETE {H}")),
    ("POST", H, 400, Says(f"Malformed request: POST {H}")),
    ("POST", f"{H}:explain", 400, Says(f"Malformed request: POST {H}:explain")),
    ("POST", f"{H}:PREDICT", 400, Says(f"Malformed request: POST {H}:PREDICT")),
    ("POST", f"{H}/:predict", 400, Says(f"Malformed request: POST {H}/:predict")),
    ("POST", f"{H}:predict/", 400, Says(f"Malformed request: POST {H}:predict/")),
    ("PUT", f"{H}:predict", 400, Says(f"Malformed request: PUT {H}:predict")),
    (
        "POST",
        f"{H}/metadata:predict",
        400,
        Says(f"Malformed request: POST {H}/metadata:predict"),
    ),
]
ONE = {"instances": [1.0]}
ROUTES = [
    (f"{H}:predict", ONE, 200, {"predictions": [2.5]}),
    ("/V1/MODELS/half:predict", ONE, 200, {"predictions": [2.5]}),
    (f"{H}/versions/1:predict", ONE, 200, {"predictions": [2.5]}),
    (f"{H}/VERSIONS/1:predict", ONE, 200, {"predictions": [2.5]}),
    ("/v1/models/with%20space:predict", ONE, 200, {"predictions": [2.5]}),
    ("/v1/models/nope:predict", ONE, 404, Says(f"{NOT_THERE}Latest(nope)")),
    ("/v1/models/HALF:predict", ONE, 404, Says(f"{NOT_THERE}Latest(HALF)")),
    (f"{H}/versions/7:predict", ONE, 404, Says(f"{NOT_THERE}Specific(half, 7)")),
    (
        f"{H}/versions/9223372036854775808:predict",
        ONE,
        400,
        Says("Failed to convert version: 9223372036854775808 to numeric."),
    ),
    (
        f"{H}/labels/L:predict",
        ONE,
        400,
        Says("Unrecognized servable version label: L"),
    ),
    (
        f"{H}/labels/a%20b:predict",
        ONE,
        400,
        Says("Unrecognized servable version label: a b"),
    ),
]
# In this order: JSON, `signature_name`, the model, the signature, the tensors.
ORDER = [
    (
        "/v1/models/nope:predict",
        b"",
        400,
        Says("JSON Parse error: The document is empty"),
    ),
    (
        "/v1/models/nope:predict",
        {"signature_name": 5},
        400,
        Matches(
            r'JSON Value: \{\n    "signature_name": 5\n\} not formatted correctly\. '
            r"'signature_name' key must be a string value\."
        ),
    ),
    ("/v1/models/nope:predict", {}, 404, Says(f"{NOT_THERE}Latest(nope)")),
    (
        "/v1/models/nope:predict",
        named("s"),
        404,
        Says(f"{NOT_THERE}Latest(nope)"),
    ),
    (
        f"{H}:predict",
        named("s"),
        400,
        Says('Serving signature name: "s" not found in signature def'),
    ),
    (f"{H}:predict", {}, 400, Says("Missing 'inputs' or 'instances' key")),
    (
        f"{X}:predict",
        named("no_inputs", instances=[1]),
        400,
        Says("Failed to get input map for signature: no_inputs"),
    ),
    (
        f"{H}:predict",
        named("__saved_model_init_op", instances=[1]),
        400,
        Says("Failed to get input map for signature: __saved_model_init_op"),
    ),
    (f"{H}:predict", named("", instances=[1]), 200, {"predictions": [2.5]}),
    (
        f"{H}:predict",
        named("serving_default", instances=[1]),
        200,
        {"predictions": [2.5]},
    ),
]
PARSER = [
    (b" \n", "The document is empty. at offset: 2"),
    (b"x", "Invalid value. at offset: 0"),
    (b'{"instances":', "Invalid value. at offset: 13"),
    (b'{"instances": [1', "Missing a comma or ] after an array element. at offset: 16"),
    (
        b'{"a[": "}", "instances": [1]',
        "Missing a comma or } after an object member. at offset: 28",
    ),
    (b'{"instances" [1]}', "Missing a colon after a name of object member. at offset"),
    (b"{instances: [1]}", "Missing a name for object member. at offset: 1"),
    (b'{"instances', "Missing a closing quotation mark in string."),
    (b'{"\\x": 1}', "Invalid escape character in string."),
    (b'{"\\u12g4": 1}', "Incorrect hex digit after \\u escape in string."),
    (b'{"instances": [1e999]}', "Number too big to be stored in double."),
    (
        b'{"instances": [' + b"9" * 5000 + b"]}",
        "Number too big to be stored in double.",
    ),
    (b"[" * 100_000, "Invalid value. at offset: 100000"),
    (b'{"a":' * 100_000, "Invalid value. at offset: 500000"),
    (
        b'{"a":' + b"[" * 2000 + b"1 2",
        "Missing a comma or ] after an array element. at offset: 2007",
    ),
    (b'{"a":' + b"[" * 2000 + b"}", "Invalid value. at offset: 2005"),
    (
        b'{"a":' + b"[" * 2000 + b"1}",
        "Missing a comma or ] after an array element. at offset: 2006",
    ),
    (
        b'{"a":' + b"[" * 2000 + b'{"b":1,2',
        "Missing a name for object member. at offset: 2012",
    ),
    (
        b'{"more": %s, "instances": [1]}' % (b"9" * 400),
        "Number too big to be stored in double.",
    ),
]
NOT_OBJECTS = [b"[1, 2]", b'"text"', b"5", b"null", b"NaN", b"true"]
ROWS = [
    # Numbers: floats accept integers, integers reject 1.0.
    (E, {"instances": [1, 2.0, 3, 5.003]}, 200, Text("[1.0,2.0,3.0,5.003]")),
    (E, {"instances": [0.2, 1e-7, 16777215]}, 200, {"predictions": [0.2, 1e-7, 16777215]}),
    (E, {"instances": [[1, 2], [3, 4]]}, 200, {"predictions": [[1.0, 2.0], [3.0, 4.0]]}),
    (E, {"instances": [[]]}, 200, {"predictions": [[]]}),
    (E, {"instances": [[[]], [[]]]}, 200, {"predictions": [[[]], [[]]]}),
    (E, {"instances": [{"x": [1, 2]}]}, 200, {"predictions": [[1.0, 2.0]]}),
    (E, {"instances": [{"x": 1}, {"x": 2}]}, 200, {"predictions": [1.0, 2.0]}),
    (E, {"instances": [True]}, 400, row("JSON Value: true Type: True is not of expected type: float")),
    (E, {"instances": [None]}, 400, row("JSON Value: null Type: Null is not of expected type: float")),
    (E, {"instances": ["x"]}, 400, row('JSON Value: "x" Type: String is not of expected type: float')),
    (E, {"instances": [b64(b"x")]}, 400, Matches(r".* Type: Object is not of expected type: float")),
    (E, {"instances": [1, "x"]}, 400, row('JSON Value: "x" Type: String is not of expected type: float', "1")),
    # Numbers that a type does not hold are rounded, as C++ converts doubles.
    *(
        (E, named(name, instances=[number, -number]), 200, {"predictions": [rounded, -rounded]})
        for name, number, rounded in (
            ("float32", 16777217, 16777216.0),
            ("float32", 16777219, 16777220.0),
            ("float32", 16777217.0, 16777216.0),
            ("float32", 1435774380, 1435774300.0),
            ("float32", 3.4028235e38, 3.4028235e38),
            ("float32", 2**64, 1.8446744e19),
            ("float32", 10**38, 1e38),
            ("float32", 0.1, 0.1),
            ("float32", 1e-46, 0.0),
            ("float64", 9007199254740991, 9007199254740991.0),
            ("float64", 9007199254740993, 9007199254740992.0),
            ("float64", 18446744073709551615, 18446744073709551616.0),
            ("float64", 10**300, 1e300),
        )
    ),
    *(
        (E, {"instances": [number, 1.0, -number]}, 200, Text('{"predictions":[Infinity,1.0,-Infinity]}'))
        for number in (3.5e38, 1e39, 10**39, 1.7e308)
    ),
    (E, {"instances": [[1e39, True]]}, 400, row("JSON Value: true Type: True is not of expected type: float")),
    (E, named("float64", instances=[0.1, 1e300]), 200, {"predictions": [0.1, 1e300]}),
    (E, named("float16", instances=[1]), 501, Says("Conversion of JSON Value: 1 to type: half")),
    (E, named("uint16", instances=[1]), 501, Says("Conversion of JSON Value: 1 to type: uint16")),
    *(
        case
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
        for lowest, highest in [(int(np.iinfo(name).min), int(np.iinfo(name).max))]
        for case in (
            (E, named(name, instances=[lowest, highest]), 200, {"predictions": [lowest, highest]}),
            (E, named(name, instances=[highest + 1]), 400, row(f"JSON Value: {highest + 1} Type: Number is not of expected type: {name}")),
            (E, named(name, instances=[lowest - 1]), 400, row(f"JSON Value: {lowest - 1} Type: Number is not of expected type: {name}")),
            (E, named(name, instances=[1.0]), 400, row(f"JSON Value: 1.0 Type: Number is not of expected type: {name}")),
            (E, named(name, instances=[True]), 400, row(f"JSON Value: true Type: True is not of expected type: {name}")),
        )
    ),
    (E, named("bool", instances=[True, False]), 200, {"predictions": [True, False]}),
    (E, named("bool", instances=[1]), 400, row("JSON Value: 1 Type: Number is not of expected type: bool")),
    # Strings and bytes.
    (E, named("string", instances=["a", "ü€", ""]), 200, {"predictions": ["a", "ü€", ""]}),
    (E, named("string", instances=["\u0000\n\""]), 200, {"predictions": ["\u0000\n\""]}),
    (E, named("string", instances=[b64(b"hello"), "world"]), 200, {"predictions": ["hello", "world"]}),
    (E, named("string", instances=[[b64(b"a")], ["b"]]), 200, {"predictions": [["a"], ["b"]]}),
    (E, named("string", instances=[{"b64": "aGVsbG8"}]), 200, {"predictions": ["hello"]}),
    (E, named("string", instances=[{"b64": "a?"}]), 400, row("Unable to base64 decode")),
    (E, named("string", instances=[["a", {"b65": "x"}]]), 400, Matches(r".*not formatted correctly for base64 data")),
    (E, named("string", instances=[1]), 400, row("JSON Value: 1 Type: Number is not of expected type: string")),
    (E, named("string", instances=[{"x": b64(b"hello")}]), 200, {"predictions": ["hello"]}),
    (E, b'{"signature_name": "string", "instances": ["\\ud800"]}', 400, Matches(".*The surrogate pair in string is invalid.")),
    (T, {"instances": ["ab"]}, 200, {"predictions": [{"length": 2, "raw_bytes": b64(b"ab"), "upper": "AB"}]}),
    (T, {"instances": [b64(b"\xff\xfe")]}, 200, Text('[{"length":2,"raw_bytes":{"b64":"//4="},"upper":"\udcff\udcfe"}]')),
    (T, named("lone_bytes", instances=[["a"], [b64(b"\xff")]]), 200, {"predictions": [[b64(b"a")], [b64(b"\xff")]]}),
    # Shapes.
    (E, {"instances": [[1, 2], [3, 4], [5, 6, 7]]}, 400, row("Expecting tensor size: 2 but got: 3", "2")),
    (E, {"instances": [[1, 2], [3, 4], [[5, 6]]]}, 400, row("Expecting shape [2] but got: [1,2]", "2")),
    (E, {"instances": [1, [1]]}, 400, row("Expecting shape [] but got: [1]", "1")),
    (E, {"instances": [[[1], [2, 3]]]}, 400, row("Encountered list at unexpected size: 2 at level: 1 expected size: 1")),
    (E, {"instances": [[1, [2]]]}, 400, row("Encountered list at unexpected level: 1 expected < 1")),
    (E, {"instances": [[[1], 2]]}, 400, row("JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2")),
    (E, {"instances": [[[], [1]]]}, 400, row("Encountered list at unexpected size: 1 at level: 1 expected size: 0")),
    (E, {"instances": [[[1], []]]}, 400, row("Encountered list at unexpected size: 0 at level: 1 expected size: 1")),
    # A shape that is not the signature's is the operations' affair.
    (H, {"instances": [[1], [2]]}, 200, {"predictions": [[2.5], [3.0]]}),
    (E, b'{"instances": ' + b"[" * 40 + b"1" + b"]" * 40 + b"}", 400, row("A tensor has at most 32 dimensions. Received: 39.")),
    (E, b'{"signature_name": "string", "instances": ' + b"[" * 986 + b'"a"' + b"]" * 986 + b"}", 400, row("A tensor has at most 32 dimensions. Received: 985.")),
    # The form of the body.
    (E, {"instances": []}, 400, Matches(r"JSON Value: \{\n    \"instances\": \[\]\n\} No values in 'instances' array")),
    (E, {"instances": 5}, 400, Matches(r"JSON Value: \{\n    \"instances\": 5\n\} Excepting 'instances' to be an list/array")),
    (E, {"instances": {"x": [1]}}, 400, Matches(".*Excepting 'instances' to be an list/array")),
    (E, {"instances": [1], "inputs": [1]}, 400, Matches(r"JSON Value: [^N]*Not formatted correctly expecting only  ?one of 'inputs' or 'instances' keys to exist ")),
    (E, {"instances": [1], "context": {"a": [2]}}, 200, {"predictions": [1.0]}),
    (E, {"instances": [{"x": 1}, 2]}, 400, Says("Expecting object but got list at item 1 of input list")),
    (E, {"instances": [1, {"x": 1}]}, 400, Says("Expecting value/list but got object at item 1 of input list")),
    (E, {"instances": [{"z": 1}]}, 400, Says("Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: z")),
    (E, {"instances": [{"x": "a"}]}, 400, Matches("Failed to process element: 0 key: x of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"a\" Type: String.*")),
    # A string or a name with the brackets that a list would have.
    (E, {"instances": [{"x": [1]}, {"x": "[]"}]}, 400, Says("Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"[]\" Type: String is not of expected type: float")),
    (E, {"instances": [{"x": [1]}, {"x": {"[]": 1}}]}, 400, Says("Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: {\n    \"[]\": 1\n} Type: Object is not of expected type: float")),
    (E, {"instances": [{}]}, 400, Says("Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: x")),
    # Several inputs.
    (P, {"instances": [{"a": 1, "b": [1, 2]}, {"b": [3, 4], "a": 2}]}, 200, {"predictions": [{"first": 1.0, "sum": [2.0, 3.0]}, {"first": 2.0, "sum": [5.0, 6.0]}]}),
    (P, {"instances": [1, 2]}, 400, Says("instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map")),
    (P, {"instances": [{"a": 1}]}, 400, Matches(r"Failed to process element: 0 of 'instances' list. JSON object: \{\n    \"a\": 1\n\} keys must be equal to: a,b")),
    (P, {"instances": [{"a": 1, "b": [1, 2], "c": 3}]}, 400, Matches("Failed to process element: 0 key: c of .*does not have named input: c")),
    (P, {"instances": [{"a": 1, "b": [1, 2]}, {"a": 1, "b": [1]}]}, 400, Says("Failed to process element: 1 key: b of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1")),
    (P, named("uneven", instances=[{"a": 1, "b": [1, 2]}]), 400, Says("Tensor name: b has inconsistent batch size: 2 expecting: 1")),
    (P, named("scalar", instances=[{"a": 1, "b": [1, 2]}]), 400, Says("Tensor name: mean has no shape information ")),
    # What the model itself refuses or cannot print.
    (X, {"instances": [-1]}, 400, Matches(r"assertion failed: .*not positive.*")),
    (X, named("multiply", instances=[[1, 2]]), 400, Matches("Dimensions must be equal, but are 2 and 3 .*")),
    (X, named("multiply", instances=[[1, 2, 3]]), 200, {"predictions": [[6.0, 6.0]]}),
    (X, named("multiply", instances=[1, 2, 3]), 400, Matches(r".*Shape must be (at least )?rank 2 but is rank 1.*")),
    (X, named("imaginary", instances=[1]), 400, Says("Failed to write JSON value for tensor type: complex64")),
]  # fmt: skip
COLUMNS = [
    (H, {"inputs": [1, 2]}, 200, Text('{"outputs":[2.5,3.0]}')),
    (H, {"inputs": {"x": [1, 2]}}, 200, {"outputs": [2.5, 3.0]}),
    (H, {"inputs": {"x": [1, 2], "more": "ignored"}}, 200, {"outputs": [2.5, 3.0]}),
    (E, {"inputs": 5}, 200, {"outputs": 5.0}),
    (E, {"inputs": {"x": 5}}, 200, {"outputs": 5.0}),
    (E, {"inputs": []}, 200, {"outputs": []}),
    (E, {"inputs": [[], []]}, 200, {"outputs": [[], []]}),
    (E, {"inputs": {}}, 400, Says("Missing named input: x in 'inputs' object.")),
    (E, {"inputs": {"z": 1}}, 400, Says("Missing named input: x in 'inputs' object.")),
    (E, {"inputs": [1, "x"]}, 400, Says('JSON Value: "x" Type: String is not of expected type: float')),
    (E, {"inputs": [[1], [2, 3]]}, 400, Says("Encountered list at unexpected size: 2 at level: 1 expected size: 1")),
    (E, b'{"inputs": [[[NaN]], [2.0]]}', 400, Says("JSON Value: 2.0 found at incorrect level: 3 in the JSON DOM. Expected at level: 3")),
    (E, named("string", inputs=[[["a"]], ["b"]]), 400, Says('JSON Value: "b" found at incorrect level: 3 in the JSON DOM. Expected at level: 3')),
    (E, {"inputs": None}, 400, Says("JSON Value: null Type: Null is not of expected type: float")),
    (E, named("string", inputs=b64(b"hello")), 200, {"outputs": "hello"}),
    (E, named("string", inputs={"x": b64(b"hello")}), 200, {"outputs": "hello"}),
    (E, named("int32", inputs=[[1, 2]]), 200, {"outputs": [[1, 2]]}),
    (P, {"inputs": {"a": [1, 2], "b": [[1, 2], [3, 4]]}}, 200, {"outputs": {"first": [1.0, 2.0], "sum": [[2.0, 3.0], [5.0, 6.0]]}}),
    (P, {"inputs": [1, 2]}, 400, Says("inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map")),
    (E, {"inputs": [{"x": 1}]}, 400, Matches(r"JSON Value: \{\n    \"x\": 1\n\} Type: Object is not of expected type: float")),
    (P, {"inputs": {"a": [1]}}, 400, Says("Missing named input: b in 'inputs' object.")),
    (P, named("uneven", inputs={"a": [1], "b": [[1, 2]]}), 200, {"outputs": {"a": [1.0], "b": [[1, 2], [1, 2]]}}),
    (P, named("scalar", inputs={"a": [1, 3], "b": [[1, 2], [1, 2]]}), 200, {"outputs": {"a": [1.0, 3.0], "mean": 2.0}}),
    (T, {"inputs": ["ab"]}, 200, {"outputs": {"length": [2], "raw_bytes": [b64(b"ab")], "upper": ["AB"]}}),
]  # fmt: skip
# Bodies and answers byte for byte.
TEXTS = [
    (E, '{"instances": [NaN, Infinity, -Infinity, 0.2]}', '{"predictions":[NaN,Infinity,-Infinity,0.2]}'),
    (E, '{"inputs": [[NaN, 1]]}', '{"outputs":[[NaN,1.0]]}'),
    (X, '{"signature_name": "divide", "instances": [0, -0.0, 3]}', '{"predictions":[Infinity,-Infinity,0.33333334]}'),
    (E, '{"instances": [1, 0.2, 1e20, -1.5e-8]}', '{"predictions":[1.0,0.2,1e+20,-1.5e-8]}'),
    (E, '{"instances": [9000000, 999999, 0.5, 0.0003, 555557.5]}', '{"predictions":[9000000.0,999999.0,0.5,0.0003,555557.5]}'),
    (E, '{"signature_name": "float64", "inputs": [0.1, 1]}', '{"outputs":[0.1,1.0]}'),
    (E, '{"instances": [1]} and more', '{"predictions":[1.0]}'),
    (E, '{"instances": [1]}{"instances": [2]}', '{"predictions":[1.0]}'),
    (E, '\ufeff \r\n\t{"instances": [1]}\n', '{"predictions":[1.0]}'),
    (E, '{"inst\\u0061nces": [1]}', '{"predictions":[1.0]}'),
    # Of members of one name the first counts.
    (E, '{"instances": [1], "instances": [2]}', '{"predictions":[1.0]}'),
    (E, '{"instances": [1, true], "instances": [2]}', None),
    (E, '{"instances": [{"x": 1, "x": 2}]}', '{"predictions":[1.0]}'),
    (E, '{"inputs": {"x": [1], "x": "a"}}', '{"outputs":[1.0]}'),
    (E, '{"signature_name": "int32", "signature_name": "float32", "instances": [1]}', '{"predictions":[1]}'),
    (E, '{"signature_name": "string", "instances": [{"b64": "YQ==", "b64": "?"}]}', '{"predictions":["a"]}'),
    (E, '{"signature_name": "a[,]" , "instances": [1]}', None),
    (E, '{"instances": [1], "signature_name": "int32"}', '{"predictions":[1]}'),
    (P, '{"instances":[{"a":0.5,"b":[1,2]}]}', '{"predictions":[{"first":0.5,"sum":[1.5,2.5]}]}'),
]  # fmt: skip


def cases() -> Iterator[Any]:
    """Every row of the table as method, path, body, status and expected answer."""
    for path, status, expected in GETS:
        yield "GET", path, None, status, expected
    for method, path, status, expected in NO_PREDICTION:
        yield method, path, b"{}", status, expected
    for path, body, status, expected in [*ROUTES, *ORDER]:
        yield "POST", path, body, status, expected
    for body, message in PARSER:
        pattern = f"JSON Parse error: {re.escape(message)}.*"
        yield "POST", f"{H}:predict", body, 400, Matches(pattern)
    for body in NOT_OBJECTS:
        yield "POST", f"{H}:predict", body, 400, Matches("JSON Value: .* Is not object")
    for model, body, status, expected in [*ROWS, *COLUMNS]:
        yield "POST", f"{model}:predict", body, status, expected
    for model, text, answer in TEXTS:
        expected = (
            Matches(".*(not found|not of expected).*")
            if answer is None
            else Text(answer)
        )
        body = text.encode()
        yield "POST", f"{model}:predict", body, 400 if answer is None else 200, expected
    yield from examples_cases()


def examples_cases() -> Iterator[Any]:
    """The methods classify and regress."""

    x = {"x": [1.5, 2.0]}
    classify = [
        ({"examples": [x]}, 200, {"results": [[["nobody", 3.0], ["7", 4.0]]]}),
        (
            {"examples": [{**x, "who": "me", "n": 3}, {**x, "who": b64(b"you")}]},
            200,
            {"results": [[["me", 3.0], ["3", 4.0]], [["you", 3.0], ["7", 4.0]]]},
        ),
        (
            {"context": {"who": "all", "n": True}, "examples": [x, x]},
            200,
            {"results": [[["all", 3.0], ["1", 4.0]]] * 2},
        ),
        (
            named("scores_only", examples=[x]),
            200,
            {"results": [[["", 3.0], ["", 4.0]]]},
        ),
        (
            named("classes_only", examples=[x]),
            200,
            {"results": [[["nobody", 0.0], ["7", 0.0]]]},
        ),
        ({}, 400, Matches(r"JSON Value: \{\} When method is classify, key 'examples' is expected and was not found")),
        ({"examples": 5}, 400, Matches(".*Expecting 'examples' value to be an list/array")),
        ({"examples": []}, 400, Matches(".*'examples' value is an empty array")),
        ({"examples": [5]}, 400, Says("Example must be JSON object but got JSON Number")),
        ({"examples": [x], "context": []}, 400, Says("Example must be JSON object but got JSON Array")),
        ({"examples": [{"x": [1.5, "a"]}]}, 400, Says("Unexpected element type in feature: x expecting type: float")),
        ({"examples": [{"x": [[1.5]]}]}, 400, Says("Feature: x has element with unexpected JSON type: Array")),
        ({"examples": [{"x": None}]}, 400, Says("Feature: x has element with unexpected JSON type: Null")),
        ({"examples": [{"x": {"a": 1}}]}, 400, Says("Feature: x has element with unexpected JSON type: Object")),
        ({"examples": [{"n": 2**63}]}, 400, Says("Feature: n has uint64 element. Only int64_t is supported.")),
        ({"examples": [{"x": [1e39, -1e39]}]}, 200, Text('{"results":[[["nobody",Infinity],["7",-Infinity]]]}')),
        ({"examples": [{"x": [16777217.0, 2.0**64]}]}, 200, {"results": [[["nobody", 33554432.0], ["7", 3.689349e19]]]}),
        ({"examples": [{"x": [2**70, 1.0]}]}, 200, {"results": [[["nobody", 2.3611832e21], ["7", 2.0]]]}),
        ({"examples": [{"x": [int("9" * 400), 1.0]}]}, 400, Matches("JSON Parse error: Number too big to be stored in double.*")),
        ({"context": {"who": "a" * 600_000}, "examples": [x] * 200}, 400, Matches(r"The context times the number of examples has at most 67108864 bytes\. Received: 12\d{7}\.")),
        ({"examples": [{"n": 3}]}, 400, Matches("(?s).*Feature: x .*required but could not be found.*")),
        (named("regress", examples=[x]), 400, Says("Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/regress")),
        (named("nope", examples=[x]), 400, Says("No signature was found with the name: nope")),
        (b'{"examples": [{"x": [NaN, -Infinity]}]}', 200, Text('{"results":[[["nobody",NaN],["7",-Infinity]]]}')),
        (b"", 400, Says("JSON Parse error: The document is empty")),
    ]  # fmt: skip
    for body, status, expected in classify:
        yield "POST", f"{C}:classify", body, status, expected
    regress = [
        (named("regress", examples=[x, x]), 200, Text('{"results":[7.0,7.0]}')),
        ({"examples": [x]}, 400, Says("Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify")),
        (named("regress_wide", examples=[x]), 400, Says("Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1, 2]")),
    ]  # fmt: skip
    for body, status, expected in regress:
        yield "POST", f"{C}:regress", body, status, expected
    yield (
        *("POST", f"{H}:classify", {"examples": [x]}, 400),
        Says(
            "Expected classification signature method_name to be "
            "tensorflow/serving/classify. Was: tensorflow/serving/predict"
        ),
    )
    yield (
        *("POST", "/v1/models/nope:regress", {"examples": [x]}, 404),
        Says(f"{NOT_THERE}Latest(nope)"),
    )
    # The same signature by predict.
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.extend([1.5, 2.0])
    yield (
        *("POST", f"{C}:predict"),
        named("regress", instances=[b64(example.SerializeToString())]),
        *(200, {"predictions": [7.0]}),
    )


TABLE = list(cases())
# Method, path, headers, status: who may ask, and what the short way does not take.
AROUND = [
    ("GET", H, {}, 200),
    ("GET", H, {"Host": "elsewhere.example"}, 403),
    ("GET", H, {"Origin": "http://elsewhere.example"}, 403),
    ("POST", f"{H}:predict", {"Host": "elsewhere.example"}, 403),
    ("HEAD", H, {}, 400),
    ("OPTIONS", H, {}, 400),
    ("GET", "/V1/Models/half", {}, 200),
    ("GET", "/V1/Models/half", {"Host": "elsewhere.example"}, 403),
    ("GET", "/v1%2Fmodels/half", {}, 400),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "expected"), TABLE)
def test_the_table(
    client: Client, method: str, path: str, body: Any, status: int, expected: Any
) -> None:
    sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    received, answer = client.send(method, path, sent)
    assert received == status, answer
    text = answer.decode("utf-8", "surrogateescape")
    assert "Traceback" not in text
    match expected:
        case Text(exact):
            assert exact in text
        case Says(message):
            assert json.loads(text) == {"error": message}
        case Matches(pattern):
            document = json.loads(text)
            assert document.keys() == {"error"}
            assert re.fullmatch(pattern, document["error"], re.DOTALL)
        case _:
            assert json.loads(text) == expected


@pytest.mark.parametrize(("method", "path", "headers", "status"), AROUND)
def test_requests_out_of_the_ordinary(
    client: Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    received, answer = client.send(method, path, **headers)
    assert received == status, answer
    assert method == "HEAD" or ("error" in json.loads(answer)) == (status != 200)


def test_depth_matters_in_what_is_used_alone(client: Client) -> None:
    deep = b"[" * 500_000 + b'{"a": [], "b": "]"}' + b"]" * 500_000
    objects = b'{"a": ' * 50_000 + b"NaN" + b"}" * 50_000
    for value in (deep, objects, b"[1, [" + objects + b", []], " + objects + b"]"):
        body = b'{"more": ' + value + b', "instances": [1, NaN]} more'
        status, answer = client.send("POST", f"{E}:predict", body)
        assert (status, answer) == (200, b'{"predictions":[1.0,NaN]}')
        status, answer = client.send("POST", f"{E}:predict", body[:100_000])
        assert status == 400
        assert b"JSON Parse error: " in answer
    body = b'{"instances": ' + b"[" * 2000 + b"1" + b"]" * 2000 + b"}"
    status, answer = client.send("POST", f"{E}:predict", body)
    assert status == 400
    assert b"at most 32 dimensions" in answer


def test_metadata_is_the_signature_definitions(client: Client) -> None:
    status, answer = client.send("GET", f"{P}/metadata")
    document = json.loads(answer)
    assert status == 200
    assert document["model_spec"] == {
        "name": "pair",
        "signature_name": "",
        "version": "1",
    }
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {
        *("serving_default", "uneven", "scalar", "__saved_model_init_op"),
    }
    default = signatures["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["inputs"]["b"] == {
        "dtype": "DT_INT32",
        "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
            "unknown_rank": False,
        },
        "name": "serving_default_b:0",
    }
    assert signatures["__saved_model_init_op"]["outputs"] == {
        "__saved_model_init_op": {
            "dtype": "DT_INVALID",
            "tensor_shape": {"dim": [], "unknown_rank": True},
            "name": "NoOp",
        }
    }
    for path in (f"{P}/versions/1/metadata", "/V1/MODELS/pair/METADATA"):
        status, same = client.send("GET", path)
        if path.endswith("metadata"):
            assert (status, same) == (200, answer)
        else:  # TensorFlow Serving knows the sub-resource in small letters alone
            assert json.loads(same) == AVAILABLE


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_come_back_as_the_bits_they_were(client: Client, dtype: str) -> None:
    """Random bits: every exponent, denormal numbers and not finite ones too."""
    kind = {"float32": np.uint32, "float64": np.uint64}[dtype]
    bits = np.random.default_rng(0).integers(0, np.iinfo(kind).max, 5000, kind)
    numbers = bits.view(dtype)
    body = {"signature_name": dtype, "inputs": [float(str(n)) for n in numbers]}
    answer = client.predict("echo", body)["outputs"]
    np.testing.assert_array_equal(np.array(answer).astype(dtype), numbers)
    shown = [number for number in numbers if math.isfinite(number)]
    body = {"signature_name": dtype, "inputs": [float(str(n)) for n in shown]}
    _, text = client.send("POST", f"{E}:predict", json.dumps(body).encode())
    digits = re.search(rb"\[(.*)\]", text)[1].decode().split(",")
    for number, printed in zip(shown, digits, strict=True):
        assert float(printed) == float(str(number))
        shortest = str(number).replace("e-0", "e-").replace("e+0", "e").replace("+", "")
        significant = [
            s.split("e")[0].replace(".", "").strip("-0") for s in (printed, shortest)
        ]
        assert len(significant[0].rstrip("0")) <= len(significant[1].rstrip("0"))


def test_the_lines_of_the_documentation(client: Client) -> None:
    """TensorFlow Serving's first example, as curl sends it."""
    status, answer = client.send(
        "POST", "/v1/models/half:predict", b'{"instances": [1.0, 2.0, 5.0]}'
    )
    assert (status, json.loads(answer)) == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert [half(x) for x in (1.0, 2.0, 5.0)] == [2.5, 3.0, 4.5]
