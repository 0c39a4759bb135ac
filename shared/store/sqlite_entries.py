"""Versioned entries and logs in the SQLite file."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from moodline.shared.store.base import VersionedEntry
from moodline.shared.store.records import entry_conflict
from moodline.shared.store.sqlite_file import SqliteFile

_NUMBER: Final = """
    INSERT INTO meta VALUES (?, 1) ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value"""
_RECORDS: Final = "SELECT number, value FROM record WHERE log = ? AND number > ? AND number < ? ORDER BY number"
_NO_END: Final = 2**63 - 1


class SqliteEntries:
    """The `VersionedEntries` protocol."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def put_entry(self, kind: str, key: str, value: bytes, expected: int | None) -> int:
        with self._file.write() as db:
            if _revision(db, kind, key) != expected:
                raise entry_conflict(kind, key)
            revision = _draw(db, f"revision of {kind}")
            db.execute("INSERT OR REPLACE INTO document VALUES (?, ?, ?, ?)", (kind, key, revision, value))
        return revision

    def get_entry(self, kind: str, key: str) -> VersionedEntry | None:
        with self._file.read() as db:
            row = db.execute("SELECT revision, value FROM document WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else VersionedEntry(key, *row)

    def list_entries(self, kind: str) -> list[VersionedEntry]:
        with self._file.read() as db:
            rows = db.execute("SELECT key, revision, value FROM document WHERE kind = ? ORDER BY key", (kind,)).fetchall()
        return [VersionedEntry(*row) for row in rows]

    def remove_entry(self, kind: str, key: str, expected: int | None = None) -> bool:
        with self._file.write() as db:
            revision = _revision(db, kind, key)
            if revision is None:
                return False
            if expected not in (None, revision):
                raise entry_conflict(kind, key)
            db.execute("DELETE FROM document WHERE kind = ? AND key = ?", (kind, key))
        return True

    def append_record(self, log: str, value: bytes, keep: int) -> int:
        with self._file.write() as db:
            number = _draw(db, f"log {log}")
            db.execute("INSERT INTO record VALUES (?, ?, ?)", (log, number, value))
            db.execute("DELETE FROM record WHERE log = ? AND number <= ?", (log, number - keep))
        return number

    def records(
        self, log: str, after: int = 0, limit: int = 100, *, before: int | None = None, newest_first: bool = False
    ) -> list[tuple[int, bytes]]:
        query = f"{_RECORDS} {'DESC' if newest_first else 'ASC'} LIMIT ?"
        with self._file.read() as db:
            return db.execute(query, (log, after, _NO_END if before is None else before, limit)).fetchall()

    def remove_records(self, log: str, numbers: Sequence[int]) -> None:
        if numbers:
            with self._file.write() as db:
                db.executemany("DELETE FROM record WHERE log = ? AND number = ?", [(log, number) for number in numbers])


def _revision(db: sqlite3.Connection, kind: str, key: str) -> int | None:
    row = db.execute("SELECT revision FROM document WHERE kind = ? AND key = ?", (kind, key)).fetchone()
    return None if row is None else int(row[0])


def _draw(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(_NUMBER, (name,)).fetchall()[0][0])
