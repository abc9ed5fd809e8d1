"""The harness measures what it says: right answers first, turns in order, honest losses, nothing lost."""

import inspect
import json
from io import StringIO
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from sparselab import bench
from sparselab.bench import Case, Peer
from sparselab.method import find, methods

CASES = [(m, case) for m in methods() if m.has("bench") for case in m.part("bench").CASES]


def tiny(**changes):
    fields = dict(
        id="X1",
        text="a tiny case",
        op="topk",
        inputs={"gaussian": lambda rng: dict(x=rng.normal(size=(3, 20)), k=4)},
        peers={"torch.topk": Peer(lambda x, k: tuple(x.topk(k)))},
        read=240,
        levels={"on par": 1.0, "excellent": 2.0},
    )
    return Case(**fields | changes)


def ticking(step=1e-3):
    ticks = count()
    return lambda: next(ticks) * step


@pytest.fixture
def one_case(monkeypatch):
    """Put a case in place of those of topk/exact."""

    def put(case):
        monkeypatch.setattr(bench, "select", lambda names: [find("topk/exact")])
        monkeypatch.setattr(find("topk/exact").part("bench"), "CASES", [case])

    return put


def run(tmp_path, **options):
    return bench.run(
        ["exact"], threads=1, json=tmp_path / "b.json", progress=False, seconds=0, clock=ticking(), **options
    )


def test_peers_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ABC"}
    taken = bench.take_turns(calls, seconds=0, clock=ticking())
    assert order == list("ABC") * (bench.ROUNDS + 1)
    assert {name: len(times) for name, times in taken.items()} == dict.fromkeys("ABC", bench.ROUNDS)


def test_a_call_is_charged_its_own_time_only():
    now = [0.0]
    calls = {"slow": lambda: now.__setitem__(0, now[0] + 3), "fast": lambda: now.__setitem__(0, now[0] + 1)}
    taken = bench.take_turns(calls, seconds=0, clock=lambda: now[0])
    assert set(taken["slow"]) == {3000.0} and set(taken["fast"]) == {1000.0}


def test_it_goes_on_until_the_time_is_up():
    taken = bench.take_turns({"A": lambda: None}, seconds=1, clock=ticking(0.01))
    assert len(taken["A"]) > bench.ROUNDS


def test_the_device_is_waited_for_inside_the_time():
    now = [0.0]
    taken = bench.take_turns(
        {"A": lambda: None}, seconds=0, clock=lambda: now[0], wait=lambda: now.__setitem__(0, now[0] + 2)
    )
    assert set(taken["A"]) == {2000.0}


def test_a_row_says_rate_share_of_the_floor_and_ratio():
    case = tiny(read=4_000_000, written=2_000_000)
    row = bench._row("ours", Peer(len), [2.0, 4.0, 4.0], case, 1.0, 6.0, 12_000_000)
    assert (row.min, row.median, row.efficiency, row.speedup) == (2.0, 4.0, 0.5, 3.0)
    assert (row.gb_per_s, row.by_bytes) == (3.0, 2.0)
    assert row.spread > 1


def test_sets_take_turns_and_times_are_those_of_one():
    seen = []
    case = tiny(
        sets=3,
        inputs={"law": lambda rng: dict(x=rng.normal(size=(3, 20)), k=4)},
        peers={"mine": Peer(lambda x, k: seen.append(float(x[0, 0])), same=False, read=480)},
    )
    ours, mine, floor = bench.measure(find("topk/exact"), case, "law", "cpu", 0, ticking())
    assert len(set(seen)) == 3 and seen[1:4] == seen[4:7]
    assert mine.min == pytest.approx(1 / 3) and mine.gb_per_s == pytest.approx(480 * 3 / 1e6)
    assert (ours.by_bytes, mine.by_bytes, floor.by_bytes) == (2.0, 1.0, 2.0)


def test_a_peer_lays_out_its_inputs_before_the_clock_runs():
    laid_out = []

    def prepare(given):
        laid_out.append(given)
        return {"rows": given["x"].T.contiguous()}

    peers = {"columns": Peer(lambda rows: rows.sum(), same=False, prepare=prepare)}
    bench.measure(find("topk/exact"), tiny(peers=peers), "gaussian", "cpu", 0, ticking())
    assert len(laid_out) == 1


def test_results_are_complete_and_stored(one_case, tmp_path, capsys):
    one_case(tiny())
    entries = run(tmp_path)
    assert json.loads((tmp_path / "b.json").read_text()) == entries
    (entry,) = entries
    assert [row["name"] for row in entry["laws"]["gaussian"]] == ["sparselab", "torch.topk", "floor"]
    assert {"date", "machine", "torch", "threads", "load", "policy", "device"} <= set(entry)
    assert "torch.topk" in capsys.readouterr().out


def test_a_case_measured_again_replaces_itself_only(tmp_path):
    file = tmp_path / "deep" / "b.json"
    first = dict(id="T1", device="cpu", threads=1, laws={})
    for entry in (first, first | {"id": "T2"}, first | {"threads": 2}, first | {"laws": {"new": []}}):
        bench.save(entry, file)
    stored = json.loads(file.read_text())
    assert [(e["id"], e["threads"], bool(e["laws"])) for e in stored] == [
        ("T1", 1, True),
        ("T1", 2, False),
        ("T2", 1, False),
    ]


def test_a_peer_that_disagrees_stops_the_case(one_case, tmp_path):
    one_case(tiny(peers={"smallest": Peer(lambda x, k: tuple(x.topk(k, largest=False)))}))
    with pytest.raises(ValueError, match="X1 is not timed: on gaussian, smallest and sparselab disagree"):
        run(tmp_path)
    assert not (tmp_path / "b.json").exists()


def test_another_answer_is_allowed_where_it_is_declared(one_case, tmp_path, capsys):
    one_case(tiny(peers={"smallest": Peer(lambda x, k: tuple(x.topk(k, largest=False)), same=False)}))
    run(tmp_path)
    assert "smallest *" in capsys.readouterr().out


def test_nothing_is_timed_before_the_judge_is_content(one_case, tmp_path, monkeypatch):
    one_case(tiny())
    fast = find("topk/exact").part("fast")
    plain = inspect.unwrap(fast.keep)
    monkeypatch.setattr(fast, "keep", lambda x, *, k: 2 * plain(torch.as_tensor(x), k=k))
    with pytest.raises(ValueError, match="exact is not timed: exact.keep, case"):
        run(tmp_path)


def test_threads_are_put_back(one_case, tmp_path):
    one_case(tiny())
    before = torch.get_num_threads()
    bench.run(["exact"], threads=before + 1, json=tmp_path / "b.json", progress=False, seconds=0)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("speedup", "said"), [(0.9, "slower"), (1.0, "on par"), (1.9, "on par"), (7.0, "excellent")]
)
def test_a_level_is_reached_or_a_loss_is_called_one(speedup, said):
    entry = {"levels": {"on par": 1.0, "excellent": 2.0}}
    assert bench.level(entry, speedup) == said


def test_the_table_shows_every_way_on_every_law_and_every_digit_in_a_narrow_terminal():
    row = dict(
        min=1234.56, median=1234.56, spread=1, gb_per_s=1, efficiency=0.5, by_bytes=3, same_answer=True
    )
    ways = [row | dict(name="sparselab", speedup=0.5), row | dict(name="peer", speedup=1.0)]
    entry = dict(id="X", method="a/b", text="t", levels={}, baseline="peer", policy="p", device="cpu")
    ways[0]["active"] = [0.008, 0.011]
    console = Console(width=80, file=StringIO())
    console.print(bench.table(entry | dict(threads=1, load=[0.1, 0.2], laws={"even": ways, "odd": ways})))
    text = console.file.getvalue()
    assert text.count("sparselab") == text.count("slower") == 2
    assert "even" in text and "odd" in text
    assert text.count("1234.56") == 8 and "…" not in text
    assert "3.00" in text


def test_the_table_promises_nothing_where_all_ways_read_the_same():
    row = dict(name="a", min=2, median=2, spread=2, gb_per_s=2, efficiency=0.5, speedup=2, same_answer=True)
    entry = dict(id="X", method="a/b", text="t", levels={}, baseline="peer", policy="p", device="cpu")
    console = Console(width=80, file=StringIO())
    console.print(bench.table(entry | dict(threads=1, load=[0], laws={"even": [row | dict(by_bytes=1.0)]})))
    assert "1.00" not in console.file.getvalue()


@pytest.mark.parametrize(
    ("active", "said"),
    [((), ""), ([0.081], ", 8.1 % active"), ([0.09, 0.081], ", 8.1 to 9.0 % active")],
)
def test_what_was_active_is_said_in_words(active, said):
    assert bench.shares({"active": active}) == said
    assert bench.shares({}) == ""


def test_what_was_active_is_counted_on_the_very_inputs_and_only_for_us():
    case = tiny(active=lambda x, k: [k / x.shape[1]])
    ours, *others = bench.measure(find("topk/exact"), case, "gaussian", "cpu", 0, ticking())
    k_and_n = case.inputs["gaussian"](np.random.default_rng(0))
    assert ours.active == [k_and_n["k"] / k_and_n["x"].shape[1]]
    assert not any(other.active for other in others)


def test_names_are_methods_or_families():
    assert [m.name for m in bench.select(["exact"])] == ["exact"]
    assert {"exact", "statistical"} <= {m.name for m in bench.select(["topk", "exact"])}
    assert len(bench.select(["topk", "exact"])) == len(bench.select(["topk"]))
    assert {m.name for m in bench.select([])} == {m.name for m in methods() if m.has("bench")}


@pytest.mark.parametrize(
    ("name", "said"), [("exat", "did you mean 'exact'"), ("topk/threshold", "has 0 benchmarks")]
)
def test_a_name_that_means_nothing_is_an_error(name, said):
    with pytest.raises(ValueError, match=said):
        bench.select([name])


def test_a_device_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="0 GPUs"):
        bench.run([], device="cuda")
    with pytest.raises(ValueError, match="neither cpu nor cuda"):
        bench.run([], device="tpu")


@pytest.mark.parametrize(("method", "case"), CASES, ids=lambda x: getattr(x, "id", getattr(x, "name", "")))
def test_a_case_is_whole(method, case):
    assert case.op in method.ops
    assert case.inputs and case.peers and case.read > 0
    assert list(case.levels.values()) == sorted(case.levels.values())


def test_ids_of_cases_are_unique():
    ids = [case.id for _, case in CASES]
    assert len(set(ids)) == len(ids)


def test_a_kernel_is_a_way_of_its_own_on_a_gpu(monkeypatch):
    """Without a GPU: the fields that decide, on a stand-in method."""
    wrong = SimpleNamespace(__all__=["soft"], soft=lambda x, k: x)
    parts = {"fast": find("statistical").part("fast"), "kernel": wrong, "checks": SimpleNamespace()}
    method = SimpleNamespace(part=parts.__getitem__, backends=("numpy", "torch", "triton"))
    case = tiny(op="soft", peers={})
    monkeypatch.setattr(bench, "_tensors", lambda given, device: {**given, "x": torch.from_numpy(given["x"])})
    with pytest.raises(ValueError, match=r"sparselab \(Triton\) and sparselab disagree"):
        bench.measure(method, case, "gaussian", "cuda", 0, ticking())


def test_inputs_are_float32_tensors_and_sizes_stay_numbers():
    given = bench._tensors(dict(x=np.ones(3), i=np.arange(3), k=2), "cpu")
    assert given["x"].dtype == torch.float32 and given["i"].dtype == torch.int64 and given["k"] == 2
