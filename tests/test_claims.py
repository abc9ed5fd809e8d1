"""Measured claims: what is stored is what was measured, and nothing is promised that was not."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sparselab import claims
from sparselab.method import Claim, find, methods

LOW = Claim(text="error stays low", metric="error", at_most=0.5)
HIGH = Claim(text="gain is large", metric="gain", at_least=1.0, reproduced=False)


def toy(measure):
    part = {"claim": SimpleNamespace(measure=measure)}
    return SimpleNamespace(family="toy", name="toy", claims=(LOW, HIGH), part=part.__getitem__)


def test_every_seed_is_measured_and_counted():
    entry = claims.measure(toy(lambda seed: {"error": [0.1, 0.9, 0.2][seed], "gain": 0.5}), seeds=(0, 1, 2))
    low, high = entry["claims"]
    assert (low["median"], low["low"], low["high"], low["seeds_that_hold"]) == (0.2, 0.1, 0.9, 2)
    assert high["seeds_that_hold"] == 0
    assert entry["metrics"]["error"] == [0.1, 0.9, 0.2]
    assert entry["date"] and entry["machine"]


def test_a_metric_that_is_not_measured_is_an_error():
    with pytest.raises(ValueError, match=r"returns \['error'\], not \['gain'\]"):
        claims.measure(toy(lambda seed: {"error": 0.1}), seeds=(0,))


def test_saving_keeps_the_other_methods(tmp_path):
    file = tmp_path / "claims.json"
    claims.save([{"method": "a/b", "x": 1}, {"method": "a/c", "x": 2}], file)
    claims.save([{"method": "a/b", "x": 3}], file)
    assert json.loads(file.read_text()) == {
        "a/b": {"method": "a/b", "x": 3},
        "a/c": {"method": "a/c", "x": 2},
    }


@pytest.mark.parametrize("method", [m for m in methods() if m.claims], ids=lambda m: f"{m.family}/{m.name}")
def test_stored_results_tell_what_the_card_tells(method):
    """Every claim of the card was measured over three seeds; exactly what it calls reproduced held in all."""
    entry = claims.stored(f"{method.family}/{method.name}")
    assert len(entry["seeds"]) >= 3
    assert [row["text"] for row in entry["claims"]] == [c.text for c in method.claims]
    for row, claim in zip(entry["claims"], method.claims, strict=True):
        assert row["target"] == claim.target
        assert (row["seeds_that_hold"] == len(entry["seeds"])) == claim.reproduced, row


def test_an_unmeasured_method_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "results_file", lambda: tmp_path / "none.json")
    with pytest.raises(ValueError, match="run `sparselab claim wanda`"):
        claims.stored("wanda")


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [m for m in methods() if m.claims],
    ids=lambda m: f"{m.family}/{m.name}",
)
def test_claims_hold_again_for_one_seed(method):
    measured = method.part("claim").measure(0)
    for claim in method.claims:
        assert np.isfinite(measured[claim.metric]), claim
        if claim.reproduced and not claim.timed:
            assert claim.holds(measured[claim.metric]), (claim, measured[claim.metric])


@pytest.mark.parametrize(("held", "said"), [(3, "holds"), (0, "does not hold"), (2, "holds in 2 of 3 seeds")])
def test_a_claim_that_some_seeds_deny_does_not_hold(held, said):
    assert claims.in_words({"seeds_that_hold": held}, 3) == said


def test_the_table_says_where_a_finding_does_not_hold():
    assert "does not hold" in claims.table("lazy_neuron")
    assert find("lazy_neuron").claims[0].text in claims.table("lazy_neuron")
