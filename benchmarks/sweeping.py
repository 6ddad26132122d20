"""A sweep on a cluster of two workers, compared with one worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from timing import Row, interleaved

import saliency_widgets as sw
from saliency_widgets.demos import classifier, sample_image

IMAGES = ("chelsea", "coffee", "astronaut", "rocket")
GRID = {"noise_level": [0.1, 0.2], "n_samples": [8, 16]}


def measure(rounds: int) -> list[Row]:
    """Wall time on Dask clusters over TCP, with workers of one thread each."""
    from distributed import Client, LocalCluster

    model = classifier()
    images = [sample_image(name) for name in IMAGES]

    def timer(executor: Any) -> Callable[[], float]:
        def timed() -> float:
            began = time.perf_counter()
            sw.sweep(
                model.model, images, "smoothgrad", GRID, ["similarity"], transform=model.transform,
                executor=executor, store=":memory:", progress=False,
            )  # fmt: skip
            return time.perf_counter() - began

        return timed

    def cluster(workers: int) -> LocalCluster:
        return LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", protocol="tcp",
            dashboard_address="127.0.0.1:0",
        )  # fmt: skip

    with cluster(1) as one, cluster(2) as two, Client(one) as first, Client(two) as second:
        timers = {"1": timer(first.get_executor()), "2": timer(second.get_executor())}
        seconds = interleaved(timers, max(2, rounds // 2))
    note = f"{seconds['1']:.1f} s on one, {seconds['2']:.1f} s on two: {seconds['1'] / seconds['2']:.2f} times as fast"
    return [Row("EfficientNet-Lite0", "a sweep on two Dask workers / on one", seconds["2"] / seconds["1"], note=note)]
