"""What the metrics for the `evaluate` library have in common: they need neither hub nor files.

Importing this module imports `evaluate`, which takes seconds.
"""

import inspect
from typing import Any, ClassVar

import datasets
import evaluate

# Inputs that only some of this project's modules have.
_SPECIAL_INPUTS = ("log_likelihoods",)
_LIBRARY_OPTIONS = inspect.signature(evaluate.EvaluationModule.__init__).parameters.keys()


class InMemoryMetric(evaluate.Metric):
    """A metric that holds its rows in memory, with its configuration name from `averages`.

    With ``num_process`` above 1, the library exchanges rows through locked files in its cache
    folder: give each process its own ``process_id``, and all processes the same ``experiment_id``.
    """

    averages: ClassVar[tuple[str, ...]] = ("default",)
    inputs: ClassVar[dict[str, Any]]  # name of an input to the feature type of `datasets`

    def __init__(self, config_name: str = "default", **kwargs: Any):
        if config_name not in self.averages:
            raise ValueError(f"average must be one of {self.averages}, not {config_name!r}")
        # The library takes options of any name, and ignores those that it does not know.
        if unknown := kwargs.keys() - _LIBRARY_OPTIONS:
            raise TypeError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}")
        kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
        super().__init__(config_name, **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **inputs: Any) -> Any:
        """Return the metric of these rows, or else of those that were added before.

        `evaluate.combine` hands every input to every module: the inputs of other modules of this
        project are ignored.
        """
        own = {k: v for k, v in inputs.items() if k in self.inputs or k not in _SPECIAL_INPUTS}
        return super().compute(predictions=predictions, references=references, **own)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            features=datasets.Features(self.inputs),
        )

    def _build_data_dir(self) -> str:
        # The library creates its cache folder even if rows are held in memory. This is not needed,
        # and it fails if the home folder cannot be written.
        return "" if self.keep_in_memory else super()._build_data_dir()

    def _finalize(self) -> None:
        if self.keep_in_memory and self.writer is None:
            raise ValueError(f"{self.name}: no rows; pass them to compute, or first to add_batch")
        super()._finalize()
