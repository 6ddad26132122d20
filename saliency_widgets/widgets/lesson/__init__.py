"""A lesson on saliency maps, step by step: see :func:`lesson`."""

from saliency_widgets.widgets.lesson.lesson import Lesson, lesson
from saliency_widgets.widgets.lesson.view import LessonView

__all__ = ["Lesson", "LessonView", "lesson"]
