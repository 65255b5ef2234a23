"""report.png: which curves it holds, and that it is drawn whatever the file looks like."""

import logging
import sys
from collections import Counter

import matplotlib
import pytest
from PIL import Image

from swarm_operator.page.curves import MOST_POINTS
from swarm_operator.page.history import parse
from swarm_operator.page.picture import compose, draw
from unit.page.history_builders import BEGAN, line, lines


def series(panel):
    """How many lines of each kind a panel holds."""
    return Counter(line.get_gid() for line in panel.get_lines())


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def panels(written):
    return compose(parse(written), job="mnist").axes


def test_the_picture_of_a_whole_training(tmp_path):
    written = lines()
    (tmp_path / "metrics.jsonl").write_text("\n".join(written) + '\n{"kind":"round","time":17')
    path = draw(tmp_path, job="mnist")
    assert path == tmp_path / "report.png"
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (1320, 912)
        assert len(set(image.convert("L").histogram())) > 50
    figure = compose(parse(written), job="mnist")
    titles = ["loss over samples", "loss over time", "accuracy over samples", "accuracy over time"]
    assert [panel.get_title() for panel in figure.axes] == titles
    particles = {f"particle {index}": 1 for index in range(4)}
    for panel in figure.axes:
        assert series(panel) == {**particles, "center": 1, "lost": 1, "back": 1}
    widths = {line.get_gid(): line.get_linewidth() for line in figure.axes[0].get_lines()}
    assert widths["center"] > 2 * widths["particle 0"]
    assert legend(figure) == ["center", *particles, "lost", "back"]
    assert figure.get_suptitle() == "mnist: 4 particles, 100 rounds, 64k samples in 3:20"


def test_colours_are_told_apart_and_stay_with_their_particle():
    axes = panels(lines(particles=7))
    colours = [{line.get_gid(): line.get_color() for line in panel.get_lines()} for panel in axes]
    of_particles = [{name: colour for name, colour in each.items() if "particle" in name} for each in colours]
    assert len(set(of_particles[0].values())) == 7
    assert all(each == of_particles[0] for each in of_particles)


def test_a_line_is_broken_where_the_particle_was_away():
    ys = next(line.get_ydata() for line in panels(lines())[0].get_lines() if line.get_gid() == "particle 2")
    gaps = [index for index, value in enumerate(ys[:-1]) if value != value]
    assert gaps == [40]


def test_without_metrics_there_is_one_row():
    figure = compose(parse(lines(metrics=(), away=False)), job="mnist")
    assert [panel.get_title() for panel in figure.axes] == ["loss over samples", "loss over time"]
    assert legend(figure) == [f"particle {index}" for index in range(4)]


def test_without_losses_the_metric_is_drawn_alone():
    entry = line("metrics", BEGAN, particle=0, incarnation=1, samples=10, of="center", values={"f1": 0.5})
    assert [panel.get_title() for panel in panels([entry])] == ["f1 over samples", "f1 over time"]


def test_without_the_center_its_particles_are_drawn():
    figure = compose(parse(lines(center=False)), job="mnist")
    assert "center" not in legend(figure)
    assert all("center" not in series(panel) for panel in figure.axes)


def test_a_particle_that_never_reported_is_named_as_such():
    figure = compose(parse(lines(silent=(3,))), job="mnist")
    assert "particle 3 (no report)" in legend(figure)


def test_the_loss_of_one_without_a_curve_is_marked_below():
    lost = line("detached", BEGAN + 60, particle=3, incarnation=1, round=30, samples=19_000, why="EOF")
    panel = panels([*lines(silent=(3,), away=False), lost])[0]
    (mark,) = (line for line in panel.get_lines() if line.get_gid() == "lost")
    assert mark.get_xdata()[0] == 19_000
    assert mark.get_ydata()[0] == pytest.approx(0.03)
    assert mark.get_transform() == panel.get_xaxis_transform()


def test_many_particles_share_a_colour_and_a_place_in_the_legend():
    figure = compose(parse(lines(particles=30)), job="mnist")
    assert legend(figure) == ["center", "particles 0 to 29", "lost", "back"]
    lines_ = [line for line in figure.axes[0].get_lines() if "particle" in line.get_gid()]
    assert len(lines_) == 30
    assert len({line.get_color() for line in lines_}) == 1


def test_thousands_of_lines_are_thinned_and_it_is_said():
    panel = panels(lines(particles=3, rounds=3000))[0]
    lengths = [len(line.get_xdata()) for line in panel.get_lines() if "particle" in line.get_gid()]
    assert max(lengths) <= MOST_POINTS + 3
    assert panel.get_ylabel() == "loss, mean of 30 reports"


def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_axis():
    assert panels(lines())[0].get_yscale() == "log"
    flat = [
        line("round", BEGAN + second, round=second, contributors=[0], samples=second, losses={"0": 1 - second})
        for second in range(3)
    ]
    assert panels(flat)[0].get_yscale() == "linear"


def test_a_single_point_is_drawn(tmp_path):
    one = line("round", BEGAN, round=1, contributors=[0], samples=64, losses={"0": 2.3})
    (tmp_path / "metrics.jsonl").write_text(one)
    assert draw(tmp_path, job="mnist") is not None
    assert panels([one])[0].get_lines()[0].get_marker() == "o"


@pytest.mark.parametrize(
    "content", [None, "", "half a li", line("attached", BEGAN, particle=0, incarnation=1, round=0, samples=0)]
)
def test_nothing_to_draw_is_said(tmp_path, caplog, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert draw(tmp_path, job="mnist") is None
    assert "no picture" in caplog.text
    assert "metrics.jsonl" in caplog.text
    assert not (tmp_path / "report.png").exists()


def test_without_matplotlib_the_remedy_is_said(tmp_path, caplog, monkeypatch):
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines(rounds=5)))
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert draw(tmp_path, job="mnist") is None
    assert "pip install 'swarm-training[cli]'" in caplog.text


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines(rounds=5)))
    before, pyplot = matplotlib.rcParams.copy(), sys.modules.get("matplotlib.pyplot")
    draw(tmp_path, job="mnist")
    assert matplotlib.rcParams.copy() == before
    assert sys.modules.get("matplotlib.pyplot") is pyplot
