"""The journal's tables, and the version of the schema that a file has."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from schedhook.journal.errors import JournalError

SCHEMA_VERSION = 1
"""Kept in the file as `PRAGMA user_version`; 0 is an empty file."""

_SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, scheduler TEXT NOT NULL, job TEXT NOT NULL, user INTEGER,
    hooked INTEGER NOT NULL DEFAULT 0, started REAL NOT NULL, ended REAL, boot TEXT,
    alias TEXT, name TEXT);
CREATE UNIQUE INDEX one_open ON runs (scheduler, job) WHERE ended IS NULL;
CREATE INDEX runs_by_job ON runs (job, scheduler, started);
CREATE TABLE placements (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    task TEXT NOT NULL, cpus TEXT NOT NULL, nodes TEXT NOT NULL, settled INTEGER NOT NULL,
    at REAL NOT NULL);
CREATE INDEX placements_by_task ON placements (run, task, id);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, scheduler TEXT NOT NULL, point TEXT NOT NULL,
    job TEXT NOT NULL, host TEXT NOT NULL, user INTEGER, data TEXT NOT NULL, done REAL,
    summary TEXT, UNIQUE (scheduler, point, job, at));
CREATE INDEX events_by_job ON events (job, scheduler, at);
CREATE INDEX events_to_do ON events (id) WHERE done IS NULL;
CREATE TABLE reports (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, scheduler TEXT, job TEXT, outcome TEXT NOT NULL,
    report TEXT NOT NULL);
CREATE INDEX reports_by_job ON reports (job, scheduler, at);
CREATE TABLE counters (series TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE overrides (
    run INTEGER PRIMARY KEY REFERENCES runs ON DELETE CASCADE, at REAL NOT NULL,
    was_cpus TEXT NOT NULL, was_nodes TEXT NOT NULL, cpus TEXT NOT NULL, nodes TEXT NOT NULL,
    data TEXT NOT NULL);
CREATE TABLE notes (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, key TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (run, key));
CREATE TABLE locks (
    scheduler TEXT NOT NULL, job TEXT NOT NULL, pid INTEGER NOT NULL, start_time INTEGER NOT NULL,
    until REAL NOT NULL, PRIMARY KEY (scheduler, job, pid));
CREATE TABLE damaged (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, origin TEXT NOT NULL, number INTEGER NOT NULL,
    problem TEXT NOT NULL, content TEXT NOT NULL);
"""


def check_version(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file has its tables. Raise JournalError for another schema version."""
    version = _version(connection)
    if version not in (0, SCHEMA_VERSION):
        raise JournalError(
            f"{path}: written by a newer schedhook (schema {version}; this version reads schema"
            f" {SCHEMA_VERSION}); upgrade schedhook, or move the file away"
        )
    return version == SCHEMA_VERSION


def create_tables(connection: sqlite3.Connection, path: Path | None) -> None:
    """Create the tables in an empty file, unless another process has just done so.

    Raise JournalError for a file that has other tables.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection) == 0:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise JournalError(f"{path}: its tables are not those of schedhook; move it away")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
