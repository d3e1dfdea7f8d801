# SPDX-License-Identifier: Apache-2.0
"""`make bench`: how long things take, beside other tools and other ways, all in one run; writes build/bench.json.

Medians. What is compared is measured in turn, round by round. VMROLE_BENCH_ROUNDS is how often (5).
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import packages, peers, powershell, scenarios, windows
from tests.bench.machines import MANY, place
from tests.conftest import SAMPLES, VMROLE
from tests.run.test_certificates import make, write

ROUNDS = int(os.environ.get("VMROLE_BENCH_ROUNDS", "5"))
IMAGE = "debian-12"
SIZES = (512, 2048, 4096)
Row = dict[str, object]


def ours(*arguments: str | Path) -> float:
    """Seconds of one whole `vmrole` process."""
    began = time.monotonic()
    done = subprocess.run([VMROLE, *arguments], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"vmrole {' '.join(map(str, arguments))} failed: {done.stderr}")
    return took


def rounds(**measures: Callable[[int], float] | None) -> dict[str, float | None]:
    """Medians of all measures, each round one of each; None for what cannot be measured here."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(ROUNDS):
        for name, measure in measures.items():
            if measure:
                taken[name].append(measure(number))
        print(f"round {number + 1} of {ROUNDS}: {', '.join(measures)}", file=sys.stderr)  # noqa: T201
    return {name: statistics.median(values) if values else None for name, values in taken.items()}


def row(name: str, value: float | None, baseline: float | None = None, unit: str = "s") -> Row:
    """A row of the table; ``ratio`` is how many times smaller the value is than its baseline."""
    if value is None:
        raise ValueError(f"{name} was not measured")
    ratio = round(baseline / value, 2) if baseline else None
    return {
        "name": name, "value": round(value, 3), "unit": unit,
        "baseline": round(baseline, 3) if baseline else None, "ratio": ratio,
    }  # fmt: skip


def whole_processes(folder: Path) -> list[Row]:
    """What a user waits for at the shell."""
    debvm, kernel = peers.debvm_image(), peers.virtme_kernel()
    pfx = write(folder, make("bench").pfx(None), "cert.pfx")
    exec_ = ("exec", "--image", IMAGE)
    run = ("run", SAMPLES / "hello-linux", "-p", "Greeting=x", "--certificate", pfx, "--local-resource", "Data=20")
    ours(*exec_, "--", "true")  # makes the template, and asks libvirt what QEMU can do
    seen = rounds(
        cold=lambda _n: ours(*exec_, "--cold", "--", "true"),
        fork=lambda _n: ours(*exec_, "--", "true"),
        debvm=(lambda _n: peers.debvm(debvm)) if debvm else None,
        virtme=(lambda _n: peers.virtme(kernel)) if kernel else None,
        run=lambda n: ours(*run, "--output", folder / f"run-{n}"),
        run_cold=lambda n: ours(*run, "--cold", "--output", folder / f"cold-{n}"),
    )
    rows = [
        row("cold exec, specialised", seen["cold"]),
        row("forked exec, specialised (baseline: cold)", seen["fork"], seen["cold"]),
    ]
    if debvm:
        rows.append(row("forked exec (baseline: debvm-run to its SSH banner)", seen["fork"], seen["debvm"]))
        rows.append(row("cold exec (baseline: debvm-run to its SSH banner)", seen["cold"], seen["debvm"]))
    if kernel:
        rows.append(row("forked exec (baseline: vng --exec true)", seen["fork"], seen["virtme"]))
    whole = "forked run of the sample: certificate, resource, read-back, checkpoints, logs"
    rows.append(row(f"{whole} (baseline: cold)", seen["run"], seen["run_cold"]))
    return rows


def machines() -> list[Row]:
    """What a test waits for in one process."""
    with place(IMAGE) as here:
        for size in SIZES:
            here.forked(size)  # makes its template
        seen = rounds(
            first=lambda _n: here.first_command(),
            **{f"fork_{size}": (lambda _n, size=size: here.forked(size)) for size in SIZES},
            serial=lambda _n: here.many(1),
            parallel=lambda _n: here.many(MANY),
            memory=lambda _n: here.memory_of_many(),
        )
        saved: list[tuple[float, float]] = []
        for number in range(ROUNDS):
            saved.append(here.checkpoint(f"bench-{number}"))
    rows = [row("fork in one process, to the end of its first command", seen["first"])]
    for size in SIZES:
        baseline = seen[f"fork_{SIZES[0]}"] if size != SIZES[0] else None
        name = f"fork of {size} MiB, to its agent's answer" + (f" (baseline: {SIZES[0]} MiB)" if baseline else "")
        rows.append(row(name, seen[f"fork_{size}"], baseline))
    rows += [
        row(f"{MANY} forks with a command each, one after the other", seen["serial"]),
        row(f"{MANY} forks, in threads (baseline: one after the other)", seen["parallel"], seen["serial"]),
        row(f"{MANY} idle forks, PSS (baseline: {MANY} times 100 MiB)", seen["memory"], MANY * 100.0, "MiB"),
        row(
            "checkpoint after a step that dirtied 50 MB: the guest stands still", statistics.median(p for p, _ in saved)
        ),
        row("going on from it, to the end of the first command", statistics.median(again for _, again in saved)),
    ]
    return rows


def sessions(folder: Path) -> list[Row]:
    """What an author's whole test run takes; once, as it is many machines already."""
    forked = scenarios.session(folder / "forked", cold=False)
    cold = scenarios.session(folder / "cold", cold=True)
    what = f"pytest -n {scenarios.WORKERS} of {scenarios.COUNT} scenarios"
    return [
        row(f"{what}, forked (baseline: cold)", forked.seconds, cold.seconds),
        row("its memory with all machines at most, PSS (baseline: cold)", forked.memory_mb, cold.memory_mb, "MiB"),
    ]


def engines(folder: Path) -> list[Row]:
    """Steps of PowerShell on the stand-in, where there is one; the baselines are what they may take at most."""
    rows = []
    for step in powershell.measure(folder / "powershell", ROUNDS):
        name = f"PowerShell in a fork, {step.name}"
        rows.append(row(f"{name}, by an engine that stood by (baseline: at most)", step.warm, step.most_warm))
        rows.append(row(f"{name}, by an engine of its own (baseline: at most)", step.cold, step.most_cold))
    return rows


def windows_guests(folder: Path) -> list[Row]:
    """Windows steps, on the stand-in guest; the baselines are what they may take at most."""
    windows.built()
    seen = rounds(
        msi=lambda n: windows.sample("msi", folder / f"msi-{n}"),
        reboot=lambda n: windows.reboot(folder / f"reboot-{n}"),
    )
    return [
        row(
            "forked run of the MSI sample on the stand-in Windows guest (baseline: the 10 s it may take)",
            seen["msi"],
            10.0,
        ),
        row("a restart in the middle of a run (baseline: the 35 s it may take)", seen["reboot"], 35.0),
    ]


def show(rows: Sequence[Row]) -> None:
    build = Path("build")
    build.mkdir(exist_ok=True)
    (build / "bench.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{'what':<88} {'median':>9}     {'baseline':>9} {'ratio':>6}")  # noqa: T201
    for entry in rows:
        base, ratio = entry["baseline"] or "-", entry["ratio"] or "-"
        print(f"{entry['name']:<88} {entry['value']:>9} {entry['unit']:<3} {base:>9} {ratio:>6}")  # noqa: T201


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmb-", dir="/tmp")))
        # Not below the other one, through which the account that QEMU runs under cannot pass.
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vms-", dir="/tmp")))
        os.environ["VMROLE_STATE_DIR"] = str(state)
        rows = whole_processes(folder) + machines() + sessions(folder) + windows_guests(folder) + engines(folder)
        rows += packages.measure(ROUNDS)
        subprocess.run([VMROLE, "sweep", "--kept"], check=True, capture_output=True)
        show(rows)


if __name__ == "__main__":
    main()
