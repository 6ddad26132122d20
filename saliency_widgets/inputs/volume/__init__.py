"""Volumes and video: channels on a grid of three axes."""

from saliency_widgets.inputs.volume.features import Planes, VolumeFeatures, center
from saliency_widgets.inputs.volume.kind import VolumeKind

__all__ = ["Planes", "VolumeFeatures", "VolumeKind", "center"]
