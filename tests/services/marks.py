"""A service that says what was committed, and nothing that was not.

    marks.py DATABASE RUN PAUSE

Writes until it is killed, one transaction after the other, with PAUSE seconds between them. After each COMMIT that
returned it prints `ok MARK SHARED GONE`: the mark that was inserted, the mark again if it was put into a row that all
nodes write, and the mark that was deleted; `-` for none.
"""

import os
import sqlite3
import sys
import time

path, run, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
# None is autocommit: the transactions below are as they are written.
db = sqlite3.connect(path, timeout=30, isolation_level=None)

number = 0
due = time.monotonic()
while True:
    mark, shared, gone = f"{run}-{number}", "-", "-"
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO marks(id, n) VALUES (?, ?)", (mark, number))
    if number % 4 == 0:
        shared = mark
        db.execute("INSERT INTO shared(id, mark) VALUES (?, ?) ON CONFLICT(id) DO UPDATE SET mark = excluded.mark",
                   (f"s{number // 4 % 40}", mark))
    if number % 6 == 5 and number > 30:
        gone = f"{run}-{number - 30}"
        db.execute("DELETE FROM marks WHERE id = ?", (gone,))
    db.execute("COMMIT")
    # One write of few bytes: a kill leaves all of it or nothing.
    os.write(1, f"ok {mark} {shared} {gone}\n".encode())
    number += 1
    # A writer that had to wait makes up for it: the rate is what it is meant to be.
    due = max(due + pause, time.monotonic() - 2)
    time.sleep(max(0.0, due - time.monotonic()))
