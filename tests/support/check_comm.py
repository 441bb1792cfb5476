"""comm.json against the table of the same report: check_comm.py FILE PROCESSES TABLE."""
import json
import sys

report = json.load(open(sys.argv[1]))
processes = int(sys.argv[2])
lines = [line.split() for line in open(sys.argv[3])]
assert set(report) == {"processes", "latency_s", "s_per_byte", "rows"}, list(report)
assert report["processes"] == processes
assert report["latency_s"] >= 0 and report["s_per_byte"] >= 0
assert len(report["rows"]) >= 6, report["rows"]
for row in report["rows"]:
    names = [word for word in (row["layer"], row["phase"]) if word]
    found = [line for line in lines if line[: len(names)] == names]
    assert len(found) == 1, row
    numbers = found[0][len(names) :]
    wait = row["wait_s"]
    assert len(wait) == len(row["begin_s"]) == processes
    assert all(s >= 0 for s in wait + row["begin_s"])
    assert [int(n) for n in numbers[:2]] == [row["messages"], row["bytes"]]
    assert abs(float(numbers[2]) - sum(wait) / processes) <= 1e-3
    assert abs(float(numbers[3]) - max(wait)) <= 1e-3
    assert int(numbers[4]) == row["slowest_rank"]
    assert wait[row["slowest_rank"]] == min(wait)
    assert abs(row["wait_mean_s"] * processes - sum(wait)) <= 1e-9
    assert row["wait_most_s"] == max(wait)
    spent = (sum(wait) + sum(row["begin_s"])) / processes / row["messages"]
    assert abs(row["measured_s"] - spent) <= 1e-9
    line = report["latency_s"] + report["s_per_byte"] * row["bytes"] / row["messages"]
    assert abs(row["predicted_s"] - line) <= 1e-9
    assert abs(row["ratio"] * row["predicted_s"] - row["measured_s"]) <= 1e-9
