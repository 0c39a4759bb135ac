"""Finds faults of a data set before anything is trained on it."""

from collections import Counter, defaultdict

import msgspec

from moodline.shared.emotions import EMOTIONS
from moodline.training.data import Dataset, Split, digests


class PartReport(msgspec.Struct, frozen=True):
    """One part.

    Attributes:
        images: How many.
        classes: How many of each class.
        missing: Classes without an image.
        copies: Images that an earlier one of the part equals, byte for byte.
        conflicts: Groups of identical images whose labels disagree.
        blank: Images without contrast.
    """

    images: int
    classes: dict[str, int]
    missing: tuple[str, ...]
    copies: int
    conflicts: int
    blank: int


class DataReport(msgspec.Struct, frozen=True):
    """All parts, and `leaks`: images of a later part that an earlier one holds too, by `earlier & later`."""

    parts: dict[str, PartReport]
    leaks: dict[str, int]

    def text(self) -> str:
        """Return it as a table."""
        lines = [f"{'':12}" + "".join(f"{name:>12}" for name in self.parts)]
        rows = {name: [part.classes[name] for part in self.parts.values()] for name in EMOTIONS}
        rows |= {
            name: [getattr(part, name) for part in self.parts.values()] for name in ("images", "copies", "conflicts", "blank")
        }
        lines += [f"{name:12}" + "".join(f"{value:>12,}" for value in values) for name, values in rows.items()]
        lines += [f"in both {pair}: {count}" for pair, count in self.leaks.items()]
        lines += [f"no image of {name} in {part}" for part, report in self.parts.items() for name in report.missing]
        return "\n".join(lines) + "\n"


def report_data(data: Dataset) -> DataReport:
    """Look for copies, label conflicts, leaks between parts, blank images and missing classes."""
    hashes = {name: digests(split) for name, split in data.parts.items()}
    names = list(hashes)
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    leaks = {f"{a} & {b}": len(_both(hashes[a], hashes[b])) for a, b in pairs}
    return DataReport({name: _part(split, hashes[name]) for name, split in data.parts.items()}, leaks)


def _both(first: list[bytes], second: list[bytes]) -> list[bytes]:
    known = set(first)
    return [digest for digest in second if digest in known]


def _part(split: Split, hashes: list[bytes]) -> PartReport:
    labels: dict[bytes, set[int]] = defaultdict(set)
    for digest, label in zip(hashes, split.labels.tolist(), strict=True):
        labels[digest].add(label)
    counts = Counter(split.labels.tolist())
    classes = {name: counts[index] for index, name in enumerate(EMOTIONS)}
    flat = split.images.reshape(len(split), -1)
    return PartReport(
        images=len(split),
        classes=classes,
        missing=tuple(name for name, count in classes.items() if not count),
        copies=len(split) - len(labels),
        conflicts=sum(len(found) > 1 for found in labels.values()),
        blank=int((flat.min(1) == flat.max(1)).sum()) if len(split) else 0,
    )
