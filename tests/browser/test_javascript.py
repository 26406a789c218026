"""Generated JavaScript computes the same results as the interpreter of programs."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import HealthCheck, given, settings
from programs import STEPS, random_program

from revgen.browser.javascript import JavaScriptWriter
from revgen.browser.page import ENGINE_FILES

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

ENGINE = "\n".join(resources.files("revgen.browser").joinpath(name).read_text("utf-8") for name in ENGINE_FILES)


@given(steps=STEPS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_programs_compute_the_same_as_the_interpreter(
    chromium: Chrome, steps: list[tuple[int, int, int]]
) -> None:
    example = random_program(steps, seed=len(steps))
    writer = JavaScriptWriter(example.program)
    source = writer.source()
    with np.errstate(all="ignore"):
        expected_logits, expected_state = example.run()

    logits, state = chromium.execute_script(
        f"""{ENGINE}
        const [weights, token, state] = arguments, toArray = (numbers) => Array.from(numbers, String);
        const step = ({source})(weights.map((numbers) => Float32Array.from(numbers)), createProducts());
        const arrays = state.map((numbers) => Float32Array.from(numbers));
        return [toArray(step(token, arrays)), arrays.map(toArray)];""",
        [example.weights[f"p.{name}"].ravel().tolist() for name in writer.weight_names],
        example.token,
        [array.ravel().tolist() for array in example.state],
    )

    for numbers, array in zip([logits, *state], [expected_logits, *expected_state], strict=True):
        expected = array.ravel()
        is_moderate = np.abs(expected) < 1e20
        np.testing.assert_allclose(np.array(numbers, float)[is_moderate], expected[is_moderate], rtol=2e-3, atol=2e-3)
