"""Answers requests that came at the same time by one call of a model of others.

A pyfunc takes about as long for a hundred rows as for one. A request that finds the model at work
waits for it, as it would anyway, and so do those after it; then all of them are answered together.
One that finds it idle is answered at once: nobody waits for company. When a joined call fails, each
of its requests is asked again alone, so that nobody fails for the rows of others.
"""

from collections.abc import Sequence
from itertools import chain
from threading import Lock
from typing import Final

import numpy as np

from modelops_runtime.predictors import Answer, Predictor, Rows
from modelops_runtime.schema import Matrix

MOST_ROWS: Final = 1_000
"""Of all that is joined; a request with more is answered alone, beside the others."""


class JoiningPredictor:
    """Another predictor, asked by one thread at a time for all that wait."""

    def __init__(self, predictor: Predictor) -> None:
        self.form = predictor.form
        self._predictor = predictor
        self._turn = Lock()
        """Held while the predictor is at work."""
        self._door = Lock()
        """Held while calls are put into the queue, or taken from it."""
        self._waiting: list[_Call] = []

    def predict(self, rows: Rows, matrix: Matrix) -> Answer:
        """Answer n > 0 rows; safe to call from several threads."""
        if len(rows) > MOST_ROWS or np.isnan(matrix).any():
            # A gap would change the types of whole columns, and so what others are answered.
            return self._predictor.predict(rows, matrix)
        call = _Call(rows, matrix)
        with self._door:
            self._waiting.append(call)
        with self._turn:
            while not call.done:
                self._answer(self._take())
        return call.result()

    def _take(self) -> "list[_Call]":
        """Take those who waited longest, as many as are answered together."""
        with self._door:
            taken, rows = 0, 0
            for call in self._waiting:
                rows += len(call.rows)
                if taken and rows > MOST_ROWS:
                    break
                taken += 1
            calls, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return calls

    def _answer(self, calls: "Sequence[_Call]") -> None:
        if len(calls) > 1 and self._answer_together(calls):
            return
        for call in calls:
            try:
                call.answer = self._predictor.predict(call.rows, call.matrix)
            except Exception as error:  # noqa: BLE001 (code of others; raised where it belongs)
                call.error = error

    def _answer_together(self, calls: "Sequence[_Call]") -> bool:
        try:
            matrix = np.concatenate([call.matrix for call in calls])
            found = self._predictor.predict([*chain(*(call.rows for call in calls))], matrix)
        except Exception:  # noqa: BLE001 (the same; whose rows it is about will turn out)
            return False
        start = 0
        for call in calls:
            end = start + len(call.rows)
            call.answer = _part(found, start, end)
            start = end
        return True


class _Call:
    """One request's rows, and what becomes of them."""

    __slots__ = ("answer", "error", "matrix", "rows")

    def __init__(self, rows: Rows, matrix: Matrix) -> None:
        self.rows = rows
        self.matrix = matrix
        self.answer: Answer | None = None
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None

    def result(self) -> Answer:
        if self.error is not None:
            raise self.error
        assert self.answer is not None  # noqa: S101 (whoever had the turn left one of both)
        return self.answer


def _part(answer: Answer, start: int, end: int) -> Answer:
    return Answer(
        answer.predictions[start:end],
        None if answer.probabilities is None else answer.probabilities[start:end],
        None if answer.scores is None else answer.scores[start:end],
        answer.columns,
    )
