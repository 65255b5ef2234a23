"""Reading metrics.jsonl."""

from statistics import fmean

import pytest

from swarm_operator.page.curves import MOST_POINTS, curve, thinning
from swarm_operator.page.history import Point, parse, read
from unit.page.history_builders import BEGAN, line, lines


def membership(kind, second, particle=0, incarnation=1):
    return line(kind, BEGAN + second, particle=particle, incarnation=incarnation, round=second, samples=second * 10)


def test_a_whole_training_is_read():
    history = parse(lines())
    assert history.particles == (0, 1, 2, 3)
    assert len(history.rounds) == 100
    assert history.span == (BEGAN, BEGAN + 200)
    assert history.samples == 64_000
    assert history.metric == "accuracy"
    assert history.losses(3)[0] == Point(BEGAN + 2, 640, pytest.approx(2.3 * 2.718281828**-0.05 * 1.3))
    assert len(history.values("accuracy")) == len(history.values("loss")) == 10
    assert len(history.values("accuracy", 2)) == 9  # it was away at round 50


@pytest.mark.parametrize(
    "odd",
    [
        '{"kind":"round","time":17',
        "",
        "null",
        "[]",
        '{"kind":"round","time":1}',
        '{"kind":"weather","time":1,"sun":true}',
        '{"time":1}',
        "\x00\x00",
        '{"kind":"metrics","time":1,"particle":0,"incarnation":1,"samples":1,"of":"nobody","values":{}}',
    ],
)
def test_what_cannot_be_read_is_left_out(odd):
    whole = lines(rounds=5)
    assert parse([*whole[:6], odd, *whole[6:]]) == parse(whole)


def test_unknown_fields_do_no_harm():
    extended = line("round", BEGAN, round=1, contributors=[0], samples=1, losses={"0": 1.0}, weather="fine")
    assert len(parse([extended]).rounds) == 1


def test_losses_that_are_no_numbers_are_no_points():
    text = '{"kind":"round","time":1,"round":1,"samples":1,"losses":{"0":NaN,"1":Infinity,"2":null,"3":0.5}}'
    history = parse([text])
    assert [len(history.losses(particle)) for particle in range(4)] == [0, 0, 0, 1]


def test_without_training_losses_the_reported_ones_count():
    history = parse(
        [line("metrics", BEGAN, particle=1, incarnation=1, samples=10, of="particle", values={"loss": 0.5})]
    )
    assert history.losses(1) == [Point(BEGAN, 10, 0.5)]
    assert history.metric is None


@pytest.mark.parametrize(
    ("reported", "chosen"),
    [(["f1", "f1", "accuracy"], "accuracy"), (["f1", "bleu", "bleu"], "bleu"), (["f1", "bleu"], "bleu"), ([], None)],
)
def test_the_metric_is_accuracy_or_the_one_reported_most(reported, chosen):
    entries = [
        line("metrics", BEGAN, particle=0, incarnation=1, samples=1, of="center", values={name: 0.5, "loss": 0.1})
        for name in reported
    ]
    assert parse(entries).metric == chosen


@pytest.mark.parametrize(
    ("course", "absences"),
    [
        (["attached"], []),
        (["attached", "detached"], [(1, None)]),
        (["attached", "detached", "attached"], [(1, 2)]),
        (["attached", "detached", "detached", "attached", "attached", "detached"], [(1, 3), (5, None)]),
        (["attached", "finished", "detached"], []),
        (["detached", "finished"], [(0, 1)]),
    ],
)
def test_absences(course, absences):
    history = parse([membership(kind, second) for second, kind in enumerate(course)] + [membership("detached", 99, 1)])
    found = history.absences(0)
    assert [(each.lost.round, each.back and each.back.round) for each in found] == absences


def test_no_file_is_an_empty_history(tmp_path):
    assert read(tmp_path / "metrics.jsonl") == parse([])


def test_a_curve_breaks_where_its_particle_was_away():
    history = parse([membership("detached", 10), membership("attached", 20, incarnation=2)])
    points = [Point(BEGAN + second, second, second / 10) for second in (*range(10), 11, *range(20, 30))]
    pieces = curve(points, history.absences(0)).pieces
    assert [len(piece) for piece in pieces] == [10, 1, 10]  # the push that was on its way stands alone


@pytest.mark.parametrize("amount", [1, MOST_POINTS, MOST_POINTS + 1, 10 * MOST_POINTS, 9973])
def test_thinning_keeps_shape_and_mean(amount):
    points = [Point(float(second), second, 0.1 * (second % 2) + (second > amount / 2)) for second in range(amount)]
    each = thinning([points, points[:7]])
    thin = curve(points, each=each).points
    assert 1 <= len(thin) <= MOST_POINTS
    assert len(thin) >= min(amount, MOST_POINTS // 2)
    assert thin == sorted(thin)
    assert thin[0].value <= 0.1
    assert fmean(point.value for point in thin) == pytest.approx(fmean(point.value for point in points), abs=0.02)


def test_marks_find_their_place_on_the_curve():
    line_ = curve([Point(float(second), second, second) for second in range(5)])
    assert line_.before(2.5) == Point(2.0, 2, 2)
    assert line_.after(2.5) == Point(3.0, 3, 3)
    assert line_.before(-1) is line_.after(9) is None


def test_what_was_trained_after_the_checkpoint_that_the_swarm_went_on_from_is_forgotten():
    def rounds(first, last, at):
        return [
            line("round", at + number, round=number, samples=8 * number, losses={}) for number in range(first, last)
        ]

    def metrics(number, at):
        return line("metrics", at, particle=0, incarnation=1, samples=8 * number, of="center", values={"accuracy": at})

    history = parse(
        [
            *rounds(1, 6, 0),
            metrics(2, 2),
            metrics(5, 5),
            line("restored", 10, round=3, samples=24),
            *rounds(4, 5, 20),
            metrics(4, 24),
        ]
    )
    assert [(entry.round, entry.time) for entry in history.rounds] == [(1, 1), (2, 2), (3, 3), (4, 24)]
    assert [point.samples for point in history.values("accuracy")] == [16, 32]
