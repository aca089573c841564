"""Charts as plain data, and the model of the 3D view."""

from __future__ import annotations

import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
import report_ledgers as ledgers
from hypothesis import given
from hypothesis import strategies as st

from onnes.report import figures
from onnes.report.figures import charts, histogram, pareto, training_distributions
from onnes.report.viewer import view_model

REFERENCE = {"edges": [0, 1, 2, 3, 4, 5], "counts": [10, 20, 30, 20, 20], "n": 100}


def draw(values, reference=REFERENCE):
    return histogram("tc_K", "T", "x", values, reference, digits=1, unit="K")


def test_plotly_accepts_every_figure(tmp_path):
    for chart in charts(ledgers.finished(tmp_path)):
        figure = go.Figure(chart.spec)  # raises on a property that plotly does not have
        assert figure.data and chart.caption


def test_shares_are_of_the_whole():
    chart = draw([0.5, 0.6, 2.5, 9.0])
    bars, steps = chart.spec["data"]
    assert sum(bars["y"]) == pytest.approx(1.0)
    assert sum(steps["y"][1:-1:2]) == pytest.approx(1.0), "a value beyond the reference has a bin"
    assert "4 crystals, median 1.6" in chart.caption and "100 crystals, median 2.7" in chart.caption


@given(st.lists(st.floats(-50, 200), max_size=30))
def test_no_value_is_lost(values):
    chart = draw(values)
    steps = [t for t in chart.spec["data"] if t["type"] == "scatter"]
    if not values:
        assert steps == []
        return
    drawn = round(sum(steps[0]["y"][1:-1:2]) * len(values))
    told = re.search(r"(\d+) of them outside the range shown", chart.caption)
    assert drawn + (int(told[1]) if told else 0) == len(values)


@pytest.mark.parametrize(
    "reference", [None, {}, {"edges": [0, 1], "counts": [1, 2]}, {"edges": [1, 0], "counts": [3]}]
)
def test_without_a_reference(reference):
    chart = draw([1.0, 2.0], reference)
    assert len(chart.spec["data"]) == 1 and "not part of this installation" in chart.caption


def test_nothing_to_draw():
    assert draw([], None).spec == {"data": [], "layout": {}}


def test_front_holds_what_nothing_beats(tmp_path):
    w = ledgers.Writer()
    for k, (hull, tc) in enumerate([(0.0, 10.0), (0.05, 30.0), (0.06, 20.0), (0.1, 40.0)]):
        w.until_predict(w.candidate(f"g{k}", ledgers.NBN), tc, hull=hull)
        w.verdict(f"g{k}", "rank", rank=k + 1, score=tc)
    traces = {t["name"]: t for t in pareto(w.write(tmp_path, **ledgers.FINISHED)).spec["data"]}
    assert traces["best compromise"]["y"] == [10.0, 30.0, 40.0]
    assert traces["candidate"]["error_y"]["array"] == [6.0] * 4


def test_what_is_drawn_of_many_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "_MOST_REFUSED", 2)
    w = ledgers.Writer()
    for k in range(4):
        w.until_predict(w.candidate(f"g{k}", ledgers.NBN), 2.0, hull=0.1)
    chart = pareto(w.write(tmp_path, **ledgers.FINISHED))
    assert "one in 2 is drawn" in chart.caption


def test_shipped_training_histograms_are_consistent():
    table = training_distributions()
    for key in ("tc_K", "density_g_cm3", "packing_fraction"):
        found = table[key]
        assert sum(found["counts"]) == found["n"] == 8063
        assert len(found["edges"]) == len(found["counts"]) + 1 and np.all(np.diff(found["edges"]) > 0)


def test_view_repeats_atoms_on_faces_and_finds_bonds():
    model = view_model(ledgers.MGB2)
    kinds = [model["elements"][a[0]][0] for a in model["atoms"]]
    assert kinds.count("Mg") == 8 and kinds.count("B") == 2, "corner atom eight times, inner atoms once"
    lengths = [
        np.linalg.norm(np.subtract(model["atoms"][i][1:], model["atoms"][j][1:])) for i, j in model["bonds"]
    ]
    assert min(lengths) == pytest.approx(3.086 / np.sqrt(3), abs=2e-3), "the B-B bond"
    json.dumps(model, allow_nan=False)


def test_view_of_what_is_no_crystal():
    flat = {"lattice": [[1, 0, 0], [1, 0, 0], [0, 0, 1]], "species": ["H"], "frac": [[0, 0, 0]]}
    assert view_model(flat)["bonds"] == []
    assert view_model({**ledgers.NBN, "species": ["Zz", "N"]})["bonds"] == []
    assert view_model({**flat, "species": [], "frac": []})["atoms"] == []
