"""Everything that can go wrong, as one tree.

::

    GeoRetinaError
    ├── OptionError      (ValueError)    an option or config key is unknown or out of range
    ├── GridError        (ValueError)    a grid lacks what an operation needs
    ├── CrsError         (ValueError)    positions cannot be moved between two CRSs
    ├── SceneError       (OSError)       a scene is missing, is no raster, or cannot be read
    ├── SceneMismatchError (ValueError)  a scene does not fit the model
    ├── LabelError       (ValueError)    a label or detection layer cannot be used
    ├── ModelError       (ValueError)    a model file or card cannot be used
    ├── OutputError      (OSError)       an output exists, or cannot be written
    ├── RunError         (RuntimeError)  a run cannot start, continue or finish
    └── TrainingError    (RuntimeError)  training cannot start or continue

Each message is one sentence: the thing, what was found, what was expected, the remedy.
"""


class GeoRetinaError(Exception):
    """Root of the tree; catch it to catch all that geo-retina raises on purpose."""


class OptionError(GeoRetinaError, ValueError):
    """An option or config key is unknown or out of range."""


class GridError(GeoRetinaError, ValueError):
    """A grid lacks what an operation needs, such as a CRS."""


class CrsError(GeoRetinaError, ValueError):
    """Positions cannot be moved from one CRS to another."""


class SceneError(GeoRetinaError, OSError):
    """A scene is missing, is not a raster, or cannot be read."""


class SceneMismatchError(GeoRetinaError, ValueError):
    """A scene does not fit the model: bands, data type or resolution."""


class LabelError(GeoRetinaError, ValueError):
    """A layer of labels or detections cannot be used as it is."""


class ModelError(GeoRetinaError, ValueError):
    """A model file is corrupt, of a newer format, or does not fit its card."""


class OutputError(GeoRetinaError, OSError):
    """An output exists already, or its place cannot be written."""


class RunError(GeoRetinaError, RuntimeError):
    """A run cannot start, continue or finish."""


class TrainingError(GeoRetinaError, RuntimeError):
    """Training cannot start or continue."""


def one_sentence(error: BaseException) -> str:
    """Say in one sentence what went wrong, and the kind of an error that is not ours."""
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, GeoRetinaError) else f"{type(error).__name__}: {first}"
