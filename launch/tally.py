#!/usr/bin/python3
"""Count what `meson test` ran: cases of CMocka programs, checks of scripts that end with
a line `N passed, N failed`, other tests as one each.

Usage: tally.py LOG.json ...; prints failures with the end of their output, then the
line `N passed, N failed`. Exit code 1 when anything failed or nothing ran.
"""
import json
import os
import re
import sys

TAIL_LINES = 40
SCRIPT = re.compile(r"^(\d+) passed, (\d+) failed$", re.MULTILINE)
# Summary lines such as "[  FAILED  ] 2 test(s), listed below:" have blanks and drop out.
CASE = re.compile(r"\[ *(OK|FAILED|ERROR|SKIPPED) *\] (\S+)$", re.MULTILINE)


def count(test):
    """(passed, failed, skipped) of one test program."""
    output = test.get("stdout", "") + "\n" + test.get("stderr", "")
    names = {"OK": set(), "FAILED": set(), "ERROR": set(), "SKIPPED": set()}
    for outcome, name in CASE.findall(output):
        names[outcome].add(name)
    # A case may pass on process 0 and fail on another, which alone then says so.
    bad = names["FAILED"] | names["ERROR"]
    passed = len(names["OK"] - bad)
    skipped = len(names["SKIPPED"] - bad)
    if test["result"] == "SKIP":
        return 0, 0, 1
    closing = SCRIPT.findall(output)
    if closing and not passed:
        passed, failed = map(int, closing[-1])
        good = test["result"] in ("OK", "EXPECTEDFAIL")
        return passed, failed if good else max(1, failed), skipped
    if bad or test["result"] not in ("OK", "EXPECTEDFAIL"):
        return passed, max(1, len(bad)), skipped
    if "[==========]" not in output:
        passed = 1
    return passed, 0, skipped


def show(build, test):
    output = (test.get("stdout", "") + "\n" + test.get("stderr", "")).strip("\n")
    tail = output.splitlines()[-TAIL_LINES:]
    print(f"\n--- {test['name']} in {build}/: {test['result']}, exit code "
          f"{test['returncode']}, {test['duration']:.1f} s; alone: "
          f"meson test -C {build} '{test['name'].split(' / ')[-1]}'")
    print("\n".join("    " + line for line in tail) or "    (no output)")


def main(logs):
    total = [0, 0, 0]
    for log in logs:
        build = os.path.dirname(os.path.dirname(log))
        try:
            with open(log, encoding="utf-8", errors="replace") as lines:
                tests = [json.loads(line) for line in lines]
        except OSError:
            print(f"{build}/: no test ran")
            total[1] += 1
            continue
        except ValueError as error:
            print(f"{log}: {error}")
            total[1] += 1
            continue
        for test in tests:
            counts = count(test)
            total = [a + b for a, b in zip(total, counts)]
            if counts[1]:
                show(build, test)
    passed, failed, skipped = total
    print()
    if skipped:
        print(f"{skipped} skipped")
    print(f"{passed} passed, {failed} failed")
    return failed > 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
