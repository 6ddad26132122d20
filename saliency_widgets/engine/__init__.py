"""How it is computed: requests, one worker, newest wins, finished maps kept. Torch, no user interface."""

from saliency_widgets.engine.cache import Cache, CacheInfo
from saliency_widgets.engine.compute import attribute, compute
from saliency_widgets.engine.frames import Frame, frame_of
from saliency_widgets.engine.request import Request
from saliency_widgets.engine.session import Event, Session
from saliency_widgets.engine.subject import Subject

__all__ = ["Cache", "CacheInfo", "Event", "Frame", "Request", "Session", "Subject", "attribute", "compute", "frame_of"]
