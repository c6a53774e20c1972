"""What keeps a benchmark from being measured."""

from customerio_pipeline.errors import PipelineError


class BenchmarkError(PipelineError):
    """A figure could not be measured; the sentence says why."""
