#!/usr/bin/env python3
"""Proves that the simulation catches what it is for: breaks Rowcast in one place at a time, in a copy, and runs seeds
until one of them fails. A mutant that survives them all is a hole in the simulation; one that does not apply or does not
build is a mistake in `mutants.toml`. The copy as it is must pass first. What came of each is written to docs/mutants.md.

    just mutants [--seeds 500] [--control 500] [--jobs 2] [NAME …]
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPY = ROOT / "target" / "mutants"
# Not that of the project: both would put a program of one name there.
TARGET = ROOT / "target" / "mutants" / "target"
PAGE = ROOT / "docs" / "mutants.md"
HEADER = """# Mutants

Each line is one mistake that was made in a copy of Rowcast on purpose, as somebody might make it, and the seed of the simulated
cluster that noticed it first, from seed 0 on. `tests/sim/mutants.toml` has them, `tests/sim/mutants.py` makes them, runs the
seeds, writes this page, and fails when one survives. Some need a history that no seed in five hundred has; for those the test
that was written for it is run. The copy without any mistake: {control}.

| mistake | in | noticed at seed | as |
|---|---|---|---|
"""


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
    for stale in (file for part in ("schema", "sidecar", "tests", "examples") for file in (COPY / part).rglob("*.rs")):
        if stale.relative_to(COPY) not in wanted:
            stale.unlink()


def build() -> Path | None:
    """Builds the simulation of the copy. None when it does not build: its words are on standard error."""
    # Between two mistakes one line changes: built incrementally, that is seconds instead of more than a minute.
    environment = dict(os.environ, CARGO_TARGET_DIR=str(TARGET), RUSTFLAGS="-Awarnings", CARGO_INCREMENTAL="1")
    command = ["cargo", "build", "--quiet", "--locked", "--profile", "sim", "--package", "rowcast-sim"]
    if subprocess.run(command, cwd=COPY, env=environment).returncode != 0:
        return None
    program = COPY / "rowcast-sim"
    shutil.copyfile(TARGET / "sim" / "rowcast-sim", program)
    program.chmod(0o755)
    return program


def bound() -> None:
    """A mistake can make a node work for ever, or take all memory: a process of the simulation, which runs 50 seeds in two minutes,
    is ended then, and the seed counts as failed."""
    resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))


def simulate(program: Path, seeds: int, jobs: int) -> tuple[int, int | None, str]:
    """How many seeds were run, and which was the first that failed, with what; none when all ended well."""
    command = [program, "--seeds", str(seeds), "--jobs", str(jobs), "--fail-fast"]
    output = subprocess.run(command, capture_output=True, text=True, preexec_fn=bound).stdout
    failed = re.search(r"^seed (\d+) FAILED: (.*)$", output, re.MULTILINE)
    ran = re.search(r"^(\d+) seeds, (\d+) failed", output, re.MULTILINE)
    if not ran:
        sys.exit(f"the simulation itself failed: {output[-300:]}")
    return int(ran.group(1)), int(failed.group(1)) if failed else None, failed.group(2) if failed else ""


def fails(test: list[str]) -> bool:
    """Whether a test of the copy, by its suite and its name, notices the mistake."""
    suite, name = test
    where = ["--lib"] if suite == "lib" else ["--test", suite]
    command = ["cargo", "test", "--quiet", "--locked", "--package", "rowcast", *where, "--", "--exact", name]
    environment = dict(os.environ, CARGO_TARGET_DIR=str(TARGET), RUSTFLAGS="-Awarnings")
    try:
        ended = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        return False
    return "1 failed" in ended.stdout


def broken(mutant: dict) -> tuple[Path, str, str]:
    """The file, its text, and its broken text."""
    path = COPY / mutant["file"]
    text = path.read_text()
    if text.count(mutant["find"]) != 1:
        sys.exit(f"{mutant['name']}: its text occurs {text.count(mutant['find'])} times in {mutant['file']}, not once")
    return path, text, text.replace(mutant["find"], mutant["replace"])


def short(failure: str) -> str:
    """What was noticed, for a cell of a table: its kind, without the ids and the rows."""
    failure = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "…", failure.replace("|", " "))
    failure = re.sub(r"[\[{].*", "…", failure).replace("`", "'")
    return failure if len(failure) <= 110 else failure[:110] + "…"


def write_page(mutants: list[dict], rows: dict[str, str], control: str) -> None:
    """The page with the lines that there are, in the order of `mutants.toml`."""
    lines = [rows[mutant["name"]] for mutant in mutants if mutant["name"] in rows]
    PAGE.write_text(HEADER.format(control=control) + "".join(line + "\n" for line in lines))


def known_page() -> tuple[dict[str, str], str]:
    """The lines of the page as it is, by mutant, and what it says of the control."""
    text = PAGE.read_text() if PAGE.exists() else ""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| mistake")]
    control = re.search(r"without any mistake: (.*)\.$", text, re.MULTILINE)
    return {line.split(" | ")[0][2:]: line for line in lines}, control.group(1) if control else "not run"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--control", type=int, default=500, help="seeds of the copy as it is; 0 leaves it out")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--list", action="store_true", help="only look whether every mutant applies")
    parser.add_argument("names", nargs="*", help="only these, and the others' lines on the page stay")
    arguments = parser.parse_args()
    everything = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text())["mutants"]
    unknown = set(arguments.names) - {mutant["name"] for mutant in everything}
    if unknown:
        parser.error(f"no mutant has the name: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in everything if not arguments.names or mutant["name"] in arguments.names]
    copy()
    for mutant in chosen:
        broken(mutant)
    if arguments.list:
        print(f"{len(chosen)} mutants apply")
        return 0
    rows, control = known_page()
    if not arguments.names:
        rows = {}
    if arguments.control:
        program = build()
        if program is None:
            return 1
        ran, seed, failure = simulate(program, arguments.control, arguments.jobs)
        control = f"{ran} seeds, all well" if seed is None else f"seed {seed}: {short(failure)}"
        print(f"control: {control}", flush=True)
        if seed is not None:
            return 1
        broken_tests = [mutant["test"][1] for mutant in chosen if "test" in mutant and fails(mutant["test"])]
        if broken_tests:
            print("without any mistake these fail:", *broken_tests)
            return 1
    survivors = []
    for mutant in chosen:
        began = time.monotonic()
        path, whole, changed = broken(mutant)
        path.write_text(changed)
        try:
            program = build()
            ran, seed, failure = simulate(program, arguments.seeds, arguments.jobs) if program else (0, None, "")
            by_test = program is not None and seed is None and "test" in mutant and fails(mutant["test"])
        finally:
            path.write_text(whole)
        if by_test:
            failure = f"none of {ran}; the test {mutant['test'][1].split('::')[-1]}"
        elif seed is None:
            survivors.append(mutant["name"])
        word = "DOES NOT BUILD" if program is None else "-" if by_test else f"SURVIVED {ran}" if seed is None else str(seed)
        rows[mutant["name"]] = f"| {mutant['name']} | `{mutant['file']}` | {word} | {short(failure)} |"
        write_page(everything, rows, control)
        print(f"{mutant['name']}: {word}, {time.monotonic() - began:.0f} s. {failure[:200]}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants caught", *survivors)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
