"""The network: backbone, pyramid, subnets, anchors, assignment, losses and decoding.

Tensors only: no CRS, no file of imagery, no Dask. Each part is a module of its own, and
``retinanet`` composes them. Tensor names carry their shape as a suffix: N batch, C channels,
H W size, A anchors (of a cell, a level or an image), K classes, M boxes.
"""
