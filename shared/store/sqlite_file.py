"""One SQLite file: its schema, its connections, its transactions, and its errors as ours."""

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from moodline.shared.clock import Clock
from moodline.shared.errors import StoreError, StoreUnavailableError

SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x4D6F6F64
"""Marks the file as Moodline's ("Mood"), so that no other program's database is taken for one."""

_SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    # `state` is last: it is the longest, and rows are read without it far more often than with it.
    """CREATE TABLE stream (
        key INTEGER PRIMARY KEY, stream_id TEXT NOT NULL UNIQUE, spec BLOB NOT NULL, revision INTEGER NOT NULL,
        fence INTEGER NOT NULL, session INTEGER NOT NULL DEFAULT 0, status BLOB,
        mark_session INTEGER, mark_seq INTEGER, final INTEGER NOT NULL DEFAULT 0,
        topic TEXT, partition INTEGER, offset INTEGER, last_event_time_us INTEGER, state BLOB NOT NULL DEFAULT x'')""",
    """CREATE TABLE cell (
        stream INTEGER NOT NULL, series TEXT NOT NULL, level_s INTEGER NOT NULL, idx INTEGER NOT NULL,
        value BLOB NOT NULL, written_s INTEGER NOT NULL, PRIMARY KEY (stream, series, level_s, idx)) WITHOUT ROWID""",
    # A chunk's row is written once, not with every bucket value: `due_s` says when to look whether its bucket values may go.
    """CREATE TABLE block (
        stream INTEGER NOT NULL, series TEXT NOT NULL, level_s INTEGER NOT NULL, number INTEGER NOT NULL,
        due_s INTEGER NOT NULL, PRIMARY KEY (stream, series, level_s, number)) WITHOUT ROWID""",
    "CREATE INDEX block_due ON block (due_s)",
    "INSERT INTO meta VALUES ('sessions', 0), ('version', 0)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_ADDED: Final = (
    "CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS document (
        kind TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (kind, key)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS record (
        log TEXT NOT NULL, number INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (log, number)) WITHOUT ROWID""",
    # One row for each of the registry's newest versions: the stream whose change made it.
    """CREATE TABLE IF NOT EXISTS frame_failure (
        stream INTEGER NOT NULL, seq INTEGER NOT NULL, tries INTEGER NOT NULL, session INTEGER NOT NULL, letter TEXT NOT NULL,
        PRIMARY KEY (stream, seq)) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS registry_change (version INTEGER PRIMARY KEY, stream_id TEXT NOT NULL)",
)
"""Later additions to the schema. They change nothing that was there: older files get them, older versions still read the file."""

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNAVAILABLE: Final = _BUSY | {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OPEN_RETRY_S: Final = 0.02
_LEAST_FREE_BYTES: Final = 1024 * 1024
_IDLE_LIMIT: Final = 8
"""Connections kept for the next operation; each may hold 2 MB of pages."""


class SqliteFile:
    """A database file that several threads and processes use at the same time.

    Connections are pooled, one per operation that is under way. Writers of one process queue on a lock, which is fair and
    wakes them at once; writers of other processes wait by SQLite's busy time-out.
    """

    def __init__(self, path: Path, clock: Clock, busy_timeout_s: float) -> None:
        """Open the file, and create it and its folder where missing.

        Raises:
            StoreUnavailableError: the file cannot be opened or stays locked.
            StoreError: it is damaged, not Moodline's, or of a newer version.
        """
        self.path = path
        self._clock = clock
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._writer = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"the folder {path.parent} cannot be made: {error.strerror}") from error
        try:
            _keep_private(path)
        except OSError as error:
            raise StoreUnavailableError(f"{path} cannot be used: {error.strerror}") from error
        with self._typed_errors(), self._connection() as db:
            self._prepare(db)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside a read transaction: everything read belongs to one moment. Never blocks on writers."""
        with self._typed_errors(), self._connection() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside the one write transaction; commit when the block ends, roll back when it raises."""
        with self._typed_errors(), self._writer, self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def empty_log(self) -> None:
        """Move everything from the write-ahead log into the file and cut the log off: it holds what has been removed since."""
        with self._typed_errors(), self._writer, self._connection() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def require_room(self) -> None:
        """Raise `StoreUnavailableError` where the disk is full: pages that were freed still take a write for a while."""
        free_bytes = shutil.disk_usage(self.path.parent).free
        if free_bytes < _LEAST_FREE_BYTES:
            raise StoreUnavailableError(f"the disk of {self.path} is full: {free_bytes} bytes are free")

    def close(self) -> None:
        """Close all connections; those in use close when their operation ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise StoreError("the store was closed")
            db = self._idle.pop() if self._idle else None
        db = db or self._connect()
        try:
            yield db
        except sqlite3.Error:
            db.close()
            raise
        except BaseException:
            self._give_back(db)
            raise
        self._give_back(db)

    def _give_back(self, db: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _IDLE_LIMIT:
                self._idle.append(db)
                return
        db.close()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False)
        try:
            # With a write-ahead log, NORMAL loses nothing when the process is killed, and stays whole when power fails.
            db.execute("PRAGMA synchronous = NORMAL")
            # Overwrite deleted data, so that it cannot be read out of the file.
            db.execute("PRAGMA secure_delete = ON")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        self._check(db)
        if self._use_wal(db) != "wal":
            raise StoreError(f"{self.path} cannot keep a write-ahead log: put it on a local disk")
        db.execute("BEGIN IMMEDIATE")
        try:
            # Looked at again under the lock: another process may have created the schema a moment ago.
            if not self._check(db):
                for statement in _SCHEMA:
                    db.execute(statement)
            for statement in _ADDED:
                db.execute(statement)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _check(self, db: sqlite3.Connection) -> bool:
        """Return whether the schema is there; raise when the file is somebody else's or newer."""
        version = db.execute("PRAGMA user_version").fetchone()[0]
        ours = db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
        if ours and version > SCHEMA_VERSION:
            newer = f"schema {version}, this one knows {SCHEMA_VERSION}"
            raise StoreError(f"{self.path} was written by a newer Moodline ({newer}): upgrade Moodline")
        if not ours and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(f"{self.path} is not a Moodline database: choose another path")
        return bool(ours)

    def _use_wal(self, db: sqlite3.Connection) -> str:
        # Two processes that switch a new file at the same moment get "locked" without the busy time-out being honoured.
        deadline_s = self._clock.monotonic_s() + self._busy_timeout_s
        while True:
            try:
                return str(db.execute("PRAGMA journal_mode = WAL").fetchone()[0])
            except sqlite3.OperationalError as error:
                if _primary_code(error) not in _BUSY or self._clock.monotonic_s() > deadline_s:
                    raise
                self._clock.sleep(_OPEN_RETRY_S)

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = _primary_code(error)
            if code in _DAMAGED:
                raise StoreError(f"{self.path} is damaged: {error}; restore it from a backup or move it away") from error
            kind = StoreUnavailableError if code in _UNAVAILABLE else StoreError
            raise kind(f"{self.path} cannot be used: {error}") from error


def _keep_private(path: Path) -> None:
    """Create the file where it is missing, and let nobody but its owner read it; its log gets the same mode from SQLite.

    A file of somebody else, or on a disk that takes no writes, stays as it is.
    """
    with suppress(OSError):
        path.touch(mode=0o600, exist_ok=True)
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        with suppress(OSError):
            if each.stat().st_mode & 0o077:
                each.chmod(0o600)


def _primary_code(error: sqlite3.Error) -> int:
    """Return the error's primary code; extended codes keep it in the low byte. 0 where there is none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
