"""Tests of adaptive probability maps."""

from __future__ import annotations

import numpy as np
import pytest

import revgen
from revgen.context_mixing import refining
from revgen.context_mixing.mixing import initial_maps, new_work
from revgen.context_mixing.refining import NUM_POINTS

refine = refining.refine.py_func  # only compiled code can call the compiled function
PROBABILITIES = [0.001, 0.2, 0.5, 0.73, 0.999]


@pytest.mark.parametrize("p", PROBABILITIES)
def test_maps_change_nothing_before_training(p: float) -> None:
    assert refine(initial_maps(), new_work(3), 0, 0, 5, 6, np.float32(p)) == pytest.approx(p, abs=0.005)


def test_correction_is_half_of_the_result() -> None:
    maps, work = initial_maps(), new_work(3)
    maps.refined[:] = 0.9
    assert refine(maps, work, 1, 7, 5, 6, np.float32(0.3)) == pytest.approx(0.5 * 0.3 + 0.5 * 0.9)
    first, second = work.refined_cells[1] % NUM_POINTS
    assert first == second == 11, "the nearest point to the logit of 0.3, -0.85"


def test_maps_are_trained_and_improve_the_model(reviews: list[str]) -> None:
    losses = []
    for without in ((), ("refined",)):
        model = revgen.create("cm-char", without=without)
        model.fit(reviews[:100], epochs=1, progress=False)
        losses.append(model.evaluate(reviews[100:]).nats_per_char)
        initial = initial_maps().refined
        trained = 1 / (1 + np.exp(-model.weights["maps.refined"]))
        assert np.abs(trained - initial).max() > 0.1 or without
    assert losses[0] < losses[1]
