"""A saliency map step by step, for a class: see :func:`lesson`."""

from saliency_widgets.widgets.lessons.lesson import Lesson, lesson
from saliency_widgets.widgets.lessons.view import LessonView

__all__ = ["Lesson", "LessonView", "lesson"]
