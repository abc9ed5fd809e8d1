"""Every picture has its alt text and the same bytes each time; every slider works without a kernel."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from sparselab import plots


@pytest.fixture
def displayed(monkeypatch):
    """What reaches the notebook, in order."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    return shown


@pytest.fixture
def static(monkeypatch):
    monkeypatch.setenv("SPARSELAB_STATIC", "1")


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def pixels(page):
    (data,) = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def drawn(**options):
    fig, ax = plots.figure("A message", **options)
    ax.plot([0, 1], [0, 1])
    return fig


# ---------------------------------------------------------------- one figure


def test_alt_text_reaches_the_page(displayed):
    plots.show(drawn(alt='Half of\n  it is "< 1"'))
    ((tag, attrs),) = Tags(displayed[0]["text/html"]).found
    assert tag == "img" and attrs["alt"] == 'Half of it is "< 1"'
    assert displayed[0]["text/plain"] == '[Half of it is "< 1"]'


def test_alt_text_of_show_comes_first(displayed):
    plots.show(drawn(alt="one"), alt="other")
    assert 'alt="other"' in displayed[0]["text/html"]


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_figure_without_alt_text_is_refused(displayed, alt):
    with pytest.raises(ValueError, match="needs alt text"):
        plots.show(drawn(alt=alt))
    with pytest.raises(ValueError, match="needs alt text"):
        plots.explore(lambda k: "x", alt=alt, k=[1, 2])
    assert displayed == []


def test_the_same_drawing_gives_the_same_bytes(displayed):
    for _ in range(2):
        plots.show(drawn(alt="x"))
    plots.show(drawn(alt="x", size=(7, 3.7)))
    assert displayed[0] == displayed[1] != displayed[2]


def test_a_picture_is_an_opaque_near_white_panel(displayed):
    plots.show(drawn(alt="x", size=(4, 2)))
    image = pixels(displayed[0]["text/html"])
    assert image.shape == (2 * plots.DPI, 4 * plots.DPI, 3)
    assert (image[[0, -1]] >= 250).all() and (image[:, [0, -1]] >= 250).all()
    assert "width:384px;max-width:100%" in displayed[0]["text/html"]


def test_the_title_is_written_over_one_axes_or_over_all():
    fig, ax = plots.figure("Alone")
    assert ax.get_title(loc="left") == "Alone"
    fig, axes = plots.figure("All", rows=1, cols=2)
    assert axes.shape == (2,) and fig.get_suptitle() == "All"


def test_colours_are_told_apart_by_the_colour_blind():
    """Simulated as Machado et al. (2009) do at full severity, every two colours stay visibly different."""
    blind = {
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    }
    cycle = [plots.BLUE, plots.RED, plots.GREEN, plots.PURPLE, plots.ORANGE, plots.SKY, plots.INK]
    colours = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in cycle])
    for kind, matrix in blind.items():
        seen = np.clip(colours**2.2 @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + np.eye(len(seen))
        assert apart.min() > 0.1, kind


# ---------------------------------------------------------------- drawings that recur


def test_a_mask_is_drawn_as_it_is():
    _, ax = plots.figure()
    kept = np.array([[True, False, False], [False, True, True]])
    plots.mask(ax, kept)
    (image,) = ax.images
    assert np.array_equal(image.get_array(), kept) and image.origin == "upper"


@pytest.mark.parametrize("wrong", [np.ones(4, bool), np.ones((2, 2)), np.ones((2, 2, 2), bool)])
def test_masks_and_supports_are_boolean_matrices(wrong):
    _, ax = plots.figure()
    for draw in (plots.mask, plots.supports):
        with pytest.raises(ValueError, match="boolean"):
            draw(ax, wrong)


def test_supports_are_one_dot_for_each_active_unit():
    _, ax = plots.figure()
    plots.supports(ax, np.array([[True, False], [False, False], [True, True]]))
    (dots,) = ax.collections
    assert dots.get_offsets().tolist() == [[0, 0], [2, 0], [2, 1]]


@pytest.mark.parametrize(
    "cut, share", [(3, "70.0% kept"), (-1, "100.0% kept"), (99, "0.0% kept"), (9, "10.0% kept")]
)
def test_a_threshold_colours_and_counts_what_lies_above(cut, share):
    _, ax = plots.figure()
    plots.threshold(ax, np.arange(10.0), cut, bins=7)
    assert [text.get_text() for text in ax.texts] == [share]
    coloured = [bar for bar in ax.patches if bar.get_facecolor()[:3] == pytest.approx(rgb(plots.SPARSE))]
    assert all(bar.get_x() >= cut - 1e-9 for bar in coloured)
    area = sum(bar.get_height() * bar.get_width() for bar in ax.patches)
    assert area == pytest.approx(1)
    if 0 <= cut <= 9:
        kept = sum(bar.get_height() * bar.get_width() for bar in coloured)
        assert kept == pytest.approx(float(share.split("%")[0]) / 100) or cut == 9


def rgb(colour):
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def test_curves_are_named_at_their_ends_and_the_names_do_not_touch():
    fig, ax = plots.figure()
    lines = {name: np.full(5, 1 + i / 1000) for i, name in enumerate("abcde")} | {"far": np.arange(5.0)}
    plots.curves(ax, range(5), lines, colors={"a": plots.GREY})
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert {text.get_text() for text in ax.texts} == set(lines)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert ax.lines[0].get_color() == plots.GREY
    assert {text.get_color() for text in ax.texts} == {line.get_color() for line in ax.lines}


def test_seeds_are_drawn_as_mean_and_band():
    _, ax = plots.figure()
    plots.curves(ax, [0, 1], {"sparse": np.array([[1.0, 2.0], [3.0, 6.0]])})
    assert ax.lines[0].get_ydata().tolist() == [2.0, 4.0]
    (band,) = ax.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices}
    assert {(0, 1), (0, 3), (1, 2), (1, 6)} <= corners


def test_a_curve_of_another_length_is_refused():
    _, ax = plots.figure()
    with pytest.raises(ValueError, match="'a' has 3 points, x has 2"):
        plots.curves(ax, [0, 1], {"a": np.ones(3)})


# ---------------------------------------------------------------- one slider, stored


def words(k=2, n=0):
    return f"<{k} of {n}>"


def stored(page):
    data = re.search(r'<script type="application/json">(.*?)</script>', page, re.S)[1]
    return json.loads(data)


def test_a_stored_slider_holds_every_frame_in_order(displayed, static):
    plots.explore(words, alt="How many", k=[1, 2], n=range(3))
    page = displayed[0]["text/html"]
    assert stored(page)["frames"] == [f"<pre>&lt;{k} of {n}&gt;</pre>" for k in (1, 2) for n in range(3)]
    assert [(c["name"], c["start"], c["values"]) for c in stored(page)["controls"]] == [
        ("k", 1, ["1", "2"]), ("n", 0, ["0", "1", "2"]),
    ]  # fmt: skip
    assert displayed[0]["text/plain"] == "[How many (k = 2, n = 0)]"


def test_without_scripts_the_page_shows_the_first_frame(displayed, static):
    plots.explore(lambda keep: drawn(size=(2, 1)), alt="A line", keep=[0.1, 0.25])
    page = displayed[0]["text/html"]
    without = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert without.count("<img") == 1 and 'alt="A line (keep = 0.1)"' in without
    assert "<noscript>keep = 0.1. The slider needs JavaScript" in without


def test_a_stored_page_needs_nothing_from_elsewhere(displayed, static):
    plots.explore(lambda k: drawn(size=(2, 1)), alt="A line", k=[1, 2])
    assert not re.search(r"https?:|//cdn|@import|src=\"(?!data:)|import\(", displayed[0]["text/html"])


def test_text_of_a_frame_cannot_end_the_script(displayed, static):
    plots.explore(lambda k: f"</script>@DATA@{k}", alt="x", k=["</script><b>", "@FRAME@"])
    page = displayed[0]["text/html"]
    assert page.count("</script>") == 2
    assert stored(page)["frames"][0] == "<pre>&lt;/script&gt;@DATA@&lt;/script&gt;&lt;b&gt;</pre>"
    assert stored(page)["controls"][0]["values"] == ["</script><b>", "@FRAME@"]


@pytest.mark.parametrize(
    "controls, says",
    [
        ({}, "one or two controls, not 0"),
        (dict(a=[1, 2], b=[1, 2], c=[1, 2]), "one or two controls, not 3"),
        (dict(a=[1]), "'a' needs at least two values, not 1"),
        (dict(a=range(9), b=range(8)), "at most 64 frames; 9 of a x 8 of b make 72"),
    ],
)
def test_a_slider_out_of_bounds_is_refused_before_drawing(displayed, static, controls, says):
    draw = mock.Mock(side_effect=AssertionError("drawn"))
    with pytest.raises(ValueError, match=says):
        plots.explore(draw, alt="x", **controls)


def test_too_many_bytes_are_refused_with_the_numbers(displayed, static):
    with pytest.raises(ValueError, match=r"at most 1,500,000 bytes; 2 frames make 2,000,0\d\d"):
        plots.explore(lambda k: "x" * 1_000_000, alt="x", k=[1, 2])
    assert displayed == []


def test_a_draw_that_returns_nothing_is_refused(displayed, static):
    with pytest.raises(ValueError, match="draw returned NoneType; it returns a figure or a text"):
        plots.explore(lambda k: None, alt="x", k=[1, 2])


MOVE = """
<script>
const sliders = [...document.querySelectorAll("input[type=range]")];
const report = [sliders.length, document.querySelectorAll(".sparselab-explore").length];
function move(slider, value) {
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
  const root = slider.closest(".sparselab-explore");
  report.push(root.querySelector("pre").textContent, root.querySelector("output").textContent,
    slider.getAttribute("aria-valuetext"), slider.closest("label").textContent);
}
report.push(document.querySelectorAll("pre")[1].textContent);
move(sliders[0], 2);
move(sliders[2], 1);
report.push(document.querySelectorAll("output")[0].getAttribute("aria-live"), sliders[0].tabIndex);
document.title = "done";
document.body.dataset.report = JSON.stringify(report);
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("google-chrome")), reason="needs a browser")
def test_several_sliders_move_on_one_page(displayed, static, tmp_path):
    plots.explore(words, alt="One", k=[1, 2, 3])
    plots.explore(words, alt="Two", k=[1, 2], n=[5, 6])
    page = tmp_path / "page.html"
    page.write_text("<body>" + "".join(shown["text/html"] for shown in displayed) + MOVE, encoding="utf-8")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    ran = subprocess.run([browser, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    ((_, body),) = [(tag, attrs) for tag, attrs in Tags(ran.stdout).found if tag == "body"]
    assert json.loads(body["data-report"]) == [
        3, 2, "<2 of 5>",
        "<3 of 0>", "k = 3", "3", "k3",
        "<2 of 6>", "k = 2, n = 6", "6", "n6",
        "polite", 0,
    ]  # fmt: skip


# ---------------------------------------------------------------- one slider, live


def live(displayed, monkeypatch, draw, **controls):
    monkeypatch.delenv("SPARSELAB_STATIC", raising=False)
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    plots.explore(draw, alt="x", **controls)
    return shown[0].children


def test_a_live_slider_calls_draw(displayed, monkeypatch):
    calls = []

    def draw(k=2):
        calls.append(k)
        return f"{k} kept"

    picture, slider = live(displayed, monkeypatch, draw, k=range(1000))
    assert (picture.value, slider.description) == ("<pre>2 kept</pre>", "k")
    slider.value = 7
    assert picture.value == "<pre>7 kept</pre>" and calls == [2, 7]


def test_an_error_under_a_live_slider_is_shown(displayed, monkeypatch):
    picture, slider = live(displayed, monkeypatch, lambda k: f"{1 // k}", k=[1, 0])
    slider.value = 0
    assert "ZeroDivisionError" in picture.value
    slider.value = 1
    assert picture.value == "<pre>1</pre>"


def test_a_live_figure_has_alt_text(displayed, monkeypatch):
    picture, _ = live(displayed, monkeypatch, lambda k: drawn(size=(2, 1)), k=[1, 2])
    assert 'alt="x (k = 1)"' in picture.value
