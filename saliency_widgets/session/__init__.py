"""Compute requests about a model and an input: one worker, the newest wins, maps are cached. No user interface."""

from saliency_widgets.session.cache import Cache, CacheInfo
from saliency_widgets.session.compute import compute
from saliency_widgets.session.frames import frame_of
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request
from saliency_widgets.session.session import Event, Session

__all__ = ["Cache", "CacheInfo", "Event", "Problem", "Request", "Session", "compute", "frame_of"]
