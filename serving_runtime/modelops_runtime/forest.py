"""Treelite's general tree inference, called directly through its C interface.

`import treelite` brings scipy for sparse matrices and takes over a second of CPU and 25 MB; the
library itself loads in milliseconds. Also `treelite.gtil.predict` parses a new configuration on
each call, which for one row costs as much as the prediction. See treelite/c_api.h.
"""

import ctypes
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelops_runtime.levels import FIELDS, Levels
from modelops_runtime.schema import Matrix

_CONFIG: Final = b'{"predict_type": "default", "nthread": 1}'
_TYPES: Final[Mapping[bytes, np.dtype[Any]]] = {
    b"float32": np.dtype(np.float32),
    b"float64": np.dtype(np.float64),
}
_FEW: Final = 7
"""So many rows are as fast one by one."""
_LESS_OR_EQUAL: Final = 3
"""Treelite's number of the operator."""


class ForestError(RuntimeError):
    """Treelite is not there or refuses a checkpoint; the message is Treelite's."""


@cache
def _library() -> ctypes.CDLL:
    spec = find_spec("treelite")
    if spec is None or not spec.submodule_search_locations:
        raise ForestError("treelite is not installed")
    path = Path(spec.submodule_search_locations[0], "lib", "libtreelite.so")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ForestError(f"treelite cannot be loaded: {error}") from error
    library.TreeliteGetLastError.restype = ctypes.c_char_p
    pointer = ctypes.c_void_p
    rows = (pointer, ctypes.c_char_p, ctypes.c_uint64)
    library.TreeliteGTILPredict.argtypes = (pointer, *rows, pointer, pointer)
    return library


def _check(code: int) -> None:
    if code != 0:
        raise ForestError((_library().TreeliteGetLastError() or b"").decode(errors="replace"))


class _Frame(ctypes.Structure):
    """An array that Treelite shows."""

    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("format", ctypes.c_char_p),
        ("itemsize", ctypes.c_size_t),
        ("count", ctypes.c_size_t),
    )


class Forest:
    """A tree ensemble, read from a Treelite checkpoint."""

    def __init__(self, checkpoint: bytes) -> None:
        """Read a checkpoint. Raises ForestError when it is not one for this Treelite."""
        library = _library()
        self._handle = ctypes.c_void_p()
        self._config = ctypes.c_void_p()
        size = ctypes.c_size_t(len(checkpoint))
        buffer = ctypes.create_string_buffer(checkpoint, len(checkpoint))
        _check(library.TreeliteDeserializeModelFromBytes(buffer, size, ctypes.byref(self._handle)))
        _check(library.TreeliteGTILParseConfig(_CONFIG, ctypes.byref(self._config)))
        self._predict = library.TreeliteGTILPredict
        self.inputs = self._count_inputs()
        """Number of columns that the trees look at."""
        self._reads = self._describe_input()
        self._output, self._type = self._describe_output()
        self._levels = self._averaged()

    def _count_inputs(self) -> int:
        count = ctypes.c_int()
        _check(_library().TreeliteQueryNumFeature(self._handle, ctypes.byref(count)))
        return count.value

    def _describe_input(self) -> bytes:
        """Give the type of number that the trees compare: XGBoost's 32 bits, all others' 64."""
        name = ctypes.c_char_p()
        _check(_library().TreeliteGetInputType(self._handle, ctypes.byref(name)))
        return name.value or b""

    def _describe_output(self) -> tuple[int, np.dtype[Any]]:
        """Give the number of values for each row, and their type."""
        name = ctypes.c_char_p()
        _check(_library().TreeliteGetOutputType(self._handle, ctypes.byref(name)))
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        _check(
            _library().TreeliteGTILGetOutputShape(
                self._handle,
                ctypes.c_uint64(1),
                self._config,
                ctypes.byref(shape),
                ctypes.byref(dimensions),
            )
        )
        values = int(np.prod([shape[axis] for axis in range(dimensions.value)]))
        return values, _TYPES[name.value or b""]

    def _averaged(self) -> Levels | None:
        """Read the trees if they are such as `Levels` walks: scikit-learn's forests are."""
        averages = self._field("average_tree_output", np.uint8)
        output = self._field("postprocessor", np.uint8).tobytes()
        leaf = int(self._field("leaf_vector_shape", np.int32).prod())
        plain = output in {b"identity", b"identity_multiclass"}
        if not averages.all() or not plain or self._field("base_scores", np.float64).any():
            return None
        if self._reads != b"float64" or leaf != self._output:
            return None
        trees = []
        for number in range(int(self._field("num_tree", np.uint64)[0])):
            operators = self._field("cmp", np.int8, number)
            inner = self._field("cleft", np.int32, number) >= 0
            if (operators[inner] != _LESS_OR_EQUAL).any():
                return None
            trees.append({name: self._field(name, kind, number) for name, kind in FIELDS.items()})
        return Levels.of(trees, leaf)

    def _field(self, name: str, kind: Any, tree: int | None = None) -> NDArray[Any]:
        """Copy a field of the model, or of one of its trees. Raises ForestError."""
        frame, dtype = _Frame(), np.dtype(kind)
        called, shown = ctypes.c_char_p(name.encode()), ctypes.byref(frame)
        library = _library()
        if tree is None:
            _check(library.TreeliteGetHeaderField(self._handle, called, shown))
        else:
            number = ctypes.c_uint64(tree)
            _check(library.TreeliteGetTreeField(self._handle, number, called, shown))
        if frame.count and frame.itemsize != dtype.itemsize:
            raise ForestError(f"{name} has {frame.itemsize} bytes, expected {dtype.itemsize}")
        size = frame.count * dtype.itemsize
        return np.frombuffer(ctypes.string_at(frame.buffer or 0, size) if size else b"", dtype)

    def predict(self, matrix: Matrix) -> NDArray[Any]:
        """Predict rows of shape (n, at least `inputs`): shape (n, values for each row).

        Releases the interpreter lock; safe in several threads.
        """
        rows = len(matrix)
        if matrix.shape[1] != self.inputs or not matrix.flags.c_contiguous:
            # The trees take the width of a row from the model, not from the matrix.
            matrix = np.ascontiguousarray(matrix[:, : self.inputs])
        if matrix.shape[1] < self.inputs or matrix.dtype != np.float64:
            raise ForestError(f"{matrix.dtype} {matrix.shape} for {self.inputs} inputs of float64")
        if self._levels is None or rows <= _FEW:
            return self._predict_each(matrix)
        gaps = np.isnan(matrix).any(axis=1)
        if not gaps.any():
            return self._levels.predict(matrix)
        result = np.empty((rows, self._output))
        result[gaps] = self._predict_each(matrix[gaps])
        result[~gaps] = self._levels.predict(matrix[~gaps])
        return result

    def _predict_each(self, matrix: Matrix) -> NDArray[Any]:
        """Have treelite walk the rows one by one."""
        rows = len(matrix)
        read = matrix.astype(_TYPES[self._reads], copy=False)
        result = np.zeros((rows, self._output), dtype=self._type)
        _check(
            self._predict(
                self._handle,
                read.ctypes.data,
                self._reads,
                rows,
                result.ctypes.data,
                self._config,
            )
        )
        return result
