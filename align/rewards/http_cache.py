"""Scores that a server has given, on disk: a second question about the same sample costs nothing.

One SQLite file that any number of processes and threads may use at once (write-ahead log). It is an optimisation: where
the file cannot be used, scores are asked for again and a warning says so once.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

WAIT_S = 30.0
CHUNK = 500
"""Keys in one query; SQLite's own limit was 999 for long."""
TABLE = """
CREATE TABLE IF NOT EXISTS scores (
    key BLOB, name TEXT, score REAL NOT NULL, used REAL NOT NULL, PRIMARY KEY (key, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS scores_used ON scores (used);
"""


def default_path() -> Path:
    """`align-suite/http_scores.sqlite` in the user's cache folder."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "align-suite" / "http_scores.sqlite"


class ScoreCache:
    """Scores by sample and name.

    Args:
        path: of the file; it and its folder are made when the first score is stored.
        rows: at most so many scores stay; the ones not used for longest go first.
    """

    def __init__(self, path: Path, rows: int = 1_000_000) -> None:
        self.path, self.rows = path, rows
        self._told = False
        self._lock = threading.Lock()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, float]]:
        """What is known of these samples: key -> name -> score."""
        found: dict[bytes, dict[str, float]] = {}
        if not self.path.exists():
            return found
        with self._tolerant(), closing(self._open()) as connection, connection:
            for start in range(0, len(keys), CHUNK):
                some = list(keys[start : start + CHUNK])
                marks = ", ".join("?" * len(some))
                rows = connection.execute(
                    f"SELECT key, name, score FROM scores WHERE key IN ({marks})", some
                ).fetchall()
                for key, name, score in rows:
                    found.setdefault(key, {})[name] = score
                if rows:
                    connection.execute(f"UPDATE scores SET used = ? WHERE key IN ({marks})", [time.time(), *some])
        return found

    def put(self, scores: Mapping[bytes, Mapping[str, float]]) -> None:
        """Store scores: key -> name -> score."""
        now = time.time()
        rows = [(key, name, score, now) for key, named in scores.items() for name, score in named.items()]
        if not rows:
            return
        with self._tolerant(), self._lock, closing(self._open()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)
            (count,) = connection.execute("SELECT COUNT(*) FROM scores").fetchone()
            if count > self.rows:  # a tenth more than needed, so that this is rare
                connection.execute(
                    "DELETE FROM scores WHERE (key, name) IN (SELECT key, name FROM scores ORDER BY used LIMIT ?)",
                    [count - self.rows * 9 // 10],
                )

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=WAIT_S)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(TABLE)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if not self._told:
                self._told = True
                logger.warning("scores are not cached: %s cannot be used (%s)", self.path, error)


def as_text(value: object) -> bytes:
    """A value as canonical JSON, for a key."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
