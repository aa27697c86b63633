"""Pictures for people: previews, maps of counts, labels on their imagery, a training's course.

Every figure is an object of its own: nothing here touches matplotlib's global state.
"""

from geo_retina.plots.density import DensityMap, draw_density
from geo_retina.plots.detections_and_labels import LabelledPlace, draw_comparisons
from geo_retina.plots.label_views import LabelledView, draw_samples, draw_sizes
from geo_retina.plots.preview import draw_preview
from geo_retina.plots.training_curves import draw_training_curves
from geo_retina.vector import CLASS_COLOURS

__all__ = [
    "CLASS_COLOURS",
    "DensityMap",
    "LabelledPlace",
    "LabelledView",
    "draw_comparisons",
    "draw_density",
    "draw_preview",
    "draw_samples",
    "draw_sizes",
    "draw_training_curves",
]
