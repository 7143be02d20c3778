"""A service in Python that knows nothing of Rowcast: plain sqlite3, as its tutorial shows it.

    notes.py DATABASE NAME COUNT

Writes COUNT rounds under NAME, then prints the version of its SQLite.
"""

import datetime
import sqlite3
import sys
import uuid

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = sqlite3.connect(path, timeout=5)
db.execute("PRAGMA foreign_keys = ON")

for number in range(count):
    note = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{number}"))
    with db:
        db.execute("INSERT INTO notes(id, author, text, made) VALUES (?, ?, ?, ?)",
                   (note, name, f"note {number} ✎", datetime.datetime(2024, 1, 2, 3, 4, number % 60).isoformat(" ")))
        db.executemany("INSERT INTO tags(note, tag) VALUES (?, ?)", [(note, "odd" if number % 2 else "even"), (note, name)])
    with db:
        db.execute("UPDATE notes SET text = text || '!', seen = ? WHERE id = ?", (number % 3 == 0, note))
    if number % 5 == 0:
        with db:
            db.execute("DELETE FROM notes WHERE id = ?", (note,))
    if number % 7 == 0:
        try:
            with db:
                db.execute("INSERT INTO notes(id, author) VALUES (?, ?)", (f"{name}-{number}-lost", name))
                db.execute("INSERT INTO tags(note, tag) VALUES ('nowhere', 'x')")
        except sqlite3.IntegrityError as error:
            assert "FOREIGN KEY" in str(error), error
        else:
            raise AssertionError("a broken reference was let in")
    if number % 11 == 0:
        with db:
            db.execute("REPLACE INTO settings(name, value) VALUES (?, ?)", (name, memoryview(bytes([number % 256, 0, 255]))))

print(sqlite3.sqlite_version)
