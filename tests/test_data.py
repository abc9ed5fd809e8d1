"""The data: the same for the same seed, split without overlap, and true to what was planted."""

import builtins
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from sparselab import judge
from sparselab.data import fingerprint, images, planted, text


@pytest.fixture
def topics(monkeypatch):
    """A small documentation in place of this Python's own, so that the answer is known everywhere."""
    known = {
        "compound": "Compound\n\nThe if statement chooses.\n\nThe for statement repeats.\r\n",
        "if": "If\n\nThe if statement  chooses.",
        "assert": "Assert\n\nThe assert statement checks what must hold.\n",
    }
    fake = types.ModuleType("pydoc_data.topics")
    fake.topics = known
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", fake)
    return known


def test_a_topic_that_repeats_a_longer_one_is_left_out(topics):
    assert list(text.topics()) == ["assert", "compound"]


def test_topics_are_joined_in_order_with_unix_line_ends(topics, monkeypatch):
    monkeypatch.setattr(text, "split_of", lambda name: "train")
    got = bytes(text.pydocs())
    assert got == (
        b"Assert\n\nThe assert statement checks what must hold."
        b"\n\n\nCompound\n\nThe if statement chooses.\n\nThe for statement repeats."
    )


def test_the_split_follows_the_name_alone(topics):
    assert [text.split_of(n) for n in ("assert", "string-methods", "compound", "types")] == [
        "held_out", "held_out", "train", "train",
    ]  # fmt: skip


def test_the_docs_are_split_by_whole_topic_without_shared_paragraphs():
    train, held_out = (bytes(text.pydocs(split)).decode() for split in ("train", "held_out"))
    sides = [text.split_of(name) for name in text.topics()]
    assert set(sides) == {"train", "held_out"}
    assert 0.03 < len(held_out) / (len(train) + len(held_out)) < 0.25
    long = [{" ".join(p.split()) for p in side.split("\n\n") if len(p) > 80} for side in (train, held_out)]
    shared = sum(map(len, long[0] & long[1]))
    assert shared < 0.02 * len(held_out), (
        f"{shared} of {len(held_out)} held-out bytes stand in the training text"
    )


def test_the_docs_do_not_depend_on_the_hash_seed():
    source = (
        "from sparselab.data import fingerprint, text;"
        "print(fingerprint(text.pydocs()), fingerprint(text.pydocs('held_out')))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", source],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split 'test' is neither"):
        text.pydocs("test")
    with pytest.raises(ValueError, match="split 'test' is neither"):
        images.digits("test")


@pytest.mark.parametrize(
    ("missing", "call", "says"),
    [
        ("pydoc_data.topics", text.pydocs, "no pydoc_data.topics"),
        ("sklearn.datasets", images.digits, "pip install scikit-learn"),
    ],
)
def test_a_missing_library_is_one_line(monkeypatch, missing, call, says):
    real = builtins.__import__

    def guarded(name, *args, **kwargs):
        if name == missing:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, missing, raising=False)
    monkeypatch.setattr(builtins, "__import__", guarded)
    with pytest.raises(ImportError, match=says) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of three files and a test, one of them written on Windows."""
    (tmp_path / "json" / "tests").mkdir(parents=True)
    (tmp_path / "json" / "__init__.py").write_bytes(b"a = 1\r\n")
    (tmp_path / "json" / "tool.py").write_bytes("b = 'é'\n".encode())
    (tmp_path / "json" / "tests" / "test_tool.py").write_bytes(b"never")
    (tmp_path / "abc.py").write_bytes(b"c = 3\n")
    (tmp_path / "data.txt").write_bytes(b"never")
    monkeypatch.setattr(text.sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def test_the_sources_come_in_order_without_tests(library):
    assert bytes(text.stdlib()).decode() == "c = 3\n\n\n\na = 1\n\n\n\nb = 'é'\n"
    assert bytes(text.stdlib("json")).decode() == "a = 1\n\n\n\nb = 'é'\n"
    assert bytes(text.stdlib(limit=8)) == b"c = 3\n\n\n"
    assert len(text.stdlib(limit=0)) == 0


def test_sources_that_are_not_there(library, tmp_path):
    with pytest.raises(ValueError, match="called 'jsn'; did you mean 'json'"):
        text.stdlib("jsn")
    with pytest.raises(ValueError, match="limit=-1"):
        text.stdlib(limit=-1)
    for path in tmp_path.rglob("*.py"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="without its sources"):
        text.stdlib()


def test_the_real_sources_are_python():
    source = bytes(text.stdlib("json")).decode()
    assert "def dumps(" in source and "\r" not in source


def test_windows_are_stretches_of_the_text():
    data = np.arange(200, dtype=np.uint8)
    got = text.windows(data, length=7, n=500, rng=np.random.default_rng(0))
    assert got.shape == (500, 7) and got.dtype == np.uint8
    assert judge.same(got - got[:, :1], np.broadcast_to(np.arange(7, dtype=np.uint8), (500, 7)))
    assert got[:, 0].min() == 0 and got[:, -1].max() == 199
    assert judge.same(text.windows(data, length=200, n=1, rng=np.random.default_rng(0))[0], data)
    for length in (0, 201):
        with pytest.raises(ValueError, match=f"no window of {length} bytes in a text of 200"):
            text.windows(data, length=length, n=1, rng=np.random.default_rng(0))
        with pytest.raises(ValueError, match=f"no window of {length} bytes"):
            text.tiles(data, length=length)


def test_tiles_cut_the_text_once():
    assert text.tiles(np.arange(11, dtype=np.uint8), length=4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_fingerprint_sees_one_byte():
    data = np.zeros(100, np.uint8)
    changed = data.copy()
    changed[50] = 1
    assert fingerprint(data) == fingerprint(data.copy()) != fingerprint(changed)
    assert fingerprint(np.arange(10)[::2]) == fingerprint(np.arange(0, 10, 2))


def test_digits_are_split_evenly_by_class():
    train, held_out = images.digits("train"), images.digits("held_out")
    assert len(train.labels) + len(held_out.labels) == 1797
    share = np.bincount(held_out.labels) / np.bincount(np.concatenate((train.labels, held_out.labels)))
    assert np.ptp(share) < 0.01 and share.min() > 0.18
    assert train.images.shape[1:] == (8, 8) and train.images.min() == 0 and train.images.max() == 1
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in held_out.images)


def test_shifted_moves_each_image_by_its_own():
    image = np.arange(1.0, 10).reshape(1, 3, 3)
    got = images.shifted(np.repeat(image, 3, axis=0), np.array([[0, 0], [1, 0], [0, -1]]))
    assert judge.same(got[0], image[0])
    assert got[1].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert got[2].tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]
    with pytest.raises(ValueError, match="a move of 3 pixels"):
        images.shifted(image, np.array([[3, 0]]))


def make_sparse(rng):
    return planted.sparse(planted.unit_rows(96, 32, rng=1), n=4000, active=4, zipf=1, rng=rng)


def make_mixture(rng, **changed):
    truth = dict(
        gate_slope=[[2.0, 0.0], [0.0, 0.0], [-1.0, 1.0]],
        gate_bias=[0.0, 0.5, -3.0],
        slope=[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]],
        bias=[0.0, 1.0, -2.0],
        variance=[0.01, 0.04, 0.25],
    )
    return planted.mixture(**dict(n=4000, keep=2, rng=rng) | truth | changed)


PLANTED = {
    "sparse": make_sparse,
    "mixture": make_mixture,
    "clusters": lambda rng: planted.clusters(n=100, clusters=4, d=16, o=3, rng=rng),
    "correlated": lambda rng: planted.correlated(n=20_000, d=6, correlation=0.8, mean=0.5, rng=rng),
    "recall": lambda rng: planted.recall(n=200, length=40, pairs=8, gap=6, rng=rng),
    "induction": lambda rng: planted.induction(n=200, length=20, prefix=3, vocab=50, rng=rng),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_seed_is_a_generator_and_gives_the_same_data(name):
    make = PLANTED[name]
    assert judge.same(make(3), make(np.random.default_rng(3)))
    assert not judge.same(make(3), make(4))


def test_sparse_points_are_their_features():
    x, codes, dictionary = make_sparse(0)
    assert judge.same(np.linalg.norm(dictionary, axis=1), np.ones(96))
    assert judge.same(x, codes @ dictionary)
    on = (codes > 0).mean(axis=0)
    want = 4 / (1 + np.arange(96)) / (1 / (1 + np.arange(96))).sum()
    assert np.abs(on - want).max() < 5 * np.sqrt(want.max() / 4000)
    assert 0.97 < codes[codes > 0].mean() < 1.03 and 0.23 < codes[codes > 0].std() < 0.27
    noisy = planted.sparse(dictionary, n=4000, active=4, noise=0.5, rng=0)
    assert 0.49 < (noisy.x - noisy.codes @ dictionary).std() < 0.51
    with pytest.raises(ValueError, match="active=40 of 96 features, zipf=1.*probability 7"):
        planted.sparse(dictionary, n=1, active=40, zipf=1, rng=0)


def test_the_mixture_draws_from_its_gate():
    m = make_mixture(0)
    residual = m.y - (m.slope[m.expert] * m.x).sum(axis=1) - m.bias[m.expert]
    for e in range(3):
        assert abs(residual[m.expert == e].var() / m.variance[e] - 1) < 0.2
    logit = m.x @ m.gate_slope.T
    lowest = logit.argmin(axis=1)
    assert (m.expert != lowest).all()
    chance = np.exp(logit + m.gate_bias)
    chance[np.arange(4000), lowest] = 0
    chance /= chance.sum(axis=1, keepdims=True)
    assert np.abs(chance.mean(axis=0) - np.bincount(m.expert, minlength=3) / 4000).max() < 0.03
    by_logit = make_mixture(0, keep=1, select="logit")
    assert judge.same(by_logit.expert, (by_logit.x @ m.gate_slope.T + m.gate_bias).argmax(axis=1))
    with pytest.raises(ValueError, match=r"keep=4 lies outside 1\.\.3"):
        make_mixture(0, keep=4)
    with pytest.raises(ValueError, match="select 'bias'"):
        make_mixture(0, select="bias")


def test_clusters_follow_their_own_map():
    c = planted.clusters(n=100, clusters=4, d=16, o=3, rng=0)
    assert judge.same(c.y, np.stack([c.maps[k] @ x for k, x in zip(c.cluster, c.x, strict=True)]))
    nearest = ((c.x[:, None] - c.centres) ** 2).sum(axis=-1).argmin(axis=1)
    assert (nearest == c.cluster).mean() > 0.7


def test_correlated_inputs_have_the_covariance():
    x = planted.correlated(n=50_000, d=6, correlation=0.8, mean=0.5, rng=0)
    want = 0.8 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    assert np.abs(np.cov(x.T) - want).max() < 0.03 and np.abs(x.mean(axis=0) - 0.5).max() < 0.03
    with pytest.raises(ValueError, match=r"correlation=1 lies outside \(-1, 1\)"):
        planted.correlated(n=1, d=2, correlation=1, rng=0)


def test_recall_hides_the_answer_where_it_says():
    s = planted.recall(n=200, length=40, pairs=8, keys=32, values=10, gap=6, rng=0)
    rows = np.arange(200)
    assert judge.same(s.tokens[rows, s.source], s.target)
    assert judge.same(s.tokens[rows, s.source - 1], s.tokens[:, -1])
    assert ((s.tokens[:, :-1] == s.tokens[:, -1:]).sum(axis=1) == 1).all()
    assert (s.tokens[:, 33:39] == 0).all() and s.source.max() < 33
    assert s.target.min() == 33 and s.target.max() == 42
    with pytest.raises(
        ValueError, match="pairs=17 with keys=32 and gap=6 do not fit in length=40: 1 to 16 do"
    ):
        planted.recall(n=1, length=40, pairs=17, gap=6, rng=0)


def test_induction_has_one_answer():
    s = planted.induction(n=200, length=20, prefix=3, vocab=50, rng=0)
    rows = np.arange(200)
    assert judge.same(s.tokens[rows, s.source], s.target)
    for back in range(1, 4):
        assert judge.same(s.tokens[rows, s.source - back], s.tokens[:, -back])
    assert all(len(set(row)) == 17 for row in s.tokens[:, :17].tolist())
    with pytest.raises(ValueError, match="needs 17 distinct tokens"):
        planted.induction(n=1, length=20, prefix=3, vocab=16, rng=0)
