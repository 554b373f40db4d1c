"""What a folder of pictures means: the rule of docs/data.md."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.errors import UserError

PICTURES = (".jpeg", ".jpg", ".png")
# Pictures, too, but not decoded. To leave them out would be to read the folder wrongly.
OTHER_PICTURES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe"),
    *(".jxl", ".pbm", ".pgm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# What file managers, file systems, NAS systems and archivers leave behind, beside names
# with a dot.
_IGNORED = (
    *("@eadir", "__macosx", "thumbs.db", "lost+found", "system volume information"),
    *("$recycle.bin", "#recycle", "@recycle"),
)
_WANTED = "`--dataset` folder:PATH must hold PATH/CLASS/* or PATH/SPLIT/CLASS/*"
_LINKS_DOWN_TO = 2  # folders: a split, a class

Parts = tuple[str, ...]  # of a path below the folder


@dataclass(frozen=True)
class Folder:
    """The classes, and the pictures of each split."""

    labels: tuple[str, ...]
    # By split, label and name. A link's name is its own, the path what it leads to.
    splits: dict[str, dict[str, dict[str, Path]]]
    names: dict[str, str]  # of the folder of each split; train without such a folder


def read_folder(root: Path) -> Folder:
    """Find the classes and the splits in a folder; nothing is decoded.

    Raises:
        UserError: If pictures lie elsewhere than in classes, if a class is empty, if
            there is but one, or if a link leads out of the folder.
    """
    tree = _Tree(root)
    if not tree.pictures:
        raise UserError(
            f"{_WANTED} with .png, .jpg or .jpeg pictures. Received: {shown(root)}."
        )
    depths = {len(parts) for parts in tree.pictures}
    if depths == {2}:
        return _by_class(tree)
    if depths == {3}:
        return _by_split(tree)
    ordered = sorted(tree.pictures, key=lambda parts: (len(parts), parts))
    highest, deepest = (tree.pictures[ordered[index]] for index in (0, -1))
    places = [highest] if len(depths) == 1 else [highest, deepest]
    raise UserError(
        f"{_WANTED} and no picture elsewhere. "
        f"Received: {' and '.join(map(shown, places))}."
    )


def shown(path: Path) -> str:
    """Return a path as it can be printed in one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _by_class(tree: "_Tree") -> Folder:
    tree.check_not_empty(tree.folders_at(1))
    labels = _labels({parts[0] for parts in tree.pictures}, tree.root)
    return Folder(labels, {"train": tree.by_label()}, {"train": "train"})


def _by_split(tree: "_Tree") -> Folder:
    names: dict[str, str] = {}
    tops = [name for (name,) in tree.folders_at(1)]
    for name in tops:
        split = SPLITS.get(name.casefold(), name)
        if split in names:
            raise UserError(
                f"`--dataset` folder:PATH must have one folder for {split}. "
                f"Received: {shown(tree.root)} with {names[split]} and {name}."
            )
        names[split] = name
    if "train" not in names:
        raise UserError(
            f"`--dataset` folder:PATH, without pictures in PATH/CLASS/, must have a "
            f"split named train. Received: {', '.join(tops)}. "
            f"A split is one of {', '.join(SPLITS)}."
        )
    for other in sorted(names.keys() - set(SPLITS.values())):
        raise UserError(
            "`--dataset` folder:PATH with splits must have no other folder beside "
            f"them. Received: {shown(tree.root)} with {other}. Rename or remove it; "
            f"a split is one of {', '.join(SPLITS)}."
        )
    tree.check_not_empty(tree.folders_at(1) | tree.folders_at(2))
    splits = {split: tree.by_label(name) for split, name in names.items()}
    for split, pictures in splits.items():
        for label in sorted(pictures.keys() - splits["train"].keys()):
            raise UserError(
                "`--dataset` folder:PATH must have each class in its folder for "
                f"training. Received: {label} in {names[split]} alone."
            )
    return Folder(_labels(set(splits["train"]), tree.root), splits, names)


def _labels(labels: set[str], root: Path) -> Parts:
    if len(labels) < 2:
        raise UserError(
            "`--dataset` folder:PATH must have at least two classes, a folder each. "
            f"Received: {shown(root)} with {', '.join(labels)} alone."
        )
    return tuple(sorted(labels))


class _Tree:
    """All folders and pictures below a folder that are looked at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pictures: dict[Parts, Path] = {}
        self._folders: dict[Parts, Path] = {}
        if not root.is_dir():
            raise UserError(
                "`--dataset` folder:PATH must name a directory. "
                f"Received: {shown(root)}."
            )
        try:
            self._folders[()] = root.resolve()
            self._look()
        except OSError as error:
            raise UserError(
                "`--dataset` folder:PATH must be readable. "
                f"Received: {shown(Path(error.filename or root))}: {error.strerror}."
            ) from error

    def folders_at(self, depth: int) -> dict[Parts, Path]:
        """Return the folders that lie this deep, in the order of their names."""
        return {p: self._folders[p] for p in sorted(self._folders) if len(p) == depth}

    def by_label(self, *split: str) -> dict[str, dict[str, Path]]:
        """Return the pictures of a split by label and name, in their order."""
        found: dict[str, dict[str, Path]] = {}
        for parts in sorted(self.pictures):
            *above, label, name = parts
            if above == list(split):
                found.setdefault(label, {})[name] = self.pictures[parts]
        return found

    def check_not_empty(self, folders: dict[Parts, Path]) -> None:
        """Refuse a folder without pictures."""
        filled = {parts[:depth] for parts in self.pictures for depth in (1, 2)}
        for parts, path in folders.items():
            if parts not in filled:
                raise UserError(
                    "`--dataset` folder:PATH must have pictures in every class. "
                    f"Received: {shown(path)} without any. Remove it."
                )

    def _look(self) -> None:
        waiting: list[Parts] = [()]
        while waiting:
            above = waiting.pop()
            for entry in _entries(self._folders[above]):
                path = self._target(entry, len(above) + 1)
                if path.is_dir():
                    parts = (*above, _name(entry))
                    if parts in self._folders:
                        raise UserError(
                            "`--dataset` folder:PATH must have folders of different "
                            f"names. Received: {shown(Path(entry.path))} twice."
                        )
                    self._folders[parts] = path
                    waiting.append(parts)
                elif _suffix(entry) in PICTURES:
                    if not path.is_file():
                        raise UserError(
                            f"{shown(Path(entry.path))} is no file. Remove it."
                        )
                    self.pictures[*above, entry.name] = path
                elif _suffix(entry) in OTHER_PICTURES:
                    raise UserError(
                        f"{shown(Path(entry.path))} must be a .png, .jpg or .jpeg "
                        "picture. Convert or remove it."
                    )

    def _target(self, entry: "os.DirEntry[str]", depth: int) -> Path:
        """Return where an entry lies, or what it leads to if it is a link."""
        path = Path(entry.path)
        if not entry.is_symlink():
            return path
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # a loop is either
            raise UserError(
                f"{shown(path)} is a link that leads nowhere. Remove it."
            ) from error
        if not target.is_dir() and _suffix(entry) not in PICTURES:
            return target  # it is not read
        # Who may name this folder need not be allowed to read other places.
        if not target.is_relative_to(self._folders[()]):
            raise UserError(
                f"{shown(path)} is a link that leads out of {shown(self.root)}. "
                "Put there what it leads to, or remove it."
            )
        if target.is_dir() and depth > _LINKS_DOWN_TO:
            raise UserError(
                f"{shown(path)} is a link to a folder, inside of a class. Remove it."
            )
        return target


def _suffix(entry: "os.DirEntry[str]") -> str:
    return Path(entry.name).suffix.lower()


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.lower() not in _IGNORED:
                yield entry


def _name(entry: "os.DirEntry[str]") -> str:
    """Return the name of a folder. Some systems compose its letters, others do not."""
    name = unicodedata.normalize("NFC", entry.name)
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise UserError(
            "`--dataset` folder:PATH must have folders with names in UTF-8, without "
            f"control characters. Received: {shown(Path(entry.path))}."
        )
    return name
