#!/usr/bin/env python3
"""Proves that the simulation catches what it is for: breaks Rowcast in one place at a time, in a copy, and runs seeds
until one of them fails. A mutant that survives them all is a hole in the simulation; one that does not apply or does not
build is a mistake in `mutants.toml`. The copy as it is must pass first.

    python3 tests/sim/mutants.py [--seeds 500] [--control 100] [NAME …]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPY = ROOT / "target" / "mutants"
TARGET = ROOT / "target"


def copy() -> None:
    """The tracked files as they are now, and nothing else. What has not changed keeps its time, so that it is not built again."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    wanted = {Path(name.decode()) for name in names.split(b"\0") if name}
    for name in wanted:
        source, to = ROOT / name, COPY / name
        if not source.is_file():
            continue
        if not to.exists() or to.read_bytes() != source.read_bytes():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to)
    for stale in COPY.rglob("*.rs"):
        if stale.relative_to(COPY) not in wanted:
            stale.unlink()


def build() -> Path | None:
    """Builds the simulation of the copy. None when it does not build: its words are on standard error."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(TARGET), RUSTFLAGS="-Awarnings")
    command = ["cargo", "build", "--quiet", "--locked", "--package", "rowcast-sim"]
    if subprocess.run(command, cwd=COPY, env=environment).returncode != 0:
        return None
    program = COPY / "rowcast-sim"
    shutil.copyfile(TARGET / "debug" / "rowcast-sim", program)
    program.chmod(0o755)
    return program


def simulate(program: Path, seeds: int) -> tuple[int, str]:
    """How many seeds were run, and what the first failure was; nothing when all ended well."""
    command = [program, "--seeds", str(seeds), "--fail-fast"]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    failed = re.search(r"^seed (\d+) FAILED: (.*)$", output, re.MULTILINE)
    ran = re.search(r"^(\d+) seeds, (\d+) failed", output, re.MULTILINE)
    if not ran:
        return 0, f"the simulation itself failed: {output[-300:]}"
    return int(ran.group(1)), f"seed {failed.group(1)}: {failed.group(2)[:110]}" if failed else ""


def broken(mutant: dict) -> tuple[Path, str, str]:
    """The file, its text, and its broken text."""
    path = COPY / mutant["file"]
    text = path.read_text()
    if text.count(mutant["find"]) != 1:
        sys.exit(f"{mutant['name']}: its text occurs {text.count(mutant['find'])} times in {mutant['file']}, not once")
    return path, text, text.replace(mutant["find"], mutant["replace"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--control", type=int, default=100, help="seeds of the copy as it is")
    parser.add_argument("--list", action="store_true", help="only look whether every mutant applies")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    mutants = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text())["mutants"]
    if arguments.names:
        mutants = [mutant for mutant in mutants if mutant["name"] in arguments.names]
    copy()
    for mutant in mutants:
        broken(mutant)
    if arguments.list:
        print(f"{len(mutants)} mutants apply")
        return 0
    program = build()
    if program is None:
        return 1
    ran, failure = simulate(program, arguments.control)
    print(f"control: {ran} seeds, {failure or 'all well'}", flush=True)
    if failure:
        return 1
    survivors = []
    for mutant in mutants:
        began = time.monotonic()
        path, whole, changed = broken(mutant)
        path.write_text(changed)
        try:
            program = build()
            ran, failure = simulate(program, arguments.seeds) if program else (0, "")
        finally:
            path.write_text(whole)
        word = "caught" if failure else ("DOES NOT BUILD" if program is None else "SURVIVED")
        if not failure:
            survivors.append(mutant["name"])
        print(f"{mutant['name']}: {word} after {ran} seeds, {time.monotonic() - began:.0f} s. {failure}", flush=True)
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants caught", *survivors)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
