"""What a folder of pictures means: random trees, and a second statement of the rule."""

import copy
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.layout import read_folder
from training.errors import UserError

# A tree is a dict: None is a file, a string a link of one of these kinds.
LINKS = ("a picture", "a folder", "a picture outside", "a folder outside", "nothing")
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
Tree = dict[str, Any]
Meaning = dict[str, dict[str, set[str]]]  # the names of the pictures by split and label

CLASSES = ("ant", "bee", "Bee", "caf\u00e9", "cafe\u0301", "\u72ac", "train", "a b")
SPLIT_FOLDERS = (
    *(("train",), ("Train", "val"), ("training", "TEST"), ("train", "Valid", "test")),
    *(("train", "Validation", "testing"), ("train", "Training"), ("val", "test")),
    *(("train", "test", "left"), ("valid", "validation", "train")),
)
HIDDEN = (
    *(".git", ".ipynb_checkpoints", "@eaDir", "__MACOSX", "lost+found", "#recycle"),
    *("@Recycle", "$RECYCLE.BIN", "System Volume Information"),
)
PICTURES = {"1.png": None, "2.JPG": None, "3.jpeg": None}
NOISE: list[tuple[str, Any]] = [
    *((name, None) for name in ("._1.png", ".4.png", "Thumbs.db", "a.txt")),
    *((name, {"ant": PICTURES, **PICTURES}) for name in HIDDEN),
    *((".9.png", kind) for kind in LINKS),
    *(("ninth", kind) for kind in LINKS if "picture" in kind),  # no picture's name
]
MEANT: list[tuple[str, Any]] = [
    *(("8.png", None), ("5.webp", None), ("empty", {}), ("thumbs", PICTURES)),
    *(("ant", PICTURES), ("\u72ac", PICTURES), ("left", {"ant": PICTURES})),
    *(("9.png", kind) for kind in LINKS),
    *(("ninth", kind) for kind in LINKS if "picture" not in kind),
]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A tree that is right, or nearly: with perhaps one entry more anywhere."""
    fewest = draw(st.sampled_from((1, 2, 2)))
    labels = st.lists(
        st.sampled_from(CLASSES), min_size=fewest, max_size=3, unique=True
    )
    tree: Tree = {label: dict(PICTURES) for label in draw(labels)}
    if draw(st.booleans()):
        names = draw(st.sampled_from(SPLIT_FOLDERS))
        tree = {name: copy.deepcopy(tree) for name in names}
    for name, entry in draw(st.lists(st.sampled_from((*NOISE, *MEANT)), max_size=1)):
        places = list(folders(tree))
        place = places[draw(st.integers(0, len(places) - 1))]
        place.setdefault(name, copy.deepcopy(entry))
    return tree


def folders(tree: Tree) -> Iterator[Tree]:
    yield tree
    for entry in tree.values():
        if isinstance(entry, dict):
            yield from folders(entry)


def build(tree: Tree, place: Path, store: Path, outside: Path) -> None:
    place.mkdir(exist_ok=True)
    for name, entry in tree.items():
        path = place / name
        if isinstance(entry, dict):
            build(entry, path, store, outside)
        elif entry is None:
            path.touch()
        else:
            where = outside if "outside" in entry else store
            kind = "1.png" if "picture" in entry else "folder"
            path.symlink_to(store / "gone" if entry == "nothing" else where / kind)


def meaning(tree: Tree) -> Meaning | None:
    """The rule once more, from the top of a tree downwards; None is a refusal."""
    tree = seen(tree)
    if any(is_wrong(folder) for folder in folders(tree)):
        return None
    if has_linked_folder_below_a_class(tree) or pictures_of(tree):
        return None
    below = {name: entry for name, entry in tree.items() if isinstance(entry, dict)}
    if any(pictures_of(folder) for folder in below.values()):
        found = by_class(below)
        return {"train": found} if found and len(found) > 1 else None
    named: Meaning = {}
    for name, folder in below.items():
        split = next((s for s, spelt in SPLITS.items() if name.lower() in spelt), None)
        own = by_class({n: e for n, e in folder.items() if isinstance(e, dict)})
        if split is None or split in named or not own:
            return None
        named[split] = own
    train = named.get("train", {})
    if len(train) < 2 or any(split.keys() - train.keys() for split in named.values()):
        return None
    return named


def seen(tree: Tree) -> Tree:
    """Without what is not looked at; a link that is followed is what it leads to."""
    stands_for = {"a picture": None, "a folder": {"1.png": None, "linked": True}}
    return {
        name: seen(entry) if isinstance(entry, dict) else stands_for.get(entry, entry)
        for name, entry in tree.items()
        if not name.startswith(".") and name not in (*HIDDEN, "Thumbs.db")
        if not (name == "ninth" and "picture" in entry)
    }


def is_wrong(folder: Tree) -> bool:
    names = [n for n, entry in folder.items() if isinstance(entry, dict)]
    composed = {unicodedata.normalize("NFC", name) for name in names}
    kinds = {str(entry) for entry in folder.values() if not isinstance(entry, dict)}
    return (
        "5.webp" in folder
        or len(composed) < len(names)
        or bool(kinds & {"nothing", "a picture outside", "a folder outside"})
    )


def has_linked_folder_below_a_class(tree: Tree) -> bool:
    return any(
        "linked" in deep
        for first in tree.values()
        if isinstance(first, dict)
        for second in first.values()
        if isinstance(second, dict)
        for third in second.values()
        if isinstance(third, dict)
        for deep in folders(third)
    )


def pictures_of(folder: Tree) -> set[str]:
    ends = (".png", ".jpg", ".jpeg")
    return {n for n, e in folder.items() if e is None and n.lower().endswith(ends)}


def by_class(below: Tree) -> dict[str, set[str]] | None:
    found = {unicodedata.normalize("NFC", n): pictures_of(f) for n, f in below.items()}
    deeper = (
        pictures_of(folder)
        for first in below.values()
        for folder in list(folders(first))[1:]
    )
    return None if any(deeper) or not all(found.values()) else found


def test_a_folder_has_one_meaning_or_none(tmp_path: Path) -> None:
    kinds: Counter[int] = Counter()

    @settings(derandomize=True, max_examples=150, deadline=None, database=None)
    @given(trees())
    def compare(tree: Tree) -> None:
        place = tmp_path / str(kinds.total())
        place.mkdir()
        root, outside = place / "root", place / "outside"
        build(tree, root, root / ".store", outside)
        for store in (root / ".store", outside):
            build({"1.png": None, "folder": {"1.png": None}}, store, store, outside)
        expected = meaning(tree)
        kinds[len(expected or ())] += 1
        if expected is None:
            with pytest.raises(UserError) as caught:
                read_folder(root)
            assert "\n" not in str(caught.value)
            return
        folder = read_folder(root)
        read = {
            split: {label: set(named) for label, named in labels.items()}
            for split, labels in folder.splits.items()
        }
        assert read == expected
        assert folder.labels == tuple(sorted(expected["train"]))
        paths = (
            p for s in folder.splits.values() for n in s.values() for p in n.values()
        )
        assert all(path.is_relative_to(root) and path.is_file() for path in paths)

    compare()
    assert min(kinds[number] for number in (0, 1, 2, 3)) >= 3  # refused, or splits


COMPLAINTS = [
    ({}, r"must hold PATH/CLASS/\* or PATH/SPLIT/CLASS/\* with .*Received: .*root\.$"),
    ({"a": {"1.txt": None}}, "must hold PATH/CLASS"),
    (
        {"ant": {"1.png": None, "thumbs": {"1.png": None}}, "bee": {"1.png": None}},
        r"no picture elsewhere\. Received: .*ant/1.png and .*ant/thumbs/1.png\.",
    ),
    ({"1.png": None, "a": {"1.png": None}}, r"elsewhere\. Received: .*root/1.png and"),
    ({"1.png": None}, r"elsewhere\. Received: .*root/1.png\.$"),
    ({"a": {"1.png": None}, "b": {}}, r"in every class\. Received: .*root/b without"),
    ({"a": {"1.png": None}}, r"at least two classes.* Received: .*root with a alone"),
    ({"a": {"1.PNG": None}, "b": {"2.webp": None}}, r"b/2.webp must be a .png"),
    (
        {"left": {"a": {"1.png": None}}, "right": {"a": {"1.png": None}}},
        r"split named train\. Received: left, right\. A split is one of train, ",
    ),
    (
        {"train": {"a": {"1.png": None}}, "annotations": {}},
        r"no other folder beside them\. Received: .*root with annotations\. Rename",
    ),
    (
        {"Train": {"a": {"1.png": None}}, "training": {"a": {"1.png": None}}},
        r"one folder for train\. Received: .*root with Train and training\.",
    ),
    (
        {"train": {"a": {"1.png": None}}, "test": {"b": {"1.png": None}}},
        r"in its folder for training\. Received: b in test alone\.",
    ),
    ({"a\nb": {"1.png": None}}, r"names in UTF-8.* Received: '.*a\\nb'\."),
    ({"a\udcff": {"1.png": None}}, r"names in UTF-8.* Received: '.*a\\udcff'\."),
    ({"a": {"1.png": "nothing"}}, r"a/1.png is a link that leads nowhere"),
    ({"a": {"1.png": "a picture outside"}}, r"a/1.png is a link that leads out of"),
    ({"a": "a folder outside"}, r"root/a is a link that leads out of .*root\."),
    ({"a": {"b": {"c": "a folder"}}}, r"c is a link to a folder, inside of a class"),
]


@pytest.mark.parametrize(("tree", "complaint"), COMPLAINTS)
def test_a_refusal_says_what_is_wrong(
    tmp_path: Path, tree: Tree, complaint: str
) -> None:
    for store in (tmp_path / "root", tmp_path / "root" / ".store", tmp_path / "out"):
        build({"1.png": None, "folder": {}}, store, store, store)
    for path in (tmp_path / "root" / "1.png", tmp_path / "root" / "folder"):
        path.rmdir() if path.is_dir() else path.unlink()
    build(tree, tmp_path / "root", tmp_path / "root" / ".store", tmp_path / "out")
    with pytest.raises(UserError, match=complaint) as caught:
        read_folder(tmp_path / "root")
    assert "\n" not in str(caught.value)


def test_a_link_to_a_folder_around_it_ends(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"again is a link|no picture elsewhere"):
        read_folder(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(UserError, match=rf"must name a directory.* {path}\."):
            read_folder(path)
