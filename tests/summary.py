"""Adds up pytest's JUnit reports: the last lines of ``bin/test``."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def summary(reports: Path) -> tuple[str, bool]:
    """Returns one line per report with its counts, and whether every one ran and passed."""
    lines = []
    good = True
    for report in sorted(reports.glob("*.xml")):
        total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
        seconds = 0.0
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            for name in total:
                total[name] += int(suite.get(name, 0))
            seconds += float(suite.get("time", 0))
        bad = total["failures"] + total["errors"]
        passed = total["tests"] - bad - total["skipped"]
        good = good and bad == 0 and passed > 0
        lines.append(
            f"{report.stem}: {passed} passed, {bad} failed, {total['skipped']} skipped "
            f"in {seconds:.0f} s"
        )
    return "\n".join(lines) or "no tests ran", good and bool(lines)


if __name__ == "__main__":
    text, good = summary(Path(sys.argv[1]))
    print(text)
    sys.exit(0 if good else 1)
